"""A person's side of the labels: the next question, an answer, an undo."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import InputError, RunError
from ..preferences import PreferenceStore
from ..run_folder import LABELS, config_path, read_config

CHOICES = {"left": 0.0, "right": 1.0, "equal": 0.5, "skip": None}
"""What can be said of a pair, and the label that it becomes where left is shown on the left."""

Outcome = Literal["stored", "conflict", "unknown"]


@dataclass(frozen=True)
class Progress:
    """How far the labelling is: answered or skipped, waiting, and how many the run asks for in all."""

    answered: int
    waiting: int
    budget: int


class LabelDesk:
    """The questions of a run and their answers; every answer is on disk when the call returns.

    Args:
        folder: the folder of a run.
        who: who answers here, for the record.

    Raises:
        RunError: this is no folder of a run, or it is damaged.
    """

    def __init__(self, folder: Path, who: str = "") -> None:
        self.folder, self.who = folder, who
        config = read_config(folder)
        try:
            self.budget = int(config["settings"]["labels"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{config_path(folder)} does not say how many labels the run wants: is this a run?"
            ) from error
        if not (folder / LABELS).is_file():
            raise RunError(f"{folder / LABELS} does not exist: start the run first, it puts its questions there")
        self.store = PreferenceStore(folder / LABELS)

    def progress(self) -> Progress:
        """How far the labelling is."""
        return Progress(self.store.count, self.store.waiting, self.budget)

    def next(self, others: Collection[int] = (), wanted: int | None = None) -> int | None:
        """The question to be shown: ``wanted`` if it waits, else the oldest; what ``others`` look at comes last."""
        waiting = [row[0] for row in self.store.select("id from preference where answered_at is null order by id")]
        if wanted in waiting:
            return wanted
        free = [question for question in waiting if question not in others] or waiting
        return free[0] if free else None

    def clip(self, question: int, side: Literal["left", "right"]) -> bytes | None:
        """What is shown on one side of the screen: an image file; ``None`` where there is no such clip."""
        rows = self.store.select(
            "media from clip join preference on preference.id = clip.preference "
            "where clip.preference = ? and clip.side = (? <> mirrored)",
            question,
            side == "right",
        )
        return bytes(rows[0][0]) if rows else None

    def answer(self, question: int, choice: str, seconds: float | None = None) -> Outcome:
        """Store what was chosen on the screen, and how long it took.

        Returns:
            ``"stored"``, or ``"conflict"`` where it has been answered already, or ``"unknown"`` where there is no such
            question; the last two change nothing.

        Raises:
            InputError: the choice is none.
            RunError: it could not be stored.
        """
        if choice not in CHOICES:
            raise InputError(f"the choice is {choice!r}; wanted one of {', '.join(CHOICES)}")
        label = CHOICES[choice]
        took = seconds if seconds is not None and 0 <= seconds < math.inf else None
        with self.store.transaction() as connection:
            row = connection.execute(
                "select mirrored, answered_at from preference where id = ?", (question,)
            ).fetchone()
            if row is None:
                return "unknown"
            if row[1] is not None:
                return "conflict"
            if label is not None and row[0]:
                label = 1 - label
            connection.execute(
                "update preference set label = ?, turn = ?, answered_at = ?, seconds = ?, who = ? where id = ?",
                (label, self.store.turn + 1, time.time(), took, self.who, question),
            )
        return "stored"

    def undo(self, question: int) -> Outcome:
        """Take an answer back, so that the question waits again.

        Returns:
            ``"stored"``, or ``"conflict"`` where it waits already or a teacher answered it, or ``"unknown"``.
        """
        with self.store.transaction() as connection:
            row = connection.execute("select answered_at, who from preference where id = ?", (question,)).fetchone()
            if row is None:
                return "unknown"
            if row[0] is None or row[1] is None:
                return "conflict"
            connection.execute(
                "update preference set label = null, turn = ?, answered_at = null, seconds = null, who = null "
                "where id = ?",
                (self.store.turn + 1, question),
            )
        return "stored"
