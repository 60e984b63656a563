"""The two-level solver: its stationary point, its proof of a minimum, its budget, its speed."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from bigrad import Constraints, Status
from bigrad.solvers import BilevelReading, Levels, Stackelberg

D = torch.float64


def vector(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def read(
    leader: Any, follower: Any, x: Tensor, y: Tensor, z: Tensor, *constraints: Constraints | None
) -> tuple[Any, Tensor, tuple[Tensor, ...]]:
    """The flat problem, its start and its inputs."""
    on = [*constraints, None, None][:2]
    reading = BilevelReading(Levels(leader, follower, *on), (x, y), (z,))
    return reading.problem(), reading.start, (z,)


def leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 0.5 * (x - z).square().sum(-1) + (y - 0.3).square().sum(-1)


def follower(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return (y.cosh() - 1.2 * y * x).sum(-1)


BOX, BALL = Constraints(lower=-0.2, upper=0.4), Constraints(inequality=lambda y, x, z: (y @ y - 0.1)[None])
Z = torch.tensor([1.0, -0.8], dtype=D)
O = torch.zeros(2, dtype=D)  # noqa: E741  # the origin


def test_the_certificate_holds_the_residual_in_the_objectives_own_units() -> None:
    problem, start, inputs = read(leader, follower, O, O, Z, BOX, BALL)
    s, certificate = Stackelberg().solve(problem, start, inputs)
    assert certificate.status == Status.CONVERGED
    assert certificate.stationarity <= certificate.tolerance
    assert problem.residual(s, *inputs).norm() < 1e-9
    assert certificate.feasibility is not None
    assert certificate.feasibility < 1e-12
    parts = problem.split(s)
    assert certificate.margin is not None
    held = torch.cat([parts.x + 0.2, 0.4 - parts.x])
    slack = torch.cat([0.1 - (parts.y @ parts.y)[None], held])
    multipliers = torch.cat([parts.below, parts.leader_below])
    assert (slack > -1e-12).all()
    assert (multipliers > -1e-12).all()
    assert (slack * multipliers).abs().max() < 1e-12
    assert (torch.maximum(slack, multipliers) >= certificate.margin - 1e-12).all()


def test_the_hessian_of_the_lagrangian_is_symmetric_and_its_factor_is_left() -> None:
    problem, start, inputs = read(leader, follower, O, O, Z, BOX, BALL)
    s, certificate = Stackelberg().solve(problem, start, inputs)
    matrix = torch.func.jacrev(lambda s: problem.residual(s, *inputs))(s)
    torch.testing.assert_close(matrix, matrix.T)
    side = vector(len(s))
    torch.testing.assert_close(matrix @ certificate.factor.solve(side, transposed=False), side)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    sizes = problem.sizes
    assert (eigenvalues < 0).sum() == sizes.adjoint + sizes.leader_equal + sizes.leader_below


def test_the_stationary_point_of_a_maximum_is_told_from_a_minimum() -> None:
    def hill(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return -(x - z).square().sum()

    problem, start, inputs = read(hill, lambda y, x, z: (y - x).square().sum(), Z.clone(), Z.clone(), Z)
    _, certificate = Stackelberg().solve(problem, start, inputs)
    assert certificate.status == Status.INDEFINITE
    # A saddle of the follower's: stationary at the start and left for one of its two minima.
    problem, start, inputs = read(
        leader, lambda y, x, z: (y**4 / 4 - y**2 / 2 - 0.1 * x * y).sum(), torch.full((2,), 0.2, dtype=D), O, Z
    )
    s, certificate = Stackelberg().solve(problem, start, inputs)
    assert certificate.status == Status.CONVERGED
    assert (3 * problem.split(s).y ** 2 > 1).all()


def test_running_out_of_steps_leaves_the_best_point_and_its_numbers() -> None:
    problem, start, inputs = read(leader, follower, O, O, Z, BOX, BALL)
    exact, _ = Stackelberg().solve(problem, start, inputs)
    far = [Stackelberg(max_steps=steps).solve(problem, start, inputs) for steps in (0, 2, 4)]
    for s, certificate in far:
        assert certificate.status == Status.MAX_STEPS
        assert certificate.stationarity.isfinite()
        assert s.isfinite().all()
    assert (far[0][0] - exact).norm() > 1e-3


def test_twenty_and_twenty_unknowns_take_well_under_a_second() -> None:
    across, own = vector(20, 20) / 5, vector(20, seed=1).abs() + 1

    def lead(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return 0.5 * (x - z).square().sum() + 0.5 * (y - 1).square().sum() + 0.1 * (x**4).sum()

    def follow(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return 0.5 * (own * y**2).sum() + y.cosh().sum() - (y * (across @ x).sin()).sum()

    zero, z = torch.zeros(20, dtype=D), vector(20, seed=2)
    problem, start, inputs = read(lead, follow, zero, zero, z)
    Stackelberg().solve(problem, start, inputs)  # torch's first use of vmap takes a while
    begin = time.process_time()
    _, certificate = Stackelberg().solve(problem, start, inputs)
    assert time.process_time() - begin < 1
    assert certificate.status == Status.CONVERGED
