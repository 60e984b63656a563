"""What is chosen on the screen becomes the label of the pair, once, whichever side it was shown on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from bigrad.errors import InputError, RunError
from bigrad.rlhf import LabelDesk, PreferenceTrainer

from . import room

LABELS = {"left": (0, 1), "right": (1, 0), "equal": (0.5, 0.5), "skip": (None, None)}  # plain, mirrored


@pytest.mark.parametrize("choice", LABELS)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_choice_on_the_screen_is_a_label_of_the_pair(choice: str, mirrored: bool, tmp_path: Path) -> None:
    folder = room.with_questions(tmp_path / "run", [mirrored])
    desk = LabelDesk(folder, "Ada")
    shown = [desk.clip(1, side) for side in ("left", "right")]
    assert shown == [b"left 0", b"right 0"][:: -1 if mirrored else 1]
    before = time.time()
    assert desk.answer(1, choice, 2.5) == "stored"
    ((label, answered, seconds, who),) = room.rows(folder, "label, answered_at, seconds, who")
    assert (label, seconds, who) == (LABELS[choice][mirrored], 2.5, "Ada")
    assert before <= answered <= time.time()


def test_a_pair_is_answered_once(tmp_path: Path) -> None:
    folder = room.with_questions(tmp_path / "run", [False, False])
    ada, bob = LabelDesk(folder, "Ada"), LabelDesk(folder, "Bob")
    assert ada.answer(1, "left") == "stored"
    before = room.rows(folder, "*")
    assert bob.answer(1, "right") == "conflict"
    assert bob.answer(1, "left") == "conflict"
    assert bob.answer(3, "left") == bob.undo(3) == bob.answer(-1, "skip") == "unknown"
    assert bob.undo(2) == "conflict"
    assert room.rows(folder, "*") == before


def test_an_undo_makes_a_pair_wait_again(tmp_path: Path) -> None:
    folder = room.with_questions(tmp_path / "run", [True])
    desk = LabelDesk(folder)
    desk.answer(1, "left", 3)
    assert desk.undo(1) == "stored"
    assert desk.undo(1) == "conflict"
    assert room.rows(folder, "label, mirrored, answered_at, seconds, who") == [(None, 1, None, None, None)]
    assert desk.next() == 1
    assert desk.answer(1, "right") == "stored"
    assert room.rows(folder, "label") == [(0,)]


def test_what_a_teacher_said_is_not_taken_back(tmp_path: Path) -> None:
    store = room.open_store(room.configure(tmp_path / "run"))
    store.add(room.pairs(1), room.np.array([1.0]), 7)
    assert LabelDesk(tmp_path / "run").undo(1) == "conflict"
    assert store.count == 1


@pytest.mark.parametrize("seconds", [None, -1.0, float("nan"), float("inf")])
def test_a_time_that_cannot_be_is_not_kept(seconds: float | None, tmp_path: Path) -> None:
    folder = room.with_questions(tmp_path / "run", [False])
    assert LabelDesk(folder).answer(1, "left", seconds) == "stored"
    assert room.rows(folder, "seconds") == [(None,)]


def test_another_choice_is_refused(tmp_path: Path) -> None:
    folder = room.with_questions(tmp_path / "run", [False])
    with pytest.raises(InputError, match="'up'; wanted one of left, right, equal, skip"):
        LabelDesk(folder).answer(1, "up")
    assert LabelDesk(folder).next() == 1


def test_the_oldest_comes_first_and_what_others_look_at_last(tmp_path: Path) -> None:
    desk = LabelDesk(room.with_questions(tmp_path / "run", [False] * 3))
    assert [desk.next(), desk.next({1}), desk.next({1, 2, 3}), desk.next((), 3)] == [1, 2, 1, 3]
    for question in (1, 2, 3):
        assert (desk.progress().answered, desk.progress().waiting) == (question - 1, 4 - question)
        desk.answer(question, "skip")
        assert desk.next((), question) == (question + 1 if question < 3 else None)
    assert desk.progress().budget == room.BUDGET
    assert desk.clip(3, "left") == b"left 2"  # for an undo
    assert desk.clip(4, "left") is None


def test_an_answer_that_cannot_be_stored_leaves_the_question(tmp_path: Path) -> None:
    desk = LabelDesk(room.with_questions(tmp_path / "run", [False]))
    desk.store.connection.execute("pragma query_only = on")
    with pytest.raises(RunError, match=r"could not be stored in .*labels\.sqlite.*free some space"):
        desk.answer(1, "left")
    assert desk.next() == 1


@pytest.mark.parametrize(
    ("config", "labels", "reason"),
    [
        (None, True, "Is this the folder of a run"),
        ("{", True, r"config\.json is damaged"),
        ("[]", True, "how many labels the run wants"),
        ('{"settings": {"labels": "many"}}', True, "how many labels the run wants"),
        (json.dumps({"settings": {"labels": 3}}), False, "start the run first"),
    ],
)
def test_a_malformed_folder_is_refused(config: str | None, labels: bool, reason: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    if labels:
        room.open_store(tmp_path).close()
    with pytest.raises(RunError, match=reason):
        LabelDesk(tmp_path)
    assert (tmp_path / "labels.sqlite").exists() == labels


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    (room.configure(tmp_path) / "labels.sqlite").write_text("these are no labels " * 100)
    with pytest.raises(RunError, match="is no store of preferences"):
        LabelDesk(tmp_path)


def test_the_folder_of_a_real_run_is_a_desk(finished: tuple[PreferenceTrainer, Path], folder: Path) -> None:
    desk = LabelDesk(folder)
    assert (desk.progress().answered, desk.progress().waiting) == (finished[0].store.count, 0)
    assert desk.progress().budget == finished[0].settings.labels
    assert desk.next() is None
