"""Make every table, or those that are named: ``python benchmarks/run.py [TABLE ...] [--full]``.

The environments of the peers are made on another core than the tables take, beside the first tables, which need none.
Each table is a script in a process group of its own with several times its minutes; one that fails or takes longer is
named at the end, and the rest goes on. Then the page ``RESULTS.md``, its plots and the README's table are made from the
records. ``--full`` adds what takes hours.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from peers import interpreter, prepare

HERE = Path(__file__).resolve().parent
PATIENCE = 6.0  # times a table's minutes: a machine may be slow, and busy


@dataclass(frozen=True)
class Table:
    """A script and what it needs.

    Attributes:
        script: its name in this folder; its record has the same name.
        minutes: what it takes on two cores; 0 where only a full run makes it, or one that names it.
        environment: whose interpreter runs it; this one's where empty.
        beside: further environments that it starts processes in.
        arguments: of a run that is not full.
        full: of a full run; ``None`` where there is no difference.
        full_minutes: what a full run takes.
    """

    script: str
    minutes: float
    environment: str = ""
    beside: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    full: tuple[str, ...] | None = None
    full_minutes: float = 0.0

    @property
    def environments(self) -> tuple[str, ...]:
        """All that have to be there."""
        return tuple(filter(None, (self.environment, *self.beside)))

    def command(self, full: bool) -> list[str]:
        """What runs it."""
        python = str(interpreter(self.environment)) if self.environment else sys.executable
        chosen = self.full if full and self.full is not None else self.arguments
        return [python, "-W", "ignore", f"{HERE.name}/{self.script}.py", *chosen]

    def limit(self, full: bool) -> float:
        """Seconds after which it is stopped."""
        whole = self.full is not None and (full or not self.minutes)
        return 60 * PATIENCE * (self.full_minutes if whole else self.minutes)


def with_short(
    script: str,
    minutes: float,
    environment: str = "",
    beside: tuple[str, ...] = (),
    arguments: tuple[str, ...] = (),
    full: tuple[str, ...] = (),
    full_minutes: float = 0.0,
) -> Table:
    """A table whose usual run is short, and leaves the record of the full one alone."""
    arguments = (*arguments, "--out", f"{HERE.name}/results/{script}_short.json")
    return Table(script, minutes, environment, beside, arguments, full, full_minutes)


TABLES: dict[str, Table] = {  # first those that need no peers, and of them those that take no time of anything
    "response": with_short("response_forms", 1.5, arguments=("--repeats", "8"), full_minutes=40.0),
    "bias": with_short("response_bias", 1.5, arguments=("--segments", "1000"), full_minutes=40.0),
    "stochastic": Table("stochastic_bilevel", 3.0),
    "import": Table("import_time", 0.7),
    "interdiction": Table("interdiction", 1.5),
    "combinatorial": Table("combinatorial_oracles", 1.5),
    "soft_bellman": with_short("soft_bellman", 2.5, full=("--full",), full_minutes=20.0),
    "scaling": Table("scaling", 2.5),
    "implicit": Table("implicit_gradients", 3.5, "torch", ("jax",)),
    "memory": Table("unrolled_memory", 0.8, "torch"),
    "qp": Table("quadratic_programs", 2.5, "torch"),
    "transforms": Table("transforms", 1.5, "torch"),
    "fixed_points": Table("fixed_points", 2.0, "torch", ("jax",)),
    "predict": with_short("predict_then_optimize", 1.5, "pyepo", full=("--full",), full_minutes=5.0),
    "gpu": Table("gpu", 0.0, full=(), full_minutes=5.0),
    "fixed_step": Table("fixed_step", 0.0, full=(), full_minutes=5.0),
    "rlhf_step": with_short("rlhf_step", 3.5, beside=("imitation",), full=("--full",), full_minutes=60.0),
    "beamrider": Table("beamrider", 0.0, full=(), full_minutes=30.0),
}


def run(command: Sequence[str], limit: float) -> str:
    """Run a script to its end, with its output where ours goes; how it failed, or nothing."""
    process = subprocess.Popen(command, cwd=HERE.parent, start_new_session=True)
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"ended with exit status {status}" if status else ""


def processor_seconds() -> float:
    """Of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def leave_a_core() -> None:
    """Keep this thread, and what it starts, from the core that the tables are pinned to."""
    if hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores - {max(cores)} or cores)


def make(tables: Mapping[str, Table], full: bool) -> list[str]:
    """Make environments and tables; what went wrong, a line each."""
    environments = dict.fromkeys(name for table in tables.values() for name in table.environments)
    pool = ThreadPoolExecutor(1, initializer=leave_a_core)
    made = {name: pool.submit(prepare, [name]) for name in environments}
    wrong = []
    for name, table in tables.items():
        for environment in filter(made.__contains__, table.environments):
            missing = made.pop(environment).result()[environment]
            wrong += [f"{environment}: {requirement} did not install" for requirement in missing]
        print(f"\n== {name}", flush=True)
        started, before = time.perf_counter(), processor_seconds()
        failure = run(table.command(full), table.limit(full))
        taken = f"{time.perf_counter() - started:.0f} s, {processor_seconds() - before:.0f} of the processor"
        print(f"== {name}: {failure or 'made'}, {taken}", flush=True)
        if failure:
            wrong.append(f"{name}: {failure}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all if none is named")
    parser.add_argument("--full", action="store_true", help="also what takes hours")
    options = parser.parse_args()
    if unknown := [name for name in options.tables if name not in TABLES]:
        parser.error(f"no table is called {', '.join(unknown)}; there are {', '.join(TABLES)}")
    started = time.perf_counter()
    usual = [name for name, table in TABLES.items() if options.full or table.minutes]
    wrong = make({name: TABLES[name] for name in options.tables or usual}, options.full)
    if not options.tables and (left := [name for name in TABLES if name not in usual]):
        print(f"\nleft to --full: {', '.join(left)}", flush=True)
    if failure := run([sys.executable, f"{HERE.name}/page.py"], 300.0):
        wrong.append(f"RESULTS.md: {failure}")
    print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes", *wrong, sep="\n", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
