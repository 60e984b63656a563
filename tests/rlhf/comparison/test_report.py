"""The files that a comparison leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigrad.rlhf import comparison

from . import fabricated

COMMAND = "bigrad compare --methods sobirl drlhf sac"
SOBIRL, DRLHF = [-4.0, -3.0, -9.0, -2.0, -5.0, -3.5], [-6.0, -5.0, -8.0, -4.0, -7.0, -5.5]


def write(out: Path, seeds: int = 6, **more: Any) -> tuple[str, comparison.Outcomes]:
    planned = fabricated.runs(["sobirl", "drlhf", "sac"], seeds=range(6), out=out / "runs", **more)
    returns = {"sobirl": SOBIRL[:seeds], "drlhf": DRLHF[:seeds], "sac": [-2.0] * seeds}
    found = fabricated.outcomes(planned, **returns)
    return comparison.write_report(out, found, COMMAND), found


def cells(table: str, start: str) -> list[str]:
    """The cells of the first line that begins so."""
    line = next(line for line in table.splitlines() if " ".join(line.split()).startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_estimates_and_duels(tmp_path: Path) -> None:
    table, _ = write(tmp_path)
    assert (tmp_path / "table.md").read_text() == table
    assert COMMAND in table
    assert "18 of 18 runs finished" in table
    ours, theirs = ([scores] for scores in map(np.array, (SOBIRL, DRLHF)))
    estimate = comparison.aggregate(ours)
    assert estimate.value == pytest.approx((-3.0 - 3.5 - 4.0 - 5.0) / 4)
    reached = cells(table, "| sobirl | 6 |")
    assert reached[:3] == ["sobirl", "6", estimate.shown()]
    assert "[" in estimate.shown()
    assert reached[3] == estimate.shown()  # its episodes were like its end
    assert reached[4].startswith(f"{(10 + estimate.value) / 8:.3f} [")
    duel = cells(table, "| sobirl | drlhf |")
    found = comparison.difference(ours, theirs), comparison.improvement(ours, theirs)
    assert duel[2:] == ["6", found[0].shown(), found[1].shown(".2f")]
    assert cells(table, "| sobirl | 0.750")[1] == "0.750 [0.750, 0.750]"


def test_below_five_seeds_every_run_is_shown_and_no_interval(tmp_path: Path) -> None:
    table, _ = write(tmp_path, seeds=4)
    assert "12 of 18 runs finished" in table
    assert cells(table, "| sobirl | 4 |")[2] == "-4.0, -3.0, -9.0, -2.0"
    assert "[" not in table
    summary = (tmp_path / "summary.json").read_text()
    assert '"low": null' in summary
    assert '"low": -' not in summary


def test_all_tasks_are_judged_together_on_the_scale_of_shares(tmp_path: Path) -> None:
    table, _ = write(tmp_path, labels=(10, 20))
    together = table.split("## All tasks")[1]
    share = comparison.aggregate([(10 + np.array(SOBIRL)) / 8] * 2)
    assert cells(together, "| sobirl | 12 |") == ["sobirl", "12", share.shown(".3f")]
    assert cells(together, "| sobirl | drlhf |")[2] == "12"
    assert not any(line.startswith("| sobirl | sac") for line in together.splitlines())  # has no runs of its own there
    assert "All tasks" not in write(tmp_path)[0]


def test_a_row_a_run(tmp_path: Path) -> None:
    _, found = write(tmp_path, seeds=5)
    found.replace(comparison.Outcome(found.rows[-1].run, None, (), "killed by SIGKILL"))
    table = comparison.write_report(tmp_path, found, COMMAND)
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    first, last = rows[0], rows[-1]
    assert (first["arm"], first["seed"], first["true_return"], first["status"]) == ("sobirl", "0", "-4.0", "finished")
    assert (first["share"], first["preference_accuracy"], first["label_budget"]) == ("0.75", "0.75", "10")
    assert (last["arm"], last["status"], last["error"], last["true_return"]) == (
        "sac",
        "failed",
        "killed by SIGKILL",
        "",
    )
    assert cells(table, f"| {last['folder']}")[1] == "killed by SIGKILL"
    assert rows[-2]["status"] == "open"


def test_the_summary_says_what_made_it(tmp_path: Path) -> None:
    write(tmp_path, seeds=5)
    text = (tmp_path / "summary.json").read_text()
    summary = json.loads(text)
    assert summary["commands"] == [COMMAND, "bigrad compare"]
    assert summary["seeds"] == list(range(6))
    assert {"bigrad", "python", "torch", "numpy"} <= summary["versions"].keys()
    assert summary["hardware"]
    assert summary["runs"] == {"finished": 15, "failed": 0, "open": 3}
    assert summary["arms"]["drlhf"]["method"] == "drlhf"
    assert "seed" not in summary["arms"]["drlhf"]
    assert summary["teachers"]["perfect"] == {"beta": "inf"}
    (judgement,) = summary["judgements"]
    assert judgement["task"] == {"env": "Tiny/Point-v0", "teacher": "perfect", "labels": 10}
    assert judgement["standings"][0]["returns"] == SOBIRL[:5]
    assert str(tmp_path) not in text + (tmp_path / "results.csv").read_text() + (tmp_path / "table.md").read_text()


def test_records_are_the_results_with_arm_teacher_and_settings(tmp_path: Path) -> None:
    _, found = write(tmp_path, seeds=1)
    comparison.write_records(tmp_path / "records", found)
    names = {path.name for path in (tmp_path / "records").iterdir()}
    arms = ("sobirl-10-perfect", "drlhf-10-perfect", "sac")
    assert names == {f"Tiny-Point-v0-{arm}-seed0.json" for arm in arms}
    record = json.loads((tmp_path / "records" / "Tiny-Point-v0-drlhf-10-perfect-seed0.json").read_text())
    assert record.items() >= {**fabricated.RECORD, "true_return": -6.0, "arm": "drlhf", "teacher": "perfect"}.items()
    assert record["settings"]["units"] == 16
