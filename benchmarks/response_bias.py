"""How far the mean of sampled hyper-gradients is from the exact one, for the forms that theory calls unbiased.

python benchmarks/response_bias.py [--segments 100000]

In standard errors, the largest over the entries. Of a hundred entries that are right some are three standard errors
off: such a row draws on, ten times as many in the same stream. Chance comes back then, and a bias goes on to grow, as
the standard error falls.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from record import write_record
from response_forms import show
from response_variance import MDPS, build, verdict
from torch import Tensor

from bigrad.mdp import DRLHF, HPGD, Sampling, SoBiRL

BATCHES, MORE, TARGET = 20, 10, 3.0


def away(found: list[Tensor], truth: Tensor) -> float:
    """The largest distance of the mean in standard errors."""
    drawn = torch.stack(found)
    return float(((drawn.mean(0) - truth).abs() / (drawn.std(0) / len(drawn) ** 0.5)).max())


def biases(segments: int) -> Iterator[dict[str, Any]]:
    """What is cut off at the horizon is below a hundredth of a standard error. DRLHF's mean is the direct term."""
    kinds = {"rollouts until they meet": True, "independent rollouts": False}
    for (name, discount, temperature), (form, meeting) in itertools.product(MDPS, kinds.items()):
        problem = build(name, discount, temperature)
        for algorithm in (SoBiRL, HPGD, DRLHF):
            if not meeting and (algorithm is not SoBiRL or discount > 0.5):
                continue  # up to four hundred million steps: its rows in the other table tell
            generator = torch.Generator().manual_seed(0)
            sampled = algorithm(Sampling(segments // BATCHES // (1 if algorithm is HPGD else 2), meeting=meeting))
            truth = algorithm()(problem, problem.init).gradient
            row: dict[str, Any] = {"mdp": name, "discount": discount, "temperature": temperature}
            row |= {"algorithm": algorithm.__name__, "form": form}
            found: list[Tensor] = []
            for count in (BATCHES, MORE * BATCHES):
                while len(found) < count:
                    found.append(sampled(problem, problem.init, None, generator).gradient)
                distance = away(found, truth)
                row[f"standard errors away at {segments * count // BATCHES} segments"] = distance
                if distance < TARGET:
                    break
            mean = torch.stack(found).mean(0)
            row["relative_error_of_the_mean"] = float((mean - truth).norm() / truth.norm())
            yield row | {"target": TARGET, "verdict": verdict(distance, TARGET)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=100_000, help="in all, of each row")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/response_bias.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for row in biases(options.segments):
        rows.append(row)
        show(row)
    write_record(options.out, {"rows": rows})


if __name__ == "__main__":
    main()
