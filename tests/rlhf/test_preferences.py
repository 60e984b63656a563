"""Labels are on disk the moment they are given, and a damaged store says so."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from bigrad.errors import RunError
from bigrad.rlhf import Pairs, PreferenceStore

LABEL = np.array([1.0, 0.0, 0.5, 0.25])


def pairs(count: int = 4, seed: int = 0) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    observation, action = (torch.randn(count, 2, 5, size, generator=generator) for size in (3, 1))
    return Pairs(observation, action, np.random.default_rng(seed).normal(size=(count, 2)))


def filled(path: Path | None = None) -> PreferenceStore:
    store = PreferenceStore(path)
    store.add(pairs(), LABEL, step=7)
    return store


def same(a: Pairs, b: Pairs) -> bool:
    return (
        torch.equal(a.observation, b.observation) and torch.equal(a.action, b.action) and (a.returns == b.returns).all()
    )


def rows(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as other:
        found = other.execute("select id, step, steps, label from preference order by id").fetchall()
    other.close()
    return found


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_goes_in_comes_out(on_disk: bool, tmp_path: Path) -> None:
    store = filled(tmp_path / "labels.sqlite" if on_disk else None)
    store.add(pairs(seed=1), LABEL[::-1], step=9)
    found, label = store.load()
    assert store.count == 8
    assert same(Pairs(found.observation[:4], found.action[:4], found.returns[:4]), pairs())
    assert same(Pairs(found.observation[4:], found.action[4:], found.returns[4:]), pairs(seed=1))
    assert label.tolist() == [*LABEL, *LABEL[::-1]]
    assert label.dtype == found.observation.dtype == torch.float32
    store.close()


def test_an_empty_store_is_empty(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "labels.sqlite")
    assert store.count == 0
    assert store.load()[1].shape == (0,)


def test_a_row_is_there_for_others_as_soon_as_add_returns(tmp_path: Path) -> None:
    store = filled(tmp_path / "labels.sqlite")
    assert rows(tmp_path / "labels.sqlite") == [(i + 1, 7, 5, label) for i, label in enumerate(LABEL)]
    store.add(pairs(1), LABEL[:1], step=8)
    assert len(rows(tmp_path / "labels.sqlite")) == 5


def test_a_store_goes_on_where_it_was_left(tmp_path: Path) -> None:
    filled(tmp_path / "labels.sqlite")  # never closed: this is what a killed process leaves
    store = PreferenceStore(tmp_path / "labels.sqlite")
    assert store.count == 4
    assert same(store.load()[0], pairs())
    store.add(pairs(), LABEL, 9)
    assert [row[0] for row in rows(tmp_path / "labels.sqlite")] == list(range(1, 9))


def test_extend_takes_over_what_is_new(tmp_path: Path) -> None:
    copy, store = PreferenceStore(tmp_path / "copy.sqlite"), filled()
    copy.extend(store)
    copy.extend(store)
    store.add(pairs(2, seed=1), LABEL[:2], 11)
    copy.extend(store)
    assert copy.count == store.count == 6
    assert same(copy.load()[0], store.load()[0])
    assert [row[1] for row in rows(tmp_path / "copy.sqlite")] == [7, 7, 7, 7, 11, 11]


def test_extend_refuses_another_runs_labels(tmp_path: Path) -> None:
    theirs = PreferenceStore(tmp_path / "labels.sqlite")
    theirs.add(pairs(seed=3), LABEL, 7)
    with pytest.raises(RunError, match="another run's labels"):
        theirs.extend(filled())
    with pytest.raises(RunError, match="another run's labels"):
        filled(tmp_path / "more.sqlite").extend(PreferenceStore())
    assert theirs.count == len(rows(tmp_path / "labels.sqlite")) == 4


def spoil(path: Path, how: str) -> None:
    if how == "text":
        path.write_text("these are no labels " * 100)
    elif how == "folder":
        path.mkdir()
    elif how == "foreign table":
        with sqlite3.connect(path) as other:
            other.execute("create table preference (id integer primary key, colour text)")
        other.close()
    else:
        store = filled(path)
        value = {"short blob": b"abc", "odd blob": b"\0" * 4 * 29, "text blob": "abc", "no blob": b""}[how]
        store.connection.execute("update preference set observation = ? where id = 2", (value,))
        store.close()


@pytest.mark.parametrize("how", ["text", "folder", "foreign table", "short blob", "odd blob", "text blob", "no blob"])
def test_a_damaged_or_foreign_store_is_refused(how: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    spoil(path, how)
    with pytest.raises(RunError, match=r"labels\.sqlite.*restore it or start anew"):
        PreferenceStore(path)


def test_a_page_that_was_overwritten_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    store = PreferenceStore(path)
    store.add(pairs(300), np.ones(300), 7)
    store.close()
    content = bytearray(path.read_bytes())
    content[8192:-4096] = b"\xff" * (len(content) - 8192 - 4096)
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"labels\.sqlite"):
        PreferenceStore(path)


def test_of_labels_that_come_together_all_are_stored_or_none(tmp_path: Path) -> None:
    store = filled(tmp_path / "labels.sqlite")
    store.connection.execute(
        "create trigger t before insert on preference when new.label = 0.5 begin select raise(fail, 'no'); end"
    )
    with pytest.raises(RunError, match="could not be stored"):
        store.add(pairs(), LABEL, 8)
    assert store.count == 4 == len(rows(tmp_path / "labels.sqlite"))


def test_a_store_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    store = filled(tmp_path / "labels.sqlite")
    store.connection.execute("pragma query_only = on")
    with pytest.raises(RunError, match=r"could not be stored in .*labels\.sqlite.*free some space and resume"):
        store.add(pairs(), LABEL, 8)
    assert store.count == 4
