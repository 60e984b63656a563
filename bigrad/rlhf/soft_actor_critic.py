"""Continuous actions: stable-baselines3's SAC at a fixed temperature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from torch import Tensor, nn

from .agent import SoftAgent, looked_at


class SquashedGaussianAgent(SoftAgent):
    """An agent whose actor draws from a Gaussian and squashes: SAC, TQC and their kin."""

    actor: Any
    critic: Any

    log_ent_coef: Tensor | None
    ent_coef_optimizer: torch.optim.Adam | None
    least_temperature: float | None = None

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        temperature: float = 0.1,
        least_temperature: float | None = None,
        **settings: Any,
    ) -> None:
        self.temperature, self.least_temperature = temperature, least_temperature
        entropy = temperature if least_temperature is None else f"auto_{temperature}"
        super().__init__(policy, env, **{"ent_coef": entropy, **settings})
        if self.ent_coef_optimizer is not None:
            self.ent_coef_optimizer.register_step_post_hook(lambda *_: self.settle())

    @torch.no_grad()
    def settle(self) -> None:
        """Take the learnt temperature for the temperature, and keep it above the least one."""
        if self.log_ent_coef is not None:
            self.log_ent_coef.clamp_(min=math.log(self.least_temperature or 0.0))
            self.temperature = float(self.log_ent_coef.exp())

    @torch.no_grad()
    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log-density of scaled actions ``(N, action)`` at ``observation`` ``(N, observation)``."""
        # The squashed Gaussian has no density at the very edge.
        return self._distribution(observation).log_prob(action.clamp(-1 + 1e-6, 1 - 1e-6))

    @torch.no_grad()
    def mean(self, function: Callable[[Tensor, Tensor], Tensor], observation: Tensor, draws: int) -> Tensor:
        """The mean of ``function(observation, action)`` over ``draws`` fresh actions of each observation."""
        distribution = self._distribution(observation)
        actions = torch.stack([distribution.sample() for _ in range(draws)])
        if observation.ndim > 2:  # pictures, too many to be looked at together
            return torch.stack([function(observation, action) for action in actions]).mean(0)
        return function(observation.expand(draws, *observation.shape), actions).mean(0)

    @torch.no_grad()
    def features(self, observation: Tensor, action: Tensor) -> Tensor:
        """The critics' last hidden layers side by side, ``(*leading shape, d)``."""
        lead, critic = action.shape[:-1], self.critic
        flat = observation.reshape(-1, *observation.shape[len(lead) :])
        seen = looked_at(lambda part: critic.extract_features(self.seen(part), critic.features_extractor), flat)
        both = torch.cat([seen.reshape(*lead, -1), action], -1)
        networks: list[nn.Sequential] = [network[:-1] for network in critic.q_networks]
        return torch.cat([network(both) for network in networks], -1)

    def _distribution(self, observation: Tensor) -> SquashedDiagGaussianDistribution:
        mean, log_std = looked_at(
            lambda part: torch.stack(self.actor.get_action_dist_params(self.seen(part))[:2], 1), observation
        ).unbind(1)
        return SquashedDiagGaussianDistribution(mean.shape[-1]).proba_distribution(mean, log_std)


class SoftActorCritic(SquashedGaussianAgent, SAC):
    """SAC whose temperature stays fixed, as the soft Bellman relation needs it to, or has a least value.

    Args:
        policy: as stable-baselines3 has it.
        env: an environment with bounded continuous actions.
        temperature: weight of the entropy.
        least_temperature: given, the temperature is learnt as SAC does, but does not fall below.
        settings: any other argument of SAC.

    Source: Soft Actor-Critic (Haarnoja, Zhou, Abbeel, Levine, 2018).
    """

    origin = "stable-baselines3 SAC"
