"""One step on the reward model follows the direct gradient plus the response's; pairs are drawn without a hint."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrad.errors import Diverged
from bigrad.rlhf import (
    Pairs,
    RewardEnsemble,
    UpperStep,
    batches,
    draw_pairs,
    response_gradient,
    signal_share,
    upper_step,
)

from .test_replay import Record

Term = Callable[[], Tensor]
LABEL = torch.tensor([1.0, 0.0, 0.5, 0.3, 1.0, 0.0])


def model() -> RewardEnsemble:
    return RewardEnsemble(3, 1, 2, 8, torch.Generator().manual_seed(0))


def pairs() -> Pairs:
    generator = torch.Generator().manual_seed(1)
    observation, action = (torch.randn(6, 2, 5, size, generator=generator) for size in (3, 1))
    return Pairs(observation, action, np.zeros((6, 2)))


def direct(reward: RewardEnsemble) -> tuple[Tensor, Tensor]:
    """The mean preference loss, with a loop over everything, and its gradient."""
    losses = []
    for pair, label in enumerate(LABEL):
        left, right = (reward.raw(pairs().observation[pair, side], pairs().action[pair, side]) for side in (0, 1))
        for logit in right.sum(-1) - left.sum(-1):
            chance = torch.sigmoid(logit)
            losses.append(-label * chance.log() - (1 - label) * (1 - chance).log())
    loss = torch.stack(losses).mean()
    return loss.detach(), flat(torch.autograd.grad(loss, list(reward.parameters())))


def flat(tensors: object) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])  # type: ignore[attr-defined]


def term(reward: RewardEnsemble, scale: float) -> Term:
    return lambda: (
        scale * sum((parameter.sin() * (1 + place)).sum() for place, parameter in enumerate(reward.parameters()))
    )


def response_of(reward: RewardEnsemble) -> Tensor:
    """The gradient of ``term(reward, 1)``."""
    return flat([parameter.cos() * (1 + place) for place, parameter in enumerate(reward.parameters())])


def follow(reward: RewardEnsemble, terms: list[Term], weight: float = 1.0, limit: float = 1e9) -> UpperStep:
    """One step of size 1 against the gradient."""
    response = response_gradient(terms, reward, weight)
    return upper_step(reward, torch.optim.SGD(reward.parameters(), lr=1.0), pairs(), LABEL, response, limit)


@pytest.mark.parametrize("scales", [[], [0.01], [0.02, -0.05]])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_a_step_follows_the_direct_gradient_and_the_responses(scales: list[float], weight: float) -> None:
    reward = model()
    before, (loss, gradient), response = flat(reward.parameters()), direct(reward), response_of(reward)
    step = follow(reward, [term(reward, s) for s in scales], weight)
    share = weight * float(np.mean(scales)) if scales else 0.0
    torch.testing.assert_close(before - flat(reward.parameters()), gradient + share * response, rtol=1e-4, atol=1e-6)
    assert step.loss == pytest.approx(float(loss), rel=1e-5)
    assert step.ratio == pytest.approx(abs(share) * float(response.norm() / gradient.norm()), rel=1e-4)
    assert step.estimated == step.ratio
    assert all(parameter.grad is None for parameter in reward.parameters())


@pytest.mark.parametrize("limit", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("scale", [0.01, -3.0])
def test_a_response_beyond_the_limit_is_shortened_and_keeps_its_direction(scale: float, limit: float) -> None:
    reward = model()
    before, (_, gradient), response = flat(reward.parameters()), direct(reward), scale * response_of(reward)
    step = follow(reward, [term(reward, scale)], limit=limit)
    estimated = float(response.norm() / gradient.norm())
    assert estimated > 0.5
    used = response * limit / estimated
    torch.testing.assert_close(before - flat(reward.parameters()), gradient + used, rtol=1e-4, atol=1e-6)
    assert step.estimated == pytest.approx(estimated, rel=1e-4)
    assert step.ratio == pytest.approx(limit)


def test_gradients_left_by_someone_else_do_not_matter() -> None:
    clean, dirty = model(), model()
    dirty(pairs().observation, pairs().action).sum().backward()
    for reward in (clean, dirty):
        follow(reward, [])
    assert torch.equal(flat(clean.parameters()), flat(dirty.parameters()))


def test_steps_fit_the_labels() -> None:
    reward = model()
    optimizer = torch.optim.Adam(reward.parameters(), lr=1e-2)
    losses = [upper_step(reward, optimizer, pairs(), LABEL.round(), [], 1.0).loss for _ in range(200)]
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e38])
def test_a_gradient_that_is_not_finite_stops_the_run(scale: float) -> None:
    reward = model()
    before = flat(reward.parameters())
    with pytest.raises(Diverged, match="reward_step or response_weight"):
        follow(reward, [term(reward, scale)], weight=1e3)
    assert torch.equal(flat(reward.parameters()), before)


COUNT, RECENT, LENGTH = 2000, 40, 3


@pytest.fixture(scope="module")
def drawn() -> tuple[Record, Pairs, np.ndarray]:
    """A record, pairs drawn from it, and the number of the first step of each segment."""
    record = Record(200, 300, 0)
    found = draw_pairs(record.buffer, COUNT, RECENT, LENGTH, np.random.default_rng(0))
    assert found is not None
    return record, found, found.observation[:, :, 0, 0].numpy().astype(int)


def test_pairs_are_segments_with_their_true_returns(drawn: tuple[Record, Pairs, np.ndarray]) -> None:
    record, found, first = drawn
    assert found.observation.shape == found.action.shape == (COUNT, 2, LENGTH, 1)
    steps = first[..., None] + np.arange(LENGTH)
    assert (found.observation[..., 0].numpy() == steps).all()
    assert not record.done[steps[..., :-1]].any()
    np.testing.assert_allclose(found.returns, record.reward[steps].sum(-1), rtol=1e-5, atol=1e-6)


def test_one_of_each_pair_is_recent_and_the_other_comes_from_everywhere(
    drawn: tuple[Record, Pairs, np.ndarray],
) -> None:
    record, _, first = drawn
    starts = record.numbers(record.buffer.segment_starts(LENGTH))
    recent = np.isin(first, starts[-RECENT:])
    assert recent.any(1).all()
    assert set(first.flat) == set(starts)
    share = RECENT / len(starts)
    assert abs(recent.all(1).mean() - share) < 4 * np.sqrt(share * (1 - share) / COUNT)


def test_the_side_does_not_tell_which_segment_is_recent(drawn: tuple[Record, Pairs, np.ndarray]) -> None:
    _, _, first = drawn
    apart = first[:, 0] != first[:, 1]
    newer_is_right = (first[:, 1] > first[:, 0])[apart]
    assert abs(newer_is_right.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(newer_is_right))


def test_pairs_follow_the_generator(drawn: tuple[Record, Pairs, np.ndarray]) -> None:
    record, found, _ = drawn
    again, other = (draw_pairs(record.buffer, COUNT, RECENT, LENGTH, np.random.default_rng(seed)) for seed in (0, 1))
    assert again is not None
    assert other is not None
    assert torch.equal(found.observation, again.observation)
    assert not torch.equal(found.observation, other.observation)


def test_without_a_long_enough_episode_there_is_no_pair() -> None:
    record = Record(50, 50, 0, ends=1.0)
    assert draw_pairs(record.buffer, 5, 50, 2, np.random.default_rng(0)) is None


@pytest.mark.parametrize(("count", "size", "steps"), [(10, 4, 6), (100, 32, 9), (3, 5, 4), (1, 1, 2)])
def test_every_pair_has_its_turn_before_any_comes_again(count: int, size: int, steps: int) -> None:
    found = list(batches(count, size, steps, np.random.default_rng(0)))
    assert len(found) == steps
    assert max(len(batch) for batch in found) <= size
    parts = -(-count // size)
    for start in range(0, steps - parts + 1, parts):
        assert sorted(np.concatenate(found[start : start + parts]).tolist()) == list(range(count))
    epochs = [np.concatenate(found[k : k + parts]).tolist() for k in range(0, steps - parts + 1, parts)]
    if parts > 1 and len(epochs) > 1:
        assert epochs[0] != epochs[1]


def test_the_share_of_signal_leaves_the_least_error() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(20_000, generator=generator)
    left, right = (truth + 3 * torch.randn(20_000, generator=generator) for _ in range(2))
    mean = (left + right) / 2
    assert signal_share(left, right) == pytest.approx(float(mean @ truth / (mean @ mean)), abs=0.04)
    assert signal_share(left, -left) == 0
    assert signal_share(truth, truth) == pytest.approx(1)
