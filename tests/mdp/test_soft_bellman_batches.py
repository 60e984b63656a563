"""SoftBellman over batches, transforms, dtypes and the whole range of its numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad.layers import SoftBellman
from bigrad.mdp import SoftSolution, soft_bellman
from bigrad.problems import random_mdp

D = torch.float64

# torch itself calls a deprecated function where forward mode is first used
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rewards(*lead: int) -> Tensor:
    return torch.randn(*lead, 3, 2, generator=draw(0), dtype=D)


def transitions(*lead: int) -> Tensor:
    weight = torch.rand(*lead, 3, 2, 3, generator=draw(1), dtype=D)
    return weight / weight.sum(-1, keepdim=True)


def numbers(*lead: int) -> Tensor:
    return 0.2 + 0.6 * torch.rand(lead, generator=draw(2), dtype=D)


@pytest.mark.parametrize(
    "leads",
    [
        ((4,), (), (), ()),
        ((), (4,), (), ()),
        ((), (), (4,), ()),
        ((), (), (), (4,)),
        ((4,), (4,), (4,), (4,)),
        ((4,), (1,), (), (4,)),
        ((2, 4), (4,), (2, 1), ()),
        ((1, 4), (2, 1), (4,), (2, 4)),
        ((0,), (), (), ()),
    ],
    ids=str,
)
def test_a_batch_is_a_loop_over_its_problems_and_shares_what_has_none(leads: tuple[tuple[int, ...], ...]) -> None:
    makers = (rewards, transitions, numbers, numbers)
    inputs = [make(*lead).requires_grad_() for make, lead in zip(makers, leads, strict=True)]
    lead = torch.broadcast_shapes(*leads)
    solution = soft_bellman(*inputs)
    assert solution.policy.shape == (*lead, 3, 2)
    assert solution.value.shape == (*lead, 3)
    assert solution.q_value.shape == (*lead, 3, 2)
    weight = torch.randn(*lead, 3, 2, generator=draw(3), dtype=D)
    found = torch.autograd.grad((weight * solution.policy).sum() + solution.value.sum(), inputs)

    total = sum(tensor.sum() * 0 for tensor in inputs)
    events = (2, 3, 0, 0)
    wide = [
        tensor.expand(*lead, *tensor.shape[tensor.ndim - event :]) for tensor, event in zip(inputs, events, strict=True)
    ]
    for place in itertools.product(*(range(size) for size in lead)):
        alone = soft_bellman(*(tensor[place] for tensor in wide))
        torch.testing.assert_close(solution.policy[place], alone.policy, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(solution.value[place], alone.value, rtol=1e-11, atol=1e-13)
        total = total + (weight[place] * alone.policy).sum() + alone.value.sum()
    truth = torch.autograd.grad(total, inputs)
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


TRANSITION, WEIGHT = transitions(), rewards().cos()


def layer() -> SoftBellman:
    return SoftBellman(TRANSITION, discount=0.8, temperature=0.5)


def score(reward: Tensor) -> Tensor:
    return (layer()(reward).policy * WEIGHT).sum()


def eager(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The Jacobian by torch's own loop over rows, outside of torch.func."""
    return torch.autograd.functional.jacobian(function, at)


def test_vmap_is_a_batch() -> None:
    for found, wanted in zip(torch.func.vmap(layer())(rewards(5)), layer()(rewards(5)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("which", range(4))
def test_vmap_over_one_input_shares_the_others(which: int) -> None:
    makers = (rewards, transitions, numbers, numbers)
    inputs = [make(*((5,) if place == which else ())) for place, make in enumerate(makers)]
    mapped = tuple(0 if place == which else None for place in range(4))
    found = torch.func.vmap(lambda *given: soft_bellman(*given).policy, in_dims=mapped)(*inputs)
    torch.testing.assert_close(found, soft_bellman(*inputs).policy, rtol=1e-12, atol=1e-14)
    slope = torch.func.grad(lambda *given: soft_bellman(*given).policy[0, 0], argnums=(0, 1, 2, 3))
    gradients = torch.func.vmap(slope, in_dims=mapped)(*inputs)
    for k in range(5):
        alone = slope(*(tensor[k] if place == which else tensor for place, tensor in enumerate(inputs)))
        for one, other in zip(gradients, alone, strict=True):
            torch.testing.assert_close(one[k], other, rtol=1e-10, atol=1e-12)


def test_reverse_transforms_equal_plain_backward() -> None:
    at = rewards()
    gradient = eager(score, at)
    torch.testing.assert_close(torch.func.grad(score)(at), gradient)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(score))(at.expand(3, 3, 2)), gradient.expand(3, 3, 2))
    whole = eager(lambda r: layer()(r).policy, at)
    torch.testing.assert_close(torch.func.jacrev(lambda r: layer()(r).policy)(at), whole)


@forward_mode
def test_forward_and_mixed_transforms_equal_plain_backward() -> None:
    at = rewards()
    for part in SoftSolution._fields:
        function = lambda r, part=part: getattr(layer()(r), part)  # noqa: E731  # a name for a one-liner
        torch.testing.assert_close(torch.func.jacfwd(function)(at), eager(function, at))
    curvature = torch.autograd.functional.hessian(score, at)
    torch.testing.assert_close(torch.func.hessian(score)(at), curvature)
    torch.testing.assert_close(torch.func.jacrev(torch.func.jacfwd(score))(at), curvature)
    torch.testing.assert_close(torch.func.vmap(torch.func.hessian(score))(at[None])[0], curvature)


def test_no_certificate_under_a_transform() -> None:
    one = layer()
    one(rewards())
    assert one.certificate is not None
    torch.func.grad(lambda r: one(r).value.sum())(rewards())
    assert one.certificate is None


def test_every_temperature_and_discount_agrees_with_long_value_iteration() -> None:
    temperature = torch.logspace(-3, 3, 7, dtype=D)[:, None]
    discount = torch.tensor([0.0, 0.3, 0.9, 0.99, 0.999], dtype=D)
    reward, transition = rewards(), transitions()
    solution = soft_bellman(reward, transition, discount, temperature)
    assert solution.value.shape == (7, 5, 3)
    value = torch.zeros(7, 5, 3, dtype=D)
    # An extrapolation between sweeps saves nine tenths of them; the sweeps alone decide where it ends.
    for turn in range(3000):
        backup = reward + discount[:, None, None] * (transition @ value[..., None, :, None]).squeeze(-1)
        fresh = temperature[..., None] * torch.logsumexp(backup / temperature[..., None, None], -1)
        change = fresh - value
        value = fresh
        if turn < 2900:
            value = value + (discount / (1 - discount))[:, None] * change.mean(-1, keepdim=True)
    size = value.abs().amax(-1) + 1
    assert (((solution.value - value).abs().amax(-1)) <= 1e-11 * size / (1 - discount)).all()
    torch.testing.assert_close(solution.policy.sum(-1), torch.ones(7, 5, 3, dtype=D), rtol=0, atol=1e-14)


def test_a_cold_agent_is_greedy_and_a_hot_one_indifferent() -> None:
    reward, transition = rewards(), transitions()
    value = torch.zeros(3, dtype=D)
    for _ in range(400):
        value = (reward + 0.9 * transition @ value).amax(-1)
    cold, hot = (soft_bellman(reward, transition, 0.9, temperature) for temperature in (1e-3, 1e3))
    torch.testing.assert_close(cold.value, value, rtol=0, atol=1e-2)
    assert torch.equal(cold.policy.argmax(-1), (reward + 0.9 * transition @ value).argmax(-1))
    assert (cold.policy.amax(-1) > 0.999).all()
    torch.testing.assert_close(hot.policy, torch.full((3, 2), 0.5, dtype=D), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("temperature", "discount"), [*itertools.product((1e-2, 1.0, 1e3), (0.0, 0.5, 0.999))])
def test_float32_stays_float32_and_close(temperature: float, discount: float) -> None:
    single, double = rewards().float().requires_grad_(), rewards().requires_grad_()
    found = soft_bellman(single, transitions().float(), discount, temperature)
    wanted = soft_bellman(double, transitions(), discount, temperature)
    assert {part.dtype for part in found} == {torch.float32}
    torch.testing.assert_close(found.value.double(), wanted.value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.policy.double(), wanted.policy, rtol=1e-2, atol=1e-3)
    slopes = [torch.autograd.grad(part.value.sum(), at)[0] for part, at in ((found, single), (wanted, double))]
    torch.testing.assert_close(slopes[0].double(), slopes[1], rtol=2e-2, atol=1e-3)


def test_a_larger_world_is_solved_to_rounding() -> None:
    mdp = random_mdp(draw(0), states=40, actions=5, temperature=0.05, discount=0.99)
    reward = mdp.reward(torch.ones(4, dtype=D))
    one = SoftBellman(mdp.transition, discount=0.99, temperature=0.05)
    policy, value, q_value = one(reward)
    assert one.certificate is not None
    assert int(one.certificate.steps) < 20
    torch.testing.assert_close(reward + 0.99 * mdp.transition @ value, q_value, rtol=0, atol=1e-12)
    torch.testing.assert_close(0.05 * torch.logsumexp(q_value / 0.05, -1), value, rtol=0, atol=1e-11)
    torch.testing.assert_close(policy.sum(-1), torch.ones(40, dtype=D))


# as many discounts as states, or as rewards: shapes that broadcast by accident
@pytest.mark.parametrize("discounts", [[0.5, 0.7, 0.8, 0.9], [0.5, 0.7, 0.9]])
def test_nested_vmaps_over_different_inputs(discounts: list[float]) -> None:
    generator = torch.Generator().manual_seed(5)
    transition = torch.softmax(torch.randn(4, 2, 4, generator=generator, dtype=torch.float64), -1)
    rewards = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    several, temperature = torch.tensor(discounts, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    slope = torch.func.grad(lambda r, d: soft_bellman(r, transition, d, temperature).value.sum())
    found = torch.func.vmap(lambda d: torch.func.vmap(lambda r: slope(r, d))(rewards))(several)
    other = torch.func.vmap(lambda r: torch.func.vmap(lambda d: slope(r, d))(several))(rewards)
    truth = torch.stack([torch.stack([slope(r, d) for r in rewards]) for d in several])
    torch.testing.assert_close(found, truth)
    torch.testing.assert_close(other.transpose(0, 1), truth)
