"""The benchmarks' own mathematics: their truths against finite differences, and methods against their laws."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn", reason='needs pip install "bigrad[examples]"')

BENCHMARKS = str(Path(__file__).resolve().parent.parent / "benchmarks")
sys.path.insert(0, BENCHMARKS)

import checkout  # noqa: E402  # the scripts are no package
from fixed_points import Equilibria, by_hand  # noqa: E402
from scaling import chain  # noqa: E402
from stochastic_methods import Memory, batches, implicit, single_loop  # noqa: E402
from stochastic_problems import D, Problem, simulated  # noqa: E402

sys.path.remove(BENCHMARKS)


@pytest.fixture(scope="module")
def small() -> Problem:
    return simulated(512, 8, curvature=0.05)


def test_the_squared_norm_is_that_of_the_value_functions_slope(small: Problem) -> None:
    x = small.init[1]

    def value(x: torch.Tensor) -> torch.Tensor:
        return small.above(small.solve(x, small.init[0]), x, slice(0, 512))

    slope = [(value(x + 1e-5 * axis) - value(x - 1e-5 * axis)) / 2e-5 for axis in torch.eye(8, dtype=D)]
    assert small.squared_norm(x) == pytest.approx(float(torch.stack(slope).square().sum()), rel=1e-7)


def last(points: itertools.islice) -> torch.Tensor:
    return list(points)[-1][0]


@pytest.mark.parametrize("reduced", [True, False], ids=["SABA", "SOBA"])
def test_only_reduced_variance_goes_on_falling_with_a_fixed_step(small: Problem, reduced: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    points = single_loop(small.oracle(), 0.2, 0.2, generator, reduced)
    norm = small.squared_norm(last(itertools.islice(points, 500)))
    assert (norm < 5e-4) == reduced
    assert norm < 1e-2


def test_a_whole_batch_is_the_same_with_and_without_memory(small: Problem) -> None:
    one, other = (
        last(itertools.islice(single_loop(small.oracle(), 0.1, 0.1, torch.Generator(), reduced, batch=512), 20))
        for reduced in (True, False)
    )
    torch.testing.assert_close(one, other)


def test_the_memorys_mean_is_that_of_the_last_answers() -> None:
    memory, told = Memory(3), torch.arange(12.0).reshape(4, 3)
    for place, part in [(0, 0), (1, 1), (2, 2), (1, 3)]:
        direction = memory.corrected(place, (told[part],))[0]
    torch.testing.assert_close(memory.mean[0], (told[0] + told[3] + told[2]) / 3)
    # fresh - kept + mean before: 3 - 1 and the mean of 0, 1, 2
    torch.testing.assert_close(direction, told[3] - told[1] + told[:3].mean(0))


def test_every_batch_comes_once_a_round() -> None:
    drawn = list(itertools.islice(batches(70, 16, torch.Generator().manual_seed(0)), 8))
    assert [sorted(place for place, _ in part) for part in (drawn[:4], drawn[4:])] == [[0, 1, 2, 3]] * 2
    assert all(rows == slice(16 * place, 16 * place + 16) for place, rows in drawn)


def test_calls_are_counted_by_samples(small: Problem) -> None:
    points = single_loop(small.oracle(), 0.1, 0.1, torch.Generator(), True, batch=64)
    assert [calls for _, _, calls in itertools.islice(points, 3)] == [320, 640, 960]
    *_, (_, _, calls) = itertools.islice(implicit(small.oracle(), small.lower, 0.1), 1)
    assert calls % 512 == 0
    assert calls >= 512 * (2 + 1 + 1) + 2 * 512  # evaluations, products, the mixed derivative, both upper gradients


def test_the_implicit_method_descends(small: Problem) -> None:
    x = last(itertools.islice(implicit(small.oracle(), small.lower, 1.0), 12))
    assert small.squared_norm(x) < 0.1 * small.squared_norm(small.init[1])


def test_without_checkout_or_benchopt_the_row_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> None:
        raise checkout.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("BENCHMARK_BILEVEL", str(tmp_path))
    (row,) = checkout.beside(True)
    assert row["failure"] == "did not run: BENCHMARK_BILEVEL names no checkout"
    (tmp_path / "objective.py").touch()
    monkeypatch.setattr(checkout.metadata, "distribution", absent)
    (row,) = checkout.beside(True)
    assert row["failure"] == "did not run: pip install benchopt, with jax and torch"


def test_solvers_are_read_at_equal_seconds_with_their_best_steps() -> None:
    curves = {
        "SABA[batch_size=64,outer_ratio=0.1,step_size=0.1]": [(0.0, 9.0), (1.0, 4.0), (3.0, 0.0)],
        "SABA[batch_size=64,outer_ratio=1.0,step_size=0.1]": [(0.0, 9.0), (1.5, 2.0), (2.5, 1.0)],
        "bigrad-SABA[batch_size=64,outer_ratio=1.0,step_size=0.1]": [(0.0, 9.0)],
    }
    points = [
        {"solver_name": name, "time": time, "objective_value": value}
        for name, curve in curves.items()
        for time, value in curve
    ]
    found = {row["solvers"]: row for row in checkout.rows(points, 2.0)}
    assert list(found) == [*checkout.OURS, *checkout.THEIRS]
    best = {"steps": "outer_ratio=1.0, step_size=0.1", "start": 9.0, "squared norm": 2.0, "s": 1.5}
    assert found["SABA"] == {"solvers": "SABA"} | best
    assert found["bigrad-SABA"]["squared norm"] == 9.0
    assert found["SOBA"]["failure"] == "diverged or raised with every step"


def test_equilibria_know_their_gradients() -> None:
    problem = Equilibria.draw(3, 6)
    along = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=D)

    def value(t: float) -> float:
        moved = Equilibria(problem.x + t * along[:3], problem.W + t * along, problem.weight)
        return float((moved.solution() * problem.weight).sum())

    x, W = problem.gradients()
    slope = float((x * along[:3]).sum() + (W * along).sum())
    assert slope == pytest.approx((value(1e-6) - value(-1e-6)) / 2e-6, rel=1e-7)
    for found, truth in zip(by_hand(problem, {}, 1e-12)(), (x, W), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-8)


def test_the_chain_starts_at_its_minimum() -> None:
    problem = chain(50)
    slope = torch.func.grad(problem.objective)(problem.solution, problem.theta)
    assert float(slope.norm()) < 1e-10
