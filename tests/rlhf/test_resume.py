"""A run that is stopped and resumed is the run that was never stopped, to the last bit."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

from bigrad.errors import RunError
from bigrad.rlhf import PreferenceTrainer, load_tree, save_tree

from . import tiny

ENVIRONMENTS = (tiny.POINT, "Tiny/Buttons-v0", "Pendulum-v1")
METHODS = {
    tiny.POINT: ("sobirl", "drlhf", "pbrl", "sac"),
    "Tiny/Buttons-v0": ("sobirl", "pbrl"),
    "Pendulum-v1": ("sobirl", "pbrl"),
}
# Within the warm-up, while updates are put off, and between two rounds.
CASES = [
    *((tiny.POINT, "sobirl", share) for share in (0.2, 0.45)),
    *((e, m, 0.66) for e in ENVIRONMENTS for m in METHODS[e]),
]


def settings(env: str, method: str) -> dict[str, Any]:
    given = {"method": method}
    if env == "Pendulum-v1":  # episodes of 200 steps
        given |= {"steps": 700, "warm_up": 220, "on_policy_steps": 210, "transitions": 256}
    return given


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """As in a terminal; a shell's background jobs start without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def step_on(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C in the midst of that environment step."""
    plain = gymnasium.wrappers.TimeLimit.step
    taken = 0

    def pressed(self: Any, action: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == step:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, action)

    monkeypatch.setattr(gymnasium.wrappers.TimeLimit, "step", pressed)


def assert_the_same(one: PreferenceTrainer, other: PreferenceTrainer) -> None:
    assert torch.equal(tiny.parameters(one), tiny.parameters(other))
    assert one.history == other.history
    first, second = one.store.load(), other.store.load()
    for a, b in ((first[0].observation, second[0].observation), (first[0].action, second[0].action)):
        assert torch.equal(a, b)
    assert torch.equal(first[1], second[1])
    assert one.result is not None
    assert other.result is not None
    assert one.result.to_json() | {"wall_seconds": 0} == other.result.to_json() | {"wall_seconds": 0}


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize(("env", "method", "share"), CASES)
def test_stopped_by_ctrl_c_and_resumed(
    env: str, method: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(env, method)
    straight = tiny.trainer(env, **given)
    straight.learn(out=tmp_path / "straight", command="the command")
    stopped = int(share * straight.settings.steps) - 1
    with monkeypatch.context() as patch:
        step_on(patch, stopped)
        with pytest.raises(KeyboardInterrupt):
            tiny.trainer(env, **given).learn(out=tmp_path / "stopped", command="the command")
    resumed = PreferenceTrainer.load(tmp_path / "stopped")
    assert resumed.agent.num_timesteps == stopped
    resumed.learn(out=tmp_path / "stopped", command="the command")
    assert_the_same(straight, resumed)


@pytest.mark.usefixtures("unpainted")
def test_killed_after_a_checkpoint_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done after the last checkpoint is done again; here no label was given since."""
    straight = tiny.trainer()
    straight.learn(out=tmp_path / "straight", command="the command")
    save, saved = PreferenceTrainer.save, 0

    def save_twice(self: PreferenceTrainer, path: Path) -> None:
        nonlocal saved
        save(self, path)
        saved += 1
        if saved == 3:
            shutil.copytree(path, tmp_path / "killed")

    monkeypatch.setattr(PreferenceTrainer, "save", save_twice)
    tiny.trainer().learn(out=tmp_path / "other", command="the command")
    resumed = PreferenceTrainer.load(tmp_path / "killed")
    assert 0 < resumed.agent.num_timesteps < tiny.STEPS
    resumed.learn(out=tmp_path / "killed", command="the command")
    assert_the_same(straight, resumed)


@pytest.mark.usefixtures("unpainted")
def test_an_environment_that_tells_nothing_begins_a_new_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigrad.rlhf.run_folder.read_environment", lambda env: None)
    with monkeypatch.context() as patch:
        step_on(patch, 53)
        with pytest.raises(KeyboardInterrupt):
            tiny.trainer().learn(out=tmp_path / "run")
    resumed = PreferenceTrainer.load(tmp_path / "run")
    assert resumed.buffer.dones[52, 0] == resumed.buffer.timeouts[52, 0] == 1
    resumed.learn(out=tmp_path / "run")
    assert resumed.result is not None
    assert resumed.result.labels == tiny.LABELS


@pytest.mark.usefixtures("unpainted")
def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gymnasium.wrappers.TimeLimit.step

    def pressed(self: Any, action: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return plain(self, action)

    with monkeypatch.context() as patch:
        patch.setattr(gymnasium.wrappers.TimeLimit, "step", pressed)
        run = tiny.trainer()
        with pytest.raises(KeyboardInterrupt):
            run.learn(out=tmp_path / "run")
    assert run.buffer.size() == 0  # the step was not finished
    resumed = PreferenceTrainer.load(tmp_path / "run")
    resumed.learn(out=tmp_path / "run")
    assert resumed.store.count == tiny.LABELS


def test_ctrl_c_is_the_users_again_afterwards() -> None:
    tiny.trainer(method="sac").learn()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("unpainted")
def test_a_state_of_another_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        step_on(patch, 53)
        with pytest.raises(KeyboardInterrupt):
            tiny.trainer().learn(out=tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.safetensors"
    state = load_tree(path)
    state["episode"]["environment"][0][-1].pop("state")
    save_tree(path, state)
    with pytest.raises(RunError, match="other attributes"):
        PreferenceTrainer.load(tmp_path / "run")
