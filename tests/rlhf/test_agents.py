"""Runs with every agent: who may learn what, and a run with discrete actions from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bigrad import InputError
from bigrad.rlhf import PreferenceTrainer, SoftActorCritic, SoftDQN, SoftTQC

from . import tiny

BUTTONS = "Tiny/Buttons-v0"


@pytest.mark.parametrize(
    ("env", "agent", "kind"),
    [
        (tiny.POINT, "auto", SoftActorCritic),
        (tiny.POINT, "sac", SoftActorCritic),
        (tiny.POINT, "tqc", SoftTQC),
        (BUTTONS, "auto", SoftDQN),
        (BUTTONS, "softdqn", SoftDQN),
    ],
)
def test_the_agent_serves_the_actions(env: str, agent: str, kind: type) -> None:
    assert type(tiny.trainer(env, agent=agent).agent) is kind


@pytest.mark.parametrize(
    ("env", "agent", "served"),
    [(tiny.POINT, "softdqn", "sac, tqc"), (BUTTONS, "tqc", "softdqn"), (BUTTONS, "sac", "softdqn")],
)
def test_an_agent_for_other_actions_is_refused(env: str, agent: str, served: str) -> None:
    with pytest.raises(InputError, match=f"agent is '{agent}', and the actions of .* wanted one of auto, {served}"):
        tiny.trainer(env, agent=agent)


@pytest.mark.parametrize(("env", "method"), [(tiny.POINT, "softdqn"), (BUTTONS, "sac")])
def test_the_ceiling_of_other_actions_is_refused(env: str, method: str) -> None:
    with pytest.raises(InputError, match=f"agent is '{method}'"):
        tiny.trainer(env, method=method)


@pytest.fixture(scope="module", params=[(BUTTONS, "auto"), (tiny.POINT, "tqc")], ids=["buttons", "tqc"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PreferenceTrainer, Path]:
    env, agent = request.param
    folder = tmp_path_factory.mktemp("run")
    trainer = tiny.trainer(env, agent=agent)
    trainer.learn(out=folder, command="the command")
    return trainer, folder


def test_the_response_is_on(run: tuple[PreferenceTrainer, Path]) -> None:
    result = run[0].result
    assert result is not None
    assert result.labels == tiny.LABELS
    assert result.response_share >= 0.5
    assert np.isfinite(result.true_return)


def test_a_saved_run_acts_and_judges_the_same(run: tuple[PreferenceTrainer, Path]) -> None:
    trainer, folder = run
    again = PreferenceTrainer.load(folder)
    seen = tiny.observations()
    assert (
        again.agent.predict(seen, deterministic=True)[0] == trainer.agent.predict(seen, deterministic=True)[0]
    ).all()
    assert again.agent.temperature == trainer.agent.temperature
    for one, other in zip(again.buffer.steps(np.arange(20)), trainer.buffer.steps(np.arange(20)), strict=True):
        assert torch.equal(one, other)


def test_the_same_seed_gives_the_same_run(run: tuple[PreferenceTrainer, Path]) -> None:
    trainer = run[0]
    again = tiny.trainer(trainer.settings.env, agent=trainer.settings.agent)
    again.learn(command="the command")
    assert again.history == trainer.history
    assert torch.equal(tiny.parameters(again), tiny.parameters(trainer))


def test_discrete_actions_are_one_hot_wherever_a_reward_is_learnt() -> None:
    trainer = tiny.trainer(BUTTONS)
    trainer.learn()
    _, action = trainer.buffer.steps(np.arange(30).reshape(5, 6))
    assert action.shape == (5, 6, 3)
    assert torch.equal(action.sum(-1), torch.ones(5, 6))
    numbers = torch.as_tensor(trainer.buffer.actions[:30, 0, 0]).reshape(5, 6)
    assert torch.equal(action.argmax(-1), numbers)
    assert trainer.reward_model.sizes == (2, 3)
    assert trainer.store.load()[0].action.shape[-1] == 3
    # What the agent learns from is the reward of the very action that was taken.
    np.random.seed(0)  # noqa: NPY002  # the buffer draws from it
    seen = trainer.buffer.sample(16)
    vectors = torch.nn.functional.one_hot(seen.actions.squeeze(-1).long(), 3).float()
    wanted = trainer.reward_model(seen.observations.float(), vectors)
    torch.testing.assert_close(seen.rewards.squeeze(-1), wanted)


def test_the_true_reward_of_discrete_actions_has_its_own_ceiling_run() -> None:
    trainer = tiny.trainer(BUTTONS, method="softdqn")
    result = trainer.learn()
    assert (result.labels, result.preference_accuracy) == (0, None)
