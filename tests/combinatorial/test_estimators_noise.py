"""Perturbed optimizers and their noise: known means and Jacobians, variance, and what has no density."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bigrad import InputError, UnsupportedError
from bigrad.combinatorial import (
    IMLE,
    Blackbox,
    Difference,
    Estimator,
    Gumbel,
    LogNormal,
    Normal,
    PerturbedOptimizer,
    RelativeStep,
    Score,
    SumOfGamma,
)
from bigrad.layers import Combinatorial

from .points import D, Points, Same, gradient, numbers, options, seeded, softmax_jacobian, vertices

COST, COTANGENT, EYE = numbers(7, 4, seed=1), numbers(7, 4, seed=2), torch.eye(3, dtype=D)
both_senses = pytest.mark.parametrize("maximise", [False, True], ids=["min", "max"])


@both_senses
@pytest.mark.parametrize(
    ("noise", "rule"),
    [
        (Normal(0.7), Score()),
        (Normal(0.7), Score(leave_one_out=False)),
        (Gumbel(0.7), Score()),
        (LogNormal(0.3), Score()),
        (LogNormal(0.3), Difference(RelativeStep(0.1))),
    ],
    ids=str,
)
def test_a_perturbed_identity_has_the_identity_as_its_jacobian(noise: Normal, rule: Score, maximise: bool) -> None:
    samples = 400_000
    cost = torch.tensor([0.5, 1.0, 2.0], dtype=D)
    rows = [gradient(Same(maximise), PerturbedOptimizer(samples, noise, rule, seeded()), cost, row) for row in EYE]
    found = torch.stack(rows) if maximise else -torch.stack(rows)
    torch.testing.assert_close(found, EYE, rtol=0, atol=0.03)


@both_senses
def test_argmax_with_gumbel_noise_is_the_softmax_with_its_jacobian(maximise: bool) -> None:
    samples, score = 400_000, torch.tensor([0.3, -0.5, 1.0, 0.1], dtype=D)
    cost = score if maximise else -score
    oracle = options(maximise=maximise)
    estimator = PerturbedOptimizer(samples, Gumbel(), generator=seeded(1))
    y = estimator.attach(oracle, cost)[0]
    chance = score.softmax(0)
    distance = samples * ((y - chance) ** 2 / chance).sum()
    assert distance < 16.3  # chi-squared with 3 degrees of freedom: one in a thousand
    found = torch.stack([gradient(oracle, estimator, cost, row) for row in torch.eye(4, dtype=D)])
    wanted = softmax_jacobian(score)
    torch.testing.assert_close(found, wanted if maximise else -wanted, rtol=0, atol=0.01)


def test_gumbel_noise_of_the_wrong_sign_is_caught() -> None:
    samples, score = 400_000, torch.tensor([0.3, -0.5, 1.0, 0.1], dtype=D)

    class Added(Gumbel):
        def perturb(self, cost: Tensor, drawn: Tensor, sign: float) -> Tensor:
            return cost + drawn

    y = PerturbedOptimizer(samples, Added(), generator=seeded()).attach(options(maximise=False), -score)[0]
    assert (y - score.softmax(0)).abs().max() > 0.03


def test_sums_of_gamma_noise_add_up_to_gumbel_noise() -> None:
    drawn = SumOfGamma(k=3, terms=100).draw(torch.zeros(3, dtype=D), 50_000, seeded())
    total = drawn.sum(-1)
    torch.testing.assert_close(total.mean(), torch.tensor(0.5772, dtype=D), rtol=0, atol=0.03)
    torch.testing.assert_close(total.std(), torch.tensor(1.2825, dtype=D), rtol=0, atol=0.03)
    chance = (-(-total.new_tensor(1.0)).exp()).exp()
    torch.testing.assert_close((total <= 1.0).double().mean(), chance, rtol=0, atol=0.01)


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_a_term_of_the_sums_is_a_gamma_number(k: int) -> None:
    """By its distribution function, of which it takes every level equally often; under ``vmap`` as well."""
    noise, level = SumOfGamma(k=k, terms=1), torch.linspace(0.05, 0.95, 19, dtype=D)
    alone = noise.draw(torch.zeros((), dtype=D), 200_000, seeded())
    many = torch.func.vmap(lambda cost: noise.draw(cost, 100, seeded()), randomness="different")
    for drawn in (alone, many(torch.zeros(2000, dtype=D)).flatten()):
        reached = torch.special.gammainc(torch.full_like(drawn, 1 / k), drawn)
        below = (reached.unsqueeze(-1) <= level).double().mean(0)
        torch.testing.assert_close(below, level, rtol=0, atol=0.005)
        torch.testing.assert_close(drawn.mean(), torch.tensor(1 / k, dtype=D), rtol=0.05, atol=0)


@pytest.mark.parametrize("noise", [Normal(2.0), Gumbel(2.0), LogNormal(0.5), SumOfGamma(2.0)], ids=str)
def test_noise_keeps_dtype_and_follows_its_scale(noise: Normal) -> None:
    for dtype in (torch.float32, D):
        cost = torch.full((2, 3), 3.0, dtype=dtype)
        drawn = noise.draw(cost, 4, seeded())
        assert drawn.dtype == dtype
        assert drawn.shape == (4, 2, 3)
        perturbed = noise.perturb(cost, drawn, 1.0)
        smaller = replace(noise, scale=noise.scale / 1e3).perturb(cost, drawn, 1.0)
        assert (perturbed - cost).abs().max() > 200 * (smaller - cost).abs().max()


def test_the_leave_one_out_baseline_takes_away_variance_and_no_accuracy() -> None:
    oracle, cost = options(), torch.tensor([0.3, -0.5, 1.0, 0.1], dtype=D)
    cotangent = 3.0 + torch.arange(4, dtype=D)
    exact = softmax_jacobian(cost) @ cotangent
    spread = []
    for leave_one_out in (False, True):
        estimator = PerturbedOptimizer(3, Gumbel(), Score(leave_one_out), seeded())
        found = gradient(oracle, estimator, cost.expand(60_000, 4), cotangent.expand(60_000, 4))
        torch.testing.assert_close(found.mean(0), exact, rtol=0, atol=0.05)
        spread.append(found.var(0).sum())
    assert spread[1] < 0.2 * spread[0]


def test_the_two_sided_difference_has_less_variance_and_less_bias() -> None:
    oracle, cost = options(), torch.tensor([0.3, -0.5, 1.0, 0.1], dtype=D)
    cotangent = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=D)
    exact = softmax_jacobian(cost) @ cotangent
    bias, variance = {}, {}
    rules = {"score": Score(), "one": Difference(1.0), "two": Difference(1.0, two_sided=True)}
    for name, rule in rules.items():
        estimator = PerturbedOptimizer(10, Gumbel(), rule, seeded())
        found = gradient(oracle, estimator, cost.expand(40_000, 4), cotangent.expand(40_000, 4))
        bias[name], variance[name] = (found.mean(0) - exact).norm(), found.var(0).sum()
    assert variance["two"] < 0.9 * variance["one"]
    assert variance["two"] < 0.3 * variance["score"]
    assert bias["two"] < 0.5 * bias["one"]


def test_a_score_without_a_density_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no density"):
        SumOfGamma().score(COST, COST, 1.0)
    cost = torch.tensor([0.0, 1.0], requires_grad=True)
    y = PerturbedOptimizer(4, LogNormal()).attach(options(2), cost)[0]
    with pytest.raises(InputError, match="1 costs are zero"):
        y[0].backward()


def test_without_a_generator_torch_s_own_is_used() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(gradient(Points(vertices()), PerturbedOptimizer(5), COST, COTANGENT))
    assert torch.equal(*found)
    assert not torch.equal(found[0], gradient(Points(vertices()), PerturbedOptimizer(5), COST, COTANGENT))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (IMLE(2.0, 5, Normal(3e38), generator=seeded()), "costs are infinite or NaN"),  # where it solves
        (Blackbox(1e38), "costs are infinite or NaN"),  # where it differentiates
        (Blackbox(2e37), "add up to more than torch.float32 holds"),
    ],
)
def test_a_perturbed_cost_that_overflows_reaches_no_oracle(estimator: Estimator, message: str) -> None:
    oracle = options()
    cost = torch.zeros(4, requires_grad=True)
    with pytest.raises(InputError, match=message):
        Combinatorial(oracle, estimator)(cost).backward(torch.full((4,), 9.0))
    assert all(bool(costs.isfinite().all()) for costs in oracle.asked)
