"""Mixed-integer programs: against all points, and every way in which HiGHS can end without the best one."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import pytest
import torch

from bigrad import InputError, MissingPackage, SolveError
from bigrad.combinatorial import MixedInteger
from bigrad.errors import Infeasible, NotConverged, Unbounded

from .feasible import D, assert_best, draw
from .games import masks

INF = float("inf")


def hard(rows: int = 5, items: int = 60, **settings: Any) -> tuple[MixedInteger, torch.Tensor]:
    """Several knapsacks at once: five are proven in a tenth of a second, thirty in no time that a test has."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(1, 100, (rows, items), generator=generator)
    profits = torch.randint(1, 100, (items,), generator=generator).to(D)
    return MixedInteger(weights, upper=weights.sum(1) // 3, maximise=True, **settings), profits


@pytest.mark.parametrize("kind", ["normal", "whole"])
@pytest.mark.parametrize("maximise", [False, True])
def test_no_point_is_better(kind: str, maximise: bool) -> None:
    choose, refused = random.Random(len(kind)), 0
    for number in range(60):
        rows, entries = choose.randint(0, 3), choose.randint(1, 6)
        A = draw(rows, entries, seed=number, kind="whole")
        lower, upper = -draw(rows, seed=number + 1).abs() * 3, draw(rows, seed=number + 2) * 3
        points = masks(entries)
        inside = ((points @ A.T >= lower) & (points @ A.T <= upper)).all(1)
        oracle = MixedInteger(A, lower, upper, maximise=maximise)
        cost = draw(3, entries, seed=number, kind=kind, dtype=torch.float32 if number % 2 else D)
        if not inside.any():
            with pytest.raises(Infeasible, match=r"problem 0 of 3.*no point satisfies"):
                oracle(cost)
            refused += 1
            continue
        assert_best(oracle, cost, points[inside], maximise)
    assert 3 < refused < 30


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1.0, 1e9])
def test_the_scale_of_the_costs_does_not_matter(scale: float) -> None:
    """HiGHS stops at an absolute gap of 1e-6: without scaling, small costs get any point at all."""
    A = torch.randint(1, 100, (5, 20), generator=torch.Generator().manual_seed(0))
    oracle = MixedInteger(A, lower=A.sum(1) / 2)
    cost = draw(3, 20, kind="positive")
    assert torch.equal(oracle(cost * scale), oracle(cost))


def test_integers_beyond_one_and_entries_that_are_no_integers() -> None:
    oracle = MixedInteger([[2.0, 2.0]], upper=[7.0], bounds=([0.0, 0.0], [INF, 2.5]), maximise=True)
    assert oracle(torch.tensor([1.0, 1.1])).tolist() == [1, 2]
    mixed = MixedInteger(
        [[2.0, 2.0]], upper=[7.0], integrality=[True, False], bounds=([0.0, 0.0], [INF, 2.5]), maximise=True
    )
    assert mixed(torch.tensor([1.0, 1.1])).tolist() == [1, 2.5]
    linear = MixedInteger([[2.0, 2.0]], upper=[7.0], integrality=False, bounds=(0.0, INF), maximise=True)
    assert linear(torch.tensor([1.0, 1.1])).tolist() == [0, 3.5]


def test_a_bound_that_is_missing_is_unbounded() -> None:
    for integrality in (False, True):
        oracle = MixedInteger([[1.0, -1.0]], upper=1.0, integrality=integrality, bounds=(0.0, INF))
        with pytest.raises(Unbounded, match="no bound on the constraints; add bounds"):
            oracle(torch.tensor([-1.0, 0.0]))
        assert oracle(torch.tensor([1.0, 1.0])).tolist() == [0, 0]


def test_no_integer_in_a_narrow_band_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="problem 0 of 1"):
        MixedInteger([[2.0, 2.0]], 3.0, 3.0)(torch.ones(2))
    unbounded_too = MixedInteger([[2.0, 0.0]], 3.0, 3.0, bounds=(0.0, INF), maximise=True)
    with pytest.raises(Infeasible):
        unbounded_too(torch.ones(2))


def test_a_search_that_ends_early_names_its_gap() -> None:
    oracle, profits = hard(rows=30, items=250, seconds=0.1)
    with pytest.raises(NotConverged, match=r"wanted (a gap of )?1e-09.*allow more seconds"):
        oracle(profits)
    oracle, _ = hard(rows=30, items=250, seconds=1e-6)
    with pytest.raises(NotConverged, match=r"no point was found in 1e-06 s, wanted a gap of 1e-09"):
        oracle(profits)


def test_a_larger_gap_is_honoured() -> None:
    oracle, profits = hard(gap=0.2)
    exact = MixedInteger(oracle.A, upper=oracle.upper, maximise=True)
    found, best = oracle.value(profits, oracle(profits)), exact.value(profits, exact(profits))
    assert 0.8 * best <= found <= best


@pytest.mark.parametrize(("status", "gap"), [(0, 0.1), (1, 0.1), (1, float("nan")), (1, None)])
def test_an_unproven_point_is_never_returned(status: int, gap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.optimize import OptimizeResult

    bound = None if gap is None else float("nan") if gap != gap else -1.0
    found = OptimizeResult(status=status, x=np.ones(1), fun=0.0, mip_gap=gap, mip_dual_bound=bound, message="enough")
    monkeypatch.setattr("scipy.optimize.milp", lambda *_, **__: found)
    with pytest.raises(NotConverged, match=r"ended with a gap of .*, wanted 1e-09 .enough."):
        MixedInteger([[1.0]])(torch.ones(1))


def test_a_point_that_breaks_its_constraints_when_rounded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large coefficient lets HiGHS switch a cost off with an integer of 1e-7."""
    from scipy.optimize import OptimizeResult

    found = OptimizeResult(
        status=0, x=torch.tensor([1e-7, 0.1]).double().numpy(), fun=0.0, mip_gap=0.0, mip_dual_bound=0.0
    )
    monkeypatch.setattr("scipy.optimize.milp", lambda *_, **__: found)
    oracle = MixedInteger([[-1e6, 1.0]], upper=[0.0], integrality=[True, False])
    with pytest.raises(SolveError, match=r"a constraint is violated by 0\.09\d* of its size, wanted 1e-06"):
        oracle(torch.tensor([1.0, -1.0]))


def test_what_is_no_program_is_refused() -> None:
    for arguments, message in (
        (([1.0, 2.0],), r"A has shape \(2,\)"),
        (([[1.0, INF]],), "wanted finite numbers"),
        (([[1.0, 2.0]], [1.0, 2.0]), r"lower has shape \(2,\); wanted one number, or \(1,\)"),
        (([[1.0, 2.0]], None, [float("nan")]), "upper has shape"),
    ):
        with pytest.raises(InputError, match=message):
            MixedInteger(*arguments)
    with pytest.raises(InputError, match="wanted a gap >= 0 and a time > 0"):
        MixedInteger([[1.0]], gap=-1.0)
    with pytest.raises(InputError, match="one number for each column of A"):
        MixedInteger([[1.0, 2.0]])(torch.ones(3))


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingPackage, match=r'pip install "bigrad\[combinatorial\]"'):
        MixedInteger([[1.0]])(torch.ones(1))
