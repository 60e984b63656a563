"""A replay buffer whose rewards are those of the current reward model, and from which segments are cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from .reward_model import RewardEnsemble
from .teacher import ReturnScale


class RelabelledReplayBuffer(ReplayBuffer):
    """stable-baselines3's buffer; it keeps the true rewards and hands out the reward model's.

    Attributes:
        reward_model: whose reward is handed out; ``None`` hands out the true one.
        after_end: what a segment holds after the end of its episode (a time limit is no end). ``"zero"``: padding, a
            place of -1, at which the observation is NaN, and action and reward are 0. ``"absorb"``: its last step,
            again and again; the model's reward of that step then stands for all that follow, r / (1 - discount).
            ``"exclude"``: there are no such segments.
        discount: of the agent, for ``"absorb"``.
    """

    reward_model: RewardEnsemble | None = None
    after_end: str = "exclude"
    discount: float = 0.0

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        if self.reward_model is None:
            return samples
        with torch.no_grad():
            reward = self.reward_model(samples.observations.float(), self._vectors(samples.actions)).unsqueeze(-1)
        if self.after_end == "absorb":
            reward = torch.where(samples.dones == 1, reward / (1 - self.discount), reward)
        return samples._replace(rewards=reward)

    def steps(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Observations and actions at ``places`` of any shape; NaN and 0 at padding. Discrete actions are one-hot."""
        seen = self.observations[places, 0].astype(np.float32)
        observation, action = self.to_torch(seen), self._vectors(self.to_torch(self.actions[places, 0]))
        padded = places < 0
        if padded.any():
            observation[padded], action[padded] = torch.nan, 0
        return observation, action

    def _vectors(self, actions: Tensor) -> Tensor:
        """Actions as vectors, made of numbers ``(*, 1)`` where they are discrete."""
        if not isinstance(self.action_space, spaces.Discrete):
            return actions
        return torch.nn.functional.one_hot(actions.squeeze(-1).long(), int(self.action_space.n)).float()

    def next_steps(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Next observations, and 1 where the episode went on (a time limit is no end), at ``places``."""
        goes_on = (~self.ended(places)).astype(np.float32)
        return self.to_torch(self.next_observations[places, 0].astype(np.float32)), self.to_torch(goes_on)

    def ended(self, places: np.ndarray) -> np.ndarray:
        """Whether the episode came to its own end with the step at ``places``."""
        ended: np.ndarray = (self.dones[places, 0] > 0) & (self.timeouts[places, 0] == 0)
        return ended

    def segment_starts(self, length: int) -> np.ndarray:
        """Places where a segment of ``length`` steps may begin, oldest first."""
        count = self.size()
        order = (np.arange(count) + (self.pos if self.full else 0)) % self.buffer_size
        # Where the episode of each step is over; the running one's last step is the newest of all.
        last = np.minimum.accumulate(np.where(self.dones[order, 0] > 0, np.arange(count), count - 1)[::-1])[::-1]
        serves = last - np.arange(count) + 1 >= length
        if self.after_end != "exclude":
            serves |= self.ended(order[last])
        starts: np.ndarray = order[serves]
        return starts

    def segment(self, starts: np.ndarray, length: int) -> np.ndarray:
        """The places ``(*starts, length)`` of segments; after the end of the episode see ``after_end``."""
        places = (starts[..., None] + np.arange(length)) % self.buffer_size
        done = self.dones[places, 0]
        over = done.cumsum(-1) - done > 0
        if self.after_end == "absorb":
            last = np.maximum.accumulate(np.where(over, 0, np.arange(length)), -1)
            held: np.ndarray = np.take_along_axis(places, last, -1)
            return held
        padded: np.ndarray = np.where(over, -1, places)
        return padded

    def true_rewards(self, places: np.ndarray) -> np.ndarray:
        """True rewards at ``places`` of any shape, 0 at padding."""
        rewards: np.ndarray = np.where(places < 0, np.float32(0), self.rewards[places, 0])
        return rewards

    def true_returns(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Sums of true rewards of segments."""
        returns: np.ndarray = self.true_rewards(self.segment(starts, length)).sum(-1)
        return returns

    def windows(self, episode: np.ndarray, length: int) -> np.ndarray:
        """Those places of a whole episode where a segment may begin."""
        padded = self.after_end != "exclude" and self.ended(episode[-1])
        return episode if padded else episode[: max(0, len(episode) - length + 1)]

    def return_scale(self, length: int, episodes: int = 10) -> ReturnScale:
        """How large true returns of segments were over the last episodes; over all steps if none is over yet."""
        count = self.size()
        order = (self.pos - count + np.arange(count)) % self.buffer_size
        edges = np.flatnonzero(self.dones[order, 0]) + 1
        if len(edges):
            order = order[edges[-episodes - 1] if len(edges) > episodes else 0 : edges[-1]]
        starts = self.segment_starts(length)
        returns = self.true_returns(starts[np.isin(starts, order)], length)
        spread = float(returns.std()) if len(returns) else 0.0
        return ReturnScale(float(self.rewards[order, 0].mean()) * length, spread)

    def recent_episodes(self, steps: int) -> list[np.ndarray]:
        """The places of every episode that began and ended within the last ``steps`` steps, oldest first."""
        count = min(self.size(), steps)
        order = (self.pos - count + np.arange(count)) % self.buffer_size
        edges = np.flatnonzero(self.dones[order, 0]) + 1
        # An episode begins with the first of these steps where another ended before it, or nothing was overwritten.
        if not self.full if count == self.size() else self.dones[order[0] - 1, 0]:
            edges = np.concatenate([[0], edges])
        return [order[begin:end] for begin, end in pairwise(edges)]
