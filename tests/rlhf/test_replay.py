"""The buffer hands out the reward model's rewards; segments and episodes are those that a plain search finds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces

from bigrad.rlhf import RelabelledReplayBuffer, RewardEnsemble


class Record:
    """A buffer of ``capacity`` and a plain list of every step it was given; a step's observation is its number."""

    def __init__(self, capacity: int, steps: int, seed: int, ends: float = 0.2, dtype: type = np.float32) -> None:
        box = spaces.Box(-np.inf, np.inf, (1,), dtype)
        self.buffer = RelabelledReplayBuffer(capacity, box, spaces.Box(-1, 1, (1,), np.float32), "cpu")
        random = np.random.default_rng(seed)
        self.done = random.random(steps) < ends
        self.cut = self.done & (random.random(steps) < 0.5)
        self.reward = random.normal(size=steps).astype(np.float32)
        for number in range(steps):
            here, there, action = np.full((3, 1, 1), number, dtype) + np.array([0, 1, 0])[:, None, None]
            infos = [{"TimeLimit.truncated": bool(self.cut[number])}]
            reward, done = self.reward[number : number + 1], self.done[number : number + 1]
            self.buffer.add(here, there, np.tanh(action), reward, done, infos)
        self.total, self.oldest = steps, max(0, steps - capacity)

    def numbers(self, places: np.ndarray) -> list[int]:
        return [int(number) for number in self.buffer.observations[places, 0, 0]]


# capacity and steps: not full, just full, wrapped a little, wrapped often
SIZES = [(40, 0), (40, 1), (40, 23), (40, 40), (40, 47), (40, 173), (7, 100)]


@pytest.mark.parametrize(("capacity", "steps"), SIZES)
@pytest.mark.parametrize("length", [1, 2, 5, 8])
@pytest.mark.parametrize("seed", range(3))
def test_segments_start_where_a_search_finds_them(capacity: int, steps: int, length: int, seed: int) -> None:
    record = Record(capacity, steps, seed)
    expected = [
        first
        for first in range(record.oldest, record.total - length + 1)
        if not record.done[first : first + length - 1].any()
    ]
    starts = record.buffer.segment_starts(length)
    assert record.numbers(starts) == expected
    if expected:
        places = record.buffer.segment(starts, length)
        assert [record.numbers(row) for row in places] == [list(range(n, n + length)) for n in expected]
        returns = [record.reward[n : n + length].sum() for n in expected]
        np.testing.assert_allclose(record.buffer.true_returns(starts, length), returns, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("capacity", "steps"), SIZES)
@pytest.mark.parametrize("recent", [1, 2, 6, 7, 20, 39, 40, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_recent_episodes_are_those_a_search_finds(capacity: int, steps: int, recent: int, seed: int) -> None:
    record = Record(capacity, steps, seed)
    expected, first = [], 0
    for number in np.flatnonzero(record.done):
        # Once steps were overwritten, nobody knows whether the oldest one begins an episode.
        begins = first > record.oldest or (first == 0 and steps < capacity)
        if begins and first >= record.total - recent:
            expected.append(list(range(first, int(number) + 1)))
        first = int(number) + 1
    assert [record.numbers(places) for places in record.buffer.recent_episodes(recent)] == expected


def test_a_running_episode_is_no_recent_one() -> None:
    record = Record(40, 20, 0, ends=0.0)
    assert record.buffer.recent_episodes(20) == []


def model() -> RewardEnsemble:
    return RewardEnsemble(1, 1, 2, 8, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sampled_rewards_are_the_models_and_the_true_ones_are_kept(dtype: type) -> None:
    record = Record(40, 60, 0, dtype=dtype)
    true = record.buffer.rewards.copy()
    record.buffer.reward_model = model()
    samples = record.buffer.sample(100)
    expected = model()(samples.observations.float(), samples.actions).detach()
    assert samples.rewards.shape == (100, 1)
    assert not samples.rewards.requires_grad
    torch.testing.assert_close(samples.rewards[:, 0], expected)
    assert (record.buffer.rewards == true).all()


def test_without_a_model_the_true_rewards_are_handed_out() -> None:
    record = Record(200, 60, 0)
    samples = record.buffer.sample(100)
    numbers = samples.observations[:, 0].long()
    assert torch.equal(samples.rewards[:, 0], torch.from_numpy(record.reward)[numbers])


class Counted(RewardEnsemble):
    """Counts the steps that it is asked about."""

    asked = 0

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        self.asked += len(observation)
        return super().forward(observation, action)


def test_a_model_that_changes_changes_what_is_handed_out_next() -> None:
    record = Record(40, 40, 0)
    record.buffer.reward_model = changing = model()
    with torch.no_grad():
        changing.biases[-1].fill_(7.0)
        changing.weights[-1].zero_()
    torch.testing.assert_close(record.buffer.sample(5).rewards, torch.full((5, 1), 7.0))


def test_a_model_that_is_assigned_again_is_asked_again() -> None:
    record = Record(40, 40, 0)
    record.buffer.reward_model = changing = model()
    record.buffer.sample(100)
    with torch.no_grad():
        changing.biases[-1].fill_(7.0)
        changing.weights[-1].zero_()
    record.buffer.reward_model = changing
    torch.testing.assert_close(record.buffer.sample(5).rewards, torch.full((5, 1), 7.0))


def test_a_model_looks_at_each_step_once() -> None:
    record = Record(40, 40, 0)
    record.buffer.reward_model = counted = Counted(1, 1, 2, 8)
    for _ in range(20):
        record.buffer.sample(100)
    first = counted.asked
    assert 40 <= first <= 100 + 40  # the first batch of a hundred may hold a step more than once
    record.buffer.sample(100)
    assert counted.asked == first


def test_a_step_that_takes_the_place_of_another_is_looked_at() -> None:
    record = Record(40, 40, 0)
    record.buffer.reward_model = counted = Counted(1, 1, 2, 8)
    while np.isnan(record.buffer.learnt).any():
        record.buffer.sample(100)
    step = np.full((1, 1), 1e3, np.float32)
    record.buffer.add(step, step + 1, step / 2e3, np.zeros(1), np.zeros(1), [{}])
    samples = record.buffer.sample(500)
    assert (samples.observations == 1e3).any()
    with torch.no_grad():
        expected = RewardEnsemble.forward(counted, samples.observations, samples.actions)
    torch.testing.assert_close(samples.rewards[:, 0], expected)


def test_two_models_of_one_buffer_keep_apart() -> None:
    record = Record(40, 40, 0)
    other = copy.copy(record.buffer)
    record.buffer.reward_model, other.reward_model = model(), RewardEnsemble(1, 1, 2, 8)
    for buffer in (record.buffer, other):
        samples = buffer.sample(100)
        assert buffer.reward_model is not None
        expected = buffer.reward_model(samples.observations, samples.actions).detach()
        torch.testing.assert_close(samples.rewards[:, 0], expected)


def test_an_episode_goes_on_after_a_time_limit() -> None:
    record = Record(60, 50, 1, ends=0.5)
    following, goes_on = record.buffer.next_steps(np.arange(50))
    assert torch.equal(following[:, 0], torch.arange(1, 51, dtype=torch.float32))
    assert goes_on.tolist() == (~record.done | record.cut).astype(float).tolist()
    assert 0 < goes_on.sum() < 50


def test_steps_keep_the_shape_of_their_places() -> None:
    record = Record(40, 40, 0, dtype=np.float64)
    observation, action = record.buffer.steps(np.arange(12).reshape(2, 3, 2))
    assert observation.shape == action.shape == (2, 3, 2, 1)
    assert observation.dtype == action.dtype == torch.float32
    assert observation.flatten().tolist() == list(range(12))
