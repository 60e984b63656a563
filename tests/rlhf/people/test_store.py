"""Questions wait on disk, skips spend budget and teach nothing, and earlier files are brought up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from bigrad.errors import RunError
from bigrad.rlhf import LabelDesk, PreferenceStore

from . import room

SKIPPED = float("nan")
FORMER = """
create table preference (
    id integer primary key, step integer not null, steps integer not null, label real not null,
    observation blob not null, action blob not null, returns blob not null
)"""


def marks(store: PreferenceStore, since: int = 0) -> list[float]:
    """Which pairs are learnt from."""
    observation = store.load(since)[0].observation
    return observation[:, 0, 0, 0].tolist() if len(observation) else []


def test_a_skip_spends_budget_and_is_never_fitted_to(tmp_path: Path) -> None:
    store = room.open_store(tmp_path)
    store.add(room.pairs(4), np.array([1, SKIPPED, 0.5, 0]), 7)
    assert (store.count, store.asked, store.waiting) == (4, 4, 0)
    assert marks(store) == [0, 2, 3]
    assert store.load()[1].tolist() == [1, 0.5, 0]
    assert room.rows(tmp_path, "label") == [(1,), (None,), (0.5,), (0,)]
    store.add(room.pairs(2), np.full(2, SKIPPED), 8)
    assert (store.count, len(store.load()[1])) == (6, 3)


def test_nothing_but_skips_is_nothing_to_learn_from() -> None:
    store = PreferenceStore()
    store.add(room.pairs(2), np.full(2, SKIPPED), 8)
    assert store.load()[1].shape == (0,)
    assert store.count == 2


def test_questions_wait_and_teach_nothing(tmp_path: Path) -> None:
    store = room.open_store(tmp_path)
    store.ask(room.pairs(3), room.clips(3), 7, [True, False, True])
    assert (store.count, store.asked, store.waiting) == (0, 3, 3)
    assert marks(store) == []
    assert room.rows(tmp_path, "step, label, mirrored, answered_at") == [(7, None, m, None) for m in (1, 0, 1)]
    store.add(room.pairs(1, 9), np.array([1.0]), 8)
    assert (store.count, marks(store)) == (1, [9])
    store.ask(room.pairs(1, 3), room.clips(1, 3), 9, [False])
    media = sqlite3.connect(tmp_path / "labels.sqlite").execute("select preference, side, media from clip").fetchall()
    wanted = [(row, side) for row in (1, 2, 3, 5) for side in (0, 1)]
    assert [entry[:2] for entry in media] == wanted
    assert media[-1][2] == b"right 3"


def test_a_pair_without_clips_is_not_asked(tmp_path: Path) -> None:
    store = room.open_store(tmp_path)
    store.connection.execute(
        "create trigger t before insert on clip when new.side = 1 begin select raise(fail, ''); end"
    )
    with pytest.raises(RunError, match="could not be stored"):
        store.ask(room.pairs(2), room.clips(2), 7, [False, False])
    assert store.asked == 0


def test_an_earlier_file_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    found = room.pairs(3)
    with sqlite3.connect(path) as other:
        other.execute(FORMER)
        for number, label in enumerate([1.0, 0.5, 0.0]):
            blobs = (found.observation[number].numpy().tobytes(), found.action[number].numpy().tobytes())
            row = (7, 5, label, *blobs, found.returns[number].tobytes())
            other.execute(
                "insert into preference (step, steps, label, observation, action, returns) values (?, ?, ?, ?, ?, ?)",
                row,
            )
    other.close()
    for _ in range(2):  # the second time it is up to date
        store = PreferenceStore(path)
        pairs, label = store.load()
        assert torch.equal(pairs.observation, found.observation)
        assert label.tolist() == [1, 0.5, 0]
        assert (store.count, store.asked, store.turn) == (3, 3, 3)
        store.close()
    store = PreferenceStore(path)
    store.add(room.pairs(1, 3), np.array([SKIPPED]), 8)
    store.ask(room.pairs(1, 4), room.clips(1, 4), 8, [False])
    assert (store.count, store.waiting, store.turn) == (4, 1, 4)
    tables = store.connection.execute("select name from sqlite_master where type = 'table'").fetchall()
    assert {name for (name,) in tables} == {"preference", "clip", "picture"}


def test_a_file_of_somebody_else_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("create table preference (id integer primary key, label real not null)")
    other.close()
    with pytest.raises(RunError, match=r"labels\.sqlite is no store of preferences .*no such column"):
        PreferenceStore(path)
    with sqlite3.connect(path) as other:
        assert other.execute("select name from sqlite_master").fetchall() == [("preference",)]


def test_news_are_told_once_also_after_an_undo(tmp_path: Path) -> None:
    folder = room.with_questions(tmp_path / "run", [False] * 3)
    desk, queue = LabelDesk(folder), room.queue(room.open_store(folder))

    def news() -> list[tuple[float, float]]:
        pairs, label = queue.collect()
        return (
            [(float(o[0, 0, 0]), float(v)) for o, v in zip(pairs.observation, label, strict=True)] if len(label) else []
        )

    assert news() == []
    desk.answer(2, "right")
    desk.answer(1, "skip")
    assert news() == [(1, 1)]
    assert news() == []
    desk.undo(2)
    assert (news(), queue.waiting) == ([], 2)
    desk.answer(2, "left")  # a turn that is told from the one before, though nobody else answered
    assert news() == [(1, 0)]
    desk.answer(3, "equal")
    assert news() == [(2, 0.5)]
    assert queue.store.load()[1].tolist() == [0, 0.5]


def test_sides_are_drawn_and_stored(tmp_path: Path) -> None:
    store = room.open_store(tmp_path)
    room.queue(store).ask(room.pairs(200), room.clips(200), 7)
    mirrored = [flipped for (flipped,) in room.rows(tmp_path, "mirrored")]
    assert set(mirrored) == {0, 1}
    assert 70 < sum(mirrored) < 130


def test_extend_takes_over_questions_clips_and_later_answers(tmp_path: Path) -> None:
    folder = room.with_questions(tmp_path / "run", [False, True])
    desk, store, copy = LabelDesk(folder), room.open_store(folder), PreferenceStore(tmp_path / "copy.sqlite")
    desk.answer(1, "left")
    copy.extend(store)
    assert (copy.count, copy.waiting) == (1, 1)
    desk.undo(1)
    copy.extend(store)
    assert (copy.count, copy.waiting) == (0, 2)
    desk.answer(2, "right")
    desk.answer(1, "right")
    store.ask(room.pairs(1, 2), room.clips(1, 2), 9, [True])
    copy.extend(store)
    copy.extend(store)
    assert copy.load()[1].tolist() == [1, 0]
    everything = "* from preference", "* from clip order by preference, side"
    assert all(copy.select(what) == store.select(what) for what in everything)
    store.extend(copy)
    assert copy.select(everything[0]) == store.select(everything[0])


def test_extend_does_not_forget_what_it_knows_better(tmp_path: Path) -> None:
    folder = room.with_questions(tmp_path / "run", [False])
    copy = PreferenceStore(tmp_path / "copy.sqlite")
    copy.extend(room.open_store(folder))
    LabelDesk(folder).answer(1, "right")
    store = room.open_store(folder)
    store.extend(copy)
    assert store.load()[1].tolist() == [1]
