"""The lower level: stable-baselines3's SAC at a fixed temperature."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from torch import Tensor, nn


class SoftAgent(SAC):
    """SAC whose temperature stays fixed, as the soft Bellman relation needs it to.

    Two things are added. Warm-up actions persist for a few steps, which reaches further than white noise. Updates can
    be put off: while :attr:`holding`, the policy stays as it is and the updates that fall due are made up for
    afterwards, so that the steps collected meanwhile are the current policy's own.

    Attributes:
        holding: whether updates are put off.
        owed: updates that have been put off.
    """

    change_action = 0.1  # probability that a warm-up action is drawn anew
    holding = False
    owed = 0
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
        scaled = self.policy.scale_action(fresh)
        return self.policy.unscale_action(scaled), scaled

    @property
    def observation(self) -> Any:
        """What the environment was last seen as, before the step that is being taken."""
        return self._last_obs

    @property
    def updates(self) -> int:
        """How often the policy has been updated."""
        return self._n_updates

    @torch.no_grad()
    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log-density of scaled actions ``(N, action)`` at ``observation`` ``(N, observation)``."""
        # The squashed Gaussian has no density at the very edge.
        return self._distribution(observation).log_prob(action.clamp(-1 + 1e-6, 1 - 1e-6))

    @torch.no_grad()
    def draw(self, observation: Tensor, count: int) -> Tensor:
        """``count`` fresh scaled actions at each observation ``(N, observation)``: ``(count, N, action)``."""
        distribution = self._distribution(observation)
        return torch.stack([distribution.sample() for _ in range(count)])

    @torch.no_grad()
    def features(self, observation: Tensor, action: Tensor) -> Tensor:
        """The critics' last hidden layers side by side, ``(*leading shape, d)``."""
        both = torch.cat([observation, action], -1)
        return torch.cat(
            [nn.Sequential(*list(network.children())[:-1])(both) for network in self.critic.q_networks], -1
        )

    def _distribution(self, observation: Tensor) -> SquashedDiagGaussianDistribution:
        mean, log_std, _ = self.actor.get_action_dist_params(observation)
        return SquashedDiagGaussianDistribution(mean.shape[-1]).proba_distribution(mean, log_std)
