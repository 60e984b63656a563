"""Pairs of segments and their labels, stored the moment they are given; pairs that wait for a person."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import RunError

# Small columns come first: SQLite reads a row from its beginning.
_COLUMNS = (
    *("id", "step", "steps", "label", "mirrored", "turn", "answered_at", "seconds", "who"),
    *("observation", "action", "returns"),
)
_ANSWER = ("label", "turn", "answered_at", "seconds", "who")
_ALL = ", ".join(_COLUMNS)
_TABLE = """
create table preference (
    id integer primary key, step integer not null, steps integer not null, label real,
    mirrored integer not null, turn integer not null, answered_at real, seconds real, who text,
    observation blob not null, action blob not null, returns blob not null
)"""
_CLIP = """
create table if not exists clip (
    preference integer not null references preference (id), side integer not null, media blob not null,
    primary key (preference, side)
)"""
# What bigrad 0.1 wrote: every row was labelled, nobody knows when.
_FORMER = {"id", "step", "steps", "label", "observation", "action", "returns"}
_TAKE_OVER = f"""
insert into preference ({_ALL})
select id, step, steps, label, 0, id, 0, null, null, observation, action, returns from former"""


@dataclass(frozen=True)
class Pairs:
    """Pairs of segments; the first of the two is called left.

    Attributes:
        observation: ``(pairs, 2, H, observation)``.
        action: ``(pairs, 2, H, action)``, scaled to [-1, 1].
        returns: true returns ``(pairs, 2)``, for the teacher and the record only.
    """

    observation: Tensor
    action: Tensor
    returns: np.ndarray


class PreferenceStore:
    """An SQLite file of pairs, one row a pair, committed before anything goes on.

    A row is labelled by a teacher as it comes (:meth:`add`), or waits for a person (:meth:`ask`). Its label is 0 where
    left is preferred, 1 where right is, 0.5 where neither is, and missing (NaN in memory) where the question was
    skipped. Every answer and every undo takes the next number, its turn, so that news can be told from what is known.
    Several processes may have the file open.

    Args:
        path: the file, or ``None`` to keep everything in memory. A file of an earlier bigrad is brought up to date.

    Raises:
        RunError: it is no such file, or damaged.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        try:
            self.connection = sqlite3.connect(
                ":memory:" if path is None else path, timeout=30, isolation_level=None, check_same_thread=False
            )
            self.connection.execute("pragma journal_mode=wal")
            self.connection.execute("pragma synchronous=full")  # an answer survives a power cut, too
            if self._columns() != set(_COLUMNS):
                self._make_tables()
        except (sqlite3.Error, RunError) as error:
            raise RunError(f"{path} is no store of preferences ({error}): restore it or start anew") from error
        self.load()

    @property
    def count(self) -> int:
        """How many questions were answered or skipped."""
        return self._number("count(*)", "where answered_at is not null")

    @property
    def waiting(self) -> int:
        """How many questions wait for a person."""
        return self._number("count(*)", "where answered_at is null")

    @property
    def asked(self) -> int:
        """How many questions there are, answered or not; an undo does not change it."""
        return self._number("count(*)")

    @property
    def turn(self) -> int:
        """The number of the latest answer or undo."""
        return self._number("coalesce(max(turn), 0)")

    def add(self, pairs: Pairs, labels: np.ndarray, step: int) -> None:
        """Store labelled pairs, NaN for a skip; each is on disk when this returns."""
        now = time.time()
        with self.transaction():
            turns = range(self.turn + 1, self.turn + 1 + len(labels))
            answers = [
                (None if math.isnan(label) else float(label), 0, turn, now, None, None)
                for label, turn in zip(labels, turns, strict=True)
            ]
            self._insert(pairs, answers, step)

    def ask(
        self, pairs: Pairs, clips: Sequence[tuple[bytes, bytes]], step: int, mirrored: Sequence[bool] | np.ndarray
    ) -> None:
        """Store pairs that wait for a person, with what the person will see.

        Args:
            pairs: the pairs.
            clips: for each pair its left and its right clip, an image file each.
            step: when the question came up.
            mirrored: for each pair whether the right segment is shown on the left.
        """
        questions = [(None, int(flipped), 0, None, None, None) for flipped in mirrored]
        with self.transaction() as connection:
            before = self._number("coalesce(max(id), 0)")
            self._insert(pairs, questions, step)
            connection.executemany(
                "insert into clip (preference, side, media) values (?, ?, ?)",
                [
                    (before + 1 + place, side, media)
                    for place, both in enumerate(clips)
                    for side, media in enumerate(both)
                ],
            )

    def extend(self, source: PreferenceStore) -> None:
        """Take over what another store holds beyond this one's rows, and its answers where they are the later ones.

        Raises:
            RunError: the other store does not begin with this one's rows.
        """
        known, rows = self._rows(), source._rows()
        places = [_COLUMNS.index(name) for name in ("step", "steps", "observation", "action", "returns")]
        if [[row[p] for p in places] for row in rows[: len(known)]] != [[row[p] for p in places] for row in known]:
            raise RunError(f"{self.path} holds another run's labels: choose another folder")
        fresh = rows[len(known) :]
        answers = [tuple(row[_COLUMNS.index(name)] for name in (*_ANSWER, "id", "turn")) for row in rows[: len(known)]]
        clips = [
            clip
            for row in fresh
            for clip in source.select("preference, side, media from clip where preference = ?", row[0])
        ]
        with self.transaction() as connection:
            changes = ", ".join(f"{name} = ?" for name in _ANSWER)
            connection.executemany(f"update preference set {changes} where id = ? and turn < ?", answers)
            marks = ", ".join("?" * len(_COLUMNS))
            connection.executemany(f"insert into preference ({_ALL}) values ({marks})", fresh)
            connection.executemany("insert into clip (preference, side, media) values (?, ?, ?)", clips)

    def load(self, since: int = 0, until: int | None = None) -> tuple[Pairs, Tensor]:
        """Decided pairs and their labels ``(pairs,)``, in the order in which they were asked.

        Args:
            since, until: only what was answered after turn ``since`` and not after turn ``until``.

        Raises:
            RunError: the file is damaged.
        """
        limit = 2**62 if until is None else until
        rows = self._rows("where label is not null and turn > ? and turn <= ?", since, limit)
        if not rows:
            empty = torch.zeros(0)
            return Pairs(empty, empty, np.zeros((0, 2))), empty
        steps, label, observation, action, returns = (
            [row[_COLUMNS.index(name)] for row in rows]
            for name in ("steps", "label", "observation", "action", "returns")
        )
        try:
            segments = [
                torch.stack(
                    [
                        torch.from_numpy(np.frombuffer(blob, np.float32).copy()).reshape(2, length, -1)
                        for blob, length in zip(blobs, steps, strict=True)
                    ]
                )
                for blobs in (observation, action)
            ]
            found = np.stack([np.frombuffer(blob, np.float64) for blob in returns])
            labels = torch.tensor(label, dtype=torch.float32)
        except (ValueError, RuntimeError, TypeError) as error:
            raise RunError(f"{self.path} holds a damaged pair ({error}): restore it or start anew") from error
        return Pairs(segments[0], segments[1], found), labels

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside is on disk when this ends, or nothing of it is.

        Raises:
            RunError: it could not be stored.
        """
        try:
            with self.connection:
                self.connection.execute("begin immediate")
                yield self.connection
        except sqlite3.Error as error:
            raise RunError(
                f"a label could not be stored in {self.path} ({error}): free some space and resume"
            ) from error

    def select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows that ``select query`` finds.

        Raises:
            RunError: the file is damaged.
        """
        try:
            return self.connection.execute(f"select {query}", values).fetchall()
        except sqlite3.Error as error:
            raise RunError(f"{self.path} is damaged ({error}): restore it or start anew") from error

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def _make_tables(self) -> None:
        with self.transaction() as connection:
            columns = self._columns()  # another process may have been quicker
            if columns == _FORMER:
                connection.execute("alter table preference rename to former")
                connection.execute(_TABLE)
                connection.execute(_TAKE_OVER)
                connection.execute("drop table former")
            elif not columns:
                connection.execute(_TABLE)
            connection.execute(_CLIP)
            connection.execute(f"select {_ALL} from preference limit 0")  # fails on a table of somebody else's

    def _columns(self) -> set[str]:
        return {name for _, name, *_ in self.connection.execute("pragma table_info(preference)")}

    def _insert(self, pairs: Pairs, answers: Sequence[tuple[Any, ...]], step: int) -> None:
        rows = [
            (
                step,
                observation.shape[1],
                *answer,
                observation.float().cpu().numpy().tobytes(),
                action.float().cpu().numpy().tobytes(),
                np.asarray(returns, dtype=np.float64).tobytes(),
            )
            for observation, action, returns, answer in zip(
                pairs.observation, pairs.action, pairs.returns, answers, strict=True
            )
        ]
        marks = ", ".join("?" * (len(_COLUMNS) - 1))
        self.connection.executemany(f"insert into preference ({', '.join(_COLUMNS[1:])}) values ({marks})", rows)

    def _rows(self, condition: str = "", *values: Any) -> list[tuple[Any, ...]]:
        return self.select(f"{_ALL} from preference {condition} order by id", *values)

    def _number(self, what: str, condition: str = "") -> int:
        return int(self.select(f"{what} from preference {condition}")[0][0])
