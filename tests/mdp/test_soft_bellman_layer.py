"""SoftBellman as a citizen: what it refuses, its certificate, how it travels."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bigrad import InputError, SolveWarning, Status, errors
from bigrad.gradients import Implicit
from bigrad.layers import SoftBellman
from bigrad.linear import Direct

D = torch.float64
REWARD = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=D)
WEIGHT = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(1), dtype=D)
TRANSITION = WEIGHT / WEIGHT.sum(-1, keepdim=True)


def layer(**other: Any) -> SoftBellman:
    return SoftBellman(**{"transition": TRANSITION, "discount": 0.9, "temperature": 0.5} | other)


def spoiled(place: tuple[int, ...], row: list[float]) -> Tensor:
    transition = TRANSITION.clone()
    transition[place] = torch.tensor(row, dtype=D)
    return transition


@pytest.mark.parametrize("given_in_the_call", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("discount", 1.0, r"discount is 1;.*0 <= discount < 1"),
        ("discount", 1, r"discount is 1;"),
        ("discount", 1.5, r"discount is 1\.5;"),
        ("discount", -0.25, r"discount is -0\.25;"),
        ("discount", float("nan"), r"discount is nan;"),
        ("discount", torch.tensor([0.5, -0.25, 2.0], dtype=D), r"discount is -0\.25;"),
        ("discount", "high", r"discount is 'high'; wanted a number"),
        ("discount", torch.tensor(0.9), r"discount has dtype torch\.float32"),
        ("discount", torch.full((2, 5), 0.9, dtype=D), None),
        ("temperature", 0.0, r"temperature is 0; wanted a positive"),
        ("temperature", -2.0, r"temperature is -2;"),
        ("temperature", float("nan"), r"temperature is nan;"),
        ("temperature", float("inf"), r"temperature is inf;"),
        ("temperature", torch.tensor([1.0, float("inf")], dtype=D), r"temperature is inf;"),
        ("temperature", torch.tensor([1, 2]), r"temperature has dtype torch\.int64"),
        ("transition", spoiled((1, 0), [0.5, 0.5, 0.5]), r"state 1, action 0 sums to 1\.5.*divide"),
        ("transition", spoiled((2, 1), [0.5, 0.25, 0.0]), r"state 2, action 1 sums to 0\.75"),
        ("transition", spoiled((0, 1), [float("nan"), 0.5, 0.5]), r"state 0, action 1 sums to nan"),
        ("transition", spoiled((0, 0), [1.25, -0.25, 0.0]), r"transition probability is -0\.25"),
        ("transition", spoiled((0, 0), [1e-3, -1e-3, 0.0]), r"transition probability is -0\.001"),
        ("transition", TRANSITION[:, :, :2], r"\(3, 2, 2\).*must end with \(3, 2, 3\)"),
        ("transition", TRANSITION[:2], r"must end with \(3, 2, 3\)"),
        ("transition", TRANSITION[0], r"wanted \(\*batch, S, A\) and \(\*batch, S, A, S\)"),
        ("transition", TRANSITION.long(), r"transition is torch\.int64"),
        ("transition", TRANSITION.float(), r"transition has dtype torch\.float32 and reward torch\.float64"),
        ("transition", TRANSITION.to("meta"), r"transition is on meta and reward on cpu"),
    ],
    ids=lambda it: "tensor" if isinstance(it, Tensor) else str(it),
)
def test_numbers_that_make_no_decision_process_are_named(
    name: str, value: Any, complaint: str | None, given_in_the_call: bool
) -> None:
    call = {name: value} if given_in_the_call else {}
    made = layer(**({} if given_in_the_call else {name: value}))
    if complaint is None:
        assert made(REWARD, **call).value.shape == (2, 5, 3)
        return
    with pytest.raises(InputError, match=complaint):
        made(REWARD, **call)


@pytest.mark.parametrize(
    ("reward", "complaint"),
    [
        (REWARD.long(), r"reward is torch\.int64; wanted a real"),
        (REWARD.cdouble(), r"reward is torch\.complex128"),
        (REWARD.tolist(), r"reward is list"),
        (REWARD[0], r"reward has shape \(2,\)"),
        (REWARD.T, r"with a reward of \(2, 3\) it must end with \(2, 3, 2\)"),
        (REWARD[:0], r"must end with \(0, 2, 0\)"),
        (REWARD.float(), r"transition has dtype torch\.float64 and reward torch\.float32"),
        (REWARD * torch.nan, r"reward contains NaN or infinity"),
        (REWARD / 0, r"reward contains NaN or infinity"),
        (REWARD.to("meta"), r"transition is on cpu and reward on meta"),
    ],
    ids=["int", "complex", "list", "flat", "transposed", "empty", "float32", "NaN", "inf", "meta"],
)
def test_rewards_that_are_none_are_refused(reward: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        layer()(reward)


def test_a_bad_number_under_a_transform_is_refused_as_well() -> None:
    with pytest.raises(InputError, match="discount is 1"):
        torch.func.grad(lambda d: layer()(REWARD, discount=d).value.sum())(torch.ones((), dtype=D))
    with pytest.raises(InputError, match="NaN"):
        torch.func.vmap(layer())(torch.stack([REWARD, REWARD * torch.nan]))


def test_batches_that_do_not_fit_are_shown() -> None:
    with pytest.raises(InputError, match=r"batches .* differ: \(2, 3, 2\), \(4, 3, 2, 3\), \(\), \(\)"):
        layer()(REWARD.expand(2, 3, 2), transition=TRANSITION.expand(4, 3, 2, 3))


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InputError, match=r"^transition and discount and temperature not given"):
        SoftBellman()(REWARD)
    with pytest.raises(InputError, match=r"^temperature not given: pass it to"):
        SoftBellman(TRANSITION, discount=0.5)(REWARD)


@pytest.mark.parametrize(("setting", "value"), [("gradient", "cg"), ("gradient", Direct()), ("on_failure", "stop")])
def test_settings_of_another_kind(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{setting} is"):
        layer(**{setting: value})(REWARD)


def test_what_is_given_in_the_call_comes_first_and_receives_gradients() -> None:
    given = {
        "transition": TRANSITION.flip(0).clone().requires_grad_(),
        "discount": torch.tensor(0.3, dtype=D, requires_grad=True),
        "temperature": torch.tensor(2.0, dtype=D, requires_grad=True),
    }
    solution = layer()(REWARD, **given)
    fresh = SoftBellman(TRANSITION.flip(0), discount=0.3, temperature=2.0)(REWARD)
    torch.testing.assert_close(solution.policy.detach(), fresh.policy)
    solution.policy[0, 0].backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in given.values())


def test_discount_zero_is_a_softmax_of_the_reward() -> None:
    torch.testing.assert_close(layer(discount=0)(REWARD).policy, torch.softmax(REWARD / 0.5, -1))


def test_the_certificate_tells_what_happened() -> None:
    made = layer()
    reward = REWARD.expand(4, 3, 2).clone().requires_grad_()
    solution = made(reward)
    certificate = made.certificate
    assert certificate is not None
    assert certificate.what == "soft Bellman"
    assert certificate.status.tolist() == [Status.CONVERGED] * 4
    backup = 0.5 * torch.logsumexp((REWARD + 0.9 * TRANSITION @ solution.value[0].detach()) / 0.5, -1)
    truth = (solution.value[0].detach() - backup).abs().amax()
    assert abs(float(certificate.stationarity[0] - truth)) < 1e-14
    assert (certificate.stationarity <= certificate.tolerance).all()
    assert certificate.adjoint is None
    solution.value.sum().backward()
    assert certificate.adjoint is not None
    assert certificate.adjoint_residual is not None
    assert (certificate.adjoint_residual < 1e-12).all()
    made(REWARD)
    assert made.certificate is not certificate


def test_a_reward_too_large_for_its_dtype_fails_as_asked() -> None:
    huge = REWARD.sign() * 1.7e308
    with pytest.raises(errors.Diverged, match="soft Bellman met an infinite or NaN number"):
        layer()(huge)
    with pytest.warns(SolveWarning, match="soft Bellman"):
        layer(on_failure="warn")(huge)
    silent = layer(on_failure="ignore")
    silent(huge)
    assert silent.certificate is not None
    assert bool(silent.certificate.failed)


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_layer_travels_with_its_certificate(travel: Callable[[Any], Any]) -> None:
    made = layer(discount=torch.tensor(0.7, dtype=D), gradient=Implicit(Direct(damping=0.0)))
    made(REWARD)
    arrived = travel(made)
    assert arrived.certificate.steps == made.certificate.steps  # type: ignore[union-attr]
    assert torch.equal(arrived(REWARD).policy, made(REWARD).policy)
    assert repr(arrived) == repr(made)


def test_a_layer_follows_to_and_saves_nothing() -> None:
    made = layer(discount=torch.tensor(0.7, dtype=D)).to(torch.float32)
    assert made(REWARD.float()).value.dtype == torch.float32
    assert len(made.state_dict()) == 0
    assert list(made.parameters()) == []


def test_repr_shows_the_settings() -> None:
    assert repr(layer()) == "SoftBellman(transition=(3, 2, 3), discount=0.9, temperature=0.5)"
    assert repr(SoftBellman()) == "SoftBellman(transition=None, discount=None, temperature=None)"


def test_nothing_given_is_changed_and_nothing_remembered() -> None:
    reward, transition = REWARD.clone().requires_grad_(), TRANSITION.clone()
    made = SoftBellman(transition, discount=0.9, temperature=0.5)
    first = made(reward)
    made(10 * REWARD)
    again = made(reward)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert torch.equal(transition, TRANSITION)
    assert reward.grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_derivatives_it_still_solves(mode: Callable[[], Any]) -> None:
    with mode():
        policy = layer()(REWARD).policy
    assert not policy.requires_grad
    assert torch.equal(policy, layer()(REWARD).policy)
