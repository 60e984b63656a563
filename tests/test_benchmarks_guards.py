"""Guards of what the benchmarks claim that do not depend on a clock: products, factorisations, operations, bytes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bigrad import gradients, linear, solvers
from bigrad.layers import ArgMin, FixedPoint, QuadraticProgram

from .gradients.test_memory import vectors_kept

BENCHMARKS = str(Path(__file__).resolve().parent.parent / "benchmarks")
sys.path.insert(0, BENCHMARKS)

from counted import products_of, quadratic_problem, spd  # noqa: E402  # the scripts are no package
from fixed_points import Equilibria, step  # noqa: E402
from gradient_peers import bigrad_cg  # noqa: E402
from qp_peers import Sizes, programs  # noqa: E402

sys.path.remove(BENCHMARKS)

D = torch.float64
FACTORS = {
    *("linalg_cholesky_ex", "linalg_lu_factor_ex", "linalg_ldl_factor_ex", "linalg_inv_ex", "_linalg_solve_ex"),
    *("linalg_qr", "_linalg_eigh", "_linalg_svd", "cholesky_inverse", "linalg_lstsq"),
}


class Operations(TorchDispatchMode):
    """Counts what torch computes, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))

    def factorisations(self) -> int:
        """How many of them are factorisations or dense solves."""
        return sum(count for name, count in self.counts.items() if name.split(".")[1] in FACTORS)


def operations(run: Callable[[], Any]) -> Operations:
    with Operations() as seen:
        run()
    return seen


def test_products_at_condition_1e4_are_a_quarter_of_what_normal_equations_take() -> None:
    problem, counter = quadratic_problem(spd(200, 1e4, torch.Generator().manual_seed(0)))
    gradient, count = products_of(bigrad_cg(problem, 1e-6), counter)
    truth = torch.linalg.solve(counter.matrix, problem.weight)
    assert float((gradient - truth).norm() / truth.norm()) < 1e-5
    assert count <= 2002 // 4


def test_blocks_side_by_side_take_a_fiftieth_of_the_products_of_one_coupled_solve() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = 10 ** (6 * torch.rand(64, generator=generator, dtype=D) - 3)
    matrix = torch.stack([scale * spd(30, 1e2, generator) for scale in scales])
    problem, counter = quadratic_problem(matrix, coupled=False)
    gradient, count = products_of(bigrad_cg(problem, 1e-7), counter)
    truth = torch.linalg.solve(matrix, problem.weight)
    assert float(((gradient - truth).norm(dim=1) / truth.norm(dim=1)).max()) < 1e-5
    assert count <= 5000 // 50


def test_a_factorisation_is_seen() -> None:
    A = torch.eye(3, dtype=D)
    for run in (torch.linalg.cholesky, torch.linalg.lu_factor, torch.linalg.ldl_factor, torch.linalg.inv):
        assert operations(lambda run=run: run(A)).factorisations() == 1
    assert operations(lambda: torch.linalg.solve(A, A)).factorisations() == 1


def test_the_backward_pass_of_a_program_uses_the_kept_factor() -> None:
    drawn = programs(Sizes(4, 20, 20, 5))
    data = [part.clone().requires_grad_() for part in drawn.data]
    x = QuadraticProgram()(*data)
    seen = operations(lambda: torch.autograd.grad((x * drawn.weight).sum(), data))
    assert seen.factorisations() == 0
    assert sum(seen.counts.values()) < 400


def test_the_second_backward_pass_of_a_direct_adjoint_factorises_nothing() -> None:
    A = spd(30, 10.0, torch.Generator().manual_seed(0))
    layer = ArgMin(
        lambda y, x: y @ A @ y / 2 - x @ y, torch.zeros(30, dtype=D), gradient=gradients.Implicit(linear.Direct())
    )
    x = torch.ones(30, dtype=D, requires_grad=True)
    y = layer(x).sum()
    first = operations(lambda: torch.autograd.grad(y, x, retain_graph=True))
    second = operations(lambda: torch.autograd.grad(y, x, retain_graph=True))
    assert second.factorisations() == 0
    assert sum(second.counts.values()) <= sum(first.counts.values())


@pytest.mark.parametrize("solver", [solvers.Anderson, solvers.Broyden], ids=lambda solver: solver.__name__)
def test_an_accelerated_fixed_point_takes_a_third_of_the_evaluations(solver: Any) -> None:
    problem = Equilibria.draw(8, 40)

    def evaluations(kind: Any) -> int:
        layer = FixedPoint(step, torch.zeros_like(problem.x), batch_dims=1, solver=kind(rtol=1e-8))
        with torch.no_grad():
            layer(problem.x, problem.W)
        assert layer.certificate is not None
        return int(layer.certificate.steps.max())

    assert evaluations(solver) <= evaluations(solvers.FixedPointIteration) / 3


def test_an_implicit_gradient_keeps_the_same_bytes_from_20_to_1000_steps() -> None:
    few, many = (vectors_kept(gradients.Implicit(linear.CG()), steps) for steps in (20, 1000))
    assert many == pytest.approx(few)
    assert many[0] <= 10


def test_an_upper_step_computes_no_more_often_for_more_pairs() -> None:
    pytest.importorskip("stable_baselines3", reason='needs pip install "bigrad[rl]"')
    from bigrad.rlhf import Pairs, RewardEnsemble, upper_step

    def count(pairs: int, members: int) -> int:
        reward = RewardEnsemble(3, 1, members, 8, torch.Generator().manual_seed(0))
        optimizer = torch.optim.AdamW(reward.parameters())
        drawn = Pairs(torch.ones(pairs, 2, 5, 3), torch.ones(pairs, 2, 5, 1), torch.ones(pairs, 2).numpy())
        upper_step(reward, optimizer, drawn, torch.ones(pairs), (), 1.0)
        return sum(operations(lambda: upper_step(reward, optimizer, drawn, torch.ones(pairs), (), 1.0)).counts.values())

    assert count(64, 3) == count(4, 3)
    assert count(4, 6) == count(4, 3)
