"""Environments and teachers that cannot be learnt from, and packages that are missing: each error says what to do."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigrad.errors import InputError, MissingPackage, UnsupportedError
from bigrad.rlhf import PreferenceTrainer, SyntheticTeacher

from . import tiny
from .environments import Point

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("Pendulum-v7", "Pendulum-v1"),
        ("pendulum-v1", "Pendulum-v1"),
        ("Tiny/Piont-v0", "Tiny/Point-v0"),
        ("HalfChetah-v5", "HalfCheetah-v5"),
        ("Tyni/Point-v0", "Tiny/Point-v0"),
    ],
)
def test_an_unknown_environment_names_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(InputError, match=f"no environment '{typed}': the nearest names are .*{near}"):
        tiny.trainer(typed)


def test_a_name_like_no_other_says_where_the_names_are() -> None:
    with pytest.raises(InputError, match=r"gymnasium\.registry lists the names"):
        tiny.trainer("qqqqqqqqqqqqqqqqqqqqqqqqqqqq")


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ("Tiny/Organ-v0", r"actions MultiDiscrete\(\[3 2\]\), which are not served: .*Pendulum-v1"),
        ("Tiny/Named-v0", r"FlattenObservation"),
        ("Tiny/Image-v0", r"pictures of 8 x 8 pixels; wanted at least 36 on each side: .*ResizeObservation"),
        ("Tiny/Unbounded-v0", r"actions without bounds .*TransformAction"),
        ("Tiny/NeedsBox2D-v0", r"does not install: Box2D .*pip install gymnasium\[box2d\]"),
    ],
)
def test_what_is_not_served_says_so(env: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        tiny.trainer(env)


def test_a_missing_package_gets_its_pip_line() -> None:
    with pytest.raises(MissingPackage, match=r'mujoco is needed for .*MuJoCo-v0.*: pip install "bigrad\[rl\]"'):
        tiny.trainer("Tiny/NeedsMuJoCo-v0")


@pytest.mark.parametrize("package", ["gymnasium", "stable_baselines3", "safetensors"])
def test_without_the_extra_the_room_names_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[:2] == ["bigrad", "rlhf"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=rf'{package} is needed for bigrad\.rlhf .*pip install "bigrad\[rl\]"'):
        import_module("bigrad.rlhf")


@pytest.mark.parametrize(
    ("kind", "step"), [("Reward", 45), ("LastReward", 50), ("Observation", 45), ("LastObservation", 50), ("Start", 1)]
)
def test_an_environment_that_returns_nan_is_named_and_the_run_still_loads(kind: str, step: int, tmp_path: Path) -> None:
    env = f"Tiny/NaN{kind}-v0"
    with pytest.raises(
        InputError, match=f"{env} returned a reward or an observation that is not finite at step {step}"
    ):
        tiny.trainer(env).learn(out=tmp_path / "run")
    run = PreferenceTrainer.load(tmp_path / "run")
    assert np.isfinite(run.buffer.rewards).all()
    assert np.isfinite(run.buffer.observations).all()
    assert run.store.count == (0 if kind == "Start" else 14)


def test_a_return_that_is_nan_in_the_evaluation_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Point, "broken_now", True)
    with pytest.raises(InputError, match=r"Tiny/Point-v0 gave an episode a return that is not finite"):
        PreferenceTrainer.load(folder).learn(out=folder)


def test_a_constant_reward_warns_that_nothing_can_be_learnt() -> None:
    run = tiny.trainer("Tiny/Constant-v0")
    with pytest.warns(UserWarning, match="100 % of the queries on Tiny/Constant-v0 are ties"):
        result = run.learn()
    assert result.tie_rate == 1
    assert result.preference_accuracy is None
    assert result.fresh_accuracy is None
    assert (run.store.load()[1] == 0.5).all()


def test_a_reward_that_varies_does_not_warn(finished: tuple[PreferenceTrainer, Path]) -> None:
    assert finished[0].result is not None
    assert finished[0].result.tie_rate == 0  # a warning would have been an error


def test_a_segment_longer_than_every_episode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no episode of Tiny/Point-v0 has lasted 11 steps yet: choose a smaller seg"):
        tiny.trainer(segment=11).learn(out=tmp_path / "run")
    assert PreferenceTrainer.load(tmp_path / "run").agent.num_timesteps == 20


def test_a_segment_as_long_as_an_episode_is_served() -> None:
    assert tiny.trainer(segment=10).learn().labels == tiny.LABELS


class Odd(SyntheticTeacher):
    """Gives the same answer to everything."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def label(self, left_return: np.ndarray, right_return: np.ndarray) -> np.ndarray:
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        *(np.zeros(7), np.zeros(9), np.zeros((8, 1)), np.zeros((1, 8)), 0.5, []),
        *(np.full(8, 1.01), np.full(8, -0.01), np.full(8, np.inf)),
        *(None, "right", ["left"] * 8, [[1], [1, 2]], object()),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_a_teacher_who_answers_something_else_is_refused(answer: Any, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"(?s)the teacher returned .* for 8 pairs; wanted as many numbers from 0 to 1"
    ):
        tiny.trainer(teacher=Odd(answer)).learn(out=tmp_path / "run")
    assert PreferenceTrainer.load(tmp_path / "run").store.count == 0


@pytest.mark.filterwarnings("ignore:this run of sobirl had no response")
@pytest.mark.parametrize("answer", [[1, 0, 0.5, 0.25, 1, 0, 1, 0], np.ones(8, int), np.ones(8, bool)])
def test_a_teacher_may_answer_in_any_numbers(answer: Any) -> None:
    run = tiny.trainer(teacher=Odd(answer), first_share=1.0, labels=8, steps=30)
    assert run.learn().labels == 8
    assert run.store.load()[1].tolist() == [float(label) for label in answer]
