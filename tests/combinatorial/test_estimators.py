"""Each estimator against what it claims to be, for both senses, and wrong ones that must not pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad import InputError
from bigrad.combinatorial import (
    IMLE,
    AdaptiveIMLE,
    Blackbox,
    Difference,
    Estimator,
    Gumbel,
    Identity,
    LogNormal,
    Normal,
    PerturbedOptimizer,
    RelativeStep,
    Sample,
    Score,
    StraightThrough,
    SumOfGamma,
    difference_quotient,
)
from bigrad.layers import Combinatorial

from .points import D, Points, Same, gradient, numbers, options, seeded, vertices

COST, COTANGENT = numbers(7, 4, seed=1), numbers(7, 4, seed=2)
STEPS = {"constant": 1.5, "relative": RelativeStep(1.3)}
both_senses = pytest.mark.parametrize("maximise", [False, True], ids=["min", "max"])

ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "Blackbox": lambda: Blackbox(2.0),
    "Blackbox, two-sided, relative": lambda: Blackbox(RelativeStep(0.7), two_sided=True),
    "Identity": Identity,
    "Identity, plain": lambda: Identity(centre=False, normalise=False),
    "StraightThrough": StraightThrough,
    "StraightThrough, Gumbel": lambda: StraightThrough(Gumbel(), generator=seeded()),
    "IMLE": lambda: IMLE(2.0, 5, SumOfGamma(k=2), generator=seeded()),
    "IMLE, two-sided": lambda: IMLE(RelativeStep(), 5, Normal(), two_sided=True, generator=seeded()),
    "AdaptiveIMLE": lambda: AdaptiveIMLE(samples=5, generator=seeded()),
    "PerturbedOptimizer": lambda: PerturbedOptimizer(5, generator=seeded()),
    "PerturbedOptimizer, Gumbel, no baseline": lambda: PerturbedOptimizer(5, Gumbel(), Score(False), seeded()),
    "PerturbedOptimizer, difference": lambda: PerturbedOptimizer(5, Normal(0.5), Difference(2.0), seeded()),
    "PerturbedOptimizer, factors": lambda: PerturbedOptimizer(5, LogNormal(0.5), Score(), seeded()),
}
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


def best_value(oracle: Points, cost: Tensor) -> Tensor:
    """The objective's best value for costs ``(..., n)``."""
    values = cost @ oracle.points.mT
    return values.amax(-1) if oracle.maximise else values.amin(-1)


def interpolation(oracle: Points, cost: Tensor, cotangent: Tensor, sizes: Tensor, two_sided: bool) -> Tensor:
    """The piecewise affine function whose gradient the difference rule claims to be, for each problem."""
    sign = 1.0 if oracle.maximise else -1.0
    tilt = sizes.unsqueeze(-1) * cotangent
    above, rest, below = (best_value(oracle, cost - sign * side * tilt) for side in (1.0, 0.0, -1.0))
    # Danskin: the gradient of a best value is the best point.
    return -sign * ((above - below) / (2 * sizes) if two_sided else (above - rest) / sizes)


def assert_interpolates(estimator: Estimator, maximise: bool) -> None:
    """Central differences of the interpolation, whose pieces are affine, are exact."""
    rule = estimator.rule
    assert isinstance(rule, Difference)
    oracle = Points(vertices(), maximise=maximise)
    norms = COST.norm(dim=-1) / COTANGENT.norm(dim=-1)
    sizes = rule.step.ratio * norms if isinstance(rule.step, RelativeStep) else torch.full((7,), rule.step, dtype=D)
    found = gradient(oracle, estimator, COST, COTANGENT)
    eps = 1e-6 * torch.eye(4, dtype=D)
    wanted = [
        interpolation(oracle, COST + move, COTANGENT, sizes, rule.two_sided)
        - interpolation(oracle, COST - move, COTANGENT, sizes, rule.two_sided)
        for move in eps
    ]
    torch.testing.assert_close(found, torch.stack(wanted, -1) / 2e-6, rtol=0, atol=1e-8)
    assert found.abs().max() > 0.1


@both_senses
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_blackbox_is_the_gradient_of_an_interpolation(step: float, two_sided: bool, maximise: bool) -> None:
    assert_interpolates(Blackbox(step, two_sided), maximise)


class _WrongSense(Difference):
    def pull(self, sample: Sample, cotangent: Tensor) -> Tensor:
        """Perturbed as for an oracle that minimises, whatever the oracle."""
        moved = sample.solve(sample.perturbed + self.step * cotangent)
        return ((moved - sample.points) / self.step).mean(0)


class _OneNorm(Difference):
    def pull(self, sample: Sample, cotangent: Tensor) -> Tensor:
        """One step for the whole batch."""
        size = 1.3 * sample.cost.norm() / cotangent.norm()
        return Difference(float(size)).pull(sample, cotangent)


def plant(rule: Difference) -> Estimator:
    planted = type("Planted", (Blackbox,), {"rule": rule})
    return planted(rule.step, rule.two_sided)


def test_the_wrong_sense_is_caught() -> None:
    assert_interpolates(plant(_WrongSense(1.5)), maximise=False)
    with pytest.raises(AssertionError):
        assert_interpolates(plant(_WrongSense(1.5)), maximise=True)


def test_a_norm_over_the_whole_batch_is_caught() -> None:
    with pytest.raises(AssertionError):
        assert_interpolates(plant(_OneNorm(RelativeStep(1.3))), maximise=False)


@pytest.mark.parametrize("two_sided", [False, True])
def test_a_relative_step_does_not_care_what_the_loss_is_divided_by(two_sided: bool) -> None:
    oracle = Points(vertices())
    whole = gradient(oracle, Blackbox(RelativeStep(), two_sided), COST, COTANGENT)
    shrunk = gradient(oracle, Blackbox(RelativeStep(), two_sided), COST, COTANGENT / 1000)
    torch.testing.assert_close(shrunk, whole / 1000)
    alone = torch.cat([gradient(oracle, Blackbox(RelativeStep(), two_sided), w, g) for w, g in per_problem()])
    torch.testing.assert_close(whole, alone)
    assert whole.any(-1).sum() >= 5
    constant = gradient(oracle, Blackbox(2.0, two_sided), COST, COTANGENT / 1000)
    assert constant.any(-1).sum() <= 1


def per_problem() -> list[tuple[Tensor, Tensor]]:
    return [(COST[[place]], COTANGENT[[place]]) for place in range(7)]


@both_senses
def test_the_identity_rule_goes_through_the_projection(maximise: bool) -> None:
    def projected(w: Tensor, centre: bool, normalise: bool) -> Tensor:
        w = w - w.mean(-1, keepdim=True) if centre else w
        return w / w.norm(dim=-1, keepdim=True) if normalise else w

    for centre in (False, True):
        for normalise in (False, True):
            free = COST.clone().requires_grad_()
            wanted = torch.autograd.grad(projected(free, centre, normalise), free, COTANGENT)[0]
            oracle = Points(vertices(), maximise=maximise)
            found = gradient(oracle, Identity(centre, normalise), COST, COTANGENT)
            torch.testing.assert_close(found, wanted if maximise else -wanted)
            assert len(oracle.asked) == 1
            torch.testing.assert_close(oracle.asked[0], COST)  # the solution stays that of the cost itself


def test_normalising_a_constant_cost_gives_no_gradient() -> None:
    found = gradient(options(), Identity(), torch.ones(1, 4, dtype=D), COTANGENT[:1])
    assert found.tolist() == [[0.0] * 4]


@both_senses
@every_estimator
def test_opposite_costs_and_senses_are_the_same_problem(name: str, maximise: bool) -> None:
    cost = COST.abs() + 0.1
    (one, forth), (other, back) = (
        value_and_gradient(Points(vertices(), maximise=sense), ESTIMATORS[name](), sign * cost)
        for sense, sign in ((maximise, 1.0), (not maximise, -1.0))
    )
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(forth, -back, rtol=0, atol=1e-15)
    assert forth.any()


def value_and_gradient(oracle: Points, estimator: Estimator, cost: Tensor) -> tuple[Tensor, Tensor]:
    cost = cost.clone().requires_grad_()
    y = Combinatorial(oracle, estimator)(cost)
    return y.detach(), torch.autograd.grad(y, cost, COTANGENT)[0]


@every_estimator
def test_a_seed_repeats_and_another_generator_does_not_matter(name: str) -> None:
    cost = COST.abs() + 0.1
    one = value_and_gradient(Points(vertices()), ESTIMATORS[name](), cost)
    state = torch.get_rng_state()
    torch.randn(3)
    other = value_and_gradient(Points(vertices()), ESTIMATORS[name](), cost)
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right)
    torch.set_rng_state(state)
    estimator = ESTIMATORS[name]()
    if estimator.noise is not None:
        estimator.generator.manual_seed(5)
        assert not torch.equal(one[0], value_and_gradient(Points(vertices()), estimator, cost)[0])


@pytest.mark.parametrize(
    ("estimator", "calls"),
    [
        (Blackbox(2.0), [7, 7]),
        (Blackbox(2.0, two_sided=True), [7, 14]),
        (Identity(), [7]),
        (StraightThrough(), [7]),
        (IMLE(2.0, 5), [35, 35]),
        (IMLE(2.0, 5, two_sided=True), [35, 70]),
        (AdaptiveIMLE(samples=5), [35, 35]),
        (PerturbedOptimizer(5), [35]),
        (PerturbedOptimizer(5, rule=Difference(2.0, two_sided=True)), [35, 70]),
    ],
    ids=str,
)
def test_all_samples_and_problems_are_one_call(estimator: Estimator, calls: list[int]) -> None:
    oracle = Points(vertices())
    layer = Combinatorial(oracle, estimator)
    cost = COST.clone().requires_grad_()
    torch.autograd.grad(layer(cost), cost, COTANGENT)
    assert [len(cost) for cost in oracle.asked] == calls
    assert layer.certificate is not None
    assert (layer.certificate.calls, layer.certificate.solves) == (len(calls), sum(calls))


def test_both_sides_of_a_difference_have_the_same_noise() -> None:
    oracle = Points(vertices())
    gradient(oracle, IMLE(2.0, 5, two_sided=True, generator=seeded()), COST, COTANGENT)
    forward, (above, below) = oracle.asked[0].reshape(5, 7, 4), oracle.asked[1].reshape(2, 5, 7, 4)
    torch.testing.assert_close(above - forward, (2.0 * COTANGENT).expand(5, 7, 4))
    torch.testing.assert_close(forward - below, (2.0 * COTANGENT).expand(5, 7, 4))


@pytest.mark.parametrize(
    "estimator",
    [Blackbox(0.5), Blackbox(RelativeStep(), two_sided=True), IMLE(0.5, 3), IMLE(2.0, 3, LogNormal(0.3))],
    ids=str,
)
@both_senses
def test_differences_of_a_linear_solver_are_exact(estimator: Estimator, maximise: bool) -> None:
    found = gradient(Same(maximise), estimator, COST, COTANGENT)
    wanted = COTANGENT if maximise else -COTANGENT
    if isinstance(estimator.noise, LogNormal):  # each sample counts by its factors, whose mean is one
        ratio = found / wanted
        assert ratio.std() > 0.05
        torch.testing.assert_close(ratio.mean(), torch.ones((), dtype=D), rtol=0, atol=0.2)
    else:
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Blackbox(0.0),
        lambda: Blackbox(-1.0),
        lambda: Blackbox(float("nan")),
        lambda: Blackbox(RelativeStep(0.0)),
        lambda: IMLE(samples=0),
        lambda: IMLE(samples=2, noise=None),
        lambda: IMLE(noise=0.5),
        lambda: PerturbedOptimizer(1),
        lambda: PerturbedOptimizer(noise=None),
        lambda: PerturbedOptimizer(noise=SumOfGamma()),
        lambda: StraightThrough(samples=3),
        lambda: AdaptiveIMLE(ratio=-1.0),
        lambda: AdaptiveIMLE(decay=1.0),
        lambda: AdaptiveIMLE(samples=3, noise=None),
        lambda: Normal(0.0),
        lambda: SumOfGamma(k=0),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        make()


def test_the_quotient_answers_to_any_solver() -> None:
    """As a leader above a follower uses it: the tilt moves both levels, and what is differenced is a product."""
    cost, tilt, sizes = numbers(3, 2, 4), numbers(3, 2, 4, seed=5), torch.tensor([0.5, 0.0, 2.0], dtype=D)

    def solve(tilts: Tensor) -> Tensor:
        moved = cost + tilts
        return (moved[..., :1, :] * moved[..., 1:, :]).square()

    rest = solve(torch.zeros(1, 3, 2, 4, dtype=D))[0]
    one = difference_quotient(solve, rest, tilt, sizes, two_sided=False)
    two = difference_quotient(solve, rest, tilt, sizes, two_sided=True)
    for place, size in ((0, 0.5), (2, 2.0)):
        above, below = (solve(sign * size * tilt[None])[0, place] for sign in (1, -1))
        torch.testing.assert_close(one[place], (above - rest[place]) / size)
        torch.testing.assert_close(two[place], (above - below) / (2 * size))
    assert not one[1].any()
    assert not two[1].any()
