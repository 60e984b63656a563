"""Agents of stable-baselines3 and sb3-contrib at a fixed temperature, with one interface."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bigrad.rlhf import SoftActorCritic, SoftTQC

from . import picture_environments, tiny
from .picture_environments import DOT, PUSHED

picture_environments.register()
KINDS = {"sac": SoftActorCritic, "tqc": SoftTQC}


@pytest.fixture(scope="module", params=KINDS)
def agent(request: pytest.FixtureRequest) -> Any:
    settings = {"learning_starts": 20, "batch_size": 16, "policy_kwargs": {"net_arch": [16, 16]}}
    made = KINDS[request.param]("MlpPolicy", "Pendulum-v1", temperature=0.3, seed=0, device="cpu", **settings)
    return made.learn(40)


def test_the_temperature_is_the_one_given_and_stays(agent: Any) -> None:
    assert agent.temperature == pytest.approx(0.3)
    assert float(agent.ent_coef_tensor) == pytest.approx(0.3)
    assert agent.ent_coef_optimizer is None


def test_the_density_integrates_to_one(agent: Any) -> None:
    action = torch.linspace(-1, 1, 200_001)[1:-1, None]
    observation = torch.tensor([[0.5, 0.5, 1.0]]).expand(len(action), -1)
    density = agent.log_prob(observation, action).double().exp()
    assert float(density.sum() * 2 / 200_000) == pytest.approx(1, abs=1e-3)


def test_the_density_is_that_of_stable_baselines_actor(agent: Any) -> None:
    torch.manual_seed(0)
    observation = torch.randn(6, 3)
    with torch.no_grad():
        action, expected = agent.actor.action_log_prob(observation)
    torch.testing.assert_close(agent.log_prob(observation, action), expected, rtol=1e-3, atol=1e-3)


def test_a_mean_over_actions_agrees_with_the_density(agent: Any) -> None:
    observation = torch.tensor([[0.5, 0.5, 1.0], [-1.0, 0.0, 2.0]])
    torch.manual_seed(0)
    found = agent.mean(lambda seen, action: torch.cat([action, seen[..., :1]], -1), observation, 20_000)
    action = torch.linspace(-1, 1, 20_001)[1:-1, None]
    for place, seen in enumerate(observation):
        density = agent.log_prob(seen.expand(len(action), -1), action).double().exp() * 1e-4
        mean = float((density * action[:, 0]).sum())
        spread = float((density * (action[:, 0] - mean) ** 2).sum()) ** 0.5
        assert abs(float(found[place, 0]) - mean) < 4 * spread / 20_000**0.5
        assert float(found[place, 1]) == pytest.approx(float(seen[0]))


def test_the_features_are_the_last_hidden_layers(agent: Any) -> None:
    observation, action = torch.randn(3, 4, 3), torch.rand(3, 4, 1)
    features = agent.features(observation, action)
    assert features.shape == (3, 4, 32)
    first = agent.critic.q_networks[0]
    values = first(torch.cat([observation, action], -1))
    torch.testing.assert_close(first[-1](features[..., :16]), values)


@pytest.mark.parametrize("env", [DOT, PUSHED])
def test_an_agent_looks_at_some_pictures_at_a_time(env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny.trainer(env, units=8)
    pictures = torch.randint(256, (5, *run.buffer.observations.shape[2:]), dtype=torch.uint8)
    action = torch.eye(5, run.reward_model.sizes[1])
    asked = (run.agent.features, run.agent.log_prob)
    whole, looks = [ask(pictures, action) for ask in asked], list[int]()

    def seen(part: torch.Tensor) -> torch.Tensor:
        looks.append(len(part))
        return part

    monkeypatch.setattr("bigrad.rlhf.agent.AT_ONCE", 2)
    monkeypatch.setattr(run.agent, "seen", seen)
    for ask, expected in zip(asked, whole, strict=True):
        torch.testing.assert_close(ask(pictures, action), expected)
    assert looks == [2, 2, 1, 2, 2, 1]
