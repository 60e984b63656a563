"""The losses: their values in closed form, their gradients against differences, what they promise and refuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bigrad import InputError, UnsupportedError
from bigrad.combinatorial import FenchelYoung, Gumbel, LogNormal, Normal, ShortestPath, SPOPlus

from .points import FORWARD_MODE, D, Points, numbers, seeded, vertices

COST, TRUTH = numbers(9, 4, seed=1), numbers(9, 4, seed=2)
both_senses = pytest.mark.parametrize("maximise", [False, True], ids=["min", "max"])


def points(maximise: bool = False) -> Points:
    return Points(vertices(), maximise=maximise)


def central(function: Callable[[Tensor], Tensor], cost: Tensor, eps: float = 1e-6) -> Tensor:
    """Differences of a loss of each problem; pieces that are affine are exact."""
    moves = eps * torch.eye(cost.shape[-1], dtype=D)
    return torch.stack([function(cost + move) - function(cost - move) for move in moves], -1) / (2 * eps)


@both_senses
@pytest.mark.parametrize("noise", [Normal(0.5), Gumbel(0.5), LogNormal(0.5), None], ids=str)
def test_fenchel_young_has_the_gradient_of_its_value(noise: Normal | None, maximise: bool) -> None:
    oracle = points(maximise)
    target = oracle(TRUTH)

    def losses(cost: Tensor) -> Tensor:  # the same noise every time
        samples = 1 if noise is None else 20
        return FenchelYoung(oracle, noise=noise, samples=samples, generator=seeded(), reduction="none")(cost, target)

    cost = COST.clone().requires_grad_()
    found = torch.autograd.grad(losses(cost).sum(), cost)[0]
    torch.testing.assert_close(found, central(losses, COST), rtol=0, atol=1e-7)
    assert found.abs().max() > 0.1


@both_senses
def test_fenchel_young_is_not_negative_and_learns_the_target(maximise: bool) -> None:
    oracle = points(maximise)
    target = oracle(TRUTH)
    for noise in (Normal(0.5), LogNormal(0.5)):
        assert (FenchelYoung(oracle, noise=noise, samples=1, reduction="none")(COST, target) >= 0).all()
    loss = FenchelYoung(oracle, noise=Normal(0.5), samples=500, generator=seeded(), reduction="none")
    assert (loss(COST, target) > 0).all()
    cost = nn.Parameter(COST.clone())
    optimizer = torch.optim.SGD([cost], lr=0.5)
    for _ in range(40):
        optimizer.zero_grad()
        loss(cost, target).sum().backward()
        optimizer.step()
    assert torch.equal(oracle(cost), target)


def test_fenchel_young_is_the_published_loss_in_expectation() -> None:
    oracle, noise = points(), Normal(0.5)
    target = oracle(TRUTH)
    drawn = noise.draw(COST, 20_000, seeded())
    best = (noise.perturb(COST, drawn, -1.0) @ oracle.points.mT).amin(-1).mean(0)
    found = FenchelYoung(oracle, noise=noise, samples=20_000, generator=seeded(), reduction="none")(COST, target)
    torch.testing.assert_close(found, (COST * target).sum(-1) - best, rtol=0, atol=0.02)


def test_fenchel_young_is_convex() -> None:
    oracle = points()
    target = oracle(TRUTH)

    def losses(cost: Tensor) -> Tensor:
        return FenchelYoung(oracle, samples=50, generator=seeded(), reduction="none")(cost, target)

    middle = losses((COST + TRUTH) / 2)
    assert (middle <= (losses(COST) + losses(TRUTH)) / 2 + 1e-12).all()


@both_senses
def test_spo_plus_against_its_closed_form_and_differences(maximise: bool) -> None:
    oracle = points(maximise)
    values = (2 * COST - TRUTH) @ oracle.points.mT
    best = values.amax(-1) if maximise else values.amin(-1)
    y = oracle(TRUTH)
    wanted = 2 * (COST * y).sum(-1) - best - (TRUTH * y).sum(-1)
    losses = SPOPlus(oracle, reduction="none")
    cost = COST.clone().requires_grad_()
    torch.testing.assert_close(losses(cost, TRUTH).detach(), -wanted if maximise else wanted)
    found = torch.autograd.grad(losses(cost, TRUTH).sum(), cost)[0]
    torch.testing.assert_close(found, central(lambda c: losses(c, TRUTH), COST), rtol=0, atol=1e-8)
    closed = 2 * (y - oracle(2 * COST - TRUTH))
    torch.testing.assert_close(found, -closed if maximise else closed)


@both_senses
def test_spo_plus_bounds_the_regret_and_is_zero_at_the_truth(maximise: bool) -> None:
    oracle = points(maximise)
    cost, truth = numbers(500, 4, seed=3), numbers(500, 4, seed=4)
    regret = (truth * (oracle(cost) - oracle(truth))).sum(-1)
    regret = -regret if maximise else regret
    losses = SPOPlus(oracle, reduction="none")(cost, truth)
    assert (regret >= 0).all()
    assert (losses >= regret - 1e-12).all()
    assert (losses[regret > 0] > 0.1).any()
    torch.testing.assert_close(SPOPlus(oracle)(truth, truth), torch.zeros((), dtype=D))


@both_senses
def test_spo_plus_in_the_wrong_sense_is_caught(maximise: bool) -> None:
    """The formula for a minimum, used for a maximum, is no bound."""
    oracle, cost, truth = points(maximise), numbers(500, 4, seed=3), numbers(500, 4, seed=4)
    y, moved = oracle(truth), oracle(2 * cost - truth)
    planted = ((2 * cost - truth) * (y - moved)).sum(-1)
    assert (planted >= 0).all() == (not maximise)


def test_a_known_solution_saves_a_solve() -> None:
    oracle = points()
    found = []
    for target, calls in ((None, [9, 9]), (oracle(TRUTH), [9])):
        oracle.asked.clear()
        loss, cost = SPOPlus(oracle), COST.clone().requires_grad_()
        found.append(torch.autograd.grad(loss(cost, TRUTH, target), cost)[0])
        assert [len(cost) for cost in oracle.asked] == calls
        assert loss.certificate is not None
        assert loss.certificate.solves == sum(calls)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("reduction", "shape"), [("none", (2, 3)), ("mean", ()), ("sum", ())], ids=["none", "mean", "sum"]
)
def test_reductions(reduction: str, shape: tuple[int, ...]) -> None:
    cost, truth = COST[:6].reshape(2, 3, 4), TRUTH[:6].reshape(2, 3, 4)
    for make in (SPOPlus, lambda oracle, reduction: FenchelYoung(oracle, generator=seeded(), reduction=reduction)):
        losses = make(points(), reduction="none")(cost, truth if make is SPOPlus else points()(truth))
        found = make(points(), reduction=reduction)(cost, truth if make is SPOPlus else points()(truth))
        assert found.shape == shape
        wanted = {"none": losses, "mean": losses.mean(), "sum": losses.sum()}[reduction]
        torch.testing.assert_close(found, wanted)


def test_a_reflected_cost_outside_the_domain_is_projected_and_counted() -> None:
    oracle = Points(vertices(), nonnegative=True)
    cost, truth = COST.abs(), TRUTH.abs()
    loss = SPOPlus(oracle)
    assert loss(cost, truth).isfinite()
    outside = int((2 * cost - truth < 0).sum())
    assert outside > 3
    assert loss.certificate is not None
    assert loss.certificate.projected == outside / (2 * cost.numel())  # the truth is solved as well
    noisy = FenchelYoung(oracle, noise=Normal(1.0), samples=8, generator=seeded())
    noisy(cost, oracle(truth))
    assert noisy.certificate is not None
    assert 0.1 < noisy.certificate.projected < 0.9
    factors = FenchelYoung(oracle, noise=LogNormal(1.0), samples=8, generator=seeded())
    factors(cost, oracle(truth))
    assert factors.certificate is not None
    assert factors.certificate.projected == 0


def test_costs_of_a_user_outside_the_domain_are_refused() -> None:
    oracle = Points(vertices(), nonnegative=True)
    for loss in (SPOPlus(oracle), FenchelYoung(oracle)):
        with pytest.raises(InputError, match="wanted costs >= 0"):
            loss(COST, TRUTH.abs())
    with pytest.raises(InputError, match="wanted costs >= 0"):
        SPOPlus(oracle)(COST.abs(), TRUTH, oracle(TRUTH.abs()))
    for loss in (SPOPlus(points()), FenchelYoung(points())):
        with pytest.raises(InputError, match="shape"):
            loss(COST, TRUTH[:3])
        with pytest.raises(InputError, match="infinite or NaN"):
            loss(COST * torch.nan, TRUTH)
        with pytest.raises(InputError, match="float32 or float64"):
            loss(COST.long(), TRUTH.long())
    with pytest.raises(InputError, match="reduction"):
        SPOPlus(points(), reduction="median")
    with pytest.raises(InputError, match="samples"):
        FenchelYoung(points(), samples=0)


@pytest.mark.filterwarnings(FORWARD_MODE)
@pytest.mark.parametrize("loss", [SPOPlus(points()), FenchelYoung(points(), noise=None, samples=1)], ids=["spo", "fy"])
def test_transforms(loss: nn.Module) -> None:
    target = TRUTH if isinstance(loss, SPOPlus) else points()(TRUTH)
    cost = COST.clone().requires_grad_()
    wanted = torch.autograd.grad(loss(cost, target), cost)[0]
    torch.testing.assert_close(torch.func.grad(loss)(COST, target), wanted)
    assert loss.certificate is None
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(COST, target), 9 * wanted)
    with pytest.raises(UnsupportedError, match="first derivatives"):
        torch.func.hessian(loss)(COST[0], target[0])
    with pytest.raises(UnsupportedError, match="first derivatives"):
        torch.func.jvp(lambda c: loss(c, target), (COST,), (COST,))
    (first,) = torch.autograd.grad(loss(cost, target), cost, create_graph=True)
    with pytest.raises(UnsupportedError, match="first derivatives"):
        first.sum().backward()


def test_paths_and_copies() -> None:
    cost, truth = (numbers(3, 4, 4, seed=seed).abs().float() for seed in (1, 2))
    for loss in (SPOPlus(ShortestPath()), FenchelYoung(ShortestPath(), generator=seeded())):
        target = truth if isinstance(loss, SPOPlus) else ShortestPath()(truth)
        twin, other = copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))
        value = loss(cost, target)
        assert value.dtype == torch.float32
        assert twin(cost, target) == value == other(cost, target)
        assert "ShortestPath" in repr(loss)
        assert "solves" in repr(loss.certificate)
