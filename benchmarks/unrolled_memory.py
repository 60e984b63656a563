"""Memory and time of one outer gradient through a long inner training, beside higher and TorchOpt.

    benchmarks/.peers/torch/bin/python benchmarks/unrolled_memory.py [--quick]

A network 64-64-10 is trained on 512 samples by gradient descent; the outer variable is the logarithm of a weight per
sample, the outer value the loss on other samples. higher and TorchOpt keep every step for the backward pass; bigrad
differentiates the last point implicitly, with a few damped steps of conjugate gradients. Each run has its own process;
its memory is the growth of the resident peak over what was there after a warm-up of two steps. Training that is cut
short has not converged, so the implicit gradient differs from that of the steps: the angle between them is shown.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable

import torch
from harness import HERE, Row, child, forget_peak, memory, one_thread, options, report
from torch import Tensor

WIDTH, HIDDEN, CLASSES, SAMPLES = 64, 64, 10, 512
RATE, DAMPING = 0.5, 1e-2


def data(seed: int) -> tuple[Tensor, Tensor]:
    """Inputs and noisy labels of a random teacher."""
    teacher = torch.randn(WIDTH, CLASSES, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(SAMPLES, WIDTH, generator=generator)
    return inputs, (inputs @ teacher + 4 * torch.randn(SAMPLES, CLASSES, generator=generator)).argmax(1)


def network() -> torch.nn.Module:
    """The network that is trained, always the same at the start."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, CLASSES))


def weighted(logits: Tensor, labels: Tensor, log_weight: Tensor) -> Tensor:
    """The inner objective less its penalty."""
    return (log_weight.exp() * torch.nn.functional.cross_entropy(logits, labels, reduction="none")).mean()


def penalty(parameters: list[Tensor]) -> Tensor:
    """A little weight decay."""
    return 4e-2 * torch.stack([parameter.square().sum() for parameter in parameters]).sum()


def by_higher(steps: int, log_weight: Tensor) -> Tensor:
    """The gradient through every step, by higher."""
    import higher

    (inputs, labels), (others, targets) = data(1), data(2)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    with higher.innerloop_ctx(model, optimizer, copy_initial_weights=True) as (inner, update):
        for _ in range(steps):
            update.step(weighted(inner(inputs), labels, log_weight) + penalty(list(inner.parameters())))
        outer = torch.nn.functional.cross_entropy(inner(others), targets)
        return torch.autograd.grad(outer, log_weight)[0]


def by_torchopt(steps: int, log_weight: Tensor) -> Tensor:
    """The gradient through every step, by TorchOpt."""
    import torchopt

    (inputs, labels), (others, targets) = data(1), data(2)
    model = network()
    optimizer = torchopt.MetaSGD(model, lr=RATE)
    for _ in range(steps):
        optimizer.step(weighted(model(inputs), labels, log_weight) + penalty(list(model.parameters())))
    outer = torch.nn.functional.cross_entropy(model(others), targets)
    return torch.autograd.grad(outer, log_weight)[0]


def by_bigrad(steps: int, log_weight: Tensor) -> Tensor:
    """The implicit gradient at the last step, by bigrad."""
    from bigrad import gradients, linear, solvers
    from bigrad.layers import ArgMin

    (inputs, labels), (others, targets) = data(1), data(2)
    model = network()

    def objective(parameters: dict[str, Tensor], log_weight: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, parameters, (inputs,))
        return weighted(logits, labels, log_weight) + penalty(list(parameters.values()))

    layer = ArgMin(
        objective,
        {name: parameter.detach() for name, parameter in model.named_parameters()},
        solver=solvers.GradientDescent(step_size=RATE, max_steps=steps, rtol=0, atol=0),
        gradient=gradients.Implicit(linear.CG(max_steps=20, damping=DAMPING)),
        on_failure="ignore",
    )
    model.requires_grad_(False)
    outer = torch.nn.functional.cross_entropy(torch.func.functional_call(model, layer(log_weight), (others,)), targets)
    return torch.autograd.grad(outer, log_weight)[0]


WAYS: dict[str, Callable[[int, Tensor], Tensor]] = {"higher": by_higher, "torchopt": by_torchopt, "bigrad": by_bigrad}


def measure(name: str, steps: int) -> Row:
    """One run in this process, after a warm-up."""
    one_thread()
    way, log_weight = WAYS[name], torch.zeros(SAMPLES, requires_grad=True)
    way(2, log_weight)
    before = forget_peak()
    start = time.perf_counter()
    gradient = way(steps, log_weight)
    seconds = time.perf_counter() - start
    peak = memory()[1]
    return {
        "seconds": seconds,
        "MiB": (peak - before) / 2**20,
        "peak MiB": peak / 2**20,
        "gradient": gradient.tolist(),
    }


def growth(quick: bool) -> list[Row]:
    """Peak memory and time of every way and length."""
    rows: list[Row] = []
    for steps in (5, 20) if quick else (20, 200, 1000):
        found = {name: child(str(HERE / "unrolled_memory.py"), "--child", name, steps) for name in WAYS}
        truth = torch.tensor(found["higher"].get("gradient", [math.nan]), dtype=torch.float64)
        most = min(found[name].get("MiB", math.nan) for name in ("higher", "torchopt"))
        for name, answer in found.items():
            if "failure" in answer:
                rows.append({"steps": steps, "way": name, "failure": answer["failure"]})
                continue
            gradient = torch.tensor(answer["gradient"], dtype=torch.float64)
            cosine = float(torch.nn.functional.cosine_similarity(gradient, truth, dim=0))
            rows.append(
                {
                    "steps": steps,
                    "way": name,
                    "MiB": answer["MiB"],
                    "peak MiB": answer["peak MiB"],
                    "of the leaner peer": answer["MiB"] / most,
                    "seconds": answer["seconds"],
                    "distance to higher's": float((gradient - truth).norm() / truth.norm()),
                    "cosine with higher's": cosine,
                }
            )
    ours = [row["MiB"] for row in rows if row["way"] == "bigrad" and "MiB" in row]
    if len(ours) > 1:
        flat = ours[-1] <= 1.5 * ours[0] + 8
        rows.append({"steps": "all", "way": "bigrad stays flat", "verdict": "pass" if flat else "falls short"})
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        report(options(__doc__, "unrolled_memory"), {"growth": growth})
