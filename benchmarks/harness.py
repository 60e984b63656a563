"""Side-by-side measurement: interleaved timing on one thread, peak memory in a child, tables and records."""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from allocator import keep_freed_memory
from peers import current, versions
from record import write_record

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]


class Seconds(float):
    """What a phase returns where it has measured itself (another process)."""


@dataclass
class Case:
    """One way of doing a piece of work, in phases that are timed one by one; each gets the result of the last."""

    name: str
    phases: dict[str, Callable[[Any], Any]]
    times: dict[str, list[float]] = field(default_factory=dict)
    failure: str = ""
    last: Any = None

    def once(self) -> None:
        """Go through the phases, and keep the times unless one fails."""
        if self.failure:
            return
        result: Any = None
        taken: dict[str, float] = {}
        try:
            for phase, run in self.phases.items():
                start = time.perf_counter()
                result = run(result)
                taken[phase] = float(result) if isinstance(result, Seconds) else time.perf_counter() - start
        except Exception as error:  # noqa: BLE001  # a peer may raise anything: that is a result
            self.failure = describe(error)
            return
        self.last = result
        for phase, seconds in taken.items():
            self.times.setdefault(phase, []).append(seconds)

    def milliseconds(self, phase: str) -> float:
        """The median time of a phase."""
        return 1e3 * median(self.times[phase]) if self.times.get(phase) else float("nan")

    def spread(self, phase: str) -> tuple[float, float]:
        """The quartiles of the times of a phase, in milliseconds."""
        times = self.times.get(phase) or [float("nan")]
        low, _, high = quantiles(times * 2 if len(times) == 1 else times, n=4, method="inclusive")
        return 1e3 * low, 1e3 * high


def describe(error: Exception) -> str:
    """An exception in a table's cell."""
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:90]}"


def interleave(cases: Sequence[Case], repetitions: int, budget: float = 20.0) -> None:
    """Run all cases in turn, again and again, so that a slow moment of the machine hits all of them.

    Args:
        cases: what to run; the results are left in them.
        repetitions: how often, after one warm-up.
        budget: seconds of which each case may use its share; one that has used it up is not repeated any more. The
            warm-up, which may compile, is not part of it, unless it takes more than four shares: then it counts.
    """
    keep_freed_memory()
    gc.collect()
    gc.freeze()  # a collection looks through what the cases leave, and not through all of torch each time: .1 s
    spent = dict.fromkeys(range(len(cases)), 0.0)
    share = budget / len(cases)
    for repetition in range(repetitions + 1):
        for place, case in enumerate(cases):
            if spent[place] > share:
                continue
            gc.collect()
            gc.disable()
            start = time.perf_counter()
            case.once()
            spent[place] += time.perf_counter() - start
            gc.enable()
            if repetition == 0 and spent[place] <= 4 * share:
                case.times.clear()
                spent[place] = 0.0
    gc.unfreeze()


CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()


def one_thread() -> None:
    """One thread for torch and for everything that reads the usual variables, one core for everything else."""
    if CORES:
        os.sched_setaffinity(0, {max(CORES)})
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = "1"
    torch.set_num_threads(1)


@contextmanager
def all_cores() -> Iterator[None]:
    """Inside ``with``, processes that are started may use every core again."""
    before = os.sched_getaffinity(0) if CORES else CORES
    try:
        if CORES:
            os.sched_setaffinity(0, CORES)
        yield
    finally:
        if CORES:
            os.sched_setaffinity(0, before)


def memory() -> tuple[int, int]:
    """Resident bytes of this process: now, and at most since :func:`forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmHWM", "VmRSS"))}
    return found["VmRSS"], found["VmHWM"]


def forget_peak() -> int:
    """Hand back what is free, let the peak of the resident memory start anew from what is left, and return that."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return memory()[0]


def child(script: str, *arguments: object, timeout: float = 300.0) -> Row:
    """Run a script in a fresh process; the last line of its output is a JSON object."""
    command = [sys.executable, "-W", "ignore", script, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failure": f"no result in {timeout:.0f} s"}
    if done.returncode:
        return {"failure": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:120]}
    result: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def relative_error(found: Any, truth: torch.Tensor) -> float:
    """Distance over the size of the truth, in the Euclidean norm."""
    return float((torch.as_tensor(found, dtype=truth.dtype) - truth).norm() / truth.norm())


def verdict(value: float, target: float) -> str:
    """Whether a number that should be small is."""
    return "pass" if value <= target else "falls short"


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    if isinstance(value, list):
        return " to ".join(map(cell, value))
    return str(value)


def is_curve(value: Any) -> bool:
    """A list too long for a cell."""
    return isinstance(value, list) and len(value) > 5


def show(title: str, rows: Sequence[Row]) -> None:
    """Print rows as a table; the columns are the keys of all rows."""
    print(f"\n{title}")
    keys = dict.fromkeys(key for row in rows for key in row if not is_curve(row[key]))
    columns = sorted(keys, key=("verdict", "failure").__contains__)
    lines = [columns, *([cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        text = "  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True))
        print(f"  {text.rstrip()}", flush=True)


def rounded(value: Any) -> Any:
    """A value as a record keeps it: four digits, and nothing for what was not measured."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return [rounded(part) for part in value] if isinstance(value, list) else value


def options(doc: str | None, name: str) -> argparse.Namespace:
    """The options that all scripts share."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--full", action="store_true", help="also what takes long")
    parser.add_argument("--only", nargs="*", default=[], help="tables to run")
    parser.add_argument("--out", type=Path, default=HERE / "results" / f"{name}.json")
    return parser.parse_args()


def report(chosen: argparse.Namespace, tables: dict[str, Callable[[bool], list[Row]]]) -> None:
    """Run the tables that were asked for, print them and write the record of a full run."""
    one_thread()
    started = time.perf_counter()
    found = {}
    for title, run in tables.items():
        if not chosen.only or title in chosen.only:
            found[title] = run(chosen.quick)
            show(title, found[title])
    seconds = round(time.perf_counter() - started)
    print(f"\n{seconds} s")
    if not chosen.quick and not chosen.only:
        for row in itertools.chain(*found.values()):
            row.update({key: rounded(value) for key, value in row.items()})
        write_record(chosen.out, {"tables": found, "peers": versions(current()), "seconds": seconds})
