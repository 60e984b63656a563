"""The files of a comparison: a table a person reads, a row a run, and everything for a program."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..result import hardware, versions
from ..snapshot import write_atomically, write_json
from .aggregates import REPEATS, Estimate
from .judgement import Duel, Judgement, Standing, few, judge
from .outcome import Outcome, Outcomes

TABLE, ROWS, SUMMARY = "table.md", "results.csv", "summary.json"
_LEGEND = (
    "Numbers are interquartile means over paired seeds, in brackets the 95 % interval of the stratified bootstrap; "
    "with fewer than five seeds each run is shown and no interval is claimed."
)
_APART = ("versions", "hardware", "command")  # in summary.json


def write_report(out: Path, outcomes: Outcomes, command: str) -> str:
    """Write ``results.csv``, ``summary.json`` and ``table.md``, and return the table.

    Raises:
        RunError: a file cannot be written; what was there before is intact.
    """
    judgements = judge(outcomes)
    table = as_markdown(outcomes, judgements, command)
    write_atomically(out / ROWS, as_csv(outcomes).encode())
    write_json(out / SUMMARY, as_json(outcomes, judgements, command))
    write_atomically(out / TABLE, table.encode())
    return table


def write_records(folder: Path, outcomes: Outcomes) -> None:
    """Write the result of each finished run, with its arm, teacher and settings, into one folder of records.

    Raises:
        RunError: a file cannot be written.
    """
    for row in outcomes.rows:
        if row.result is not None:
            run = row.run
            extra = {"arm": run.arm, "teacher": run.task.teacher, "settings": run.settings.to_json()}
            write_json(folder / f"{run.name.replace('/', '-')}.json", {**row.result, **extra})


def as_csv(outcomes: Outcomes) -> str:
    """A row a run."""
    rows = [_cells(row, outcomes) for row in outcomes.rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(outcomes: Outcomes, judgements: Sequence[Judgement], command: str) -> dict[str, Any]:
    """Everything but the runs' own files, in plain numbers and strings."""
    rows = outcomes.rows
    return {
        "commands": _commands(outcomes, command),
        "versions": versions(),
        "hardware": hardware(),
        "statistics": {
            "value": "interquartile mean",
            "interval": f"95 %, stratified bootstrap of {REPEATS} repeats",
        },
        "seeds": sorted({row.run.settings.seed for row in rows}),
        "arms": {row.run.arm: _shared(outcomes, row.run.arm) for row in rows},
        "teachers": {
            row.run.task.teacher: {k: str(v) for k, v in row.run.teacher.items()} for row in rows if row.run.teacher
        },
        "runs": {status: sum(row.status == status for row in rows) for status in ("finished", "failed", "open")},
        "errors": {row.run.name: row.error for row in rows if row.error},
        "judgements": [asdict(judgement) for judgement in judgements],
    }


def as_markdown(outcomes: Outcomes, judgements: Sequence[Judgement], command: str) -> str:
    """The table that a person reads."""
    rows = outcomes.rows
    done = sum(row.status == "finished" for row in rows)
    lines = [
        "# Comparison",
        "",
        *(line for one in _commands(outcomes, command) for line in (f"`{one}`", "")),
        f"{done} of {len(rows)} runs finished. {_LEGEND}",
    ]
    for judgement in judgements:
        title = "All tasks, on the scale from random (0) to the ceiling (1)"
        lines += ["", f"## {title if judgement.task is None else judgement.task.title()}", ""]
        lines += _table([_reached(standing) for standing in judgement.standings])
        lines += ["", *_table([_measured(standing) for standing in judgement.standings])]
        if judgement.duels:
            lines += ["", *_table([_duel(duel, judgement.task is None) for duel in judgement.duels])]
    failed = [{"failed run": row.run.name, "why": row.error} for row in rows if row.error]
    lines += ["", *_table(failed)] if failed else []
    return "\n".join(lines) + "\n"


def _commands(outcomes: Outcomes, command: str) -> list[str]:
    """This command, and those that finished the other runs."""
    return list(dict.fromkeys([command, *(row.result["command"] for row in outcomes.rows if row.result is not None)]))


def _cells(row: Outcome, outcomes: Outcomes) -> dict[str, Any]:
    run = row.run
    cells: dict[str, Any] = {
        "env": run.task.env,
        "teacher": run.task.teacher,
        "label_budget": run.task.labels,
        "arm": run.arm,
        "method": run.settings.method,
        "seed": run.settings.seed,
        "status": row.status,
    }
    if row.result is not None:
        cells |= {name: value for name, value in row.result.items() if name not in {*cells, *_APART}}
        cells |= {"share": outcomes.share(row), "training_return": row.training_return}
    return {**cells, "folder": run.name, "error": row.error}


def _shared(outcomes: Outcomes, arm: str) -> dict[str, Any]:
    """The settings that all runs of an arm have."""
    every = [row.run.settings.to_json() for row in outcomes.rows if row.run.arm == arm]
    return {name: value for name, value in every[0].items() if all(one[name] == value for one in every)}


def _reached(standing: Standing) -> dict[str, str]:
    line = {"arm": standing.arm, "runs": str(len(standing.seeds))}
    if few(standing):
        line["true return"] = ", ".join(f"{value:.1f}" for value in standing.returns)
    elif standing.true_return is not None:
        line["true return"] = _shown(standing.true_return, ".1f")
    if standing.training_return is not None:
        line["during training"] = _shown(standing.training_return, ".1f")
    if standing.share is not None:
        line["share of the way"] = standing.share.shown(".3f")
    return line


def _measured(standing: Standing) -> dict[str, str]:
    names = ("preference accuracy", "before the fit", "response / direct", "split-half agreement", "seconds")
    forms = (".3f", ".3f", ".2f", ".2f", ".0f")
    estimates = zip(names, forms, standing.measures.values(), strict=True)
    return {"arm": standing.arm} | {name: _shown(estimate, form) for name, form, estimate in estimates}


def _duel(duel: Duel, shares: bool) -> dict[str, str]:
    return {
        "arm": duel.left,
        "against": duel.right,
        "pairs": str(duel.pairs),
        f"difference of {'shares' if shares else 'true return'}": duel.difference.shown(".3f" if shares else ".1f"),
        "probability of improvement": duel.improvement.shown(".2f"),
    }


def _shown(estimate: Estimate | None, form: str) -> str:
    return "-" if estimate is None else estimate.shown(form)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    body = [names, *([str(row.get(name, "-")).replace("|", "\\|") for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    body.insert(1, ["-" * width for width in widths])
    return [f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |" for cells in body]
