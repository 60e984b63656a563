"""PBRL's penalty against the values of a table, and its second agent in whole runs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrad.rlhf import (
    PBRL,
    BentReward,
    Features,
    PreferenceTrainer,
    RelabelledReplayBuffer,
    RewardEnsemble,
    Shown,
    SoftDQN,
    of_fixed_scale,
    value_gap,
)

from . import tabular as t
from . import tiny


@pytest.fixture(scope="module")
def pair() -> tuple[SoftDQN, SoftDQN]:
    """The best response to a reward, and an agent that answers another one and has drawn episodes."""
    best, acts = t.answering(t.table(t.model())), t.answering(t.table(t.model(1)))
    t.act(acts, 400)
    return best, acts


def buffer_of(agent: SoftDQN) -> RelabelledReplayBuffer:
    assert isinstance(agent.replay_buffer, RelabelledReplayBuffer)
    return agent.replay_buffer


def features(agent: Any, reward: RewardEnsemble) -> Features:
    return Features(agent, reward, 2)


def policy(agent: SoftDQN) -> Tensor:
    return agent.probabilities(torch.eye(t.STATES)).double()


def test_the_penaltys_gradient_is_that_of_two_values(pair: tuple[SoftDQN, SoftDQN]) -> None:
    """It has to come from the reward itself: a value network has no derivative in the reward's parameters."""
    best, acts = pair
    reward, buffer = t.model(), buffer_of(acts)
    gap = value_gap(best, features(acts, reward), buffer, reward, t.SETTINGS, np.random.default_rng(0))
    assert gap is not None
    starts = torch.as_tensor(buffer.observations[: buffer.pos : t.STEPS, 0]).mean(0).double()
    table = t.table(reward)
    expected = t.value(policy(best), table, starts) - t.value(policy(acts), table, starts)
    assert gap().item() == pytest.approx(expected.item(), rel=1e-2)
    assert abs(expected.item()) > 0.01
    wanted = t.flat(expected, reward)
    assert float((t.flat(gap(), reward) - wanted).norm()) < 1e-2 * float(wanted.norm())


def test_the_scale_of_the_reward_is_no_way_out() -> None:
    reward, weight = t.model(), torch.linspace(-1, 1, len(t.SEEN))
    scaled = of_fixed_scale(reward)(t.SEEN, t.DONE)
    torch.testing.assert_close(scaled, reward(t.SEEN, t.DONE))
    last = [reward.weights[-1], reward.biases[-1]]  # the reward is linear in these: along them its scale grows
    for found, nothing in ((scaled, True), (reward(t.SEEN, t.DONE), False)):
        parts = torch.autograd.grad((found * weight).sum(), last)
        growth = sum((part * value).sum() for part, value in zip(parts, last, strict=True))
        assert (abs(growth.item()) < 1e-4) == nothing


def test_without_a_whole_episode_there_is_no_penalty() -> None:
    agent = t.answering(t.table(t.model()))
    assert (
        value_gap(agent, features(agent, t.model()), buffer_of(agent), t.model(), t.SETTINGS, np.random.default_rng(0))
        is None
    )


def test_equal_policies_have_no_penalty(finished: tuple[PreferenceTrainer, Any]) -> None:
    """Also where means are over drawn actions: both have the same draws."""
    run = finished[0]
    same, other = copy.deepcopy(run.agent.actor), run.agent
    twin = copy.copy(other)
    twin.actor = same
    basis = features(other, run.reward_model)
    gap = value_gap(twin, basis, run.buffer, run.reward_model, t.SETTINGS, np.random.default_rng(0))
    assert gap is not None
    assert gap().item() == 0
    with torch.no_grad():
        same.mu.bias.add_(0.5)
    gap = value_gap(twin, basis, run.buffer, run.reward_model, t.SETTINGS, np.random.default_rng(0))
    assert gap is not None
    assert gap().item() != 0


def test_the_bent_reward_costs_a_share_of_the_losses_that_end_with_a_step(pair: tuple[SoftDQN, SoftDQN]) -> None:
    acts, reward = pair[1], t.model(1)
    buffer = buffer_of(acts)
    episodes = buffer.recent_episodes(50 * t.STEPS)
    shown = Shown.of(buffer, reward, episodes, t.SETTINGS, np.random.default_rng(0))
    assert shown is not None
    bent = BentReward.fitted(reward, 0.3, buffer, shown, t.SETTINGS).requires_grad_(False)
    total, count = torch.zeros(t.STATES, t.ACTIONS), torch.zeros(t.STATES, t.ACTIONS)
    every = torch.cat(shown.losses)
    for episode, loss in zip(episodes, shown.losses, strict=True):
        ends = episode[t.LENGTH - 1 :]
        place = buffer.observations[ends, 0].argmax(-1), buffer.actions[ends, 0, 0]
        total.index_put_(tuple(map(torch.as_tensor, place)), loss - every.mean(), accumulate=True)
        count.index_put_(tuple(map(torch.as_tensor, place)), torch.ones(len(loss)), accumulate=True)
    assert float(count.min()) > 0
    expected = reward(t.SEEN, t.DONE) - 0.3 * (total / count).flatten()
    # The reward's last layers tell the places apart, so that the regression is a mean.
    torch.testing.assert_close(bent(t.SEEN, t.DONE), expected, rtol=0, atol=2e-3)
    assert float((bent(t.SEEN, t.DONE) - reward(t.SEEN, t.DONE)).abs().max()) > 2e-2


def method(run: PreferenceTrainer) -> PBRL:
    assert isinstance(run.method, PBRL)
    return run.method


@pytest.fixture(scope="module", params=[tiny.POINT, "Tiny/Buttons-v0"])
def run(request: pytest.FixtureRequest) -> PreferenceTrainer:
    trainer = tiny.trainer(request.param, method="pbrl")
    trainer.learn()
    return trainer


def test_the_second_agent_takes_no_steps_and_no_labels(run: PreferenceTrainer) -> None:
    best = method(run).best
    assert best is not None
    assert run.result is not None
    assert (run.result.steps, run.result.labels) == (tiny.STEPS, tiny.LABELS)
    assert run.agent.num_timesteps == run.buffer.size() == tiny.STEPS
    assert best.num_timesteps == 0
    assert tiny.updates(run) == tiny.UPDATES
    assert best.updates == 39  # those of the other before the last round, which is due at step 60


def test_it_answers_the_models_own_reward_and_the_one_that_acts_a_bent_one(run: PreferenceTrainer) -> None:
    best = method(run).best
    assert best is not None
    assert isinstance(best.replay_buffer, RelabelledReplayBuffer)
    assert best.replay_buffer.reward_model is run.reward_model
    assert isinstance(run.buffer.reward_model, BentReward)
    assert run.buffer.reward_model.share == pytest.approx((1 - run.settings.discount) / run.settings.penalty)
    assert best.replay_buffer.observations is run.buffer.observations


def test_training_the_second_agent_leaves_the_first_alone() -> None:
    trainer = tiny.trainer(method="pbrl")
    trainer.learn()
    before = copy.deepcopy(trainer.agent.get_parameters())
    chosen = method(trainer)
    best = chosen.second()
    best._n_updates -= 5  # noqa: SLF001  # stable-baselines3 has no public name for it
    chosen.catch_up(best)
    after = trainer.agent.get_parameters()
    assert all(torch.equal(tensor, after["policy"][name]) for name, tensor in before["policy"].items())
    for name in ("actor.optimizer", "critic.optimizer"):
        for place, moments in before[name]["state"].items():
            assert torch.equal(moments["exp_avg"], after[name]["state"][place]["exp_avg"])


def test_the_second_agent_is_kept_with_the_run(run: PreferenceTrainer) -> None:
    again = tiny.trainer(run.settings.env, method="pbrl")
    kept = method(again)
    kept.restore(copy.deepcopy(method(run).state()))
    best, found = method(run).best, kept.best
    assert best is not None
    assert found is not None
    assert found.updates == best.updates
    for one, other in zip(found.policy.parameters(), best.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    kept.restore(None)
    assert kept.best is found


def test_making_the_second_agent_draws_no_number_of_the_runs() -> None:
    trainer = tiny.trainer(method="pbrl")
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    method(trainer).second()
    drawn = torch.rand(2), np.random.rand(2)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert torch.equal(drawn[0], torch.rand(2))
    assert (drawn[1] == np.random.rand(2)).all()  # noqa: NPY002


def test_the_penalty_decides_how_much_the_response_asks_for() -> None:
    ratios = []
    for penalty in (1e-3, 1e-2):
        trainer = tiny.trainer(method="pbrl", penalty=penalty, response_limit=1e9, upper_steps=1)
        trainer.learn(tiny.STEPS)
        ratios.append(tiny.rounds(trainer)[1]["estimated_ratio"])
    assert ratios[1] / ratios[0] == pytest.approx(10, rel=0.5)
