"""PBRL: the policy may bend to the losses, and a second one, that may not, shows what this costs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from ...mdp import LeastSquaresCritic, Segments
from ..agent import SoftAgent
from ..agents import make_agent
from ..critic import Features, Transitions
from ..generators import GlobalGenerators
from ..replay import RelabelledReplayBuffer
from ..response import ResponseSettings, Shown
from ..reward_model import RewardEnsemble
from ..side_by_side import side_by_side
from ..upper_level import Term
from .method import Method


class PBRL(Method):
    r"""Adds :math:`\lambda \nabla_x [V^{\hat \pi}(\rho) - V^y(\rho)]`, the value penalty at two fixed policies.

    y acts: its reward is the model's less :math:`(1 - \gamma) / \lambda` times the loss that a segment ending with the
    step has to expect (of the mean loss of long episodes that is the share of one step). The best response
    :math:`\hat \pi` is a second agent of the same kind, updated as often on the same steps with the model's reward
    alone. Both values are read from one least-squares critic of the steps, with the reward model's own rewards on its
    right-hand side: the penalty is a sum of :math:`r_x`, and not of a value network, whose derivative in x would be 0.
    The best response takes no environment step and no label of its own; it takes as much computing again.

    Bias: :math:`O(1 / \lambda)`, and the critic's. The two values share it, so that equal policies have no penalty.

    Source: Principled Penalty-based Methods for Bilevel Reinforcement Learning and RLHF (Shen, Yang, Chen, 2024).

    Attributes:
        best: the best response; ``None`` before there is a reward to respond to.
    """

    answers = True
    best: SoftAgent | None = None

    def terms(self, episodes: list[np.ndarray]) -> tuple[list[Term], float | None]:
        """The penalty, once the best response has caught up."""
        best = self.second() if self.best is None else self.best
        self.catch_up(best)
        reward = of_fixed_scale(self.reward_model)
        features = Features(self.agent, self.reward_model, self.estimator.draws)
        gap = value_gap(best, features, self.buffer, reward, self.estimator, self.trainer.random)
        return ([] if gap is None else [lambda: self.settings.penalty * gap()]), None

    def reward(self) -> RewardEnsemble:
        """The model's, less what the losses cost."""
        if self.best is None:
            self.best = self.second()
        episodes = self.buffer.recent_episodes(self.settings.transitions)
        shown = Shown.of(self.buffer, self.reward_model, episodes, self.estimator, self.trainer.random)
        if shown is None:
            return self.reward_model
        bent = BentReward.fitted(self.reward_model, self.share, self.buffer, shown, self.estimator)
        return cast(RewardEnsemble, bent)  # the buffer only calls it

    @property
    def share(self) -> float:
        """Of the loss of segments, what their last step has to pay."""
        return (1 - self.settings.discount) / self.settings.penalty

    def state(self) -> Any:
        """The best response with its optimizers, and what the losses cost."""
        if self.best is None:
            return None
        learnt = self.buffer.reward_model
        weight = learnt.weight if isinstance(learnt, BentReward) else None
        return {"best": self.best.get_parameters(), "updates": self.best.updates, "weight": weight}

    def restore(self, state: Any) -> None:
        """Take all that back; without a best response it starts again from the policy that acts."""
        if state is None:
            return
        self.best = self.second()
        self.best.set_parameters(state["best"], exact_match=True, device=self.best.device)
        self.best._n_updates = int(state["updates"])  # noqa: SLF001  # stable-baselines3 has no public name for it
        if state["weight"] is not None:
            bent = BentReward(self.reward_model, self.share, state["weight"].to(self.best.device))
            self.buffer.reward_model = cast(RewardEnsemble, bent)

    def second(self) -> SoftAgent:
        """A copy of the agent that acts."""
        with GlobalGenerators():  # an agent that is made seeds them anew
            env = side_by_side(replace(self.settings, env_processes=False))
            second = make_agent(
                replace(self.settings, buffer=self.settings.segment * env.num_envs), env, self.agent.device
            )
            env.close()
        second._vec_normalize_env = self.agent.get_vec_normalize_env()  # noqa: SLF001
        second.set_logger(Logger(None, []))
        own: Any = copy.deepcopy(self.agent.get_parameters())
        second.set_parameters(own, exact_match=True, device=second.device)
        second._n_updates = self.agent.updates  # noqa: SLF001
        return second

    def catch_up(self, best: SoftAgent) -> None:
        """As many updates as the other has had, on the same steps with the model's own reward."""
        seen = copy.copy(self.buffer)  # shares the arrays
        seen.reward_model = self.reward_model
        best.replay_buffer = seen
        for _ in range(self.agent.updates - best.updates):
            best.train(1, self.settings.batch)
            best._on_step()  # noqa: SLF001  # moves the target network of those that move it at steps


class BentReward(nn.Module):
    """The model's reward less a share of the loss that a segment ending with the step has to expect.

    The loss is linear in the reward model's last layers, so that it is known of every step.

    Args:
        reward: the model.
        share: of the loss.
        weight: ``(1 + d,)`` of a constant and of the last layers in the loss.
    """

    def __init__(self, reward: RewardEnsemble, share: float, weight: Tensor) -> None:
        super().__init__()
        self.reward, self.share, self.weight = reward, share, weight

    @classmethod
    def fitted(
        cls,
        reward: RewardEnsemble,
        share: float,
        buffer: RelabelledReplayBuffer,
        shown: Shown,
        settings: ResponseSettings,
    ) -> BentReward:
        """With the loss from a regression.

        Args:
            reward: the model.
            share: of the loss.
            buffer: where the segments are.
            shown: the segments, judged by the model as it is.
            settings: of the regression.
        """
        ends = np.concatenate(
            [
                episode[np.minimum(np.arange(len(loss)) + settings.segment - 1, len(episode) - 1)]
                for episode, loss in zip(shown.episodes, shown.losses, strict=True)
            ]
        )
        features = cls._features(reward, *buffer.steps(ends)).double()
        excess = torch.cat(shown.losses).double()
        matrix = features.T @ features / len(ends)
        damping = settings.ridge * matrix.diagonal().mean() * torch.eye(len(matrix), device=matrix.device)
        wanted = features.T @ (excess - excess.mean()) / len(ends)
        return cls(reward, share, torch.linalg.solve(matrix + damping, wanted).float())

    @staticmethod
    @torch.no_grad()
    def _features(reward: RewardEnsemble, observation: Tensor, action: Tensor) -> Tensor:
        hidden = reward.features(observation, action)
        return torch.cat([torch.ones_like(hidden[..., :1]), hidden], -1)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Of the leading shape of its arguments."""
        reward: Tensor = self.reward(observation, action)
        loss: Tensor = self._features(self.reward, observation, action) @ self.weight
        return reward - self.share * loss


def of_fixed_scale(reward: RewardEnsemble) -> Callable[[Tensor, Tensor], Tensor]:
    """The reward, whose derivative leaves its spread over the steps that it is asked for as it is.

    Each round ends with a standardised reward: its scale is nothing to win or lose by. A penalty that is linear in the
    reward would drive it up or down until no preference counts.
    """

    def scaled(observation: Tensor, action: Tensor) -> Tensor:
        found: Tensor = reward(observation, action)
        spread = found.std().clamp_min(1e-6)
        return found * (spread.detach() / spread)

    return scaled


def value_gap(
    best: SoftAgent,
    features: Features,
    buffer: RelabelledReplayBuffer,
    reward: Callable[[Tensor, Tensor], Tensor],
    settings: ResponseSettings,
    random: np.random.Generator,
) -> Term | None:
    r"""A scalar with the gradient of :math:`V^{\hat \pi}(\rho) - V^y(\rho)`, both policies fixed.

    It is a sum of the model's rewards of the buffer's steps, each with the weight that the critic gives it; ``None``
    before the first episode is over.

    Args:
        best: whose policy is :math:`\hat \pi`.
        features: what values are linear in; their agent's policy is y.
        buffer: the steps, and the episodes' first ones for :math:`\rho`.
        reward: the model.
        settings: of the critic.
        random: draws the steps.
    """
    starts = [episode[0] for episode in buffer.recent_episodes(buffer.count)]
    if not starts:
        return None
    observation, action = buffer.steps(np.array(starts))
    agent = features.agent
    drawn = Transitions.draw(buffer, features, settings.transitions, random)

    def critic(policy: SoftAgent) -> LeastSquaresCritic:
        with torch.random.fork_rng(devices=[]):  # the same draws for both: what is alike cancels
            first = features.expected(observation, policy).mean(0)[None, None]
            later = drawn.later(features, policy)
        return drawn.critic(later, first, agent.gamma, settings.ridge)

    critics = critic(best), critic(agent)
    place = Segments(observation[:1, None], action[:1, None], torch.zeros(1, 1, device=action.device))

    def gap() -> Tensor:
        answer, own = (part.advantage(reward, place, agent.gamma).sum() for part in critics)
        return answer - own

    return gap
