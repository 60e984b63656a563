"""Pairs of segments and their labels, stored the moment they are given; pairs that wait for a person."""

from __future__ import annotations

import math
import sqlite3
import time
import zlib
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
# Of the pictures that are observations, (channels, height, width); no rows where observations are vectors.
_PICTURE = "create table if not exists picture (axis integer primary key, size integer not null)"
# What bigrad 0.1 wrote: every row was labelled, nobody knows when.
_FORMER = {"id", "step", "steps", "label", "observation", "action", "returns"}
_TAKE_OVER = f"""
insert into preference ({_ALL})
select id, step, steps, label, 0, id, 0, null, null, observation, action, returns from former"""


@dataclass(frozen=True)
class Pairs:
    """Pairs of segments; the first of the two is called left.

    Attributes:
        observation: ``(pairs, 2, H, *observation)``, bytes where these are pictures; 0 after an episode's end.
        action: ``(pairs, 2, H, action)``, scaled to [-1, 1]; NaN after an episode's end.
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
    Several processes may have the file open. Pictures are compressed.

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
            if self._columns() != set(_COLUMNS) or not self._columns("picture"):
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
            connection.executemany("insert or ignore into picture values (?, ?)", enumerate(source._picture()))

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
            picture = self._picture()
            unpacked = [
                _unpack(blob, 2 * length * math.prod(picture)) if picture else np.frombuffer(blob, np.float32)
                for blob, length in zip(observation, steps, strict=True)
            ]
            shapes = [(2, length, *(picture or (-1,))) for length in steps]
            seen = torch.from_numpy(np.stack([o.reshape(s) for o, s in zip(unpacked, shapes, strict=True)]))
            acts = [np.frombuffer(blob, np.float32).reshape(2, n, -1) for blob, n in zip(action, steps, strict=True)]
            done = torch.from_numpy(np.stack(acts))
            found = np.stack([np.frombuffer(blob, np.float64) for blob in returns])
            labels = torch.tensor(label, dtype=torch.float32)
        except (ValueError, RuntimeError, TypeError, zlib.error) as error:
            raise RunError(f"{self.path} holds a damaged pair ({error}): restore it or start anew") from error
        if not picture:  # bigrad 0.1 marked the observation where an episode was over
            over = seen.isnan().any(-1)
            seen[over], done[over] = 0, torch.nan
        return Pairs(seen, done, found), labels

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
            connection.execute(_PICTURE)
            connection.execute(f"select {_ALL} from preference limit 0")  # fails on a table of somebody else's

    def _columns(self, table: str = "preference") -> set[str]:
        return {name for _, name, *_ in self.connection.execute(f"pragma table_info({table})")}

    def _picture(self) -> tuple[int, ...]:
        """The shape of observations that are pictures, else nothing."""
        return tuple(size for (size,) in self.select("size from picture order by axis"))

    def _insert(self, pairs: Pairs, answers: Sequence[tuple[Any, ...]], step: int) -> None:
        pictures = pairs.observation.dtype == torch.uint8
        if pictures:
            shape = enumerate(pairs.observation.shape[3:])
            self.connection.executemany("insert or ignore into picture values (?, ?)", shape)
        rows = [
            (
                step,
                observation.shape[1],
                *answer,
                zlib.compress(observation.cpu().numpy()) if pictures else observation.float().cpu().numpy().tobytes(),
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


def _unpack(blob: bytes, size: int) -> np.ndarray:
    """So many bytes of a compressed picture, and never more."""
    return np.frombuffer(zlib.decompressobj().decompress(blob, size), np.uint8)
