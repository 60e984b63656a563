"""The lower level: what an agent has to know of its own policy, and updates that can be put off."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor

AT_ONCE = 512  # pictures that are looked at together


def looked_at(look: Callable[[Tensor], Tensor], observation: Tensor) -> Tensor:
    """``look`` of observations ``(N, *)``: of pictures some at a time, since as numbers they take much memory."""
    if observation.ndim < 3:
        return look(observation)
    return torch.cat([look(part) for part in observation.split(AT_ONCE)])


class SoftAgent(OffPolicyAlgorithm):
    """An agent of stable-baselines3 that maximises reward plus entropy at a fixed temperature.

    Two things are added. Warm-up actions persist for a few steps, which reaches further than white noise. Updates can
    be put off: while :attr:`holding`, the policy stays as it is and the updates that fall due are made up for
    afterwards, so that the steps collected meanwhile are the current policy's own.

    Actions are vectors here: scaled to [-1, 1] where they are continuous, one-hot where they are discrete.

    Attributes:
        holding: whether updates are put off.
        owed: updates that have been put off.
        temperature: weight of the entropy.
        origin: whose algorithm it is, for readers of a run's folder.
    """

    origin: ClassVar[str]
    change_action = 0.1  # probability that a warm-up action is drawn anew
    holding = False
    owed = 0
    temperature: float
    _last_random: np.ndarray | None = None

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update, or note that an update is due."""
        if self.holding:
            self.owed += gradient_steps
            return
        super().train(gradient_steps + self.owed, batch_size)
        self.owed = 0

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.num_timesteps >= learning_starts:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        fresh = np.array([self.action_space.sample() for _ in range(n_envs)])
        changes = self.action_space.np_random.random(n_envs) < self.change_action
        if self._last_random is not None:
            fresh = np.where(changes.reshape(-1, *(1,) * (fresh.ndim - 1)), fresh, self._last_random)
        self._last_random = fresh
        if not isinstance(self.action_space, spaces.Box):
            return fresh, fresh
        scaled = self.policy.scale_action(fresh)
        return self.policy.unscale_action(scaled), scaled

    @property
    def observation(self) -> Any:
        """What the environment was last seen as, before the step that is being taken."""
        return self._last_obs

    def seen(self, observation: Tensor) -> Tensor:
        """Observations as the networks see them: of mean 0 and deviation 1 where the run has it so."""
        scale, moments = self._vec_normalize_env, self.moments
        if scale is None or moments is None:
            return observation
        mean, variance = (torch.as_tensor(part).to(observation) for part in (moments.mean, moments.var))
        return ((observation - mean) / torch.sqrt(variance + scale.epsilon)).clamp(-scale.clip_obs, scale.clip_obs)

    @property
    def moments(self) -> RunningMeanStd | None:
        """Of the observations so far; ``None`` where the run does not ask for them."""
        scale = self._vec_normalize_env
        return None if scale is None else cast(RunningMeanStd, scale.obs_rms)

    @property
    def updates(self) -> int:
        """How often the policy has been updated."""
        return self._n_updates

    @abstractmethod
    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log-probability or -density of actions ``(N, action)`` at ``observation`` ``(N, *observation)``: ``(N,)``."""

    @abstractmethod
    def mean(self, function: Callable[[Tensor, Tensor], Tensor], observation: Tensor, draws: int) -> Tensor:
        """The mean of ``function(observation, action)`` over the policy's actions at ``observation`` ``(N, *)``.

        Exact where the actions can be counted, else over ``draws`` fresh actions of each observation.
        """

    @abstractmethod
    def features(self, observation: Tensor, action: Tensor) -> Tensor:
        """What the agent's own values are linear in, ``(*leading shape, d)``."""
