"""Our solver files and benchmark_bilevel's own in its checkout, where ``BENCHMARK_BILEVEL`` names one.

A copy of the checkout gets the files of ``benchopt/`` and what they import, and runs its simulated problem by the
``benchopt`` that is on the path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import HERE, Row

OURS = ("bigrad-SABA", "bigrad-Implicit")
THEIRS = ("SABA", "SOBA", "AmIGO", "StocBiO")
LIMIT = 900.0


def beside(quick: bool) -> list[Row]:
    """One row a solver, or one that says why there are none."""
    named = os.environ.get("BENCHMARK_BILEVEL", "")
    if not named:
        return [{"solvers": ", ".join(THEIRS), "failure": "did not run: BENCHMARK_BILEVEL names no checkout"}]
    if shutil.which("benchopt") is None:
        return [{"solvers": ", ".join(THEIRS), "failure": "did not run: pip install benchopt, with jax and torch"}]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "benchmark_bilevel"
        shutil.copytree(named, copy, ignore=shutil.ignore_patterns(".git", "outputs", "__cache__"))
        for path in (HERE / "benchopt").glob("*.py"):
            shutil.copy(path, copy / "solvers")
        return measured(copy, quick)


def measured(copy: Path, quick: bool) -> list[Row]:
    """Run all solvers on the simulated problem and read the last value of each."""
    command = ["benchopt", "run", str(copy), "-d", "simulated", "--no-display", "--no-html", "--output", "beside"]
    command += [part for name in OURS + THEIRS for part in ("-s", name)]
    command += ["-n", "3" if quick else "30", "-r", "1", "--timeout", "120"]
    paths = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT, env=os.environ | {"PYTHONPATH": paths}
        )
    except subprocess.TimeoutExpired:
        return [{"solvers": ", ".join(OURS + THEIRS), "failure": f"no result in {LIMIT:.0f} s"}]
    found = sorted((copy / "outputs").glob("beside*.parquet"))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return [{"solvers": ", ".join(OURS + THEIRS), "failure": last[:120]}]
    import pandas as pd  # comes with benchopt

    table = pd.read_parquet(found[-1])
    rows = []
    for name, part in table.groupby("solver_name"):
        last = part.sort_values("time").iloc[-1]
        rows.append({"solvers": str(name), "squared norm": float(last["objective_value"]), "s": float(last["time"])})
    return rows
