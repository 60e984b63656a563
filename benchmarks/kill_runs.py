"""Runs under ``kill -9``: learning from preferences is killed at random moments and resumed, until it is done.

After each kill every label that was on disk before must still be there, the run must load and go on, and in the end it
must hold exactly the labels that it was allowed, no question twice.

Run ``python benchmarks/kill_runs.py``; it writes ``benchmarks/results/kill_runs.json`` and ends with 1 if anything is
missing.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from kill_labels import forked
from kills import report

from bigrad.rlhf import PreferenceTrainer

RESULT = Path(__file__).resolve().parent / "results" / "kill_runs.json"
SETTINGS: dict[str, Any] = {
    "labels": 60,
    "steps": 700,
    "warm_up": 100,
    "rounds": 20,
    "label_until": 0.9,
    "on_policy_steps": 20,
    "segment": 10,
    "first_upper_steps": 20,
    "upper_steps": 10,
    "units": 16,
    "width": 8,
    "batch": 16,
    "episodes": 1,
    "transitions": 64,
    "opponents": 16,
    "draws": 2,
}
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def learn(folder: Path) -> None:
    """Start the run, or go on with it."""
    if (folder / "config.yaml").exists():
        trainer = PreferenceTrainer.load(folder)
    else:
        trainer = PreferenceTrainer("Pendulum-v1", **SETTINGS)
    trainer.learn(out=folder)


def questions(folder: Path) -> list[tuple[Any, ...]]:
    """The labels on disk, as somebody else sees them."""
    if not (folder / "labels.sqlite").exists():
        return []
    with contextlib.closing(sqlite3.connect(folder / "labels.sqlite", timeout=30)) as file:
        try:
            return file.execute("select id, label, observation from preference order by id").fetchall()
        except sqlite3.OperationalError:  # killed before there was a table
            return []


def measure(kills: int, seed: int) -> dict[str, Any]:
    """Kill so many times, at most ten times a run; each run is left to its end afterwards."""
    chance = random.Random(seed)
    wrong: list[str] = []
    killed = runs = 0
    labels_at_kill: list[int] = []
    while killed < kills and not wrong:
        runs += 1
        with tempfile.TemporaryDirectory() as name:
            folder, last = Path(name) / "run", min(kills, killed + 10)
            ended = False
            while not ended:
                child = forked(lambda folder=folder: learn(folder))
                if killed < last:
                    goal = len(questions(folder)) + chance.randrange(7)
                    while len(questions(folder)) < goal and os.waitid(os.P_PID, child, _LOOK) is None:
                        time.sleep(0.002)
                    time.sleep(chance.uniform(0, 0.2))
                    before = questions(folder)
                    os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                ended = not os.WIFSIGNALED(status)
                if ended and status:
                    wrong.append(f"run {runs} does not go on after kill {killed}")
                elif not ended:
                    killed += 1
                    labels_at_kill.append(len(before))
                    if questions(folder)[: len(before)] != before:
                        wrong.append(f"kill {killed} lost a label")
            found = questions(folder)
            if len(found) != SETTINGS["labels"] or len({row[2] for row in found}) != len(found):
                wrong.append(f"run {runs} holds {len(found)} labels, wanted {SETTINGS['labels']}, no pair twice")
            if not (folder / "result.json").exists():
                wrong.append(f"run {runs} has no result")
    return {
        "kills": killed,
        "runs": runs,
        "labels_at_kill": labels_at_kill,
        "wrong": wrong,
        "target": "0 labels lost, every run resumes",
        "holds": not wrong,
    }


if __name__ == "__main__":
    report(__doc__, measure, RESULT)
