"""Segments that reach beyond the end of their episode: which ones there are, and what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bigrad.errors import InputError
from bigrad.rlhf import PreferenceTrainer, RewardEnsemble, draw_pairs, segment_losses

from . import tiny
from .test_replay import SIZES, Record, model

MODES = ["zero", "absorb", "exclude"]


def record_of(mode: str, capacity: int, steps: int, seed: int) -> Record:
    record = Record(capacity, steps, seed)
    record.buffer.after_end = mode
    return record


def expected_starts(record: Record, mode: str, length: int) -> list[int]:
    """Whole segments, and those whose episode ends by itself before they do."""
    found = []
    for first in range(record.oldest, record.total):
        ends = [n for n in range(first, min(first + length - 1, record.total)) if record.done[n]]
        whole = not ends and first + length <= record.total
        if whole or (mode != "exclude" and ends and not record.cut[ends[0]]):
            found.append(first)
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("capacity", "steps"), SIZES)
@pytest.mark.parametrize("length", [1, 2, 5])
def test_segments_are_those_of_a_search(mode: str, capacity: int, steps: int, length: int) -> None:
    record = record_of(mode, capacity, steps, 1)
    starts = record.buffer.segment_starts(length)
    numbers = record.numbers(starts)
    assert numbers == expected_starts(record, mode, length)
    places = record.buffer.segment(starts, length)
    returns = record.buffer.true_returns(starts, length)
    for first, row, total in zip(numbers, places, returns, strict=True):
        held = [first]
        while len(held) < length and not record.done[held[-1]]:
            held.append(held[-1] + 1)
        missing = length - len(held)
        if mode == "absorb":
            held += [held[-1]] * missing
            assert record.numbers(row) == held
        else:
            assert record.numbers(row[: len(held)]) == held
            assert (row[len(held) :] == -1).all()
        assert total == pytest.approx(sum(record.reward[n] for n in held), rel=1e-5, abs=1e-6)


def test_padding_is_an_action_of_nan_and_its_observation_and_reward_are_zero() -> None:
    record = record_of("zero", 60, 50, 0)
    places = record.buffer.segment(record.buffer.segment_starts(5), 5)
    observation, action = record.buffer.steps(places)
    assert (places < 0).any()
    assert (action.isnan().squeeze(-1).numpy() == (places < 0)).all()
    assert (observation[torch.from_numpy(places < 0)] == 0).all()
    assert (observation[torch.from_numpy(places >= 0)] != 0).any()
    assert (record.buffer.true_rewards(places)[places < 0] == 0).all()
    assert torch.isfinite(record.buffer.steps(np.arange(50))[0]).all()


def test_a_segment_may_be_longer_than_every_episode() -> None:
    record = Record(60, 50, 0, ends=0.8)
    record.buffer.after_end = "zero"
    pairs = draw_pairs(record.buffer, 30, 20, 12, np.random.default_rng(0))
    assert pairs is not None
    assert pairs.action.isnan().any()
    assert np.isfinite(pairs.returns).all()


def padded_steps() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    observation, action = (torch.randn(4, 2, 6, size, generator=generator) for size in (3, 1))
    action[1, 0, 4:] = torch.nan
    action[2, 1, 1:] = torch.nan
    observation[2, 1, 1:] = 0
    return observation, action


def test_padding_counts_nothing_in_a_total_and_gets_no_gradient() -> None:
    reward, (observation, action) = RewardEnsemble(3, 1, 2, 8, torch.Generator().manual_seed(0)), padded_steps()
    totals = reward.totals(observation, action)
    expected = torch.zeros(2, 4, 2)
    for pair in range(4):
        for side in range(2):
            steps = [t for t in range(6) if not action[pair, side, t].isnan().any()]
            expected[:, pair, side] = reward.raw(observation[pair, side, steps], action[pair, side, steps]).sum(-1)
    torch.testing.assert_close(totals, expected)
    found = torch.autograd.grad(totals.square().sum(), list(reward.parameters()))
    wanted = torch.autograd.grad(expected.square().sum(), list(reward.parameters()))
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right)


def test_expected_losses_take_padding_for_nothing() -> None:
    reward, (observation, action) = RewardEnsemble(3, 1, 2, 8, torch.Generator().manual_seed(0)), padded_steps()
    own = (observation[:, 0], action[:, 0])
    short = (observation[1:2, 0, :4], action[1:2, 0, :4])
    other = (torch.randn(5, 6, 3), torch.randn(5, 6, 1))
    assert torch.isfinite(segment_losses(reward, own, other)).all()
    torch.testing.assert_close(segment_losses(reward, own, other)[1:2], segment_losses(reward, short, other))


def test_an_absorbing_end_is_worth_its_reward_for_ever() -> None:
    record = record_of("absorb", 60, 60, 0)
    record.buffer.discount = 0.75
    record.buffer.reward_model = model()
    samples = record.buffer.sample(400)
    number = samples.observations[:, 0].long().numpy()
    ended = record.done[number] & ~record.cut[number]
    plain = model()(samples.observations, samples.actions).detach()
    expected = torch.where(torch.from_numpy(ended), 4 * plain, plain)
    assert 0 < ended.sum() < 400
    torch.testing.assert_close(samples.rewards[:, 0], expected)
    record.buffer.reward_model = None
    assert torch.equal(record.buffer.sample(50).rewards.abs() <= 6, torch.ones(50, 1, dtype=torch.bool))


@pytest.mark.parametrize("episodes", [1, 3, 100])
@pytest.mark.parametrize(("capacity", "steps"), [(60, 50), (40, 100)])
def test_the_scale_is_that_of_the_last_episodes(episodes: int, capacity: int, steps: int) -> None:
    record = record_of("zero", capacity, steps, 4)
    scale = record.buffer.return_scale(3, episodes)
    ends = [n for n in range(record.oldest, record.total) if record.done[n]]
    first = ends[-episodes - 1] + 1 if len(ends) > episodes else record.oldest
    assert scale.mean == pytest.approx(3 * float(np.mean(record.reward[first : ends[-1] + 1])), rel=1e-4)
    returns = []
    for start in expected_starts(record, "zero", 3):
        if first <= start <= ends[-1]:
            held = [start]
            while len(held) < 3 and not record.done[held[-1]]:
                held.append(held[-1] + 1)
            returns.append(sum(record.reward[n] for n in held))
    assert scale.spread == pytest.approx(np.std(returns), rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_runs_on_episodes_that_end_are_served(mode: str) -> None:
    run = tiny.trainer("Tiny/Fenced-v0", after_end=mode)
    assert run.learn().labels == tiny.LABELS
    pairs = run.store.load()[0]
    assert bool(pairs.action.isnan().any()) == (mode == "zero")
    assert (float(run.reward_model.mean) == 0) == (mode == "zero")
    if mode == "zero":
        seen = np.arange(tiny.rounds(run)[-1]["step"])
        every = run.reward_model(*run.buffer.steps(seen))
        assert run.buffer.ended(seen).any()
        assert abs(float(every.detach().square().mean()) - 1) < 1e-4


def test_a_time_limit_is_no_end(finished: tuple[PreferenceTrainer, Path]) -> None:
    """Episodes of ten steps, cut by the clock, show nothing of what comes after."""
    with pytest.raises(InputError, match=r"no episode of Tiny/Point-v0 has lasted 11 steps"):
        tiny.trainer(segment=11).learn()
    run = tiny.trainer(after_end="exclude")
    run.learn()
    assert finished[0].settings.after_end == "zero"
    assert torch.equal(tiny.parameters(run), tiny.parameters(finished[0]))


def test_segments_longer_than_every_episode_are_learnt_from() -> None:
    run = tiny.trainer("Tiny/Short-v0", segment=8)
    assert run.learn().labels == tiny.LABELS
    pairs, label = run.store.load()
    assert pairs.action.isnan().any(-1).any(-1).all()
    assert len(label) == tiny.LABELS
