"""The response term: how the policy's answer to the reward model changes the preference loss of what it shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..layers import SoftResponse
from ..mdp import Branches, ResponseEstimator, Rollouts, Segments
from .agent import SoftAgent
from .critic import Features, Transitions
from .replay import RelabelledReplayBuffer
from .reward_model import RewardEnsemble
from .soft_dqn import SoftDQN
from .upper_level import Term, preference_loss, totals_at


@dataclass(frozen=True)
class ResponseSettings:
    """How the response term is estimated.

    Attributes:
        segment: steps of a segment.
        opponents: segments of the whole buffer that each of the policy's own is compared with.
        transitions: transitions the least-squares critic is solved on.
        draws: fresh actions for each expectation under the policy.
        ridge: of the least-squares critic.
        horizon: how many steps after an action count in the critic; 0 is all of them, and 1 takes no critic at all.
    """

    segment: int = 25
    opponents: int = 256
    transitions: int = 4096
    draws: int = 8
    ridge: float = 1e-3
    horizon: int = 0


def segment_losses(reward: RewardEnsemble, own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """The preference loss that each own segment has to expect, ``(own,)``: no label is spent.

    For each member the label is expected under the mean belief of the other members, which no member was fitted to.

    Args:
        reward: the ensemble.
        own: observations and actions of the policy's segments ``(own, H, *)``.
        other: the same of the segments they are compared with ``(other, H, *)``.
    """
    with torch.no_grad():
        return _expected_losses(*(reward.totals(*steps) for steps in (own, other)))


def _expected_losses(own: Tensor, other: Tensor) -> Tensor:
    """The same from the totals ``(members, own)`` and ``(members, other)``."""
    logits = own[:, :, None] - other[:, None, :]
    belief = torch.sigmoid(logits)
    members = len(belief)
    others = (belief.sum(0) - belief) / (members - 1) if members > 1 else belief
    return preference_loss(logits, others).mean((0, 2))


def score_weights(losses: list[Tensor], steps: list[int], segment: int) -> list[Tensor]:
    """The weight of each action's log-probability, one vector an episode.

    The objective is the mean loss of a segment drawn from all of the policy's. An action answers for every segment of
    its episode that ends with it or after it: a segment carries its whole past, so that the law of where it starts is
    differentiated too. Subtracting the mean loss is part of the derivative of a mean over a number of segments that
    depends on the policy. A segment that reaches beyond its episode ends with it.

    Args:
        losses: losses of the segments starting at steps 0, 1, ... of each episode.
        steps: lengths of the episodes.
        segment: steps of a segment.
    """
    every = torch.cat(losses)
    mean, count = every.mean(), len(every) / len(losses)
    weights = []
    for loss, length in zip(losses, steps, strict=True):
        excess = torch.zeros(length, dtype=loss.dtype, device=loss.device)
        last = torch.arange(segment - 1, segment - 1 + len(loss), device=loss.device).clamp_max(length - 1)
        excess.index_add_(0, last, (loss - mean) / count)
        weights.append(excess.flip(0).cumsum(0).flip(0))
    return weights


@dataclass(frozen=True)
class Shown:
    """What the policy has shown, and what each of its actions answers for.

    Attributes:
        episodes: places of whole episodes that hold a segment.
        losses: that the segments starting at steps 0, 1, ... of each have to expect; see :func:`segment_losses`.
        weights: of each action's log-probability, one vector an episode; see :func:`score_weights`.
        expected: the mean loss of the segments.
    """

    episodes: list[np.ndarray]
    losses: list[Tensor]
    weights: list[Tensor]
    expected: float

    @classmethod
    def of(
        cls,
        buffer: RelabelledReplayBuffer,
        reward: RewardEnsemble,
        episodes: list[np.ndarray],
        settings: ResponseSettings,
        random: np.random.Generator,
    ) -> Shown | None:
        """Judge the segments of the policy's episodes against others of the buffer; ``None`` without a segment."""
        length = settings.segment
        episodes = [episode for episode in episodes if len(buffer.windows(episode, length))]
        if not episodes:
            return None
        starts = buffer.segment_starts(length)
        drawn = random.choice(starts, min(settings.opponents, len(starts)), False)
        every = [drawn, *(buffer.windows(episode, length) for episode in episodes)]
        other, *own = (totals_at(reward, buffer, buffer.segment(part, length)) for part in every)
        losses = [_expected_losses(totals, other) for totals in own]
        weights = score_weights(losses, [len(episode) for episode in episodes], length)
        return cls(episodes, losses, weights, float(torch.cat(losses).mean()))


def segments_at(agent: SoftAgent, buffer: RelabelledReplayBuffer, places: np.ndarray) -> Segments:
    """Each step on its own, ``(N, 1)``, with its log-probability."""
    observation, action = buffer.steps(places)
    return Segments(observation[:, None], action[:, None], agent.log_prob(observation, action)[:, None])


def response_term(
    agent: SoftAgent,
    buffer: RelabelledReplayBuffer,
    reward: RewardEnsemble,
    episodes: list[np.ndarray],
    settings: ResponseSettings,
    random: np.random.Generator,
) -> tuple[list[Term], float | None]:
    """Scalars whose gradients are the response term, and the loss that the policy's segments have to expect.

    There is one scalar for each half of the episodes; their mean is the estimate. There is none without an episode.

    Args:
        agent: whose policy drew the episodes.
        buffer: where they are, and what the critic is solved on.
        reward: the model that the policy answers.
        episodes: the places of whole episodes drawn by the current policy.
        settings: of the estimator.
        random: draws the opponents and the transitions.
    """
    shown = Shown.of(buffer, reward, episodes, settings, random)
    if shown is None:
        return [], None
    episodes = shown.episodes
    own = np.concatenate(episodes)
    features = Features(agent, reward, settings.draws)
    segments = segments_at(agent, buffer, own)
    estimator: ResponseEstimator
    if settings.horizon == 1:
        segments = replace(segments, after_state=fresh_actions(agent, reward, segments.observation, settings.draws))
        estimator = Branches(horizon=1)
    else:
        drawn = Transitions.draw(buffer, features, settings.transitions, random)
        later = drawn.later(features)
        change = features.change(*buffer.steps(own))[:, None]
        estimator = drawn.critic(later, change, agent.gamma, settings.ridge, settings.horizon)
    layer = SoftResponse(reward, temperature=agent.temperature, discount=agent.gamma, estimator=estimator)
    sizes = [len(episode) for episode in episodes]
    halves = min(2, len(episodes))
    half = np.repeat(np.arange(len(episodes)) % halves, sizes)
    weight = torch.cat(shown.weights)

    def term(which: int) -> Term:
        mask = torch.as_tensor(half == which, device=weight.device)
        chosen = torch.where(mask, weight, 0.0) / len(range(which, len(episodes), halves))
        return lambda: (chosen * layer(segments).squeeze(1)).sum()

    return [term(which) for which in range(halves)], shown.expected


def fresh_actions(agent: SoftAgent, reward: RewardEnsemble, observation: Tensor, draws: int) -> Rollouts:
    """Rollouts of one step from states ``(N, 1, *)``: every action by its chance, or fresh ones that count alike."""
    states = observation.squeeze(1)
    if reward.heads and isinstance(agent, SoftDQN):  # one look is enough: the reward is linear in the action
        return Rollouts(observation[:, :, None, None], agent.probabilities(states)[:, None, None, None])
    caught: list[Tensor] = []

    def catch(seen: Tensor, action: Tensor) -> Tensor:
        caught.append(action)
        return torch.zeros_like(action)

    agent.mean(catch, states, draws)
    action = caught[0].transpose(0, 1)[:, None, :, None]  # (N, 1, K, 1, *)
    count = action.shape[2]
    seen = states[:, None, None, None].expand(*action.shape[:4], *states.shape[1:])
    if not isinstance(agent.action_space, spaces.Discrete):
        return Rollouts(seen, action)
    chance = agent.log_prob(seen.flatten(0, 3), action.flatten(0, 3)).exp().reshape(action.shape[:4])
    return Rollouts(seen, action, count * chance)
