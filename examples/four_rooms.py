"""Four Rooms: penalties on the floor make a walker pass by a place that it has no interest in.

The follower walks from the red circle to its goal. The leader, who is paid for each step at the target, spreads a small
budget of penalties over the cells. Exact hyper-gradients of all 105 numbers come from one adjoint solve a step; the
one-step shortcut of the published deep code sees nothing here, as the reward does not look at the action.

python examples/four_rooms.py [--quick] [--price 1] [--temperature 0.005] [--out runs/four_rooms.json]
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

import bigrad
from bigrad.mdp import DRLHF, Descent, SoBiRL, descend
from bigrad.problems import ReferenceProblem, four_rooms

TARGET = (8, 4)


def on_grid(problem: ReferenceProblem, values: Tensor) -> Tensor:
    layout = problem.layout
    assert layout is not None
    return torch.where(layout >= 0, values[layout.clamp_min(0)], torch.nan)


def visits(problem: ReferenceProblem, policy: Tensor) -> Tensor:
    """Discounted visits of each state."""
    transition = problem.transition_at(problem.init)
    moves = torch.einsum("sa,sat->st", policy, transition)
    return torch.linalg.solve((torch.eye(len(policy)).to(policy) - problem.discount * moves).T, problem.start)


def draw(path: Path, problem: ReferenceProblem, run: Descent) -> None:
    figure = Figure(figsize=(13, 8), layout="constrained")
    panels = figure.subplots(2, 3)
    for row, (name, x) in zip(panels, (("before", problem.init), ("after", run.x)), strict=True):
        policy = problem.follower(x)[0].policy
        penalty = -problem.reward(x)[:, 0].clamp_max(0)
        for panel, title, values in (
            (row[0], f"penalties {name}", penalty),
            (row[1], f"visits {name}", visits(problem, policy)),
        ):
            image = panel.imshow(on_grid(problem, values.clamp_min(1e-6)).tolist(), cmap="magma", norm=LogNorm())
            panel.set(title=title, xticks=[], yticks=[])
            panel.plot(*TARGET[::-1], "s", color="C2", markersize=10, fillstyle="none")
            figure.colorbar(image, ax=panel)
    panels[0, 2].plot(run.history.value)
    panels[0, 2].set(title="leader's number (less is better)", xlabel="step")
    panels[1, 2].semilogy(run.history.squared_gradient)
    panels[1, 2].set(title="|hyper-gradient|^2", xlabel="step")
    figure.savefig(path, dpi=100)
    policy = problem.follower(run.x)[0].policy
    problem.render(policy, problem.reward(run.x)).savefig(path.with_name(f"{path.stem}_policy.png"), dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 steps")
    parser.add_argument("--price", type=float, default=1.0, help="what a unit of penalty costs the leader")
    parser.add_argument("--temperature", type=float, default=0.005)
    parser.add_argument("--out", type=Path, default=Path("runs/four_rooms.json"), help="the pictures go beside it")
    settings = parser.parse_args()
    steps = 20 if settings.quick else 300
    problem = four_rooms(price=settings.price, temperature=settings.temperature)

    way = torch.randn(problem.init.shape, generator=torch.Generator().manual_seed(0), dtype=problem.init.dtype)
    step = 1e-4 * settings.temperature * way
    ends = [float(problem.objective(problem.init + sign * step)) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2e-4 * settings.temperature)
    exact = float(SoBiRL()(problem, problem.init).gradient @ way)
    print(f"hyper-gradient along a random direction {exact:.6g}, by finite differences {slope:.6g}")

    records = {}
    for name, algorithm in (("SoBiRL", SoBiRL()), ("DRLHF", DRLHF())):
        began = time.perf_counter()
        run = descend(
            *(problem, algorithm, problem.init),
            steps=steps,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.1),
        )
        before, after = run.history.value[0], float(problem.objective(run.x))
        print(f"{name:8} leader's number {before:.4f} -> {after:.4f} in {steps} steps, {run.cost}")
        records[name] = {"before": before, "after": after, "seconds": round(time.perf_counter() - began, 1)}
        if name == "SoBiRL":
            settings.out.parent.mkdir(parents=True, exist_ok=True)
            draw(settings.out.with_suffix(".png"), problem, run)
    record = {
        "setting": {"price": settings.price, "temperature": settings.temperature, "steps": steps},
        "directional_derivative": {"exact": exact, "finite_differences": slope},
        "leader": records,
        "versions": {"python": platform.python_version(), "bigrad": bigrad.__version__, "torch": torch.__version__},
        "command": " ".join(["python", *sys.argv]),
    }
    settings.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"pictures in {settings.out.with_suffix('.png')} and beside it")


if __name__ == "__main__":
    main()
