"""Response terms from the policy's own paths, against means over a table and the exact hyper-gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrad.mdp import Trace
from bigrad.rlhf import RelabelledReplayBuffer, Shown, response_term, rollout_term, trace_term

from . import tabular as t

Estimate = Callable[..., tuple[list[Callable[[], Tensor]], float | None]]


class Case:
    """A reward, its soft-optimal agent, and episodes that it has drawn."""

    def __init__(self, episodes: int) -> None:
        self.reward = t.model()
        self.agent = t.answering(t.table(self.reward))
        self.episodes = t.act(self.agent, episodes)
        assert isinstance(self.agent.replay_buffer, RelabelledReplayBuffer)
        self.buffer = self.agent.replay_buffer

    def terms(self, estimate: Estimate, episodes: list[np.ndarray], **changes: Any) -> list[Tensor]:
        settings = replace(t.SETTINGS, **changes)
        found, _ = estimate(self.agent, self.buffer, self.reward, episodes, settings, np.random.default_rng(0))
        return [t.flat(term(), self.reward) for term in found]


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(800)


def cells(case: Case, episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States and actions of an episode, as numbers."""
    return case.buffer.observations[episode, 0].argmax(-1), case.buffer.actions[episode, 0, 0]


def weights(case: Case, episodes: list[np.ndarray]) -> list[Tensor]:
    shown = Shown.of(case.buffer, case.reward, episodes, t.SETTINGS, np.random.default_rng(0))
    assert shown is not None
    return [weight.double() for weight in shown.weights]


def sums(case: Case, episode: np.ndarray, horizon: int = t.STEPS) -> Tensor:
    """Discounted rewards from each step on, with a loop."""
    state, action = cells(case, episode)
    reward = t.table(case.reward)[state, action]
    rows = [
        sum(t.DISCOUNT**k * reward[step + k] for k in range(min(horizon, len(episode) - step)))
        for step in range(len(episode))
    ]
    return torch.stack(rows)


def means(case: Case, episodes: list[np.ndarray], values: list[Tensor]) -> Tensor:
    """The mean of the values at each state and action ``(S, A)``, less that over the policy's actions."""
    seen = [cells(case, episode) for episode in episodes]
    state, action = (np.concatenate([pair[k] for pair in seen]) for k in (0, 1))
    every, place = torch.cat(values), torch.as_tensor(state * t.ACTIONS + action)
    size = t.STATES * t.ACTIONS
    count = torch.bincount(place, minlength=size)
    assert (count > 0).all()
    found = (torch.zeros(size, dtype=every.dtype).index_add(0, place, every) / count).reshape(t.STATES, t.ACTIONS)
    chance = case.agent.probabilities(torch.eye(t.STATES)).double()
    return found - (chance * found).sum(-1, keepdim=True)


def by_table(
    case: Case,
    estimate: Estimate,
    own: list[np.ndarray],
    other: list[np.ndarray],
    weight: dict[int, Tensor],
    horizon: int,
) -> Tensor:
    """One half's part of a term: what is a regression there is a mean here."""
    total = torch.zeros((), dtype=torch.float64)
    if estimate is rollout_term:
        changes = means(case, other, [sums(case, episode) for episode in other])
        for episode in own:
            total = total + (weight[episode[0]] * changes[cells(case, episode)]).sum()
    else:
        learnt = means(case, other, [weight[episode[0]] for episode in other])
        for episode in own:
            total = total + (learnt[cells(case, episode)] * sums(case, episode, horizon)).sum()
    return t.flat(total / t.TEMPERATURE / len(own), case.reward)


@pytest.mark.parametrize(("estimate", "horizon"), [(rollout_term, 0), (trace_term, 0), (trace_term, 3)])
def test_on_a_table_regressions_are_means_over_the_other_half(case: Case, estimate: Estimate, horizon: int) -> None:
    episodes = case.episodes[:17]
    first, second = case.terms(estimate, episodes, horizon=horizon)
    groups = (episodes[0::4], episodes[2::4]), (episodes[1::4], episodes[3::4])
    weight = dict(zip([e[0] for e in episodes], weights(case, episodes), strict=True))
    for found, (left, right) in zip((first, second), groups, strict=True):
        halves = ((left, right), (right, left))
        expected = t.mean([by_table(case, estimate, *half, weight, horizon or t.STEPS) for half in halves])
        assert float((found - expected).norm() / expected.norm()) < 2e-3


@pytest.mark.parametrize("horizon", [1, 2, 4, 0])
def test_the_critics_horizon_counts_that_many_steps(case: Case, horizon: int) -> None:
    episodes = case.episodes[:6]
    reward, chance = t.table(case.reward), case.agent.probabilities(torch.eye(t.STATES)).double()
    q_value = reward
    for _ in range((horizon or 200) - 1):
        q_value = reward + t.DISCOUNT * (chance * q_value).sum(-1)[torch.tensor(t.NEXT)]
    change = q_value - (chance * q_value).sum(-1, keepdim=True)
    found = t.mean(case.terms(response_term, episodes, horizon=horizon))
    total = sum(
        (weight * change[cells(case, episode)]).sum()
        for weight, episode in zip(weights(case, episodes), episodes, strict=True)
    )
    expected = t.flat(total / t.TEMPERATURE / len(episodes), case.reward)
    assert float((found - expected).norm() / expected.norm()) < 2e-3


@pytest.fixture(scope="module")
def exact(case: Case) -> Tensor:
    """The derivative of the mean loss through the policy."""
    loss = t.losses(case.reward, case.buffer, 0)
    return t.flat(t.mean_loss(t.follower(t.table(case.reward)), loss), case.reward)


CUT = sum(t.DISCOUNT**k for k in range(1, t.STEPS + 1)) / t.STEPS  # what a time limit takes from a mean path


@pytest.mark.parametrize(
    ("estimate", "cut"), [(response_term, 0.0), (rollout_term, CUT), (trace_term, CUT)], ids=["critic", "hpgd", "trace"]
)
def test_the_estimate_is_the_hyper_gradient_but_for_what_the_time_limit_cuts_off(
    case: Case, exact: Tensor, estimate: Estimate, cut: float
) -> None:
    batches = [case.episodes[k : k + 40] for k in range(0, len(case.episodes), 40)]
    found = torch.stack([t.mean(case.terms(estimate, batch)) for batch in batches])
    along = found @ exact / exact.square().sum()
    error = float(along.std() / len(along) ** 0.5)
    assert error < 0.05
    assert abs(float(along.mean()) - (1 - cut)) < 3.5 * error
    across = found - along[:, None] * exact
    noise = across.std(0).norm() / len(along) ** 0.5
    assert float(across.mean(0).norm()) < 2 * float(noise) + cut * float(exact.norm())


@pytest.mark.parametrize("estimate", [rollout_term, trace_term])
def test_two_episodes_make_a_term_and_four_make_two(case: Case, estimate: Estimate) -> None:
    assert [len(case.terms(estimate, case.episodes[:count])) for count in (0, 1, 2, 3, 4, 5)] == [0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("estimate", [rollout_term, trace_term])
def test_an_only_episode_is_judged_by_the_one_before(estimate: Estimate) -> None:
    case = Case(3)
    case.buffer.dones[2 * t.STEPS - 1 - t.STEPS] = 0  # the first two are one, long enough to visit every place
    long, only = np.arange(2 * t.STEPS), case.episodes[2]
    (found,) = case.terms(estimate, [only])
    weight = dict(zip([only[0], long[0]], weights(case, [only, long]), strict=True))
    expected = by_table(case, estimate, [only], [long], weight, t.STEPS)
    assert float((found - expected).norm() / expected.norm()) < 2e-3
    alone = Case(1)
    assert alone.terms(estimate, alone.episodes) == []


@pytest.mark.parametrize("horizon", [0, 2])
def test_a_last_step_that_goes_on_for_ever_counts_so(horizon: int) -> None:
    case = Case(2)
    buffer, episode = case.buffer, case.episodes[0][-3:]
    buffer.after_end = "absorb"
    buffer.timeouts[:] = 0
    state, action = cells(case, episode)
    reward = t.table(case.reward)[state, action].tolist()
    reward += reward[-1:] * 200
    expected = [sum(t.DISCOUNT**k * reward[step + k] for k in range(horizon or 150)) for step in range(3)]
    inside = import_module(".trace_response", "bigrad.rlhf")
    path = inside.path_of(case.agent, buffer, episode, horizon)
    found = Trace(horizon or None).advantage(case.reward, path, t.DISCOUNT)[0]
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-4)
    if not horizon:  # the same sums, from the other side
        unit = torch.eye(3)
        backward = inside.traces_of(buffer, episode, unit, t.DISCOUNT).T @ torch.tensor(reward[:3])
        torch.testing.assert_close(backward, found.detach())
