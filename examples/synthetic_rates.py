"""Every algorithm for bilevel RL on the synthetic problem of known optimum, and the rates of theory beside them.

The leader's number is |x|^2 / 2 + |policy|^2 / 2, its optimum |S| / (2 |A|) at x = 0. Exact algorithms see the
transition; sampled ones see segments and rollouts, and each is judged by the exact hyper-gradient, at no cost to it.
The slopes of theory are upper bounds for any problem: this one is easier, since its noise dies out at the optimum.

python examples/synthetic_rates.py [--quick] [--steps 600] [--seeds 10] [--out runs/synthetic_rates.json]
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import bigrad
from bigrad.mdp import DRLHF, HPGD, PARL, PBRL, Algorithm, History, MSoBiRL, Sampling, SoBiRL, StocSoBiRL, descend
from bigrad.problems import synthetic_problem

LR = 8e-3
DRAWS = Sampling(samples=20, meeting=False)  # independent rollouts, as the algorithms were published
EXACT: dict[str, Algorithm] = {
    "M-SoBiRL": MSoBiRL(),
    "SoBiRL": SoBiRL(),
    "HPGD": HPGD(),
    "PARL": PARL(),
    "PBRL, value": PBRL(100.0, steps=5),
    "PBRL, Bellman": PBRL(100.0, "bellman", steps=5),
    "DRLHF": DRLHF(),
}
SAMPLED: dict[str, Algorithm] = {
    "SoBiRL, sampled": SoBiRL(DRAWS),
    "Stoc-SoBiRL": StocSoBiRL(DRAWS, momentum=5.0),
    "HPGD, sampled": HPGD(DRAWS),
    "DRLHF, sampled": DRLHF(DRAWS),
}


def sgd(parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=LR)


def shrinking(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: (1 + k / 100) ** (-1 / 3))


def run(name: str, algorithm: Algorithm, steps: int, every: int) -> History:
    problem = synthetic_problem(torch.Generator().manual_seed(0))
    began = time.perf_counter()
    end = descend(
        *(problem, algorithm, problem.init),
        steps=steps,
        optimizer=sgd,
        scheduler=shrinking if name == "Stoc-SoBiRL" else None,
        generator=torch.Generator().manual_seed(1),
        judge_every=every,
    )
    gap = end.history.true_value[-1] - (problem.optimum or 0.0)
    seconds = time.perf_counter() - began
    print(f"{name:16} objective - optimum {gap:8.1e}  |hyper-gradient|^2 {end.history.true_squared_gradient[-1]:8.1e}  "
          f"samples {end.cost.samples:8d}  reward gradients {end.cost.reward_gradients:5d}  "
          f"linear solves {end.cost.linear_solves:5d}  {seconds:5.1f} s", flush=True)  # fmt: skip
    return end.history


def best_so_far(values: list[float]) -> list[float]:
    return torch.tensor(values, dtype=torch.float64).cummin(0).values.tolist()


def panel(axes: Axes, histories: dict[str, History], by: str, what: str, optimum: float) -> None:
    first = 0.0
    for name, history in histories.items():
        x = [step + 1 if by == "iterations" else history.samples[step] for step in history.judged]
        gaps = [max(value - optimum, 1e-16) for value in history.true_value]
        y = gaps if what == "objective" else best_so_far(history.true_squared_gradient)
        axes.loglog(x, [max(number, 1e-20) for number in y], label=name, linestyle="--" if name in SAMPLED else "-")
        first = max(first, y[0])
    ends = [axes.get_xlim()[1] / 100, axes.get_xlim()[1]]
    rates = ((1, ":", "1/K"), (2 / 3, "--", "K^(-2/3)")) if what != "objective" else ()
    for power, style, label in rates:
        axes.loglog(ends, [first * (end / ends[0]) ** -power for end in ends], "k" + style, label=f"slope of {label}")
    axes.set(xlabel=by, ylabel="objective - optimum" if what == "objective" else "least |hyper-gradient|^2 so far")
    axes.legend(fontsize=6)


def draw(path: Path, histories: dict[str, History], optimum: float) -> None:
    figure = Figure(figsize=(11, 8), layout="constrained")
    sampled = {name: history for name, history in histories.items() if history.samples[-1]}
    for row, what in zip(figure.subplots(2, 2), ("objective", "hyper-gradient"), strict=True):
        panel(row[0], histories, "iterations", what, optimum)
        panel(row[1], sampled, "samples", what, optimum)
    figure.suptitle("the synthetic problem of M-SoBiRL")
    figure.savefig(path, dpi=110)


def slope(history: History) -> float:
    """The fitted power of K of the least squared gradient, over the second half of the run's logarithm."""
    k = torch.tensor(history.judged, dtype=torch.float64) + 1
    y = torch.tensor(best_so_far(history.true_squared_gradient), dtype=torch.float64).clamp_min(1e-30).log()
    late = k > k[-1] ** 0.5
    x = k.log()[late] - k.log()[late].mean()
    return float((x * y[late]).sum() / x.square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 steps, and 1 seed of 30")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=10, help="of M-SoBiRL's own run of 2,000 steps")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/synthetic_rates.json"), help="the picture goes beside it"
    )
    settings = parser.parse_args()
    steps, seeds, long = (20, 1, 30) if settings.quick else (settings.steps, settings.seeds, 2000)
    optimum = synthetic_problem(torch.Generator().manual_seed(0)).optimum or 0.0
    histories = {name: run(name, algorithm, steps, 10) for name, algorithm in (EXACT | SAMPLED).items()}

    found = []
    for seed in range(seeds):
        problem = synthetic_problem(torch.Generator().manual_seed(seed))
        end = descend(problem, MSoBiRL(), problem.init, steps=long, optimizer=sgd)
        gaps = [abs(value - optimum) for value in end.history.value]
        within = next((step for step, gap in enumerate(gaps) if gap < 1e-3), None)
        found.append({"seed": seed, "within_1e-3_from_step": within, "gap_at_the_end": gaps[-1]})
        print(f"M-SoBiRL, seed {seed}: within 1e-3 of {optimum:g} from step {within}, {gaps[-1]:.1e} at step {long}")

    record = {
        "setting": {"lr": LR, "steps": steps, "samples": DRAWS.samples, "optimum": optimum},
        "algorithms": {
            name: {
                "gap": history.true_value[-1] - optimum,
                "squared_gradient": history.true_squared_gradient[-1],
                "fitted_slope": slope(history),
                "samples": history.samples[-1],
                "reward_gradients": history.reward_gradients[-1],
                "linear_solves": history.linear_solves[-1],
                "sweeps": history.sweeps[-1],
            }
            for name, history in histories.items()
        },
        "m_sobirl_seeds": {"steps": long, "runs": found},
        "versions": {"python": platform.python_version(), "bigrad": bigrad.__version__, "torch": torch.__version__},
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        "command": " ".join(["python", *sys.argv]),
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(record, indent=1) + "\n")
    draw(settings.out.with_suffix(".png"), histories, optimum)
    print(f"picture in {settings.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
