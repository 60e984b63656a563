"""The clips that people see are those of the steps that the pair is made of, wherever the buffer keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigrad.errors import InputError
from bigrad.rlhf import LabelDesk, Pairs, People, RelabelledReplayBuffer

from . import room
from .test_film import look

SIZE, STEPS = 30, 45  # the buffer goes round once and a half


@pytest.fixture
def acted() -> tuple[People, RelabelledReplayBuffer]:
    """People who watched an agent, and its buffer, in which the observation at each step is the step's number."""
    people = People(seed=0)
    env: Any = people.watch(room.Counter())
    buffer = RelabelledReplayBuffer(SIZE, env.observation_space, env.action_space, handle_timeout_termination=False)
    env.reset(seed=0)
    for step in range(1, STEPS + 1):
        action = np.zeros((1, 1), np.float32)
        done = env.step(action[0])[2]
        seen = np.full((1, 1), step, np.float32)
        buffer.add(seen, seen, action, np.zeros(1), np.array([done]), [{}])
        if done:
            env.reset()
    return people, buffer


def pairs_at(buffer: RelabelledReplayBuffer, places: np.ndarray) -> Pairs:
    return Pairs(*buffer.steps(places), np.zeros((len(places), 2)))


def test_clips_show_the_steps_of_their_pair(acted: tuple[People, RelabelledReplayBuffer], tmp_path: Path) -> None:
    people, buffer = acted
    folder = room.configure(tmp_path / "run")
    starts = np.array([[0, 28], [13, 14], [15, 9]])  # 28 goes on at 0; 15 holds the oldest step
    places = (starts[..., None] + np.arange(4)) % SIZE
    pairs = pairs_at(buffer, places)
    people.ask(room.open_store(folder), buffer, places, pairs, STEPS)
    desk = LabelDesk(folder)
    mirrored = [bool(flipped) for (flipped,) in room.rows(folder, "mirrored")]
    for place, steps in enumerate(pairs.observation[..., 0].numpy()):
        for side, of in (("left", 0), ("right", 1)):
            levels = look(desk.clip(place + 1, side) or b"")[0]  # type: ignore[arg-type]
            assert levels == pytest.approx(5 * steps[of ^ mirrored[place]], abs=2)
    assert room.rows(folder, "step") == [(STEPS,)] * 3
    assert people.reach == STEPS


def test_after_an_episodes_end_the_last_picture_stays(
    acted: tuple[People, RelabelledReplayBuffer], tmp_path: Path
) -> None:
    people, buffer = acted
    folder = room.configure(tmp_path / "run")
    places = np.array([[[8, 9, -1, -1], [1, 2, 3, 4]]])
    people.ask(room.open_store(folder), buffer, places, pairs_at(buffer, places), STEPS)
    (((flipped,),), desk) = room.rows(folder, "mirrored"), LabelDesk(folder)
    levels, times, _ = look(desk.clip(1, "right" if flipped else "left") or b"")
    assert levels == pytest.approx([5 * 39, 5 * 40], abs=2)
    assert times == [500, 3 * 500 + 500]


def test_only_answers_that_come_from_now_on_are_news(
    acted: tuple[People, RelabelledReplayBuffer], tmp_path: Path
) -> None:
    people, buffer = acted
    folder = room.configure(tmp_path / "run")
    store, places = room.open_store(folder), np.arange(16).reshape(2, 2, 4)
    people.ask(store, buffer, places, pairs_at(buffer, places), STEPS)
    desk = LabelDesk(folder)
    desk.answer(1, "equal")
    assert people.of(store).collect()[1].tolist() == [0.5]
    desk.answer(2, "equal")
    resumed = room.open_store(folder)
    assert len(People().of(resumed).collect()[1]) == 0
    assert people.of(store).collect()[1].tolist() == [0.5]
    assert people.of(resumed) is not people.of(store)


def test_a_run_that_nobody_watched_has_no_clips(acted: tuple[People, RelabelledReplayBuffer]) -> None:
    buffer, places = acted[1], np.arange(8).reshape(1, 2, 4)
    with pytest.raises(InputError, match="before the agent acts"):
        People().ask(room.PreferenceStore(), buffer, places, pairs_at(buffer, places), STEPS)
    assert People().reach == 0


@pytest.mark.parametrize("megabytes", [0, -1.0, float("nan")])
def test_pictures_need_room(megabytes: float) -> None:
    with pytest.raises(InputError, match="megabytes is"):
        People(megabytes)
