"""Values that are solved for on the steps of the buffer, and differentiated through the rewards of these steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..mdp import LeastSquaresCritic
from .agent import SoftAgent
from .replay import RelabelledReplayBuffer
from .reward_model import RewardEnsemble
from .soft_dqn import SoftDQN


@dataclass(frozen=True)
class Features:
    """What values are taken to be linear in: a constant, and the last layers of the agent's values and of the reward.

    Attributes:
        agent: whose values.
        reward: whose last layers.
        draws: fresh actions for each expectation.
    """

    agent: SoftAgent
    reward: RewardEnsemble
    draws: int

    @torch.no_grad()
    def __call__(self, observation: Tensor, action: Tensor) -> Tensor:
        """``(*leading shape, d)``."""
        parts = [self.agent.features(observation, action), self.reward.features(observation, action)]
        return torch.cat([torch.ones_like(parts[0][..., :1]), *parts], -1)

    def expected(self, observation: Tensor, agent: SoftAgent | None = None) -> Tensor:
        """Their mean over the actions of the agent, or of another one."""
        actor = agent or self.agent
        if self.reward.heads and isinstance(actor, SoftDQN):  # all are linear in the action: one look is enough
            return self(observation, actor.probabilities(observation))
        return actor.mean(self, observation, self.draws)

    def change(self, observation: Tensor, action: Tensor) -> Tensor:
        """What taking this action changes in them."""
        return self(observation, action) - self.expected(observation)


@dataclass(frozen=True)
class Transitions:
    """Steps of the buffer, ``N`` of them, and the features of what follows.

    Attributes:
        observation, action: where each begins.
        now: their features ``(N, d)``.
        following, goes_on: the next observations, and 1 where the episode went on.
        absorbs: whether the last step of an episode is followed by itself.
    """

    observation: Tensor
    action: Tensor
    now: Tensor
    following: Tensor
    goes_on: Tensor
    absorbs: bool

    @classmethod
    def draw(
        cls, buffer: RelabelledReplayBuffer, features: Features, count: int, random: np.random.Generator
    ) -> Transitions:
        """Some of the whole buffer, none twice."""
        return cls.at(buffer, features, random.choice(buffer.count, min(count, buffer.count), False))

    @classmethod
    def at(cls, buffer: RelabelledReplayBuffer, features: Features, places: np.ndarray) -> Transitions:
        """Those at ``places``."""
        observation, action = buffer.steps(places)
        following, goes_on = buffer.next_steps(places)
        now = features(observation, action)
        return cls(observation, action, now, following, goes_on[:, None], buffer.after_end == "absorb")

    def later(self, features: Features, agent: SoftAgent | None = None) -> Tensor:
        """The features that the policy goes on to, 0 where an episode is over ``(N, d)``."""
        later = features.expected(self.following, agent) * self.goes_on
        return later + self.now * (1 - self.goes_on) if self.absorbs else later

    def value(self, ahead: Tensor, cost: Tensor, ridge: float) -> Tensor:
        """The weights ``(d,)`` of the value of costs: least-squares temporal differences.

        Args:
            ahead: discounted features of where the costs stop ``(N, d)``.
            cost: until then ``(N,)``.
            ridge: relative to the mean of the matrix's diagonal.
        """
        now, count = self.now.double(), len(self.now)
        matrix = now.T @ (now - ahead.double()) / count
        matrix.diagonal().add_(ridge * matrix.diagonal().mean().abs())
        weights: Tensor = torch.linalg.solve(matrix, now.T @ cost.double() / count)
        return weights.to(self.now.dtype)

    def critic(
        self, later: Tensor, wanted: Tensor, discount: float, ridge: float, horizon: int = 0
    ) -> LeastSquaresCritic:
        r"""The least-squares critic of all steps to come, or of the first ``horizon`` of them.

        The latter is the sum :math:`\sum_{k < n} \gamma^k u M^{-1} (N M^{-1})^k` of which the former is the limit,
        with :math:`M = \sum \varphi \varphi^\top` and :math:`N = \sum \varphi \varphi'^\top` over the transitions.

        Args:
            later: what :meth:`later` gave, of the policy that is asked about.
            wanted: the features whose value is asked for, ``(B, H, d)``: u above.
            discount: of the policy's problem.
            ridge: relative to the mean of the matrix's diagonal.
            horizon: 0 for all.
        """
        steps = (self.observation, self.action, self.now)
        if not horizon:
            return LeastSquaresCritic.fit(*steps, later, wanted, discount, ridge)
        critic = LeastSquaresCritic.fit(*steps, torch.zeros_like(later), wanted, discount, ridge)
        now, count = self.now.double(), len(self.now)
        matrix, ahead = now.T @ now / count, discount * now.T @ later.double() / count
        inverse = torch.linalg.inv(matrix + ridge * matrix.diagonal().mean() * torch.eye(len(matrix)).to(matrix))
        power = total = wanted.double() @ inverse
        for _ in range(horizon - 1):
            power = power @ ahead @ inverse
            total = total + power
        return replace(critic, projection=(total / count).to(critic.projection.dtype))
