"""SoftDQN against the soft Bellman equation of a small process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from bigrad.mdp import soft_bellman
from bigrad.rlhf import SoftDQN

STATES, ACTIONS, DISCOUNT, TEMPERATURE = 4, 3, 0.8, 0.5
NEXT = np.array([[1, 2, 3], [0, 2, 2], [3, 3, 0], [1, 0, 3]])
REWARD = np.array([[1.0, 0.0, -1.0], [0.5, -0.5, 0.3], [0.0, 0.2, 0.1], [-1.0, 1.0, 0.4]])


class Process(gymnasium.Env[np.ndarray, np.int64]):
    """A deterministic process that is seen as one-hot vectors."""

    observation_space = spaces.Box(0, 1, (STATES,), np.float32)
    action_space = spaces.Discrete(ACTIONS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state, self.age = int(self.np_random.integers(STATES)), 0
        return self._seen(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(REWARD[self.state, action])
        self.state, self.age = int(NEXT[self.state, action]), self.age + 1
        return self._seen(), reward, False, self.age >= 50, {}

    def _seen(self) -> np.ndarray:
        return np.eye(STATES, dtype=np.float32)[self.state]


def agent(layers: tuple[int, ...] = (), **settings: Any) -> SoftDQN:
    given: dict[str, Any] = {"learning_rate": 0.02, "gamma": DISCOUNT, "batch_size": 48, "buffer_size": 4000}
    given |= {"learning_starts": 100, "target_update_interval": 1, "tau": 0.3, "train_freq": 1}
    given |= {"policy_kwargs": {"net_arch": list(layers)}, "seed": 0, "device": "cpu"}
    return SoftDQN("MlpPolicy", Process(), temperature=TEMPERATURE, **(given | settings))


@pytest.fixture(scope="module")
def learnt() -> SoftDQN:
    return agent().learn(1500)


def truth() -> Any:
    transition = torch.nn.functional.one_hot(torch.tensor(NEXT), STATES).double()
    return soft_bellman(torch.tensor(REWARD), transition, DISCOUNT, TEMPERATURE)


def test_the_values_are_those_of_the_soft_bellman_equation(learnt: SoftDQN) -> None:
    solution = truth()
    found = learnt.q_net(torch.eye(STATES)).detach().double()
    assert (found - solution.q_value).abs().max() < 0.02
    greedy = soft_bellman(
        torch.tensor(REWARD), torch.nn.functional.one_hot(torch.tensor(NEXT), STATES).double(), DISCOUNT, 1e-3
    )
    assert (found - greedy.q_value).abs().min() > 0.5  # a backup by the best action would be far off
    assert (learnt.probabilities(torch.eye(STATES)).double() - solution.policy).abs().max() < 0.02


def test_the_soft_bellman_relation_holds_exactly(learnt: SoftDQN) -> None:
    observation, action = torch.eye(STATES)[[0, 1, 3]], torch.eye(ACTIONS)[[2, 0, 1]]
    q = learnt.q_net(observation)
    v = TEMPERATURE * torch.logsumexp(q / TEMPERATURE, -1)
    wanted = ((q * action).sum(-1) - v) / TEMPERATURE
    torch.testing.assert_close(learnt.log_prob(observation, action), wanted.detach())


def test_the_mean_over_actions_is_exact(learnt: SoftDQN) -> None:
    observation = torch.eye(STATES)
    number = torch.tensor([1.0, 10.0, 100.0])
    found = learnt.mean(
        lambda seen, action: torch.stack([action @ number, seen @ torch.arange(4.0)], -1), observation, 1
    )
    chance = learnt.probabilities(observation)
    torch.testing.assert_close(found, torch.stack([chance @ number, torch.arange(4.0)], -1))


def test_the_value_is_linear_in_the_features() -> None:
    fresh = agent((8, 5))
    observation = torch.randn(2, 6, STATES, generator=torch.Generator().manual_seed(0))
    action = torch.eye(ACTIONS)[torch.arange(12).reshape(2, 6) % ACTIONS]
    last = fresh.q_net.q_net[-1]
    features = fresh.features(observation, action)
    assert features.shape == (2, 6, ACTIONS * 5)
    linear = features @ last.weight.flatten() + action @ last.bias
    value = (fresh.q_net(observation.flatten(0, 1)).reshape(2, 6, ACTIONS) * action).sum(-1)
    torch.testing.assert_close(linear, value)


def test_actions_are_drawn_from_the_softmax(learnt: SoftDQN) -> None:
    torch.manual_seed(0)
    seen = np.tile(np.eye(STATES, dtype=np.float32)[2], (4000, 1))
    counts = np.bincount(learnt.predict(seen)[0], minlength=ACTIONS) / 4000
    chance = learnt.probabilities(torch.eye(STATES))[2].numpy()
    assert (np.abs(counts - chance) < 4 * np.sqrt(chance * (1 - chance) / 4000)).all()
    best = learnt.predict(seen, deterministic=True)[0]
    assert (best == chance.argmax()).all()


def test_updates_are_put_off_and_made_up_for() -> None:
    held = agent(learning_starts=10)
    held.learn(20)
    before = held.updates
    held.holding = True
    held.learn(30, reset_num_timesteps=False)
    assert (held.updates, held.owed) == (before, 30)
    held.holding = False
    held.learn(1, reset_num_timesteps=False)
    assert (held.updates, held.owed) == (before + 31, 0)


def test_saved_and_loaded_it_acts_the_same(learnt: SoftDQN, tmp_path: Path) -> None:
    learnt.save(tmp_path / "agent.zip")
    again = SoftDQN.load(tmp_path / "agent.zip")
    assert again.temperature == again.policy.temperature == TEMPERATURE
    assert torch.equal(again.probabilities(torch.eye(STATES)), learnt.probabilities(torch.eye(STATES)))


class Pictures(Process):
    """The same process as pictures of one bright square."""

    observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)

    def _seen(self) -> np.ndarray:
        picture = np.zeros((36, 36, 1), np.uint8)
        picture[9 * self.state : 9 * self.state + 9] = 255
        return picture


def test_it_learns_from_pictures() -> None:
    settings = {"buffer_size": 200, "learning_starts": 20, "batch_size": 8, "target_update_interval": 10}
    seeing = SoftDQN("CnnPolicy", Pictures(), temperature=TEMPERATURE, seed=0, device="cpu", train_freq=1, **settings)
    seeing.learn(40)
    picture = torch.zeros(2, 1, 36, 36)
    action = torch.eye(ACTIONS)[[0, 2]]
    assert seeing.features(picture, action).shape == (2, ACTIONS * 512)
    torch.testing.assert_close(seeing.log_prob(picture, action), seeing.probabilities(picture)[[0, 1], [0, 2]].log())
