"""Clean data by bilevel learning: half of the training labels are wrong, and each sample learns its own weight.

The lower level fits a softmax regression to the weighted samples, the upper level lowers its loss on a few clean ones.

python examples/clean_data.py [--quick] [--plot runs/clean_data.png]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from bigrad.gradients import WarmStart
from bigrad.layers import ArgMin
from bigrad.solvers import LBFGS

RIDGE = 1e-3


def weighted_loss(W: torch.Tensor, weight: torch.Tensor, X: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return (weight * cross_entropy(X @ W, label, reduction="none")).mean() + RIDGE * (W**2).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sixth of the steps")
    parser.add_argument("--plot", type=Path, default=Path("runs/clean_data.png"), help="where the picture goes")
    settings = parser.parse_args()
    steps = 10 if settings.quick else 60

    generator = torch.Generator().manual_seed(0)
    X, label = (torch.tensor(part) for part in load_digits(return_X_y=True))
    X = torch.cat([X / 16, torch.ones(len(X), 1)], 1).double()
    fit, valid, test = torch.randperm(len(X), generator=generator).split([700, 200, len(X) - 900])
    wrong = torch.rand(len(fit), generator=generator) < 0.5
    offset = torch.randint(1, 10, (len(fit),), generator=generator)
    given = torch.where(wrong, (label[fit] + offset) % 10, label[fit])

    def accuracy(W: torch.Tensor) -> float:
        return (X[test] @ W).argmax(1).eq(label[test]).double().mean().item()

    layer = ArgMin(weighted_loss, torch.zeros(X.shape[1], 10, dtype=X.dtype), solver=LBFGS(rtol=1e-6, atol=1e-8))
    with torch.no_grad():
        on_all = accuracy(layer(torch.ones(len(fit), dtype=X.dtype), X[fit], given))
        oracle = accuracy(layer((~wrong).to(X.dtype), X[fit], given))

    score = torch.zeros(len(fit), dtype=X.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([score], lr=0.3)
    warm, curve = WarmStart(), []
    for step in range(steps + 1):
        W = layer(score.sigmoid(), X[fit], given, warm_start=warm)
        loss = cross_entropy(X[valid] @ W, label[valid])
        curve.append(accuracy(W))
        if step % (steps // 4) == 0:
            print(f"step {step:3d}  clean validation loss {loss:.3f}  test accuracy {curve[-1]:.3f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"test accuracy: all labels {on_all:.3f}, cleaned {curve[-1]:.3f}, the right labels alone {oracle:.3f}")
    weight = score.detach().sigmoid()
    print(f"mean weight of a right label {weight[~wrong].mean():.2f}, of a wrong one {weight[wrong].mean():.2f}")
    print(layer.certificate)

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(curve, label="cleaned")
    left.axhline(on_all, color="gray", linestyle=":", label="all labels")
    left.axhline(oracle, color="green", linestyle="--", label="the right labels alone")
    left.set(xlabel="step of the upper level", ylabel="test accuracy")
    left.legend()
    right.hist([weight[~wrong].numpy(), weight[wrong].numpy()], bins=20, label=["right label", "wrong label"])
    right.set(xlabel="learnt weight", ylabel="samples")
    right.legend()
    settings.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(settings.plot, dpi=100)
    print(f"picture: {settings.plot}")


if __name__ == "__main__":
    main()
