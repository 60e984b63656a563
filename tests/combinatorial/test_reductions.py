"""The named estimators are settings of one core, and turn into each other where the literature says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad.combinatorial import (
    IMLE,
    AdaptiveIMLE,
    Blackbox,
    Difference,
    Estimator,
    FenchelYoung,
    Gumbel,
    Identity,
    Normal,
    Oracle,
    PerturbedOptimizer,
    RelativeStep,
    SPOPlus,
    StraightThrough,
)

from .points import D, Points, gradient, numbers, options, seeded, softmax_jacobian, vertices

COST, COTANGENT = numbers(7, 6, seed=1), numbers(7, 6, seed=2)
both_senses = pytest.mark.parametrize("maximise", [False, True], ids=["min", "max"])


def points(maximise: bool = False) -> Points:
    return Points(vertices(6, 3), maximise=maximise)


def perturbation_gradient(oracle: Oracle, cost: Tensor, truth: Tensor, step: float) -> Tensor:
    """The derivative of the best value at the cost, less that at a cost moved against the truth, over the step."""
    return (oracle(cost) - oracle(cost - step * truth)) / step


@both_senses
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("step", [1.5, RelativeStep(0.8)], ids=str)
def test_imle_without_noise_is_blackbox(step: float, two_sided: bool, maximise: bool) -> None:
    oracle = points(maximise)
    one = gradient(oracle, IMLE(step, noise=None, two_sided=two_sided), COST, COTANGENT)
    assert torch.equal(one, gradient(oracle, Blackbox(step, two_sided), COST, COTANGENT))
    assert one.any()


@pytest.mark.parametrize("two_sided", [False, True])
def test_imle_is_a_perturbed_optimizer_with_the_difference_rule(two_sided: bool) -> None:
    rule = Difference(1.5, two_sided)
    one = gradient(points(), IMLE(1.5, 4, Normal(0.6), two_sided, seeded()), COST, COTANGENT)
    assert torch.equal(one, gradient(points(), PerturbedOptimizer(4, Normal(0.6), rule, seeded()), COST, COTANGENT))


def test_adaptive_imle_is_imle_until_it_adapts() -> None:
    adaptive = AdaptiveIMLE(samples=4, noise=Normal(0.6), ratio=0.8, ratio_step=0.0, generator=seeded())
    imle = IMLE(RelativeStep(0.8), 4, Normal(0.6), generator=seeded())
    torch.testing.assert_close(
        gradient(points(), adaptive, COST, COTANGENT), gradient(points(), imle, COST, COTANGENT), rtol=1e-12, atol=0
    )


def jacobian(estimator: Estimator, score: Tensor) -> Tensor:
    return torch.stack([gradient(options(), estimator, score, row) for row in torch.eye(4, dtype=D)])


def test_imle_goes_to_the_perturbed_optimizer_s_jacobian_as_the_step_goes_to_zero() -> None:
    score = torch.tensor([0.3, -0.5, 1.0, 0.1], dtype=D)
    exact = softmax_jacobian(score)
    errors = [
        (jacobian(IMLE(step, 400_000, Gumbel(), generator=seeded()), score) - exact).norm() for step in (1.0, 0.3, 0.1)
    ]
    assert errors[0] > 1.8 * errors[1] > 3 * errors[2]  # a bias proportional to the step
    assert errors[2] < 0.03
    two_sided = jacobian(IMLE(0.3, 400_000, Gumbel(), two_sided=True, generator=seeded()), score)
    assert (two_sided - exact).norm() < 0.01  # a bias of second order
    scored = jacobian(PerturbedOptimizer(400_000, Gumbel(), generator=seeded()), score)
    assert (scored - exact).norm() < 0.01


def test_straight_through_is_the_identity_without_projection() -> None:
    one = gradient(points(), StraightThrough(), COST, COTANGENT)
    assert torch.equal(one, gradient(points(), Identity(centre=False, normalise=False), COST, COTANGENT))


def test_a_huge_step_with_the_hamming_gradient_is_the_difference_to_the_target() -> None:
    """Then blackbox is straight-through with the gradient of half the squared distance, but for its length."""
    target = points()(numbers(7, 6, seed=8))
    one = 1e6 * gradient(points(), Blackbox(1e6), COST, 1 - 2 * target)
    torch.testing.assert_close(one, target - points()(COST))
    torch.testing.assert_close(one, gradient(points(), StraightThrough(), COST, points()(COST) - target))


@both_senses
def test_the_perturbation_gradient_is_blackbox_at_the_true_cost(maximise: bool) -> None:
    """A loss linear in the solution, moved backwards: minus the truth is its gradient."""
    truth = numbers(7, 6, seed=3)
    sign = 1.0 if maximise else -1.0
    found = gradient(points(maximise), Blackbox(0.4), COST, sign * truth)
    wanted = perturbation_gradient(points(maximise), COST, truth, 0.4)
    torch.testing.assert_close(found, sign * sign * wanted if maximise else -wanted, rtol=0, atol=0)
    assert found.any()


@both_senses
def test_spo_plus_is_a_perturbation_gradient_at_one_half(maximise: bool) -> None:
    truth, oracle = numbers(7, 6, seed=3), points(maximise)
    cost = COST.clone().requires_grad_()
    found = torch.autograd.grad(SPOPlus(oracle, reduction="sum")(cost, truth), cost)[0]
    shifted = perturbation_gradient(oracle, COST, truth, 0.5) + 2 * (oracle(truth) - oracle(COST))
    torch.testing.assert_close(found, -shifted if maximise else shifted)


@both_senses
def test_fenchel_young_without_noise_is_the_perceptron(maximise: bool) -> None:
    oracle, cost = points(maximise), COST.clone().requires_grad_()
    target = oracle(numbers(7, 6, seed=4))
    loss = FenchelYoung(oracle, noise=None, samples=1, reduction="none")(cost, target)
    found = torch.autograd.grad(loss.sum(), cost)[0]
    sign = -1.0 if maximise else 1.0
    torch.testing.assert_close(found, sign * (target - oracle(COST)))
    regret = sign * (COST * (target - oracle(COST))).sum(-1)
    torch.testing.assert_close(loss.detach(), regret)


def test_fenchel_young_has_the_perturbed_optimizer_s_residual() -> None:
    oracle, cost = points(), COST.clone().requires_grad_()
    target = oracle(numbers(7, 6, seed=4))
    loss = FenchelYoung(oracle, noise=Normal(0.5), samples=6, generator=seeded(), reduction="sum")(cost, target)
    mean = PerturbedOptimizer(6, Normal(0.5), generator=seeded()).attach(oracle, COST)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, cost)[0], target - mean)
