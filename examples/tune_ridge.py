"""Tune the ridge weights of a regression: the lower level fits it, the upper level lowers its validation loss.

The diabetes data of scikit-learn: ten measurements, their squares and their products, each group with a weight of its
own, and 150 patients to fit on.

python examples/tune_ridge.py [--quick] [--plot runs/tune_ridge.png]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import PolynomialFeatures

from bigrad.layers import ArgMin


def training_loss(w: torch.Tensor, log_ridge: torch.Tensor, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((X @ w - y) ** 2).mean() + (log_ridge.exp() * w**2).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the steps")
    parser.add_argument("--plot", type=Path, default=Path("runs/tune_ridge.png"), help="where the picture goes")
    settings = parser.parse_args()
    steps = 20 if settings.quick else 100

    features, target = load_diabetes(return_X_y=True)
    powers = PolynomialFeatures(2, include_bias=False).fit(features)
    X = torch.tensor(powers.transform(features))
    group = torch.tensor([0 if row.sum() == 1 else 1 if row.max() == 2 else 2 for row in powers.powers_])
    y = torch.tensor(target)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    fit, valid, test = order.split([150, 150, 142])

    def loss_on(rows: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return ((X[rows] @ w - y[rows]) ** 2).mean()

    one_ridge = RidgeCV(torch.logspace(-2, 4, 60).numpy(), fit_intercept=False).fit(X[fit].numpy(), y[fit].numpy())
    log_ridge = torch.full((3,), -3.0, dtype=X.dtype, requires_grad=True)
    layer = ArgMin(training_loss, torch.zeros(X.shape[1], dtype=X.dtype))
    optimizer = torch.optim.Adam([log_ridge], lr=0.2)
    curve = []
    for step in range(steps + 1):
        w = layer(log_ridge[group], X[fit], y[fit])
        loss = loss_on(valid, w)
        curve.append((loss.item(), loss_on(test, w).item()))
        if step % (steps // 4) == 0:
            print(f"step {step:3d}  validation {curve[-1][0]:.3f}  test {curve[-1][1]:.3f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    baseline = loss_on(test, torch.tensor(one_ridge.coef_)).item()
    print(f"one ridge weight for all, by cross-validation (scikit-learn): test {baseline:.3f}")
    measured, squares, products = log_ridge.detach().exp().tolist()
    print(f"learnt weights: measurements {measured:.3g}, squares {squares:.3g}, products {products:.3g}")
    print(layer.certificate)

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(curve, label=["validation", "test"])
    left.axhline(baseline, color="gray", linestyle=":", label="one weight, cross-validated: test")
    left.set(xlabel="step of the upper level", ylabel="mean squared error")
    left.legend()
    right.bar(range(len(w)), w.tolist(), color=[f"C{kind}" for kind in group.tolist()])
    right.set(xlabel="feature", ylabel="coefficient")
    settings.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(settings.plot, dpi=100)
    print(f"picture: {settings.plot}")


if __name__ == "__main__":
    main()
