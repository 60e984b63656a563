"""Observations of mean 0 and deviation 1, and a temperature that is learnt: what the networks and the response see."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigrad.errors import InputError
from bigrad.layers import SoftResponse
from bigrad.rlhf import PreferenceTrainer, load_tree

from . import tiny
from .test_resume import assert_the_same, step_on

pytestmark = pytest.mark.usefixtures("unsynced", "unpainted")

LEARNT: dict[str, Any] = {"learn_temperature": True, "temperature": 0.5, "least_temperature": 0.45}


@pytest.fixture(scope="module")
def normalised(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreferenceTrainer, Path]:
    """A run whose networks see normalised observations."""
    folder = tmp_path_factory.mktemp("normalised")
    run = tiny.trainer(normalise=True)
    run.learn(out=folder, command="the command")
    return run, folder


def test_networks_see_what_vecnormalize_shows(normalised: tuple[PreferenceTrainer, Path]) -> None:
    agent, seen = normalised[0].agent, 30 * tiny.observations()
    scale = agent.get_vec_normalize_env()
    assert scale is not None
    shown = scale.normalize_obs(seen)
    assert np.abs(shown).max() == scale.clip_obs  # it clips, too
    np.testing.assert_allclose(agent.seen(torch.from_numpy(seen)).numpy(), shown, rtol=1e-5, atol=1e-6)
    expected = agent.policy.predict(shown, deterministic=True)[0]
    np.testing.assert_allclose(normalised[0].act(seen), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(agent.policy.predict(seen, deterministic=True)[0] - expected).max() > 1e-3


def test_values_and_densities_are_those_at_what_the_networks_see(normalised: tuple[PreferenceTrainer, Path]) -> None:
    agent, places = normalised[0].agent, np.arange(tiny.STEPS)
    observation, action = normalised[0].buffer.steps(places)
    shown = agent.seen(observation)
    critics = torch.cat([network(torch.cat([shown, action], 1)) for network in agent.critic.q_networks], 1)
    features = agent.features(observation, action)
    last = [network[-1] for network in agent.critic.q_networks]
    values = torch.cat([layer(part) for layer, part in zip(last, features.chunk(2, 1), strict=True)], 1)
    torch.testing.assert_close(values, critics)
    mean, log_std, _ = agent.actor.get_action_dist_params(shown)
    distribution = agent.actor.action_dist.proba_distribution(mean, log_std)
    inside = action.clamp(-0.999, 0.999)
    torch.testing.assert_close(agent.log_prob(observation, inside), distribution.log_prob(inside))


def test_buffer_and_reward_keep_plain_observations(normalised: tuple[PreferenceTrainer, Path]) -> None:
    run = normalised[0]
    samples = run.buffer.sample(20, env=run.agent.get_vec_normalize_env())
    plain = run.buffer.sample(20)
    assert samples.observations.abs().max() > plain.observations.abs().max()
    every = run.buffer.observations[:, 0]
    moments = run.agent.moments
    assert moments is not None
    np.testing.assert_allclose(moments.mean, every.mean(0), atol=0.1)
    np.testing.assert_allclose(moments.var, every.var(0), rtol=0.2)
    run.generators.__enter__()
    state = np.random.get_state()  # noqa: NPY002  # theirs
    samples = run.buffer.sample(20, env=run.agent.get_vec_normalize_env())
    np.random.set_state(state)  # noqa: NPY002
    plain = run.buffer.sample(20)
    run.generators.__exit__()
    torch.testing.assert_close(samples.observations, run.agent.seen(plain.observations), rtol=1e-5, atol=1e-6)
    assert torch.equal(samples.rewards, plain.rewards)
    expected = run.reward_model(plain.observations, plain.actions).detach()
    torch.testing.assert_close(plain.rewards[:, 0], expected)


def test_the_scale_is_on_disk_as_plain_numbers(normalised: tuple[PreferenceTrainer, Path]) -> None:
    run, folder = normalised
    moments = run.agent.moments
    assert moments is not None
    saved = load_tree(folder / "checkpoint.safetensors")["scale"]
    assert (saved["mean"] == moments.mean).all()
    assert (saved["var"] == moments.var).all()
    assert saved["count"] == moments.count
    assert json.loads((folder / "policy.json").read_text())["observation_mean"] == moments.mean.tolist()


@pytest.mark.parametrize("given", [{"normalise": True}, {"normalise": True, "envs": 2}, LEARNT], ids=str)
def test_stopped_by_ctrl_c_and_resumed(given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warned(given):
        straight = tiny.trainer(**given)
    straight.learn(out=tmp_path / "straight", command="the command")
    with warned(given):
        stopped = tiny.trainer(**given)
    with monkeypatch.context() as patch:
        step_on(patch, 52)
        with pytest.raises(KeyboardInterrupt):
            stopped.learn(out=tmp_path / "stopped", command="the command")
    with warned(given):
        resumed = PreferenceTrainer.load(tmp_path / "stopped")
    assert resumed.agent.num_timesteps == 52
    resumed.learn(out=tmp_path / "stopped", command="the command")
    assert_the_same(straight, resumed)
    assert straight.agent.temperature == resumed.agent.temperature


def warned(given: dict[str, Any]) -> Any:
    """A learnt temperature is warned of where there is a response term."""
    if "learn_temperature" not in given:
        return pytest.MonkeyPatch.context()
    return pytest.warns(UserWarning, match=r"the response term carries its inverse")


@pytest.mark.parametrize("agent", ["sac", "tqc"])
def test_a_learnt_temperature_moves_and_stays_above_the_least(agent: str) -> None:
    run = tiny.trainer(method="drlhf", agent=agent, lr=0.02, **LEARNT)
    seen, plain = [], run.agent.settle
    run.agent.settle = lambda: (plain(), seen.append(run.agent.temperature))  # type: ignore[method-assign]
    run.learn()
    assert len(seen) == tiny.UPDATES
    assert 0.45 <= min(seen) + 1e-7 < 0.451
    assert len(set(seen)) > 3
    assert run.agent.temperature == pytest.approx(float(run.agent.log_ent_coef.detach().exp()))
    fixed = tiny.trainer(method="drlhf", agent=agent, temperature=0.5)
    fixed.learn()
    assert fixed.agent.temperature == 0.5


def test_the_response_is_that_at_the_temperature_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with warned(LEARNT):
        run = tiny.trainer(lr=0.01, **{**LEARNT, "least_temperature": 0.05})
    used: list[tuple[float, float]] = []

    class Spy(SoftResponse):
        def __init__(self, *args: Any, temperature: float, **settings: Any) -> None:
            used.append((temperature, math.exp(float(run.agent.log_ent_coef.detach()))))
            super().__init__(*args, temperature=temperature, **settings)

    monkeypatch.setattr("bigrad.rlhf.response.SoftResponse", Spy)
    run.learn()
    assert len(used) == 2
    assert used[0] == pytest.approx(used[0][::-1])
    assert used[1] == pytest.approx(used[1][::-1])
    assert used[1][0] < used[0][0] == 0.5  # no update was due before the first round


def test_softmax_policies_have_a_fixed_temperature() -> None:
    with pytest.raises(InputError, match=r"learn_temperature is true, and the agent softdqn has a fixed one"):
        tiny.trainer("Tiny/Buttons-v0", learn_temperature=True)
