"""Predict, then optimize: a linear model predicts what the edges of a grid cost, and the shortest path is taken.

Costs are a polynomial of degree 4 of five features with up to 50 % noise, as PyEPO's generator draws them, so a linear
model cannot be right about all of them: does it help to train it for the paths that it leads to? Each method trains the
same model on the same 1000 grids of 5 x 5 nodes, from the same start. What counts is the regret on 1000 others: how
much more than the best path the chosen ones cost, over what the best ones cost.

The baseline in two stages fits the costs by least squares and never solves. The other methods learn through the solver:

- on the cost of the chosen path: identity, straight-through, blackbox, whose answer is one path;
- on the distance to the best path: I-MLE and perturbed optimizers, whose answer is the mean of three; the distance is
  a mean over edges, but summed over them for I-MLE with a fixed step, whose step is one of gradients of that size;
- by a loss of their own: Fenchel-Young from the best path, SPO+ from the best path and the costs.

Blackbox and I-MLE come with the fixed steps of the literature, and with one that is relative to each cost.

python examples/predict_then_optimize.py [--quick] [--out runs/predict_then_optimize.json]
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

import bigrad
from bigrad.combinatorial import (
    IMLE,
    AdaptiveIMLE,
    Blackbox,
    Difference,
    Estimator,
    FenchelYoung,
    Identity,
    LogNormal,
    Normal,
    PerturbedOptimizer,
    RelativeStep,
    ShortestPath,
    SPOPlus,
    StraightThrough,
)
from bigrad.layers import Combinatorial

SIDE, FEATURES, DEGREE, NOISE = 5, 5, 4, 0.5
SAMPLES, BATCH, LEARNING_RATE = 3, 32, 1e-2


def edges() -> list[tuple[int, int]]:
    """Right and down, row by row."""
    found = []
    for row in range(SIDE):
        found += [(SIDE * row + column, SIDE * row + column + 1) for column in range(SIDE - 1)]
        if row < SIDE - 1:
            found += [(SIDE * row + column, SIDE * (row + 1) + column) for column in range(SIDE)]
    return found


ORACLE = ShortestPath.graph(edges(), source=0, target=SIDE**2 - 1)


class Grids:
    """Features x, costs c and best paths y of the training and the test grids; the order of the draws is PyEPO's."""

    def __init__(self, seed: int = 42, training: int = 1000, test: int = 1000) -> None:
        random, count = np.random.RandomState(seed), training + test
        mixing = random.binomial(1, 0.5, (len(edges()), FEATURES))
        x = random.normal(0, 1, (count, FEATURES))
        c = ((x @ mixing.T / np.sqrt(FEATURES) + 3) ** DEGREE + 1) / 3.5**DEGREE
        c *= random.uniform(1 - NOISE, 1 + NOISE, c.shape)
        order = np.random.RandomState(42).permutation(count)  # scikit-learn's train_test_split(random_state=42)
        parts = [torch.tensor(part, dtype=torch.float32) for part in (x[order], c[order])]
        (self.x_test, self.x), (self.c_test, self.c) = (part.split([test, training]) for part in parts)
        self.y_test, self.y = ORACLE(self.c_test), ORACLE(self.c)

    def regret(self, model: torch.nn.Module) -> float:
        """On the test grids, in percent."""
        with torch.no_grad():
            chosen = ORACLE(model(self.x_test))
        least = (self.c_test * self.y_test).sum()
        return 100 * float(((self.c_test * chosen).sum() - least) / least)


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of predicted costs, true costs and best paths


class OnCost(torch.nn.Module):
    """The cost of the chosen path."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.layer = Combinatorial(ORACLE, estimator, on_zero_gradient="ignore")  # counted below

    def forward(self, w: Tensor, c: Tensor, _: Tensor) -> Tensor:
        return (c * self.layer(w)).sum(1).mean()


class OnPath(OnCost):
    """The distance to the best path."""

    def forward(self, w: Tensor, _: Tensor, y: Tensor) -> Tensor:
        return l1_loss(self.layer(w), y)


class OnEdges(OnCost):
    """The same, not divided by the number of edges: a fixed step is a step on gradients of some size."""

    def forward(self, w: Tensor, _: Tensor, y: Tensor) -> Tensor:
        return l1_loss(self.layer(w), y) * y.shape[-1]


def fenchel_young(noise: Normal | LogNormal, generator: torch.Generator) -> Loss:
    loss = FenchelYoung(ORACLE, noise=noise, samples=SAMPLES, generator=generator)
    return lambda w, c, y: loss(w, y)


METHODS: dict[str, Callable[[torch.Generator], Loss]] = {
    "two stages": lambda g: lambda w, c, y: mse_loss(w, c),
    "SPO+": lambda g: SPOPlus(ORACLE),
    "Fenchel-Young": lambda g: fenchel_young(Normal(1.0), g),
    "identity": lambda g: OnCost(Identity()),
    "straight-through": lambda g: OnCost(StraightThrough()),
    "blackbox, step 20": lambda g: OnCost(Blackbox(20.0)),
    "blackbox, relative step, two-sided": lambda g: OnCost(Blackbox(RelativeStep(1.0), two_sided=True)),
    "I-MLE, step 10": lambda g: OnEdges(IMLE(10.0, SAMPLES, generator=g)),
    "I-MLE, relative step": lambda g: OnPath(IMLE(RelativeStep(1.0), SAMPLES, generator=g)),
    "adaptive I-MLE": lambda g: OnPath(AdaptiveIMLE(samples=SAMPLES, generator=g)),
    "perturbed, score": lambda g: OnPath(PerturbedOptimizer(SAMPLES, Normal(1.0), generator=g)),
    "perturbed, difference": lambda g: OnPath(
        PerturbedOptimizer(SAMPLES, Normal(1.0), Difference(RelativeStep(1.0), two_sided=True), g)
    ),
}


def train(grids: Grids, method: str, seed: int, epochs: int) -> dict:
    """The test regret after each epoch, the share of gradients that came out as zero, the processor's seconds."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(FEATURES, len(edges()))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    order, noise = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 + seed)
    loss_of, curve, seconds, certificates = METHODS[method](noise), [], 0.0, []
    for _ in range(epochs):
        began = time.process_time()
        rows = torch.randperm(len(grids.x), generator=order)
        for x, c, y in zip(*(part[rows].split(BATCH) for part in (grids.x, grids.c, grids.y)), strict=True):
            loss = loss_of(model(x), c, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if isinstance(loss_of, OnCost):
                certificates.append(loss_of.layer.certificate)
        seconds += time.process_time() - began
        curve.append(grids.regret(model))
    asked, zero = (sum(int(getattr(it, name).sum()) for it in certificates) for name in ("asked", "zero_gradients"))
    return {"regret": curve, "zero_gradients": zero / asked if asked else None, "seconds": seconds}


def summary(runs: list[dict]) -> dict:
    """Over the seeds."""
    final = [run["regret"][-1] for run in runs]
    zeros = [run["zero_gradients"] for run in runs if run["zero_gradients"] is not None]
    return {
        "regret": mean(final),
        "std": stdev(final) if len(final) > 1 else 0.0,
        "best_epoch": mean(min(run["regret"]) for run in runs),
        "zero_gradients": mean(zeros) if zeros else None,
        "seconds": mean(run["seconds"] for run in runs),
    }


def draw(path: Path, rows: dict[str, dict], runs: dict[str, list[dict]]) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (method, row) in enumerate(rows.items()):
        left.barh(place, row["regret"], xerr=row["std"], color=f"C{place % 10}", alpha=0.4 + 0.6 * (place < 10))
        curve = np.mean([run["regret"] for run in runs[method]], 0)
        right.plot(
            range(1, 1 + len(curve)), curve, color=f"C{place % 10}", ls="-" if place < 10 else "--", label=method
        )
    left.axvline(rows["two stages"]["regret"], color="gray", ls=":")
    left.set_yticks(range(len(rows)), rows)
    left.invert_yaxis()
    left.set(xlabel="regret on test grids, %")
    right.set(xlabel="epoch", ylabel="regret on test grids, %", yscale="log")
    right.legend(fontsize="x-small", ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, three epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/predict_then_optimize.json"))
    settings = parser.parse_args()
    seeds, epochs = (1, 3) if settings.quick else (5, 20)

    began, grids = time.perf_counter(), Grids()
    runs: dict[str, list[dict]] = {}
    print(f"{'':36}regret %        best epoch  zero gradients  seconds")
    for method in METHODS:
        runs[method] = [train(grids, method, seed, epochs) for seed in range(seeds)]
        row = summary(runs[method])
        zeros = "-" if row["zero_gradients"] is None else f"{row['zero_gradients']:.0%}"
        print(
            f"{method:36}{row['regret']:6.2f} ± {row['std']:4.2f}  {row['best_epoch']:11.2f}  {zeros:>14}  "
            f"{row['seconds']:7.1f}",
            flush=True,
        )
    rows = {method: summary(found) for method, found in runs.items()}
    best = min(rows, key=lambda method: rows[method]["regret"])
    saved = 1 - rows[best]["regret"] / rows["two stages"]["regret"]
    print(f"least regret: {best}, {saved:.0%} below two stages")
    record = {
        "setting": {"grid": SIDE, "features": FEATURES, "degree": DEGREE, "noise": NOISE, "data_seed": 42},
        "training": {"samples": SAMPLES, "batch": BATCH, "learning_rate": LEARNING_RATE, "epochs": epochs},
        "seeds": list(range(seeds)),
        "methods": rows,
        "runs": runs,
        "seconds": round(time.perf_counter() - began),
        "versions": {"python": platform.python_version(), "bigrad": bigrad.__version__, "torch": torch.__version__},
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        "command": " ".join(["python", *sys.argv]),
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(record, indent=1) + "\n")
    draw(settings.out.with_suffix(".png"), rows, runs)
    print(f"picture in {settings.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
