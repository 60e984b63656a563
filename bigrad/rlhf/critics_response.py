"""The response term from two critics: the noise of single actions is averaged out before anything is multiplied."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..layers import SoftResponse
from ..mdp import Segments
from .agent import SoftAgent
from .critic import Features, Transitions
from .replay import RelabelledReplayBuffer
from .response import ResponseSettings, Shown
from .reward_model import RewardEnsemble
from .upper_level import Term


def critics_term(
    agent: SoftAgent,
    buffer: RelabelledReplayBuffer,
    reward: RewardEnsemble,
    episodes: list[np.ndarray],
    settings: ResponseSettings,
    random: np.random.Generator,
) -> tuple[list[Term], float | None]:
    r"""Scalars whose gradients are :math:`\tau^{-1} \sum_s E_a[A_U(s, a) (\nabla Q - \nabla V)(s, a)]`, and the loss.

    Both factors are linear in features: with :math:`\delta = \varphi(s, a) - E_\pi \varphi(s, \cdot)` it is
    :math:`\tau^{-1} v^\top C \, \nabla w`, where :math:`C = \sum_s E_a[\delta \delta^\top]` runs over the policy's own
    states and fresh actions, :math:`w` is the least-squares critic of the rewards, and :math:`v` that of the losses:
    of the segments that an action is in along the path, and of those after them by the critic itself. No action that
    happened to be taken is multiplied with what happened to follow, and that product is most of the variance of
    :func:`response_term`.

    Bias: the paths are those of the last episodes, older policies' among them; losses to come are discounted like
    rewards; and what is not linear in the features is lost.

    There is one term for each half of the episodes, the states' and the critics'; their mean is the estimate.

    Args:
        agent, buffer, reward, episodes, settings, random: as for :func:`response_term`.
    """
    every = buffer.recent_episodes(max(settings.transitions, sum(map(len, episodes))))
    shown, own = (Shown.of(buffer, reward, some, settings, random) for some in (every, episodes))
    if shown is None or own is None:
        return [], None
    features = Features(agent, reward, settings.draws)
    halves = min(2, len(own.episodes))

    def term(half: int) -> Term:
        played, weights = shown.episodes[half::halves], shown.weights[half::halves]
        drawn = Transitions.at(buffer, features, np.concatenate(played))
        paths = [ahead(weight, settings.segment, agent.gamma) for weight in weights]
        ends = np.concatenate([episode[reach] for episode, (_, reach, _) in zip(played, paths, strict=True)])
        costs, powers = torch.cat([cost for cost, _, _ in paths]), torch.cat([power for _, _, power in paths])
        following = Transitions.at(buffer, features, ends).later(features)
        value = drawn.value(powers[:, None] * following, costs, settings.ridge)
        states = own.episodes[half::halves]
        observation, action = buffer.steps(np.concatenate(states))
        expected = features.expected(observation)

        def product(seen: Tensor, acted: Tensor) -> Tensor:
            change = features(seen, acted) - expected
            return change * (change @ value).unsqueeze(-1)

        wanted = agent.mean(product, observation, settings.draws).sum(0) / len(states)
        critic = drawn.critic(drawn.later(features), wanted[None, None], agent.gamma, settings.ridge, settings.horizon)
        layer = SoftResponse(reward, temperature=agent.temperature, discount=agent.gamma, estimator=critic)
        place = Segments(observation[:1, None], action[:1, None], action.new_zeros(1, 1))
        return lambda: layer(place).sum()

    return [term(half) for half in range(halves)], own.expected


def ahead(weight: Tensor, segment: int, discount: float) -> tuple[Tensor, np.ndarray, Tensor]:
    """Of each step of an episode: the discounted losses of the next ``segment`` steps, the last of these, its power.

    An action answers in all these steps for a segment that it is in, in a way that the state afterwards does not tell.

    Args:
        weight: what each action answers for ``(T,)``; less what the next one does, it is its own step's.
        segment: steps of a segment.
        discount: a step.
    """
    steps = len(weight)
    booked = weight - torch.cat([weight[1:], weight.new_zeros(1)])
    costs = torch.zeros_like(booked)
    for k in range(min(segment, steps)):
        costs[: steps - k] += discount**k * booked[k:]
    reach = np.minimum(np.arange(steps) + segment - 1, steps - 1)
    powers = discount ** torch.as_tensor(reach - np.arange(steps) + 1).to(weight)
    return costs, reach, powers
