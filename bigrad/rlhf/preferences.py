"""Labelled pairs of segments, stored the moment they are given."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import RunError

_TABLE = """
create table if not exists preference (
    id integer primary key, step integer not null, steps integer not null, label real not null,
    observation blob not null, action blob not null, returns blob not null
)"""
_COLUMNS = "step, steps, label, observation, action, returns"


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
    """An SQLite file of labelled pairs, one row a label, committed before anything goes on.

    Args:
        path: the file, or ``None`` to keep everything in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        try:
            self.connection = sqlite3.connect(":memory:" if path is None else path, isolation_level=None)
            self.connection.execute("pragma journal_mode=wal")
            self.connection.execute(_TABLE)
        except sqlite3.Error as error:
            raise RunError(f"{path} is no store of preferences ({error}): restore it or start anew") from error
        self.count = len(self.load()[1])

    def add(self, pairs: Pairs, labels: np.ndarray, step: int) -> None:
        """Store labelled pairs; each is on disk when this returns."""
        rows = [
            (
                step,
                observation.shape[1],
                float(label),
                observation.float().cpu().numpy().tobytes(),
                action.float().cpu().numpy().tobytes(),
                np.asarray(returns, dtype=np.float64).tobytes(),
            )
            for observation, action, returns, label in zip(
                pairs.observation, pairs.action, pairs.returns, labels, strict=True
            )
        ]
        self._insert(rows)

    def extend(self, source: PreferenceStore) -> None:
        """Take over what another store holds beyond this one's rows.

        Raises:
            RunError: the other store does not begin with this one's rows.
        """
        known, rows = self._rows(), source._rows()
        if rows[: len(known)] != known:
            raise RunError(f"{self.path} holds another run's labels: choose another folder")
        self._insert(rows[len(known) :])

    def load(self) -> tuple[Pairs, Tensor]:
        """All pairs and their labels ``(pairs,)``, oldest first.

        Raises:
            RunError: the file is damaged.
        """
        rows = self._rows()
        if not rows:
            empty = torch.zeros(0)
            return Pairs(empty, empty, np.zeros((0, 2))), empty
        try:
            observation, action = (
                torch.stack(
                    [
                        torch.from_numpy(np.frombuffer(row[place], np.float32).copy()).reshape(2, row[1], -1)
                        for row in rows
                    ]
                )
                for place in (3, 4)
            )
            returns = np.stack([np.frombuffer(row[5], np.float64) for row in rows])
            label = torch.tensor([row[2] for row in rows], dtype=torch.float32)
        except (ValueError, RuntimeError, TypeError) as error:
            raise RunError(f"{self.path} holds a damaged pair ({error}): restore it or start anew") from error
        return Pairs(observation, action, returns), label

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def _insert(self, rows: list[tuple[Any, ...]]) -> None:
        try:
            with self.connection:  # all of them or none
                self.connection.execute("begin")
                self.connection.executemany(f"insert into preference ({_COLUMNS}) values (?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise RunError(
                f"a label could not be stored in {self.path} ({error}): free some space and resume"
            ) from error
        self.count += len(rows)

    def _rows(self) -> list[tuple[Any, ...]]:
        try:
            return self.connection.execute(f"select {_COLUMNS} from preference order by id").fetchall()
        except sqlite3.Error as error:
            raise RunError(f"{self.path} is damaged ({error}): restore it or start anew") from error
