"""The response term from the policy's last paths alone: no bootstrap, no older step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..layers import SoftResponse
from ..mdp import LeastSquaresCritic, Rollouts, Segments, Trace
from .agent import SoftAgent
from .critic import Features
from .replay import RelabelledReplayBuffer
from .response import ResponseSettings, Shown, segments_at
from .reward_model import RewardEnsemble
from .upper_level import Term

Crossed = Callable[["Paths", "Paths"], Term]


@dataclass(frozen=True)
class Paths:
    """Some episodes of the policy.

    Attributes:
        episodes: their places.
        losses: the losses to come after each step, ``(N,)``: the weight of its action's log-probability.
    """

    episodes: list[np.ndarray]
    losses: Tensor

    @property
    def places(self) -> np.ndarray:
        """One after the other, ``(N,)``."""
        return np.concatenate(self.episodes)


def trace_term(
    agent: SoftAgent,
    buffer: RelabelledReplayBuffer,
    reward: RewardEnsemble,
    episodes: list[np.ndarray],
    settings: ResponseSettings,
    random: np.random.Generator,
) -> tuple[list[Term], float | None]:
    r"""Scalars whose gradients are :math:`\tau^{-1} E[\sum_h A_U(h) \nabla Q(s_h, a_h)]`, and the expected loss.

    :math:`\nabla Q` is the discounted gradient along the path from h on. :math:`A_U(s, a)`, the losses to come with an
    action less those without, is a regression on features over the other half of the episodes: it must not share its
    future with the path. A time limit cuts the path off, and what is not linear in the features is lost.

    Args:
        agent, buffer, reward, episodes, settings, random: as for :func:`response_term`.
    """
    features = Features(agent, reward, settings.draws)

    def crossed(own: Paths, other: Paths) -> Term:
        learnt = _regression(features, buffer, other, features.change(*buffer.steps(own.places)), settings.ridge)
        advantage = (learnt.projection @ (learnt.features.T @ other.losses)).squeeze(1)
        trace = Trace(settings.horizon or None)
        layer = SoftResponse(reward, temperature=agent.temperature, discount=agent.gamma, estimator=trace)
        paths = [path_of(agent, buffer, episode, settings.horizon) for episode in own.episodes]
        weights = advantage.split([len(episode) for episode in own.episodes])
        return lambda: torch.stack([(w * layer(path)[0]).sum() for w, path in zip(weights, paths, strict=True)]).mean()

    return _terms(buffer, reward, episodes, settings, random, crossed)


def rollout_term(
    agent: SoftAgent,
    buffer: RelabelledReplayBuffer,
    reward: RewardEnsemble,
    episodes: list[np.ndarray],
    settings: ResponseSettings,
    random: np.random.Generator,
) -> tuple[list[Term], float | None]:
    r"""Scalars whose gradients are :math:`\tau^{-1} E[\sum_h G_h (\nabla Q - \nabla V)(s_h, a_h)]`, and the loss.

    The losses :math:`G_h` to come are those of the path. :math:`\nabla Q` is a regression on features of discounted
    gradients along the other half of the episodes, every visit from its step to its episode's end. It is
    :func:`trace_term` with the two sides exchanged.

    Args:
        agent, buffer, reward, episodes, settings, random: as for :func:`response_term`; the horizon is as far as an
            episode lasts.
    """
    features = Features(agent, reward, settings.draws)

    def crossed(own: Paths, other: Paths) -> Term:
        steps = segments_at(agent, buffer, own.places)
        change = features.change(*buffer.steps(own.places))
        learnt = _regression(features, buffer, other, change, settings.ridge)
        traces = torch.cat(
            [
                traces_of(buffer, e, part, agent.gamma)
                for e, part in zip(other.episodes, _parts(learnt, other), strict=True)
            ]
        )
        critic = replace(learnt, features=traces, discount=agent.gamma)
        layer = SoftResponse(reward, temperature=agent.temperature, discount=agent.gamma, estimator=critic)
        return lambda: (own.losses * layer(steps).squeeze(1)).sum() / len(own.episodes)

    return _terms(buffer, reward, episodes, settings, random, crossed)


def _terms(
    buffer: RelabelledReplayBuffer,
    reward: RewardEnsemble,
    episodes: list[np.ndarray],
    settings: ResponseSettings,
    random: np.random.Generator,
    crossed: Crossed,
) -> tuple[list[Term], float | None]:
    """One term for each group of episodes, the mean over its two halves in both roles; two groups if there are four.

    An only episode has the last one before it for its other half: an older policy's, and in this role alone.
    """
    episodes = [episode for episode in episodes if len(buffer.windows(episode, settings.segment))]
    only = len(episodes) == 1
    if only:
        every = [episode for episode in buffer.recent_episodes(buffer.count) if episode[0] != episodes[0][0]]
        episodes += [episode for episode in every if len(buffer.windows(episode, settings.segment))][-1:]
    shown = Shown.of(buffer, reward, episodes, settings, random)
    if shown is None or len(shown.episodes) < 2:
        return [], None if shown is None else shown.expected

    def term(group: range) -> Term:
        first, second = (
            Paths([shown.episodes[i] for i in half], torch.cat([shown.weights[i] for i in half]))
            for half in (group[::2], group[1::2])
        )
        parts = [crossed(first, second)] + ([] if only else [crossed(second, first)])
        return lambda: torch.stack([part() for part in parts]).mean()

    count = len(shown.episodes)
    groups = [range(0, count, 2), range(1, count, 2)] if count >= 4 else [range(count)]
    return [term(group) for group in groups], shown.expected


def _regression(
    features: Features, buffer: RelabelledReplayBuffer, paths: Paths, change: Tensor, ridge: float
) -> LeastSquaresCritic:
    """Least squares on every step of the paths, solved for what actions change in the features ``(N, d)``."""
    observation, action = buffer.steps(paths.places)
    now = features(observation, action)
    return LeastSquaresCritic.fit(observation, action, now, torch.zeros_like(now), change[:, None], 0.0, ridge)


def _parts(learnt: LeastSquaresCritic, paths: Paths) -> tuple[Tensor, ...]:
    """The features of each episode."""
    parts: tuple[Tensor, ...] = learnt.features.split([len(episode) for episode in paths.episodes])
    return parts


def traces_of(buffer: RelabelledReplayBuffer, episode: np.ndarray, features: Tensor, discount: float) -> Tensor:
    """Discounted sums of the features of all steps up to each: what its reward adds to."""
    traces, total = [], torch.zeros_like(features[0])
    for part in features:
        total = discount * total + part
        traces.append(total)
    if _goes_on(buffer, episode):
        traces[-1] = traces[-1] / (1 - discount)
    return torch.stack(traces)


def path_of(agent: SoftAgent, buffer: RelabelledReplayBuffer, episode: np.ndarray, horizon: int) -> Segments:
    """An episode as one segment, and its last step for ever after where the run has it so."""
    observation, action = (part[None] for part in buffer.steps(episode))
    tail = None
    if _goes_on(buffer, episode):
        count = horizon or 1
        weight = torch.ones(1, count, device=action.device) / (1 if horizon else 1 - agent.gamma)
        seen, done = (part[:, -1:].expand(-1, count, *part.shape[2:]) for part in (observation, action))
        tail = Rollouts(seen, done, weight)
    return Segments(observation, action, agent.log_prob(observation[0], action[0])[None], continuation=tail)


def _goes_on(buffer: RelabelledReplayBuffer, episode: np.ndarray) -> bool:
    """Whether the last step stands for all that follow."""
    return buffer.after_end == "absorb" and bool(buffer.ended(episode[-1]))
