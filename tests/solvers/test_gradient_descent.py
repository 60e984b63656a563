"""Gradient descent: a small residual, or a status that says why not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad import InputError, Status
from bigrad.equation import Problem
from bigrad.solvers import GradientDescent

from .objectives import ANSWERS, D, Kinks, honest, minimise, quadratic, slope, smooth_maximum, vector


@pytest.mark.parametrize("kappa", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_quadratic_is_solved_at_default_settings(kappa: float, offset: float) -> None:
    function, best = quadratic(kappa, 5)
    status, y = honest(GradientDescent(1 / kappa), lambda y: offset + function(y), torch.zeros(5, dtype=D))
    assert status == Status.CONVERGED
    assert (y - best).norm() <= 10 * (1e-10 + 1e-10 * slope(function, torch.zeros(5, dtype=D)).norm())


def test_each_step_is_the_one_promised() -> None:
    function, _ = quadratic(10.0, 3)
    y, certificate = minimise(GradientDescent(0.05, max_steps=1), function, torch.ones(3, dtype=D))
    torch.testing.assert_close(y, torch.ones(3, dtype=D) - 0.05 * slope(function, torch.ones(3, dtype=D)))
    assert int(certificate.steps) == 1


@pytest.mark.parametrize("kappa", [1e4, 1e6])
def test_steps_that_run_out_say_so(kappa: float) -> None:
    function, _ = quadratic(kappa, 4)
    status, _ = honest(GradientDescent(1 / kappa, max_steps=200), function, torch.zeros(4, dtype=D))
    assert status == Status.MAX_STEPS


def test_a_log_sum_exp() -> None:
    status, y = honest(GradientDescent(0.2), smooth_maximum, torch.ones(2, dtype=D))
    assert status == Status.CONVERGED
    assert slope(smooth_maximum, y).norm() <= 1e-9


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e4, 1e8])
def test_objectives_of_every_scale_meet_their_tolerance(scale: float) -> None:
    function, _ = quadratic(10.0, 3)
    status, _ = honest(GradientDescent(0.1 / scale), lambda y: scale * function(y), torch.zeros(3, dtype=D))
    assert status == Status.CONVERGED


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_tolerance_of_zero_ends_at_the_rounding_floor(dtype: torch.dtype) -> None:
    function, best = quadratic(10.0, 3)
    status, y = honest(GradientDescent(0.1, rtol=0.0, atol=0.0), function, torch.zeros(3, dtype=dtype))
    assert status in ANSWERS
    assert (y.to(D) - best).norm() <= 100 * torch.finfo(dtype).eps * best.norm()


def test_a_start_at_the_optimum_takes_no_step() -> None:
    function, best = quadratic(10.0, 3)
    y, certificate = minimise(GradientDescent(0.1), function, best)
    assert int(certificate.steps) == 0
    assert torch.equal(y, best)


@pytest.mark.parametrize("step_size", [0.1, 1e-3])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_kink_is_a_failure_and_no_rounding_floor(step_size: float, dtype: torch.dtype) -> None:
    kinks = Kinks(dtype)
    start = kinks.at + torch.tensor([0.5, -0.03], dtype=dtype)
    kinks.judge(*minimise(GradientDescent(step_size, max_steps=100), kinks, start, 1))


@pytest.mark.parametrize("step_size", [0.201, 0.3, 10.0])
def test_a_step_that_is_too_long_diverges_or_runs_out(step_size: float) -> None:
    function, _ = quadratic(10.0, 3)
    _, certificate = minimise(GradientDescent(step_size, max_steps=400), function, torch.zeros(3, dtype=D))
    assert certificate.failed


def test_divergence_is_noticed_when_numbers_overflow() -> None:
    _, certificate = minimise(GradientDescent(10.0), quadratic(10.0, 3)[0], torch.zeros(3, dtype=D))
    assert Status(int(certificate.status)) == Status.NON_FINITE
    assert int(certificate.steps) < 200


def test_a_start_outside_the_domain_is_a_failure_at_once() -> None:
    _, certificate = minimise(GradientDescent(0.1), lambda y: (y - y.sqrt()).sum(), -torch.ones(2, dtype=D))
    assert Status(int(certificate.status)) == Status.NON_FINITE
    assert int(certificate.steps) == 0


def test_an_objective_without_a_lower_bound_is_a_failure() -> None:
    for function in (lambda y: y.sum(), lambda y: -(y**2).sum()):
        assert minimise(GradientDescent(0.1, max_steps=300), function, torch.ones(2, dtype=D))[1].failed


def test_a_batch_of_mixed_scales_is_a_loop_over_its_problems() -> None:
    size = torch.logspace(-3, 3, 64, dtype=D)
    centre, bend = size[:, None] * vector(64, 3), torch.tensor([1.0, 2.0, 4.0], dtype=D)

    def function(y: Tensor, c: Tensor = centre, z: Tensor = size) -> Tensor:
        away = (y - c) / z.unsqueeze(-1)
        return z**2 * (bend * torch.log(torch.cosh(away))).sum(-1)

    solver = GradientDescent(0.4)
    y, certificate = minimise(solver, function, torch.zeros(64, 3, dtype=D), batch_dims=1)
    assert not certificate.failed.any()
    for k in range(0, 64, 3):
        alone, one = minimise(solver, lambda y, k=k: function(y, centre[k], size[k]), torch.zeros(3, dtype=D))
        torch.testing.assert_close(y[k], alone, rtol=1e-12, atol=1e-14)
        assert certificate.steps[k] == one.steps
        assert certificate.status[k] == one.status


def test_a_failing_problem_leaves_its_neighbours_alone() -> None:
    weight = torch.tensor([1.0, -1.0, torch.nan], dtype=D)
    function = lambda y: weight * ((y - 3) ** 2).sum(-1)  # noqa: E731  # a name for a one-liner
    y, certificate = minimise(GradientDescent(0.25, max_steps=100), function, vector(3, 2), batch_dims=1)
    assert certificate.failed.tolist() == [False, True, True]
    torch.testing.assert_close(y[0], torch.full((2,), 3.0, dtype=D))


def test_no_steps_allowed() -> None:
    y, certificate = minimise(GradientDescent(0.1, max_steps=0), quadratic(10.0, 3)[0], torch.zeros(3, dtype=D))
    assert Status(int(certificate.status)) == Status.MAX_STEPS
    assert int(certificate.steps) == 0
    assert torch.equal(y, torch.zeros(3, dtype=D))


def test_any_root_will_do() -> None:
    class Turned(Problem):
        """``A y = x`` with a matrix that is no gradient of anything."""

        batch_dims = 0
        matrix = torch.tensor([[2.0, 1.0], [-1.0, 2.0]], dtype=D)

        def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
            return self.matrix @ y - inputs[0]

        def vmapped(self, in_dims: object) -> Turned:
            return self

    x = vector(2)
    y, certificate = GradientDescent(0.3).solve(Turned(), torch.zeros(2, dtype=D), (x,))
    assert not certificate.failed
    torch.testing.assert_close(Turned.matrix @ y, x)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("step_size", value) for value in (0.0, -1.0, torch.nan, torch.inf)),
        *(("rtol", -1.0), ("atol", torch.nan), ("max_steps", -1)),
    ],
)
def test_settings_that_make_no_sense(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{setting} is {value}"):
        GradientDescent(**{"step_size": 0.1, setting: value})  # type: ignore[arg-type]  # one of them
