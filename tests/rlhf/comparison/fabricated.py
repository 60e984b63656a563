"""Comparisons whose runs never ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bigrad.rlhf import comparison

from .. import tiny

OUT = Path("out")
RECORD = {
    "method": "drlhf",
    "random_return": -10.0,
    "wall_seconds": 1.5,
    "preference_accuracy": 0.75,
    "fresh_accuracy": None,
    "versions": {"torch": "2"},
    "hardware": "an abacus",
    "command": "bigrad compare",
}


def runs(
    arms: Sequence[str],
    *,
    labels: Sequence[int] = (10,),
    teachers: Sequence[str] = ("perfect",),
    seeds: Iterable[int] = range(2),
    out: Path = OUT,
    env: str = tiny.POINT,
    **settings: Any,
) -> list[comparison.Run]:
    """A plan of tiny runs."""
    own = {name: value for name, value in tiny.SETTINGS.items() if name != "labels"}
    return comparison.plan(
        [env],
        [comparison.Variant.arm(text) for text in arms],
        [comparison.Variant.teacher(text) for text in teachers],
        labels,
        list(seeds),
        {**own, **settings},
        out,
    )


def finished(run: comparison.Run, true_return: float, **more: Any) -> comparison.Outcome:
    """A run that reached ``true_return``, in the end and in each of its episodes."""
    history = [{"step": step, "episode_return": true_return} for step in range(10, run.settings.steps + 1, 10)]
    record = {**RECORD, "method": run.settings.method, "true_return": true_return, **more}
    return comparison.Outcome(run, record, history)


def outcomes(planned: Sequence[comparison.Run], **returns: Sequence[float]) -> comparison.Outcomes:
    """Runs by arm and seed; those without a return are open."""
    rows = []
    for run in planned:
        reached = returns.get(run.arm, ())
        seed = run.settings.seed
        open_ = comparison.Outcome(run, None, ())
        rows.append(finished(run, reached[seed]) if seed < len(reached) else open_)
    return comparison.Outcomes(rows)


def with_history(row: comparison.Outcome, history: Sequence[dict[str, Any]]) -> comparison.Outcome:
    return replace(row, history=history)
