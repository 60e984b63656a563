"""The response term: how the policy's answer to the reward model changes the preference loss of what it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..layers import SoftResponse
from ..mdp import LeastSquaresCritic, Segments
from .agent import SoftAgent
from .replay import RelabelledReplayBuffer
from .reward_model import RewardEnsemble
from .upper_level import Term, preference_loss


@dataclass(frozen=True)
class ResponseSettings:
    """How the response term is estimated.

    Attributes:
        segment: steps of a segment.
        opponents: segments of the whole buffer that each of the policy's own is compared with.
        transitions: transitions the least-squares critic is solved on.
        draws: fresh actions for each expectation under the policy.
        ridge: of the least-squares critic.
    """

    segment: int = 25
    opponents: int = 256
    transitions: int = 4096
    draws: int = 8
    ridge: float = 1e-3


def segment_losses(reward: RewardEnsemble, own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """The preference loss that each own segment has to expect, ``(own,)``: no label is spent.

    For each member the label is expected under the mean belief of the other members, which no member was fitted to.

    Args:
        reward: the ensemble.
        own: observations and actions of the policy's segments ``(own, H, *)``.
        other: the same of the segments they are compared with ``(other, H, *)``.
    """
    with torch.no_grad():
        totals = [reward.totals(*steps) for steps in (own, other)]
        logits = totals[0][:, :, None] - totals[1][:, None, :]
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
    length = settings.segment
    episodes = [episode for episode in episodes if len(buffer.windows(episode, length))]
    if not episodes:
        return [], None
    starts = buffer.segment_starts(length)
    other = buffer.steps(buffer.segment(random.choice(starts, min(settings.opponents, len(starts)), False), length))
    losses = []
    for episode in episodes:
        places = buffer.segment(buffer.windows(episode, length), length)
        losses.append(segment_losses(reward, buffer.steps(places), other))
    weights = score_weights(losses, [len(episode) for episode in episodes], length)

    def features(observation: Tensor, action: Tensor) -> Tensor:
        parts = [agent.features(observation, action), reward.features(observation, action).detach()]
        return torch.cat([torch.ones_like(parts[0][..., :1]), *parts], -1)

    def expected(observation: Tensor) -> Tensor:
        return agent.mean(features, observation, settings.draws)

    places = random.choice(buffer.size(), min(settings.transitions, buffer.size()), False)
    observation, action = buffer.steps(places)
    following, goes_on = buffer.next_steps(places)
    going = goes_on[:, None]
    now, later = features(observation, action), expected(following) * going
    if buffer.after_end == "absorb":  # the last step is followed by itself
        later = later + now * (1 - going)
    own_places = np.concatenate(episodes)
    own_observation, own_action = buffer.steps(own_places)
    critic = LeastSquaresCritic.fit(
        observation,
        action,
        now,
        later,
        (features(own_observation, own_action) - expected(own_observation))[:, None],
        agent.gamma,
        settings.ridge,
    )
    segments = Segments(
        own_observation[:, None], own_action[:, None], agent.log_prob(own_observation, own_action)[:, None]
    )
    temperature = agent.temperature
    layer = SoftResponse(reward, temperature=temperature, discount=agent.gamma, estimator=critic)
    sizes = [len(episode) for episode in episodes]
    halves = min(2, len(episodes))
    half = np.repeat(np.arange(len(episodes)) % halves, sizes)
    weight = torch.cat(weights)

    def term(which: int) -> Term:
        mask = torch.as_tensor(half == which, device=weight.device)
        chosen = torch.where(mask, weight, 0.0) / len(range(which, len(episodes), halves))
        return lambda: (chosen * layer(segments).squeeze(1)).sum()

    return [term(which) for which in range(halves)], float(torch.cat(losses).mean())
