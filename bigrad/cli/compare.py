"""``bigrad compare``: methods, teachers and labels on paired seeds, in parallel."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro
from rich import progress
from rich.console import Console

from ..errors import InputError
from ..rlhf import Settings, comparison
from .comparison_curves import draw_comparison


@dataclass
class Comparison:
    """Compare methods on paired seeds, in parallel processes of one thread each.

    For example:
      bigrad compare --methods sobirl drlhf sac --seeds 10 --labels 15 30 100 --steps 8000 --out runs/compare

    Stop it with Ctrl-C, or let the machine go down: the same command goes on where it stopped. A run that fails is
    listed with its reason, takes no other with it, and is tried again by the same command. Another command with the
    same --out adds seeds, labels, arms or teachers: what is finished is not run again, and all of it is in the table.

    After every run the folder has table.md (interquartile means with 95 % intervals, differences of pairs, probability
    of improvement), results.csv (a row a run), summary.json, curves.png and budgets.png.

    Forms of one method are compared as arms with names of their own, each with the settings that it changes:
      --arms strict:method=sobirl,response_limit=0.1 free:method=sobirl,response_limit=2

    Teachers are made the same way:
      --teachers perfect noisy hazy:beta=0.2
    """

    env: list[str] = field(default_factory=lambda: ["Pendulum-v1"])
    """Registered gymnasium environments."""
    methods: list[str] = field(default_factory=list)
    """Arms named after their method, for example sobirl drlhf sac; all that serve the environments if neither this nor
    --arms is given.
    A method that sees the true reward is run once a seed, whatever the labels and teachers."""
    arms: list[str] = field(default_factory=list)
    """More arms, each NAME:setting=value,..."""
    teachers: list[str] = field(default_factory=lambda: ["perfect"])
    """Who labels: perfect (never errs), noisy (Boltzmann, beta 0.05), boltzmann (beta 1), mistake, skip, equal, myopic,
    or NAME:beta=...,mistake=..."""
    labels: list[int] = field(default_factory=lambda: [100])
    """Label budgets."""
    seeds: int = 10
    """How many seeds; below five no interval is claimed."""
    first_seed: int = 0
    """The first of them: tune on other seeds than you report."""
    out: Path = Path("runs/compare")
    """Folder of the comparison."""
    record: Path | None = None
    """Also copy each run's record, with its arm, teacher and settings, into this folder."""
    processes: int | None = None
    """Runs at a time; one a core if left out."""
    threads: int = 1
    """Threads of each run; on few cores one is fastest."""
    device: str = "auto"
    """Where the networks live, as torch names it."""


def run(argv: Sequence[str]) -> int:
    """Run the command and return its exit code: 1 if a run failed."""
    options = tyro.cli(_options(), prog="bigrad compare", args=list(argv), config=(tyro.conf.FlagConversionOff,))
    processes = options.processes or max(1, (os.cpu_count() or 1) // options.threads)
    if min(processes, options.threads, options.seeds) < 1:
        raise InputError(f"processes, threads, seeds are {processes}, {options.threads}, {options.seeds}; wanted >= 1")
    names = options.methods or ([] if options.arms else comparison.methods_for(options.env))
    out = options.out.resolve()
    runs = comparison.plan(
        options.env,
        [comparison.Variant.arm(text) for text in (*names, *options.arms)],
        [comparison.Variant.teacher(text) for text in options.teachers],
        options.labels,
        range(options.first_seed, options.first_seed + options.seeds),
        {name: getattr(options, name) for name in _settings()},
        out,
    )
    command = shlex.join(["bigrad", "compare", *argv])
    signal.signal(signal.SIGTERM, _interrupt)
    with comparison.held(out):
        for planned in runs:
            planned.prepare(command)
        every = (*runs, *comparison.others(out, runs))
        outcomes = comparison.Outcomes([comparison.Outcome.read(one) for one in every])
        return _Desk(options.out, options.record, outcomes, command).work(processes, options.threads, options.device)


class _Desk:
    """Where reports are written and somebody watches."""

    def __init__(self, out: Path, record: Path | None, outcomes: comparison.Outcomes, command: str) -> None:
        self.out, self.record, self.outcomes, self.command = out, record, outcomes, command
        self.console = Console()
        self.bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(None),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=self.console,
            speed_estimate_period=600,
        )
        self.whole = self.bar.add_task("", total=sum(row.run.settings.steps for row in outcomes.rows))
        self.lines: dict[Path, progress.TaskID] = {}

    def work(self, processes: int, threads: int, device: str) -> int:
        """Do what is open, and return the exit code."""
        table = self.report()
        waiting = [row.run for row in self.outcomes.rows if row.result is None]
        self.watched([])
        try:
            with self.bar:
                environment, worker = comparison.environment(threads), comparison.workers_on(device)
                comparison.work(waiting, processes, self.ended, self.watched, environment, worker)
        except KeyboardInterrupt:
            print(f"\nStopped, with everything on disk. The same command goes on: {self.command}", file=sys.stderr)
            raise
        table = self.report() if waiting else table
        self.console.print(table, markup=False, highlight=False, soft_wrap=True)
        self.console.print(
            f"{self.out}: table.md, results.csv, summary.json, curves.png", highlight=False, soft_wrap=True
        )
        return int(any(row.error for row in self.outcomes.rows))

    def ended(self, run: comparison.Run, code: int) -> None:
        """Say how a run ended, and bring the files up to date."""
        outcome = comparison.Outcome.read(run, comparison.failure(run, code))
        self.outcomes.replace(outcome)
        said = outcome.error if outcome.result is None else f"true return {outcome.number('true_return'):.1f}"
        self.console.print(f"{run.name}: {outcome.status}, {said}", highlight=False, markup=False, soft_wrap=True)
        if run.folder in self.lines:
            self.bar.remove_task(self.lines.pop(run.folder))
        self.report()

    def watched(self, working: Sequence[comparison.Run]) -> None:
        """Move the bars."""
        rows = self.outcomes.rows
        done, failed = (sum(row.status == status for row in rows) for status in ("finished", "failed"))
        steps = sum(row.run.settings.steps for row in rows if row.status != "open")
        for run in working:
            if run.folder not in self.lines:
                self.lines[run.folder] = self.bar.add_task(run.name, total=run.settings.steps)
            self.bar.update(self.lines[run.folder], completed=run.step)
            steps += run.step
        text = f"{done}/{len(rows)} runs" + (f", {failed} failed" if failed else "")
        self.bar.update(self.whole, completed=steps, description=text)

    def report(self) -> str:
        """Write every file, and return the table."""
        table = comparison.write_report(self.out, self.outcomes, self.command)
        draw_comparison(self.out, self.outcomes)
        if self.record is not None:
            comparison.write_records(self.record, self.outcomes)
        return table


def _settings() -> dict[str, Any]:
    """Every setting of a run that is the same for all runs, and its default."""
    apart = {"env", "method", "labels", "seed"}
    return {entry.name: entry.default for entry in fields(Settings) if entry.name not in apart}


def _options() -> type[Any]:
    """The options above, and one for each setting of a run."""
    told = {
        name: re.sub(r":\w+:|`", "", " ".join(text.split())).capitalize()
        for names, text in re.findall(r"^ {8}([\w, ]+): ((?:.|\n {12})+)", Settings.__doc__ or "", re.MULTILINE)
        for name in names.split(", ")
    }
    more = [
        (name, Annotated[type(default), tyro.conf.arg(help=told.get(name, "Of every run."))], field(default=default))
        for name, default in _settings().items()
    ]
    kind = make_dataclass("Comparison", more, bases=(Comparison,))
    kind.__doc__ = Comparison.__doc__
    return kind


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
