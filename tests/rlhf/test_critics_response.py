"""The response term of two critics, against the same sums over a table and the exact hyper-gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrad.rlhf import Shown, critics_term, response_term

from . import tabular as t
from .test_trace_response import Case, cells

EPISODES = 200


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(EPISODES)


def soft_values(case: Case, reward: Tensor) -> Tensor:
    """What actions add, under the agent's policy, to discounted sums of ``reward`` ``(S, A)``."""
    chance = case.agent.probabilities(torch.eye(t.STATES)).double()
    following = (t.ONE_HOT[..., None] * chance).reshape(-1, t.STATES * t.ACTIONS)
    matrix = torch.eye(len(following), dtype=torch.float64) - t.DISCOUNT * following
    value = torch.linalg.solve(matrix, reward.flatten()).reshape(t.STATES, t.ACTIONS)
    return value - (chance * value).sum(-1, keepdim=True)


def by_table(case: Case, episodes: list[np.ndarray], own: list[np.ndarray], weights: list[Tensor]) -> Tensor:
    """One half's term: the means of what is booked on each place are the losses of a process with a table."""
    total, visits = torch.zeros(2, t.STATES, t.ACTIONS, dtype=torch.float64)
    for episode, weight in zip(episodes, weights, strict=True):
        for step, place in enumerate(zip(*cells(case, episode), strict=True)):
            total[place] += float(weight[step]) - (float(weight[step + 1]) if step + 1 < len(episode) else 0.0)
            visits[place] += 1
    losses = soft_values(case, total / visits)
    rewards = soft_values(case, t.table(case.reward))
    chance = case.agent.probabilities(torch.eye(t.STATES)).double()
    states = np.concatenate([cells(case, episode)[0] for episode in own])
    return t.flat((chance * losses * rewards)[states].sum() / t.TEMPERATURE / len(own), case.reward)


def test_on_a_table_it_is_the_sum_over_every_action(case: Case) -> None:
    own = case.episodes[-3:]
    reach = t.SETTINGS.transitions
    every = case.buffer.recent_episodes(reach)
    shown = Shown.of(case.buffer, case.reward, every, t.SETTINGS, np.random.default_rng(0))
    assert shown is not None
    found = case.terms(critics_term, own)
    assert len(found) == 2
    for half, term in enumerate(found):
        expected = by_table(case, every[half::2], own[half::2], shown.weights[half::2])
        assert float((term - expected).norm() / expected.norm()) < 5e-3


@pytest.mark.parametrize(("count", "terms"), [(0, 0), (1, 1), (2, 2), (5, 2)])
def test_one_term_for_each_half(case: Case, count: int, terms: int) -> None:
    assert len(case.terms(critics_term, case.episodes[:count])) == terms


def test_it_points_along_the_hyper_gradient_with_a_fraction_of_the_noise(case: Case) -> None:
    loss = t.losses(case.reward, case.buffer, 0)
    exact = t.flat(t.mean_loss(t.follower(t.table(case.reward)), loss), case.reward)

    def estimates(estimate: Callable[..., object]) -> Tensor:
        starts = range(0, EPISODES, 10)
        return torch.stack([t.mean(case.terms(estimate, case.episodes[k : k + 10])) for k in starts])

    found, former = estimates(critics_term), estimates(response_term)
    print(
        "cos",
        torch.nn.functional.cosine_similarity(found.mean(0), exact, dim=0),
        "along",
        (found @ exact / exact.square().sum()).mean(),
        "noise",
        found.std(0).norm() / exact.norm(),
        former.std(0).norm() / exact.norm(),
        "cos each",
        torch.nn.functional.cosine_similarity(found, exact[None], dim=1).mean(),
        torch.nn.functional.cosine_similarity(former, exact[None], dim=1).mean(),
    )
    assert float(torch.nn.functional.cosine_similarity(found.mean(0), exact, dim=0)) > 0.9
