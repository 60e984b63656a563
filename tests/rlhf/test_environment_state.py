"""An environment that is written down and brought back goes on to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor

from bigrad.errors import RunError
from bigrad.rlhf import load_tree, read_environment, save_tree, write_environment

NAMES = ("Pendulum-v1", "bigrad/DiscretePendulum-v1", "Acrobot-v1", "HalfCheetah-v5", "InvertedPendulum-v5")


def walk(*envs: Any, steps: int) -> list[Any]:
    """What each sees when all take the same actions, with fresh episodes where one ends."""
    seen: list[list[Any]] = [[] for _ in envs]
    for _ in range(steps):
        action = envs[0].action_space.sample()
        for env, rows in zip(envs, seen, strict=True):
            observation, reward, ended, cut, _ = env.step(action)
            rows.append((observation.tolist(), reward, ended, cut))
            if ended or cut:
                rows.append(env.reset()[0].tolist())
    return seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_to_the_last_bit(name: str, tmp_path: Path) -> None:
    env, copy = (Monitor(gymnasium.make(name)) for _ in range(2))
    env.reset(seed=0)
    env.action_space.seed(0)
    copy.reset(seed=1)
    walk(env, steps=7)
    save_tree(tmp_path / "state", read_environment(env))
    write_environment(copy, load_tree(tmp_path / "state"))
    one, other = walk(env, copy, steps=60)
    assert one == other
    third = Monitor(gymnasium.make(name))
    third.reset(seed=1)
    assert walk(env, third, steps=3)[0] != walk(env, third, steps=3)[1]  # it is no matter of course


class Odd(gymnasium.Env[Any, Any]):
    """An environment with something that is no number."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, thing: Any) -> None:
        self.thing = thing


@pytest.mark.parametrize("thing", [object(), [1, object()], {"a": {1, 2}}, {1: 2}, np.array([object()])])
def test_a_state_that_is_not_known_is_not_written_down(thing: Any) -> None:
    assert read_environment(Odd(thing)) is None


def test_nested_numbers_come_back_as_they_were() -> None:
    thing = {"a": [1, (2.5, None, "x")], "b": np.arange(3), "generator": True}
    env, copy = Odd(thing), Odd(None)
    state = read_environment(env)
    assert state is not None
    write_environment(copy, state)
    assert repr(copy.thing) == repr(thing)
    copy.thing["b"][0] = 7
    assert thing["b"][0] == 0  # type: ignore[index]


def test_a_state_of_another_kind_is_refused() -> None:
    state = read_environment(gymnasium.make("CartPole-v1"))
    assert state is not None
    with pytest.raises(RunError, match="other attributes"):
        write_environment(gymnasium.make("Pendulum-v1"), state)
