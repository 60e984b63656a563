"""The response term against plain loops, an enumerated process and linear algebra written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrad.rlhf import (
    PreferenceTrainer,
    ResponseSettings,
    RewardEnsemble,
    response_term,
    score_weights,
    segment_losses,
)

from . import tiny

D = torch.float64


@pytest.mark.parametrize("members", [1, 2, 4])
def test_segment_losses_are_those_of_a_loop(members: int) -> None:
    generator = torch.Generator().manual_seed(2)
    reward = RewardEnsemble(3, 1, members, 8, generator)
    own, other = (tuple(torch.randn(count, 5, size, generator=generator) for size in (3, 1)) for count in (6, 4))
    expected = torch.zeros(6)
    for i in range(6):
        for j in range(4):
            ours = reward.raw(own[0][i], own[1][i]).sum(-1).detach()
            theirs = reward.raw(other[0][j], other[1][j]).sum(-1).detach()
            belief = torch.sigmoid(ours - theirs)
            for m in range(members):
                rest = [belief[k] for k in range(members) if k != m] or [belief[m]]
                label = sum(rest) / len(rest)
                loss = -label * belief[m].log() - (1 - label) * (1 - belief[m]).log()
                expected[i] += loss / (4 * members)
    found = segment_losses(reward, own, other)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected)


# A process of three actions: 0 and 1 go on, 2 ends the episode; four steps at most. The state is the step and the
# last action. Policies have chances in quarters, so that a list in which episodes repeat as often as their chance
# says is exactly a mean over the policy.
STEPS, LENGTH = 4, 2
QUARTERS = torch.tensor([[1, 2, 1], [2, 1, 1], [1, 1, 2], [2, 1, 1], [1, 2, 1], [1, 1, 2], [2, 1, 1], [1, 2, 1]])


def every_episode() -> list[tuple[list[int], list[int], int]]:
    """States, actions and how often each episode occurs among 4**STEPS."""
    found, going = [], [([0], [], 4**STEPS)]
    while going:
        states, actions, often = going.pop()
        for action in range(3):
            times = often * int(QUARTERS[states[-1], action]) // 4
            if action == 2 or len(states) == STEPS:
                found.append((states, [*actions, action], times))
            else:
                going.append(([*states, 2 * len(states) + action], [*actions, action], times))
    return found


def losses_of(states: list[int], actions: list[int], reach: bool = False) -> Tensor:
    """A loss for each segment, that depends on everything in it; some ``reach`` beyond an end that is no time limit."""
    table = torch.randn(8, 3, 8, 3, generator=torch.Generator().manual_seed(4), dtype=D)
    values = [table[states[k], actions[k], states[k + 1], actions[k + 1]] for k in range(len(actions) - LENGTH + 1)]
    if reach and actions[-1] == 2:
        values.append(3 * table[states[-1], 2].mean())
    return torch.stack(values) if values else torch.zeros(0, dtype=D)


def truth(episodes: list[tuple[list[int], list[int], int]], reach: bool = False) -> Tensor:
    """The derivative of the mean loss of the policy's segments in the policy's logits."""
    logits = (QUARTERS / 4).to(D).log().requires_grad_()
    log_policy = logits.log_softmax(-1)
    total, count = torch.zeros((), dtype=D), torch.zeros((), dtype=D)
    for states, actions, _ in episodes:
        chance = log_policy[states, actions].sum().exp()
        total = total + chance * losses_of(states, actions, reach).sum()
        count = count + chance * len(losses_of(states, actions, reach))
    return torch.autograd.grad(total / count, logits)[0]


@pytest.mark.parametrize(("short_ones", "reach"), [(True, False), (False, False), (True, True)])
def test_score_weights_give_the_gradient_of_the_mean_segment_loss(short_ones: bool, reach: bool) -> None:
    episodes = every_episode()
    assert sum(often for _, _, often in episodes) == 4**STEPS
    assert {len(actions) for _, actions, _ in episodes} == {1, 2, 3, 4}
    sample = [(s, a) for s, a, often in episodes for _ in range(often) if short_ones or len(a) >= LENGTH]
    weights = score_weights([losses_of(*episode, reach) for episode in sample], [len(a) for _, a in sample], LENGTH)
    logits = (QUARTERS / 4).to(D).log().requires_grad_()
    log_policy = logits.log_softmax(-1)
    scores = [(weight * log_policy[s, a]).sum() for (s, a), weight in zip(sample, weights, strict=True)]
    (found,) = torch.autograd.grad(torch.stack(scores).mean(), logits)
    expected = truth(episodes, reach)
    assert float(expected.norm()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_score_weights_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    steps, segment = [7, 3, 12, 4], 3
    losses = [torch.rand(length - segment + 1, generator=generator, dtype=D) for length in steps]
    mean = sum(float(loss.sum()) for loss in losses) / sum(len(loss) for loss in losses)
    per_episode = sum(len(loss) for loss in losses) / len(losses)
    weights = score_weights(losses, steps, segment)
    for loss, length, weight in zip(losses, steps, weights, strict=True):
        expected = [
            sum(float(loss[start]) - mean for start in range(len(loss)) if start + segment - 1 >= step) / per_episode
            for step in range(length)
        ]
        torch.testing.assert_close(weight, torch.tensor(expected, dtype=D))


OURS = ResponseSettings(segment=5, opponents=16, transitions=64, draws=2, ridge=1e-2)


def terms(run: PreferenceTrainer, episodes: list[np.ndarray], settings: ResponseSettings = OURS) -> list[Tensor]:
    """The gradients of the response's terms, with the same draws in every call."""
    torch.manual_seed(0)
    found, expected = response_term(
        run.agent, run.buffer, run.reward_model, episodes, settings, np.random.default_rng(0)
    )
    assert (expected is None) == (not found)
    parameters = list(run.reward_model.parameters())
    return [
        torch.cat([part.flatten() for part in torch.autograd.grad(term(), parameters, materialize_grads=True)])
        for term in found
    ]


def episodes_of(run: PreferenceTrainer) -> list[np.ndarray]:
    found = run.buffer.recent_episodes(40)
    assert [len(places) for places in found] == [10] * 4
    return found


def test_each_half_of_the_episodes_gives_a_term(finished: tuple[PreferenceTrainer, object]) -> None:
    run, episodes = finished[0], episodes_of(finished[0])
    assert terms(run, []) == []
    assert len(terms(run, episodes[:1])) == 1
    assert len(terms(run, episodes[:2])) == 2
    assert len(terms(run, episodes)) == 2


def test_episodes_shorter_than_a_segment_are_left_out(finished: tuple[PreferenceTrainer, object]) -> None:
    run, episodes = finished[0], episodes_of(finished[0])
    assert terms(run, [episodes[0][:4]]) == []
    (alone,), (beside,) = terms(run, episodes[:1]), terms(run, [episodes[1][:4], episodes[0]])
    torch.testing.assert_close(alone, beside)


def shown(run: PreferenceTrainer, places: np.ndarray) -> tuple[Tensor, Tensor]:
    """The segments of an episode; where it ended by itself, also those that begin less than five steps before that."""
    buffer, mode, rows = run.buffer, run.settings.after_end, []
    reaches = mode != "exclude" and buffer.dones[places[-1], 0] and not buffer.timeouts[places[-1], 0]
    for first in range(len(places) if reaches else len(places) - 4):
        seen = places[first : first + 5]
        steps = torch.cat(buffer.steps(seen), -1)
        missing = 5 - len(seen)
        rest = steps[-1:] if mode == "absorb" else torch.full_like(steps[-1:], torch.nan)
        rows.append(torch.cat([steps, rest.expand(missing, -1)]))
    size = buffer.observations.shape[-1]
    return torch.stack(rows)[..., :size], torch.stack(rows)[..., size:]


def by_hand(run: PreferenceTrainer, episodes: list[np.ndarray]) -> Tensor:
    """The response term of all episodes: scores times the projected adjoint, in double precision."""
    agent, buffer, reward = run.agent, run.buffer, run.reward_model
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    starts = buffer.segment_starts(5)
    other = buffer.steps(buffer.segment(random.choice(starts, 16, False), 5))
    places = random.choice(buffer.size(), 64, False)

    def hidden(observation: Tensor, action: Tensor) -> Tensor:
        both = torch.cat([observation, action], -1)
        layers = [torch.relu(q[2](torch.relu(q[0](both)))) for q in agent.critic.q_networks]
        members = [
            torch.nn.functional.leaky_relu(
                torch.nn.functional.leaky_relu(both @ reward.weights[0][m] + reward.biases[0][m]) @ reward.weights[1][m]
                + reward.biases[1][m]
            )
            for m in range(3)
        ]
        return torch.cat([torch.ones(len(both), 1), *layers, *members], -1).detach().to(D)

    def mean_over_actions(observation: Tensor) -> Tensor:
        mean, log_std, _ = agent.actor.get_action_dist_params(observation)
        drawn = []
        for _ in range(2):
            action = torch.tanh(torch.distributions.Normal(mean, log_std.exp()).rsample())
            drawn.append(hidden(observation, action.detach()))
        return sum(drawn) / 2

    observation, action = buffer.steps(places)
    phi = hidden(observation, action)
    ended = torch.as_tensor(buffer.dones[places, 0] * (1 - buffer.timeouts[places, 0]))
    following = mean_over_actions(torch.as_tensor(buffer.next_observations[places, 0])) * (1 - ended)[:, None]
    if buffer.after_end == "absorb":
        following = following + phi * ended[:, None]
    matrix = phi.T @ (phi - 0.98 * following) / 64
    matrix = matrix + 1e-2 * matrix.diagonal().mean().abs() * torch.eye(len(matrix), dtype=D)
    own_observation, own_action = buffer.steps(np.concatenate(episodes))
    change = hidden(own_observation, own_action) - mean_over_actions(own_observation)
    losses = [segment_losses(reward, shown(run, places), other) for places in episodes]
    weight = torch.cat(score_weights(losses, [len(places) for places in episodes], 5)).to(D)
    coefficient = phi @ torch.linalg.solve(matrix.T, (weight @ change) / len(episodes)) / 64
    value = (coefficient.detach().float() * reward(observation, action)).sum() / 0.1
    return torch.cat(
        [p.flatten() for p in torch.autograd.grad(value, list(reward.parameters()), materialize_grads=True)]
    )


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_terms_mean_is_what_linear_algebra_gives(count: int, finished: tuple[PreferenceTrainer, object]) -> None:
    run, episodes = finished[0], episodes_of(finished[0])[:count]
    found, expected = torch.stack(terms(run, episodes)).mean(0), by_hand(run, episodes)
    assert float((found - expected).norm() / expected.norm()) < 1e-3
    assert float(expected.norm()) > 0


@pytest.mark.parametrize("mode", ["zero", "absorb", "exclude"])
def test_it_is_so_where_episodes_end_by_themselves(mode: str) -> None:
    run = tiny.trainer("Tiny/Fenced-v0", after_end=mode)
    run.learn()
    least = 5 if mode == "exclude" else 1
    episodes = [places for places in run.buffer.recent_episodes(60) if len(places) >= least]
    assert mode == "exclude" or min(len(places) for places in episodes) < 5
    assert len({len(places) for places in episodes}) > 1
    episodes = episodes[: len(episodes) // 2 * 2]  # of equally many in each half, the halves' mean is the mean
    found, expected = torch.stack(terms(run, episodes)).mean(0), by_hand(run, episodes)
    assert float((found - expected).norm() / expected.norm()) < 1e-3


def test_the_response_follows_the_reward_model_as_it_moves(folder: object) -> None:
    run = PreferenceTrainer.load(folder)  # type: ignore[arg-type]
    torch.manual_seed(0)
    (term,), _ = response_term(
        run.agent, run.buffer, run.reward_model, episodes_of(run)[:1], OURS, np.random.default_rng(0)
    )
    before = torch.autograd.grad(term(), run.reward_model.weights[0])[0]
    with torch.no_grad():
        run.reward_model.weights[1].mul_(2)
    assert not torch.equal(torch.autograd.grad(term(), run.reward_model.weights[0])[0], before)


def test_learnt_features_make_the_response_approximate(finished: tuple[PreferenceTrainer, object]) -> None:
    assert finished[0].result is not None
    assert finished[0].result.response_approximate
    assert finished[0].result.response_age == 0
    assert tiny.rounds(finished[0])[-1]["response_age"] == 0
