"""What the two benchmarks of ``kill -9`` share: their options, their record and how they end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import write_record


def report(description: str | None, measure: Callable[[int, int], dict[str, Any]], result: Path) -> None:
    """Measure, write the record and end with 1 where it does not hold."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=result)
    chosen = options.parse_args()
    torch.set_num_threads(1)  # forks share no threads
    found = measure(chosen.kills, chosen.seed)
    write_record(chosen.out, found)
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["holds"] else 1)
