"""Our solver files and benchmark_bilevel's own in its checkout, where ``BENCHMARK_BILEVEL`` names one.

A copy of the checkout gets the files of ``benchopt/`` and what they import, and runs its simulated problem, at the
sizes of our own, by the ``benchopt`` of this Python. Every solver chooses from the same steps, all of them in the
grids of the benchmark's own configurations, and has the same seconds. All of it is in jax's single precision, which
ends a squared norm at about 1e-12.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import HERE, Row

OURS = ("bigrad-SABA", "bigrad-Implicit")
THEIRS = ("SABA", "SOBA", "AmIGO", "StocBiO")
STEPS = "step_size=[0.01,0.1],outer_ratio=[0.1,1.0]"
SECONDS = 5.0
LIMIT = 1800.0
# benchopt stops the clock where a solver pauses, which in jax is when the work is queued, unless a call waits for it
WAIT = "import jax; jax.config.update('jax_cpu_enable_async_dispatch', False)"
BENCHOPT = f"{WAIT}; from benchopt.cli import benchopt; benchopt()"


def beside(quick: bool) -> list[Row]:
    """One row a solver, or one that says why there are none."""
    named = os.environ.get("BENCHMARK_BILEVEL", "")
    if not named or not (Path(named) / "objective.py").is_file():
        return [{"solvers": ", ".join(THEIRS), "failure": "did not run: BENCHMARK_BILEVEL names no checkout"}]
    try:
        metadata.version("benchopt"), metadata.version("jax")
    except metadata.PackageNotFoundError:
        return [{"solvers": ", ".join(THEIRS), "failure": "did not run: pip install benchopt, with jax and torch"}]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "benchmark_bilevel"
        shutil.copytree(named, copy, ignore=shutil.ignore_patterns(".git", "outputs", "__cache__"))
        for path in (HERE / "benchopt").glob("*.py"):
            shutil.copy(path, copy / "solvers")
        return measured(copy, quick)


def chosen(name: str, quick: bool) -> str:
    """A solver with its steps, as ``benchopt run`` takes it."""
    if quick:
        return name
    return f"{name}[{'outer_step=[0.1,1.0]' if name == 'bigrad-Implicit' else STEPS}]"


def measured(copy: Path, quick: bool) -> list[Row]:
    """Run all solvers on the simulated problem."""
    samples, size, seconds = (256, 10, 1.0) if quick else (512, 20, SECONDS)
    sizes = f"n_samples_inner={samples},n_samples_outer={samples},dim_inner={size},dim_outer={size}"
    command = [sys.executable, "-c", BENCHOPT, "run", str(copy), "-d", f"simulated[{sizes}]"]
    command += ["--no-plot", "--output", "beside"]
    command += [part for name in OURS + THEIRS for part in ("-s", chosen(name, quick))]
    # benchopt's limit counts the evaluations too, which the times of a curve leave out
    command += ["-n", "1000000", "-r", "1", "--timeout", str(3 * seconds)]
    paths = os.pathsep.join(filter(None, (str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", ""))))
    settings = os.environ | {"PYTHONPATH": paths}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=settings)
    except subprocess.TimeoutExpired:
        return [{"solvers": ", ".join(OURS + THEIRS), "failure": f"no result in {LIMIT:.0f} s"}]
    found = sorted((copy / "outputs").glob("beside*.parquet"))
    if not found:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return [{"solvers": ", ".join(OURS + THEIRS), "failure": last[:120]}]
    import pandas as pd  # comes with benchopt

    columns = ["solver_name", "time", "objective_value"]
    return rows(pd.read_parquet(found[-1])[columns].to_dict("records"), seconds)


def rows(points: list[dict[str, Any]], seconds: float) -> list[Row]:
    """Of each solver the steps that end lowest, after at most so many seconds."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        if point["time"] <= seconds:
            value = float(point["objective_value"])
            curves.setdefault(point["solver_name"], []).append((float(point["time"]), value))
    found: list[Row] = []
    for name in OURS + THEIRS:
        tried = {full: sorted(curve) for full, curve in curves.items() if full.split("[")[0] == name}
        if not tried:  # benchopt leaves out what diverges or raises
            found.append({"solvers": name, "failure": "diverged or raised with every step"})
            continue
        full, curve = min(tried.items(), key=lambda item: item[1][-1][1])
        steps = ", ".join(re.findall(r"(?:step_size|outer_ratio|outer_step)=[^,\]]+", full))
        row: Row = {"solvers": name, "steps": steps, "start": curve[0][1]}
        found.append(row | {"squared norm": curve[-1][1], "s": curve[-1][0]})
    return found
