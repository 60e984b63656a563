"""L-BFGS: a small gradient, or a status that says why not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad import InputError, Status, UnsupportedError
from bigrad.equation import Problem
from bigrad.solvers import LBFGS

from .objectives import ANSWERS, D, Kinks, honest, minimise, quadratic, rosenbrock, slope, smooth_maximum, vector

Function = Callable[[Tensor], Tensor]
SMOOTH = [
    pytest.param(quadratic(100.0, 5)[0], torch.zeros(5, dtype=D), id="quadratic"),
    pytest.param(rosenbrock, torch.tensor([-1.2, 1.0], dtype=D), id="rosenbrock"),
    pytest.param(smooth_maximum, torch.ones(4, dtype=D), id="log-sum-exp"),
]
smooth_problems = pytest.mark.parametrize(("function", "start"), SMOOTH)


@pytest.mark.parametrize("kappa", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_quadratic_is_solved_at_default_settings(kappa: float, offset: float) -> None:
    function, best = quadratic(kappa, 5)
    status, y = honest(LBFGS(), lambda y: offset + function(y), torch.zeros(5, dtype=D))
    assert status == Status.CONVERGED
    wanted = 1e-10 + 1e-10 * slope(function, torch.zeros(5, dtype=D)).norm()
    assert (y - best).norm() <= 10 * wanted


@pytest.mark.parametrize("start", [[-1.2, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0], [3.0, -2.0, 1.0]])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_valley_of_rosenbrock(start: list[float], offset: float) -> None:
    status, y = honest(LBFGS(), lambda y: offset + rosenbrock(y), torch.tensor(start, dtype=D))
    assert status == Status.CONVERGED
    torch.testing.assert_close(y, torch.ones_like(y), rtol=1e-6, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e12])
def test_a_log_sum_exp(offset: float) -> None:
    status, y = honest(LBFGS(), lambda y: offset + smooth_maximum(y), torch.ones(4, dtype=D))
    assert status in ANSWERS
    assert slope(smooth_maximum, y).norm() <= 1e-9


@pytest.mark.parametrize("rise", [1e-9, 1e-5])
def test_values_that_mislead_below_their_rounding_error_are_not_listened_to(rise: float) -> None:
    calls = 0

    def misled(y: Tensor) -> Tensor:
        """A true gradient, and a value that rises by ``rise`` close to the optimum."""
        nonlocal calls
        calls += 1
        value = smooth_maximum(y)
        closeness = 1 / (1 + (slope(smooth_maximum, y) ** 2).sum() / rise)
        return 1e6 + value + 2 * rise * closeness.detach()

    y, certificate = minimise(LBFGS(), misled, torch.ones(4, dtype=D))
    assert Status(int(certificate.status)) == Status.CONVERGED
    assert slope(smooth_maximum, y).norm() <= 1e-9
    assert calls <= 2 * int(certificate.steps) + 4


@smooth_problems
@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e4, 1e8])
def test_objectives_of_every_scale_meet_their_tolerance(function: Function, start: Tensor, scale: float) -> None:
    status, _ = honest(LBFGS(), lambda y: scale * function(y), start)
    assert status == Status.CONVERGED


@smooth_problems
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_tolerance_of_zero_ends_at_the_rounding_floor(function: Function, start: Tensor, dtype: torch.dtype) -> None:
    status, y = honest(LBFGS(rtol=0.0, atol=0.0), function, start.to(dtype))
    assert status in ANSWERS
    assert slope(function, y).norm() <= 1e3 * torch.finfo(dtype).eps * slope(function, start).norm()


@smooth_problems
def test_float32_meets_its_own_tolerance(function: Function, start: Tensor) -> None:
    status, _ = honest(LBFGS(), function, start.float())
    assert status == Status.CONVERGED


@smooth_problems
def test_a_start_at_the_optimum_takes_no_step_and_does_not_move(function: Function, start: Tensor) -> None:
    y, _ = minimise(LBFGS(rtol=0.0), function, start)
    again, certificate = minimise(LBFGS(), function, y)
    assert int(certificate.steps) == 0
    assert torch.equal(again, y)


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_kink_is_a_failure_and_no_rounding_floor(dtype: torch.dtype) -> None:
    kinks = Kinks(dtype)
    kinks.judge(*minimise(LBFGS(max_steps=150), kinks, torch.tensor([0.5, -2.0], dtype=dtype).expand(28, 2), 1))


def test_a_kink_is_given_up_long_before_the_steps_run_out() -> None:
    kink = lambda y: ((y - 1e-3).abs() + 0.1 * (y - 1) ** 2).sum(-1)  # noqa: E731  # a name for a one-liner
    _, certificate = minimise(LBFGS(), kink, torch.tensor([0.5], dtype=D))
    assert Status(int(certificate.status)) == Status.STALLED
    assert int(certificate.steps) < 1000


@pytest.mark.parametrize("function", [lambda y: y.sum(), lambda y: -(y**2).sum(), lambda y: (y**3).sum() - y.sum()])
def test_an_objective_without_a_lower_bound_is_a_failure(function: Function) -> None:
    _, certificate = minimise(LBFGS(), function, torch.full((2,), -1.0, dtype=D))
    assert certificate.failed


def test_a_start_outside_the_domain_is_a_failure_at_once() -> None:
    y, certificate = minimise(LBFGS(), lambda y: (y - y.log()).sum(), -torch.ones(2, dtype=D))
    assert Status(int(certificate.status)) == Status.NON_FINITE
    assert int(certificate.steps) == 0
    assert torch.equal(y, -torch.ones(2, dtype=D))


@pytest.mark.parametrize("start", [1e-3, 0.5, 5.0, 80.0])
@pytest.mark.parametrize("weight", [1.0, 100.0])
def test_the_line_search_comes_back_from_outside_the_domain(start: float, weight: float) -> None:
    left: list[bool] = []

    def barrier(y: Tensor) -> Tensor:
        left.append(bool((y <= 0).any()))
        return (weight * y - torch.log(y)).sum()

    status, y = honest(LBFGS(), barrier, torch.full((3,), start, dtype=D))
    assert status == Status.CONVERGED
    torch.testing.assert_close(y, torch.full((3,), 1 / weight, dtype=D), rtol=1e-4, atol=0)
    assert any(left) or start * weight <= 5


def mixed() -> tuple[Function, Tensor]:
    """64 problems of three unknowns, their values of size 1e-4 to 1e4 and their answers of size 1e-2 to 1e2."""
    scale = torch.logspace(-4, 4, 64, dtype=D)
    size = torch.logspace(2, -2, 64, dtype=D)[torch.arange(64) * 7 % 64]
    centre = size[:, None] * vector(64, 3)
    bend = torch.tensor([1.0, 3.0, 10.0], dtype=D)

    def function(y: Tensor, rows: Tensor | None = None) -> Tensor:
        s, c, z = (t if rows is None else t[rows] for t in (scale, centre, size))
        away = (y - c) / z.unsqueeze(-1)
        return s * (bend * (0.5 * away**2 + torch.log1p(away**2))).sum(-1)

    return function, torch.zeros(64, 3, dtype=D)


def test_a_batch_of_mixed_scales_is_a_loop_over_its_problems() -> None:
    function, start = mixed()
    y, certificate = minimise(LBFGS(), function, start, batch_dims=1)
    assert not certificate.failed.any()
    assert len(certificate.steps.unique()) > 2
    for k in range(64):
        alone, one = minimise(LBFGS(), lambda y, k=k: function(y, torch.tensor(k)), start[k])
        torch.testing.assert_close(y[k], alone, rtol=1e-9, atol=1e-12)
        assert certificate.steps[k] == one.steps
        assert certificate.status[k] == one.status


def test_a_failing_problem_leaves_its_neighbours_alone() -> None:
    weight = torch.tensor([1.0, -1.0, 1.0, torch.nan], dtype=D)
    function = lambda y: weight * ((y - 3) ** 2).sum(-1)  # noqa: E731  # a name for a one-liner
    y, certificate = minimise(LBFGS(), function, vector(4, 2), batch_dims=1)
    assert certificate.failed.tolist() == [False, True, False, True]
    assert int(certificate.status[3]) == Status.NON_FINITE
    torch.testing.assert_close(y[::2], torch.full((2, 2), 3.0, dtype=D))


@pytest.mark.parametrize("budget", [0, 3])
def test_the_budget_is_kept_and_the_best_point_returned(budget: int) -> None:
    start = torch.tensor([-1.2, 1.0], dtype=D)
    y, certificate = minimise(LBFGS(max_steps=budget), rosenbrock, start)
    assert Status(int(certificate.status)) == Status.MAX_STEPS
    assert int(certificate.steps) == budget
    torch.testing.assert_close(certificate.stationarity, slope(rosenbrock, y).norm())
    assert slope(rosenbrock, y).norm() <= slope(rosenbrock, start).norm()
    assert torch.equal(y, start) == (budget == 0)


@pytest.mark.parametrize("history", [0, 1, 3])
def test_any_history_gets_there(history: int) -> None:
    function, best = quadratic(10.0, 4)
    status, y = honest(LBFGS(history=history), function, torch.zeros(4, dtype=D))
    assert status == Status.CONVERGED
    torch.testing.assert_close(y, best, rtol=1e-7, atol=1e-8)


def test_memory_pays() -> None:
    function, _ = quadratic(50.0, 6)
    few, many = (minimise(LBFGS(history=h), function, torch.zeros(6, dtype=D))[1].steps for h in (20, 0))
    assert few < 0.3 * many


def test_nothing_outside_is_touched() -> None:
    start, x = torch.tensor([-1.2, 1.0], dtype=D), torch.ones(2, dtype=D, requires_grad=True)
    kept, state = start.clone(), torch.random.get_rng_state()
    first, _ = minimise(LBFGS(rtol=0.0, atol=0.0), lambda y: rosenbrock(y * x.detach()), start)
    second, _ = minimise(LBFGS(rtol=0.0, atol=0.0), lambda y: rosenbrock(y * x.detach()), start)
    assert torch.equal(first, second)
    assert torch.equal(start, kept)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert x.grad is None


def test_a_root_without_an_objective_is_refused() -> None:
    class Line(Problem):
        batch_dims = 0

        def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
            return y - 1

        def vmapped(self, in_dims: object) -> Line:
            return self

    with pytest.raises(UnsupportedError, match="objective"):
        LBFGS().solve(Line(), torch.zeros(1), ())


@pytest.mark.parametrize(
    ("setting", "value"), [("rtol", -1.0), ("rtol", torch.nan), ("atol", -1.0), ("max_steps", -1), ("history", -1)]
)
def test_settings_that_make_no_sense(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{setting} is {value}"):
        LBFGS(**{setting: value})  # type: ignore[arg-type]  # one of them
