"""How much longer ``import bigrad`` takes than ``import torch``: fresh processes, one after the other, medians.

Run ``python benchmarks/import_time.py``; it writes ``benchmarks/results/import_time.json``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

from record import write_record

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "import_time.json"
REPEATS = 11
LIMIT = 1.15  # of the time that `import torch` takes
CLOCK = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(package: str) -> float:
    """The time a fresh process takes to import ``package``."""
    command = [sys.executable, "-c", CLOCK.format(package)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def measure() -> dict[str, object]:
    """Time both imports in turn, so that a slow moment of the machine hits both."""
    for package in ("torch", "bigrad"):
        seconds(package)  # fills the caches
    pairs = [(seconds("torch"), seconds("bigrad")) for _ in range(REPEATS)]
    torch_seconds, bigrad_seconds = (median(times) for times in zip(*pairs, strict=True))
    return {
        "torch_seconds": round(torch_seconds, 4),
        "bigrad_seconds": round(bigrad_seconds, 4),
        "ratio": round(bigrad_seconds / torch_seconds, 4),
        "limit": LIMIT,
        "repeats": REPEATS,
        "pairs": [[round(time, 4) for time in pair] for pair in pairs],
    }


if __name__ == "__main__":
    result = measure()
    write_record(RESULT, result)
    print(
        f"import torch {result['torch_seconds']} s, import bigrad {result['bigrad_seconds']} s, ratio {result['ratio']}"
    )
    sys.exit(f"import bigrad takes more than {LIMIT} times import torch" if float(str(result["ratio"])) > LIMIT else 0)
