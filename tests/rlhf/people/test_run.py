"""A run that people label asks, goes on, learns of the answers when they come, and resumes with the same questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest

from bigrad.errors import UnsupportedError
from bigrad.rlhf import LabelDesk, People, PreferenceTrainer

from .. import tiny
from ..environments import LENGTH, Point
from ..picture_environments import Dot

FILMED, SEEN = "Tiny/Filmed-v0", "Tiny/FilmedDot-v0"


class Filmed(Point):
    """A point that is seen as a grey level, and somebody who acts at every step."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}
    at_every_step: ClassVar[Callable[[int], object]] = staticmethod(lambda age: None)

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def step(self, action: Any) -> Any:
        if self.render_mode:  # not in an evaluation
            type(self).at_every_step(self.age)
        return super().step(action)

    def render(self) -> Any:
        return np.full((8, 8, 3), int(127 + 10 * self.state[0]), np.uint8)


class FilmedDot(Dot):
    """What the agent sees are pictures already; people see others of the same."""

    metadata: ClassVar[dict[str, Any]] = Filmed.metadata

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode, self.age = render_mode, 0

    def step(self, action: Any) -> Any:
        self.age += 1
        if self.render_mode:
            Filmed.at_every_step(self.age)
        return super().step(action)

    def render(self) -> Any:
        return self.see()[..., :1].repeat(3, -1)


gymnasium.register(FILMED, Filmed, max_episode_steps=LENGTH, disable_env_checker=True)
gymnasium.register(SEEN, FilmedDot, max_episode_steps=LENGTH, disable_env_checker=True)


class Person:
    """Answers all that waits in a folder, at every step from the first one after ``late``; more return is better."""

    def __init__(self, folder: Path, late: int = 0, stops_at: int | None = None) -> None:
        self.folder, self.late, self.stops_at = folder, late, stops_at
        self.desk: LabelDesk | None = None

    def __call__(self, age: int) -> None:
        if age == self.stops_at:
            raise KeyboardInterrupt
        if age < self.late or not (self.folder / "config.yaml").exists():
            return
        self.desk = self.desk or LabelDesk(self.folder)
        while (question := self.desk.next()) is not None:
            ((mirrored, returns),) = self.desk.store.select("mirrored, returns from preference where id = ?", question)
            left, right = np.frombuffer(returns)[:: -1 if mirrored else 1]
            self.desk.answer(question, "left" if left > right else "right")


@pytest.fixture
def hire(monkeypatch: pytest.MonkeyPatch) -> Callable[[Person], None]:
    return lambda person: monkeypatch.setattr(Filmed, "at_every_step", staticmethod(person))


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize(("env", "method"), [(FILMED, "sobirl"), (FILMED, "drlhf"), (SEEN, "drlhf")])
def test_the_run_learns_of_answers_as_they_come(
    env: str, method: str, tmp_path: Path, hire: Callable[[Person], None]
) -> None:
    hire(Person(tmp_path / "run", late=30))
    run = tiny.trainer(env, teacher=People(seed=0), method=method)
    result = run.learn(out=tmp_path / "run")
    rounds = [row for row in run.history if "upper_steps" in row]
    assert [(row["labels"], row["upper_steps"] > 0) for row in rounds[:2]] == [(0, False), (8, True)]
    assert result.labels == run.store.count == run.store.asked - run.store.waiting
    assert run.store.asked == tiny.LABELS
    pairs, label = run.store.load()
    left, right = pairs.returns.T
    shown_as_they_are = [not mirrored for (mirrored,) in run.store.select("mirrored from preference order by id")]
    assert np.array_equal(label.numpy(), (right > left) | ((right == left) & shown_as_they_are))
    assert all(row.get("fresh_accuracy") is None for row in rounds[:2])
    assert rounds[2]["fresh_accuracy"] is not None


@pytest.mark.usefixtures("unpainted")
def test_a_run_that_nobody_answers_ends_all_the_same(tmp_path: Path) -> None:
    run = tiny.trainer(FILMED, teacher=People())
    result = run.learn(out=tmp_path / "run")
    assert (result.labels, run.store.waiting, result.steps) == (0, tiny.LABELS, tiny.STEPS)
    assert LabelDesk(tmp_path / "run").progress().waiting == tiny.LABELS


@pytest.mark.usefixtures("unpainted")
def test_a_run_resumes_with_its_questions_and_after_an_undo(tmp_path: Path, hire: Callable[[Person], None]) -> None:
    folder = tmp_path / "run"
    hire(Person(folder, late=30, stops_at=50))
    with pytest.raises(KeyboardInterrupt):
        tiny.trainer(FILMED, teacher=People()).learn(out=folder)
    desk = LabelDesk(folder)
    before = desk.store.select("id, observation from preference order by id")
    assert desk.undo(1) == "stored"
    hire(Person(folder))
    run = PreferenceTrainer.load(folder)
    assert isinstance(run.teacher, People)
    run.learn(out=folder)
    assert run.store.select("id, observation from preference order by id")[: len(before)] == before
    assert run.store.count == run.store.asked == tiny.LABELS


def test_an_environment_that_cannot_be_filmed_says_so() -> None:
    with pytest.raises(UnsupportedError, match="pictures"):
        tiny.trainer(tiny.POINT, teacher=People())
