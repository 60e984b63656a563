"""Every solver of roots and fixed points: a small residual, or a status that says why not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad import InputError, Status
from bigrad.solvers import Anderson, Broyden, FixedPointIteration, Newton, Solver

from .objectives import ANSWERS, D, vector
from .roots import Counted, affine, bellman, fixed_point, jump, network, root, solve, spread, tridiagonal, valley

Function = Callable[[Tensor], Tensor]
EVERY = [FixedPointIteration, Anderson, Broyden, Newton]
every_solver = pytest.mark.parametrize("make", EVERY)
root_finders = pytest.mark.parametrize("make", [Broyden, Newton])


@every_solver
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("radius", [0.5, 0.9, 0.99])
def test_an_affine_map(make: type[Solver], radius: float, symmetric: bool) -> None:
    function, answer = affine(radius, 10, symmetric)
    status, y, certificate = solve(make(), fixed_point(function), torch.zeros(10, dtype=D))
    assert status == Status.CONVERGED
    assert (y - answer).norm() <= 1e3 * float(certificate.tolerance) / (1 - radius)


@every_solver
@pytest.mark.parametrize("discount", [0.5, 0.95])
def test_a_contraction_with_kinks(make: type[Solver], discount: float) -> None:
    function = bellman(discount)
    status, y, _ = solve(make(), fixed_point(function), torch.zeros(20, dtype=D))
    assert status == Status.CONVERGED
    torch.testing.assert_close(function(y), y)


@pytest.mark.parametrize("radius", [0.9, 0.99])
@pytest.mark.parametrize("make", [FixedPointIteration, Anderson])
def test_a_tolerance_of_1e_12_is_reached(make: type[Solver], radius: float) -> None:
    function, _ = affine(radius, 8)
    status, _, _ = solve(make(rtol=1e-12, atol=0.0), fixed_point(function), torch.zeros(8, dtype=D))  # type: ignore[call-arg]  # as all of them
    assert status == Status.CONVERGED


@pytest.mark.parametrize(("size", "symmetric"), [(6, True), (50, True), (50, False)])
def test_acceleration_saves_four_maps_out_of_five(size: int, symmetric: bool) -> None:
    function, _ = affine(0.99, size, symmetric)
    calls = {}
    for solver in (FixedPointIteration(rtol=1e-8), Anderson(rtol=1e-8)):
        counted = Counted(function)
        status, _ = solve(solver, fixed_point(counted), torch.zeros(size, dtype=D))[:2]
        assert status == Status.CONVERGED
        calls[type(solver)] = counted.calls
    assert 5 * calls[Anderson] <= calls[FixedPointIteration]


def test_one_evaluation_of_the_map_a_step() -> None:
    for solver in (FixedPointIteration(), Anderson()):
        counted = Counted(affine(0.5, 5)[0])
        _, certificate = solver.solve(fixed_point(counted), torch.zeros(5, dtype=D), ())
        assert counted.calls == int(certificate.steps) + 1


@pytest.mark.parametrize("damping", [0.5, 1.0])
def test_the_steps_are_those_promised(damping: float) -> None:
    function, _ = affine(0.9, 4, symmetric=False)
    start = vector(4, seed=3)
    first = start + damping * (function(start) - start)
    for solver in (FixedPointIteration(damping=damping, max_steps=1), Anderson(damping=damping, max_steps=1)):
        torch.testing.assert_close(solver.solve(fixed_point(function), start, ())[0], first)
    # The second step of Anderson: the point on the line through both residuals that is nearest to zero.
    f, g = function(start) - start, function(first) - first
    gamma = (g @ (g - f)) / ((g - f) @ (g - f))
    second = first + damping * g - gamma * (first - start + damping * (g - f))
    wrong = first + damping * g + gamma * (first - start + damping * (g - f))
    found = Anderson(damping=damping, max_steps=2).solve(fixed_point(function), start, ())[0]
    torch.testing.assert_close(found, second, rtol=1e-9, atol=1e-9)
    assert (found - wrong).norm() > 1e-3


def test_without_its_safeguard_acceleration_can_be_thrown_far_off(monkeypatch: pytest.MonkeyPatch) -> None:
    worst = {}
    for growth in (2.0, torch.inf):
        monkeypatch.setattr("bigrad.solvers.anderson._GROWTH", growth)
        seen: list[float] = []

        def watched(y: Tensor, seen: list[float] = seen) -> Tensor:
            seen.append(float((y - jump(y)).norm()))
            return jump(y)

        Anderson(max_steps=100).solve(fixed_point(watched), torch.full((3,), 4.0, dtype=D) + vector(3), ())
        low = torch.cummin(torch.tensor(seen), 0).values
        # Points after which the iteration went on although the residual had grown twice in a row.
        worst[growth] = sum(a > 2 * m and b > 2 * m for a, b, m in zip(seen[1:], seen[2:], low, strict=False))
    assert worst[2.0] < worst[torch.inf]


@pytest.mark.parametrize(
    "function", [lambda y: 2 * y + 1, lambda y: -y + 1, lambda y: 1.001 * y + 1, torch.exp, lambda y: y + 1]
)
def test_a_map_that_is_no_contraction_ends_early(function: Function) -> None:
    status, _, certificate = solve(FixedPointIteration(), fixed_point(function), torch.ones(2, dtype=D))
    assert status in {Status.STALLED, Status.NON_FINITE}
    assert int(certificate.steps) <= 500
    assert certificate.stationarity <= fixed_point(function).residual(torch.ones(2, dtype=D)).norm()


@pytest.mark.parametrize("make", [Anderson, Broyden, Newton])
@pytest.mark.parametrize("function", [torch.exp, lambda y: y**2 + 1, lambda y: y + 1 + torch.sigmoid(y)])
def test_a_map_without_a_fixed_point_is_a_failure(make: type[Solver], function: Function) -> None:
    status, y, _ = solve(make(max_steps=200), fixed_point(function), torch.ones(2, dtype=D))  # type: ignore[call-arg]  # as all of them
    assert status.failed
    assert y.isfinite().all()


def test_acceleration_and_damping_solve_what_plain_iteration_cannot() -> None:
    turn = torch.tensor([[0.0, -1.5], [1.5, 0.0]], dtype=D)
    function = lambda y: y @ turn + 1  # noqa: E731  # a name for a one-liner
    start = torch.zeros(2, dtype=D)
    assert solve(FixedPointIteration(), fixed_point(function), start)[0].failed
    for solver in (FixedPointIteration(damping=0.5), Anderson(), Anderson(damping=0.3, history=1), Broyden(), Newton()):
        assert solve(solver, fixed_point(function), start)[0] == Status.CONVERGED


@root_finders
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_roots_without_symmetry_at_every_scale(make: type[Solver], scale: float) -> None:
    status, y, _ = solve(make(atol=0.0), root(network(scale)), torch.zeros(20, dtype=D))  # type: ignore[call-arg]  # both take it
    assert status == Status.CONVERGED
    assert network()(y).norm() <= 1e-8


@root_finders
def test_systems_of_the_literature(make: type[Solver]) -> None:
    for function, start in (
        (tridiagonal, -torch.ones(30, dtype=D)),
        (valley, torch.tensor([-1.2, 1.0], dtype=D)),
        (torch.atan, torch.full((1,), 3.0, dtype=D)),  # pure Newton diverges
        (lambda y: torch.log(y) - 1, torch.full((1,), 0.05, dtype=D)),  # it leaves the domain
    ):
        status, y, _ = solve(make(), root(function), start)
        assert status == Status.CONVERGED
        torch.testing.assert_close(function(y), torch.zeros_like(y), atol=1e-8, rtol=0)


@every_solver
def test_float32(make: type[Solver]) -> None:
    function, answer = affine(0.9, 10)
    status, y, _ = solve(make(), fixed_point(function), torch.zeros(10))
    assert status == Status.CONVERGED
    torch.testing.assert_close(y.to(D), answer, rtol=1e-2, atol=1e-2)


@every_solver
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_tolerance_of_zero_ends_at_the_rounding_floor(make: type[Solver], dtype: torch.dtype) -> None:
    function, answer = affine(0.7, 6)
    solver = make(rtol=0.0, atol=0.0)  # type: ignore[call-arg]  # as all of them
    status, y, certificate = solve(solver, fixed_point(function), torch.zeros(6, dtype=dtype))
    assert status in ANSWERS
    assert (y.to(D) - answer).norm() <= 1e3 * torch.finfo(dtype).eps * answer.norm()
    assert int(certificate.steps) <= 600


@every_solver
def test_a_start_at_the_answer_does_not_move(make: type[Solver]) -> None:
    y = solve(FixedPointIteration(rtol=1e-14, atol=1e-14), fixed_point(torch.cos), torch.zeros(3, dtype=D))[1]
    again, certificate = make().solve(fixed_point(torch.cos), y, ())
    assert int(certificate.steps) == 0
    assert torch.equal(again, y)


@every_solver
def test_the_edges_of_what_can_be_asked(make: type[Solver]) -> None:
    cosine = fixed_point(torch.cos, 1)
    status, y, certificate = solve(make(max_steps=0), cosine, torch.zeros(2, 3, dtype=D))  # type: ignore[call-arg]  # as all of them
    assert status == Status.MAX_STEPS
    assert torch.equal(y, torch.zeros(2, 3, dtype=D))
    assert certificate.steps.tolist() == [0, 0]
    for shape in ((0, 3), (3, 0)):
        y, certificate = make().solve(cosine, torch.zeros(shape, dtype=D), ())
        assert y.shape == shape
        assert not certificate.failed.any()
    status, _, certificate = solve(make(), cosine, torch.tensor([[0.0], [torch.nan]], dtype=D))
    assert certificate.status.tolist() == [Status.CONVERGED, Status.NON_FINITE]
    assert int(certificate.steps[1]) == 0


def scales() -> tuple[Callable[..., Tensor], Tensor]:
    """12 maps of spectral radii from 0.1 to 0.97, with solutions of sizes from 1e-6 to 1e6."""
    size, radius = torch.logspace(-6, 6, 12, dtype=D), torch.linspace(0.1, 0.97, 12, dtype=D)
    weight = torch.stack([spread(float(r), 4, seed=k) for k, r in enumerate(radius)])
    shift = vector(12, 4)

    def function(y: Tensor, rows: int | slice = slice(None)) -> Tensor:
        z = size[rows].unsqueeze(-1)
        return z * torch.sin((weight[rows] @ (y / z).unsqueeze(-1)).squeeze(-1) + shift[rows])

    return function, torch.zeros(12, 4, dtype=D)


@every_solver
def test_a_batch_of_mixed_scales_is_a_loop_over_its_problems(make: type[Solver]) -> None:
    function, start = scales()
    solver = make(atol=0.0)  # type: ignore[call-arg]  # as all of them
    status, y, certificate = solve(solver, fixed_point(function, 1), start)
    assert status in ANSWERS
    assert len(certificate.steps.unique()) > 2
    for k in range(12):
        alone, one = solver.solve(fixed_point(lambda y, k=k: function(y, k)), start[k], ())
        assert certificate.steps[k] == one.steps
        assert certificate.status[k] == one.status
        torch.testing.assert_close(y[k], alone, rtol=1e-8, atol=0)


@every_solver
def test_solved_problems_are_frozen_and_failures_stay_at_home(make: type[Solver]) -> None:
    slope = torch.tensor([[0.0], [0.5], [-torch.inf], [0.9]], dtype=D)
    seen: list[Tensor] = []

    def function(y: Tensor) -> Tensor:
        seen.append(y.detach().clone())
        return slope * torch.sin(y) + 1

    # The first is solved where it starts, the second is nearly so, the third cannot be.
    start = torch.tensor([[1.0], [1.498701], [1.0], [-9.0]], dtype=D)
    y, certificate = make().solve(fixed_point(function, 1), start, ())
    assert certificate.failed.tolist() == [False, False, True, False]
    assert certificate.steps[0] == 0
    solved = int(certificate.steps[1])
    assert solved < int(certificate.steps[3]) - 2
    if make in {FixedPointIteration, Anderson}:  # one evaluation a step
        assert all(torch.equal(late[1], y[1]) for late in seen[solved:-1])
    torch.testing.assert_close(y[3], 0.9 * torch.sin(y[3]) + 1, rtol=1e-8, atol=1e-8)


@every_solver
def test_a_constant_map_and_a_problem_of_one_unknown(make: type[Solver]) -> None:
    constant = lambda y: torch.full_like(y, 3.0)  # noqa: E731  # a name for a one-liner
    status, y, _ = solve(make(), fixed_point(constant), torch.zeros(1, dtype=D))
    assert status == Status.CONVERGED
    torch.testing.assert_close(y, torch.full_like(y, 3.0))


@pytest.mark.parametrize(
    ("make", "setting", "value"),
    [
        *((make, word, -1) for make in EVERY for word in ("rtol", "atol", "max_steps")),
        *((make, "damping", value) for make in (FixedPointIteration, Anderson) for value in (0.0, -1.0, torch.inf)),
        *((Anderson, "history", -1), (Anderson, "ridge", -1.0), (Broyden, "history", 0)),
        (Newton, "linear_solver", 3),
    ],
)
def test_settings_that_make_no_sense(make: type[Solver], setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{setting} is {value}"):
        make(**{setting: value})
