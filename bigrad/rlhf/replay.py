"""A replay buffer whose rewards are those of the current reward model, and from which segments are cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from .reward_model import RewardEnsemble


class RelabelledReplayBuffer(ReplayBuffer):
    """stable-baselines3's buffer; it keeps the true rewards and hands out the reward model's.

    Attributes:
        reward_model: whose reward is handed out; ``None`` hands out the true one.
    """

    reward_model: RewardEnsemble | None = None

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        if self.reward_model is None:
            return samples
        with torch.no_grad():
            reward = self.reward_model(samples.observations.float(), samples.actions)
        return samples._replace(rewards=reward.unsqueeze(-1))

    def steps(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Observations and actions at ``places`` of any shape."""
        observation, action = self.observations[places, 0], self.actions[places, 0]
        return self.to_torch(observation.astype(np.float32)), self.to_torch(action)

    def next_steps(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Next observations, and 1 where the episode went on (a time limit is no end), at ``places``."""
        ended = self.dones[places, 0] * (1 - self.timeouts[places, 0])
        return self.to_torch(self.next_observations[places, 0].astype(np.float32)), self.to_torch(1 - ended)

    def segment_starts(self, length: int) -> np.ndarray:
        """Places where ``length`` steps of one episode begin, oldest first."""
        count = self.size()
        if count < length:
            return np.zeros(0, dtype=np.int64)
        order = (np.arange(count) + (self.pos if self.full else 0)) % self.buffer_size
        ends = np.concatenate([[0], np.cumsum(self.dones[order, 0])])
        # The last step may end its episode; the ones before it may not.
        whole = ends[length - 1 : count] == ends[: count - length + 1]
        starts: np.ndarray = order[: count - length + 1][whole]
        return starts

    def segment(self, starts: np.ndarray, length: int) -> np.ndarray:
        """The places ``(segments, length)`` of segments that begin at ``starts``."""
        places: np.ndarray = (starts[:, None] + np.arange(length)) % self.buffer_size
        return places

    def true_returns(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Sums of true rewards of segments."""
        returns: np.ndarray = self.rewards[self.segment(starts, length), 0].sum(-1)
        return returns

    def recent_episodes(self, steps: int) -> list[np.ndarray]:
        """The places of every episode that began and ended within the last ``steps`` steps, oldest first."""
        count = min(self.size(), steps)
        order = (self.pos - count + np.arange(count)) % self.buffer_size
        edges = np.flatnonzero(self.dones[order, 0]) + 1
        # An episode begins with the first of these steps where another ended before it, or nothing was overwritten.
        if not self.full if count == self.size() else self.dones[order[0] - 1, 0]:
            edges = np.concatenate([[0], edges])
        return [order[begin:end] for begin, end in pairwise(edges)]
