"""What the runs of a comparison have reached so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import RunError
from ..ceilings import Ceiling, ceiling_of
from ..snapshot import read_json
from .plan import HISTORY, RESULT, Run, Task


@dataclass(frozen=True)
class Outcome:
    """A run, and what it left.

    Attributes:
        run: which.
        result: its ``result.json``; ``None`` where it has not finished.
        history: its episodes and rounds.
        error: why it ended without a result.
    """

    run: Run
    result: Mapping[str, Any] | None
    history: Sequence[Mapping[str, Any]]
    error: str | None = None

    @classmethod
    def read(cls, run: Run, error: str | None = None) -> Outcome:
        """From the run's folder.

        Raises:
            RunError: a damaged file.
        """
        if not run.finished:
            return cls(run, None, (), error)
        path = run.folder / RESULT
        result = read_json(path)
        history = read_json(run.folder / HISTORY)
        if not isinstance(result, dict) or not isinstance(result.get("true_return"), int | float):
            raise RunError(f"{path} is no result: remove {run.folder}, and the same command makes it again")
        return cls(run, result, history)

    @property
    def status(self) -> str:
        """finished, failed or open."""
        return "finished" if self.result is not None else "failed" if self.error else "open"

    def number(self, name: str) -> float | None:
        """One number of the result."""
        value = None if self.result is None else self.result.get(name)
        return float(value) if isinstance(value, int | float) else None

    @property
    def training_return(self) -> float | None:
        """The mean true return of the training episodes, each weighted with its steps: the area under the curve."""
        steps, returns = episodes(self.history)
        if not len(steps):
            return None
        return float(np.average(returns, weights=np.diff(steps, prepend=0)))


class Outcomes:
    """All outcomes of a comparison, in the order of its plan.

    Attributes:
        rows: one a run.
        arms: names, in the order given.
        tasks: those with labels; where every arm sees the true reward, those without.
    """

    def __init__(self, rows: Sequence[Outcome]) -> None:
        self.rows = list(rows)
        self.arms = list(dict.fromkeys(row.run.arm for row in rows))
        tasks = dict.fromkeys(row.run.task for row in rows)
        self.tasks = [task for task in tasks if task.labels is not None] or list(tasks)

    def replace(self, outcome: Outcome) -> None:
        """Take in what a run has come to."""
        place = next(place for place, row in enumerate(self.rows) if row.run.folder == outcome.run.folder)
        self.rows[place] = outcome

    def of(self, arm: str, task: Task) -> list[Outcome]:
        """The finished runs of an arm, by seed; an arm without labels has the same ones in every task of its env."""
        places = (task, Task(task.env, None, None))
        found = [row for row in self.rows if row.run.arm == arm and row.run.task in places and row.result is not None]
        return sorted(found, key=lambda row: row.run.settings.seed)

    def own_tasks(self, arm: str) -> list[Task]:
        """The tasks that an arm has runs of its own in."""
        return list(dict.fromkeys(row.run.task for row in self.rows if row.run.arm == arm))

    def pairs(self, left: str, right: str, task: Task) -> list[tuple[Outcome, Outcome]]:
        """The finished runs of two arms that share a seed."""
        theirs = {row.run.settings.seed: row for row in self.of(right, task)}
        return [(row, theirs[row.run.settings.seed]) for row in self.of(left, task) if row.run.settings.seed in theirs]

    def scale(self, env: str) -> Ceiling | None:
        """The scale of an environment: the shipped one, or from random to the mean of the arm with the true reward."""
        shipped = ceiling_of(env)
        if shipped is not None:
            return shipped
        reference = [
            row
            for row in self.rows
            if row.result is not None and row.run.task.env == env and row.result["method"] in ("sac", "softdqn")
        ]
        if not reference:
            return None
        low, high = (
            float(np.mean([row.result[name] for row in reference if row.result is not None]))
            for name in ("random_return", "true_return")
        )
        return Ceiling(low, high) if high > low else None

    def share(self, row: Outcome) -> float | None:
        """How far a finished run is on the way from random to the ceiling."""
        scale, value = self.scale(row.run.task.env), row.number("true_return")
        return None if scale is None or value is None else scale.share(value)


def episodes(history: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which training episodes ended, and their true returns, each ``(episodes,)``."""
    rows = [(row["step"], row["episode_return"]) for row in history if row.get("episode_return") is not None]
    steps, returns = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    return steps, returns


def against_steps(rows: Sequence[Outcome], points: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Training returns against environment steps: the grid ``(points,)`` and a curve a run, ``(runs, points)``.

    A point is the mean of the episodes that ended in the last twentieth of the run; where none did, of the last one
    before. Points at which some run has had no episode yet are left out.

    Args:
        rows: finished runs.
        points: of the grid.
    """
    last = max(row.run.settings.steps for row in rows)
    grid = np.linspace(last / points, last, points)
    curves = np.stack([_windowed(*episodes(row.history), grid, last / 20) for row in rows])
    known = np.isfinite(curves).all(0)
    return grid[known], curves[:, known]


def against_labels(rows: Sequence[Outcome]) -> tuple[np.ndarray, np.ndarray]:
    """Training returns against labels given so far: the labels ``(points,)`` and a curve a run, ``(runs, points)``.

    A point is the mean of the episodes between the round that gave these labels and the next one that gave more.
    Numbers of labels that not all runs have had are left out.

    Args:
        rows: finished runs.
    """
    found = [_after_rounds(row.history) for row in rows]
    labels = sorted(set.intersection(*(set(points) for points in found))) if found else []
    return np.array(labels, dtype=np.float64), np.array([[points[count] for count in labels] for points in found])


def _windowed(steps: np.ndarray, returns: np.ndarray, grid: np.ndarray, window: float) -> np.ndarray:
    values = np.full(len(grid), np.nan)
    for place, end in enumerate(grid):
        before = np.flatnonzero(steps <= end)
        if len(before):
            inside = before[steps[before] > end - window]
            values[place] = returns[inside].mean() if len(inside) else returns[before[-1]]
    return values


def _after_rounds(history: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    first: dict[int, float] = {}  # the step at which so many labels had been given
    for row in history:
        if row.get("labels") is not None:
            first.setdefault(int(row["labels"]), float(row["step"]))
    steps, returns = episodes(history)
    begins = [*first.values(), np.inf]
    found = {}
    for count, begin, end in zip(first, begins[:-1], begins[1:], strict=True):
        inside = (steps > begin) & (steps <= end)
        if inside.any():
            found[count] = float(returns[inside].mean())
    return found
