"""How much longer ``import bigrad`` takes than ``import torch``: fresh processes, one after the other, medians.

python benchmarks/import_time.py [--quick]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

from harness import Row, options, report, verdict

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 7
LIMIT = 1.15  # of the time that `import torch` takes
CLOCK = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(package: str) -> float:
    """The time a fresh process takes to import ``package``."""
    command = [sys.executable, "-c", CLOCK.format(package)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def imports(quick: bool) -> list[Row]:
    """Both imports in turn, so that a slow moment of the machine hits both."""
    packages = ("torch", "bigrad")
    for package in packages:
        seconds(package)  # fills the caches
    pairs = [[seconds(package) for package in packages] for _ in range(1 if quick else REPEATS)]
    middle = [median(times) for times in zip(*pairs, strict=True)]
    ratio = middle[1] / middle[0]
    rows = [
        {"package": package, "s": time, "least": min(times), "most": max(times)}
        for package, time, times in zip(packages, middle, zip(*pairs, strict=True), strict=True)
    ]
    return [*rows, {"package": "bigrad over torch", "ratio": ratio, "target": LIMIT, "verdict": verdict(ratio, LIMIT)}]


if __name__ == "__main__":
    report(options(__doc__, "import_time"), {"imports": imports})
