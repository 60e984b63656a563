"""Control a noisy system whose sensors are attacked: does a policy that expects the adversary do better?

The state x is disturbed at every step; the controller sees s = x + d, where an adversary has chosen |d| <= BUDGET.
Three policies; the last two are layers whose P, Q and q are trained by SGD, from those of the LQR:

- LQR: the best linear feedback without attack and without limit, cut to |u| <= 1;
- one level: u = argmin_{|u| <= 1} value(u, s), where value(u, s) = u'Pu/2 + s'Qu + q'u (a `layers.FixedPoint`);
- two levels: max_{|e| <= radius} min_{|u| <= 1} value(u, s + e), where u answers the error e (a `layers.Bilevel`).

The set-up is our own. Both layers are trained on the same episodes, under attacks of full size in random directions.
The test has fresh noise, the same for all: in each step an oracle that knows the true state tries attacks of full size
in many directions, and none, on the policy at hand and takes what makes |u|^2 + (LQR's cost to go) worst. Each seed is
a system of its own. The answers of the two-level layer at the test are checked by duality: its value must be that of
min_{|u| <= 1} value(u, s) + radius |Qu|.

The answer is no: over episodes of 25 steps the second level makes the policy worse, with and without attack. The worst
error of its game is one that hides the state, as value has no price for the state itself, so the policy acts too
little. The short episodes of --quick, all near the target, do not show it.

python examples/robust_control.py [--quick] [--input-size 0.333] [--radius 0.2] [--out runs/robust_control.json]
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor
from torch.nn.functional import normalize

import bigrad
from bigrad.gradients import WarmStart
from bigrad.layers import Bilevel, FixedPoint

NOISE, BUDGET = 0.2, 0.2
EPISODES, TESTS = 32, 8  # a seed


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def cut(u: Tensor) -> Tensor:
    return u / u.norm(dim=-1, keepdim=True).clamp_min(1)


def value(u: Tensor, s: Tensor, root: Tensor, Q: Tensor, q: Tensor) -> Tensor:
    return 0.5 * times(root, u).square().sum(-1) + (s * times(Q, u)).sum(-1) + (q * u).sum(-1)


def one_level() -> FixedPoint:
    def descend(u: Tensor, s: Tensor, root: Tensor, Q: Tensor, q: Tensor) -> Tensor:
        return cut(u - 0.5 * (times(root.mT, times(root, u)) + times(Q.mT, s) + q))

    return FixedPoint(descend, lambda s, *_: torch.zeros_like(s[..., :1]).expand(*s.shape[:-1], 3), batch_dims=3)


def two_level(radius: float) -> Bilevel:
    def ball(limit: float) -> bigrad.Constraints:
        return bigrad.Constraints(inequality=lambda own, *_: (own.square().sum(-1, keepdim=True) - limit**2) / 2)

    return Bilevel(
        lambda e, u, s, *parameters: -value(u, s + e, *parameters),
        lambda u, e, s, *parameters: value(u, s + e, *parameters),
        lambda s, *_: (torch.zeros_like(s), torch.zeros_like(s[..., :1]).expand(*s.shape[:-1], 3)),
        leader_constraints=ball(radius),
        follower_constraints=ball(1.0),
    )


class Systems:
    """A linear system a seed, x <- A x + B u + noise, with the LQR's gain K and cost to go x'Vx."""

    def __init__(self, seeds: int, input_size: float, device: str) -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
        drawn = torch.stack([torch.randn(1, 2, 5, dtype=torch.float64, generator=g) for g in generators]).to(device)
        two = torch.eye(2).to(drawn)
        self.A, self.B = two + 1e-2 * drawn[..., :2], input_size * drawn[..., 2:]
        power, reach, self.V = self.A, self.B @ self.B.mT, two
        for _ in range(30):  # Riccati's equation, by doubling
            inner = torch.linalg.inv(two + reach @ self.V)
            forth = inner @ power
            reach = reach + power @ inner @ reach @ power.mT
            self.V, power = self.V + power.mT @ self.V @ forth, power @ forth
        self.P, self.Q = torch.eye(3).to(drawn) + self.B.mT @ self.V @ self.B, self.A.mT @ self.V @ self.B
        self.K = torch.linalg.solve(self.P, self.Q.mT)

    def normal(self, steps: int, episodes: int, purpose: int) -> Tensor:
        """Standard normal numbers (steps, seeds, episodes, 2) that depend on the seed and the purpose alone."""
        generators = [torch.Generator().manual_seed(1000 * purpose + seed) for seed in range(len(self.A))]
        parts = [torch.randn(steps, episodes, 2, dtype=torch.float64, generator=g) for g in generators]
        return torch.stack(parts, 1).to(self.A)

    def cost(self, normal: Tensor, control: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The mean of |x|^2 + |u|^2 over steps and episodes, (seeds,)."""
        x, total = NOISE * normal[0], torch.zeros_like(normal[0, ..., 0])
        for step, w in enumerate(normal[1:]):
            u = control(step, x)
            total = total + x.square().sum(-1) + u.square().sum(-1)
            x = times(self.A, x) + times(self.B, u) + NOISE * w
        return total.mean(-1) / (len(normal) - 1)

    @torch.no_grad()
    def test(self, policy: Callable[[Tensor], Tensor], horizon: int, directions: int) -> Tensor:
        """The cost (seeds,) where each step meets the worst of so many attacks and none; ``s`` has them in front."""
        angle = torch.arange(directions).to(self.A) * 2 * math.pi / max(1, directions)
        attacks = torch.cat([BUDGET * torch.stack([angle.cos(), angle.sin()], -1), torch.zeros(1, 2).to(self.A)])

        def control(_: int, x: Tensor) -> Tensor:
            u = policy(x + attacks[:, None, None])
            after = times(self.A, x) + times(self.B, u)
            worst = (u.square().sum(-1) + (after * times(self.V, after)).sum(-1)).argmax(0)
            return u.gather(0, worst[None, ..., None].expand(1, *worst.shape, 3))[0]

        return self.cost(self.normal(horizon + 1, TESTS, 3), control)


def train(systems: Systems, layer: Bilevel | FixedPoint, horizon: int, steps: int) -> list[Tensor]:
    """The square root of P, Q and q of each seed, after SGD from the LQR's."""
    start = (torch.linalg.cholesky(systems.P).mT, systems.Q, torch.zeros_like(systems.P[..., 0]))
    parameters = [tensor.clone().requires_grad_() for tensor in start]
    optimizer = torch.optim.SGD(parameters, lr=0.02, momentum=0.9)
    normal, attacks = (systems.normal(horizon + 1, EPISODES, purpose) for purpose in (1, 2))
    warm = [WarmStart() for _ in range(horizon)]  # each moment of an episode starts at its own last answer

    def control(step: int, x: Tensor) -> Tensor:
        if warm[step].solution is None and step:
            warm[step].solution = warm[step - 1].solution
        s = (x + BUDGET * normalize(attacks[step], dim=-1)).unsqueeze(0)
        answer = layer(s, *parameters, warm_start=warm[step])
        return (answer if isinstance(answer, Tensor) else answer[1]).squeeze(0)

    for step in range(steps):
        cost = systems.cost(normal, control)
        optimizer.zero_grad()
        cost.sum().backward()  # each seed has parameters of its own
        optimizer.step()
        print(f"  step {step + 1:2d} of {steps}: cost in training {float(cost.detach().mean()):.4f}", flush=True)
    return [tensor.detach() for tensor in parameters]


def share_saved(policy: list[float], other: list[float]) -> dict[str, float]:
    """The share of the other's cost that is saved: mean over the seeds, and its 95 % interval by Student's t."""
    share = [1 - one / two for one, two in zip(policy, other, strict=True)]
    half = float(stats.t.ppf(0.975, len(share) - 1)) * stdev(share) / len(share) ** 0.5
    return {"mean": mean(share), "low": mean(share) - half, "high": mean(share) + half}


def draw(path: Path, costs: dict[str, dict[str, list[float]]]) -> None:
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for panel, kind in zip(figure.subplots(1, 2, sharey=True), ("attacked", "clean"), strict=True):
        for seed in zip(*(found[kind] for found in costs.values()), strict=True):
            panel.plot(list(costs), seed, "o-", color="0.6", linewidth=0.8, markersize=3)
        panel.plot(list(costs), [mean(found[kind]) for found in costs.values()], "k_", markersize=30, label="mean")
        panel.set(title=f"test, {kind}", ylabel="cost, a line a seed" if kind == "attacked" else "")
    panel.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, short episodes, two steps")
    parser.add_argument("--input-size", type=float, default=0.333, help="size of the entries of B")
    parser.add_argument("--radius", type=float, default=BUDGET, help="the error that the two-level layer expects")
    parser.add_argument("--out", type=Path, default=Path("runs/robust_control.json"), help="the picture goes beside it")
    parser.add_argument("--device", default="cpu")
    settings = parser.parse_args()
    seeds, horizon, steps, directions = (2, 4, 2, 4) if settings.quick else (10, 25, 20, 16)
    systems, began = Systems(seeds, settings.input_size, settings.device), time.perf_counter()
    single, double, gaps = one_level(), two_level(settings.radius), []

    def hedged(s: Tensor, warm: WarmStart) -> Tensor:
        e, u = double(s, *robust, warm_start=warm)
        above = value(u, s, *robust) + settings.radius * times(robust[1], u).norm(dim=-1)
        gaps.append(float((above - value(single(s + e, *robust), s + e, *robust)).abs().max()))
        return u

    alone, robust = (train(systems, layer, horizon, steps) for layer in (single, double))
    policies = {
        "LQR": lambda s, warm: cut(-times(systems.K, s)),
        "one level": lambda s, warm: single(s, *alone, warm_start=warm),
        "two levels": hedged,
    }
    costs: dict[str, dict[str, list[float]]] = {name: {} for name in policies}
    for (name, policy), (kind, attacks) in product(policies.items(), (("attacked", directions), ("clean", 0))):
        costs[name][kind] = systems.test(partial(policy, warm=WarmStart()), horizon, attacks).tolist()
        print(f"{name}, {kind}: cost {mean(costs[name][kind]):.4f}")
    pairs = product(("one level", "LQR"), ("attacked", "clean"))
    saved = {f"{other}, {kind}": share_saved(costs["two levels"][kind], costs[other][kind]) for other, kind in pairs}
    for against, share in saved.items():
        print("two levels save {mean:.1%} [{low:.1%}, {high:.1%}] of the cost of".format(**share), against)
    print(f"largest duality gap of the two-level answers {max(gaps):.1e}")
    record = {
        "setting": {"noise": NOISE, "budget": BUDGET, "radius": settings.radius, "input_size": settings.input_size},
        "size": {"seeds": list(range(seeds)), "horizon": horizon, "steps": steps, "directions": directions},
        "episodes": {"training": EPISODES, "test": TESTS},
        "mean_costs": {name: {kind: mean(cost) for kind, cost in found.items()} for name, found in costs.items()},
        "share_of_the_cost_saved_by_two_levels": saved,
        "costs_of_each_seed": costs,
        "largest_duality_gap": max(gaps),
        "seconds": round(time.perf_counter() - began),
        "versions": {"python": platform.python_version(), "bigrad": bigrad.__version__, "torch": torch.__version__},
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "device": settings.device},
        "command": " ".join(["python", *sys.argv]),
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(record, indent=1) + "\n")
    draw(settings.out.with_suffix(".png"), costs)
    print(f"picture in {settings.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
