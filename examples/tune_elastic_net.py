"""Tune both weights of an elastic net: the lower level is the fixed point of a proximal gradient step.

The step has a kink, but it is smooth around almost every solution, and the layer only needs it there.

python examples/tune_elastic_net.py [--quick] [--plot runs/tune_elastic_net.png]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet
from sklearn.preprocessing import PolynomialFeatures

from bigrad.layers import FixedPoint


def proximal_step(w: torch.Tensor, log_weights: torch.Tensor, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One step on ``|X w - y|^2 / 2n + ridge |w|^2 / 2``, then the shrinkage of ``lasso |w|_1``."""
    lasso, ridge = log_weights.exp()
    step_size = 1 / (torch.linalg.matrix_norm(X, 2) ** 2 / len(X) + ridge)
    w = w - step_size * (X.T @ (X @ w - y) / len(X) + ridge * w)
    return w.sign() * (w.abs() - step_size * lasso).clamp_min(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the steps")
    parser.add_argument("--plot", type=Path, default=Path("runs/tune_elastic_net.png"), help="where the picture goes")
    settings = parser.parse_args()
    steps = 20 if settings.quick else 100

    features, target = load_diabetes(return_X_y=True)
    X = torch.tensor(PolynomialFeatures(2, include_bias=False).fit_transform(features))
    y = torch.tensor(target)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    fit, valid, test = order.split([150, 150, 142])

    def loss_on(rows: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return ((X[rows] @ w - y[rows]) ** 2).mean()

    log_weights = torch.tensor([-5.0, -5.0], dtype=X.dtype, requires_grad=True)  # lasso, ridge
    layer = FixedPoint(proximal_step, torch.zeros(X.shape[1], dtype=X.dtype))
    optimizer = torch.optim.Adam([log_weights], lr=0.2)
    curve, path = [], []
    for step in range(steps + 1):
        w = layer(log_weights, X[fit], y[fit])
        loss = loss_on(valid, w)
        curve.append((loss.item(), loss_on(test, w).item()))
        path.append(log_weights.detach().exp())
        if step % (steps // 4) == 0:
            used = int((w != 0).sum())
            print(f"step {step:3d}  validation {curve[-1][0]:.3f}  test {curve[-1][1]:.3f}  features used {used}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    lasso, ridge = path[-1].tolist()
    reference = ElasticNet(
        lasso + ridge, l1_ratio=lasso / (lasso + ridge), fit_intercept=False, tol=1e-10, max_iter=10**6
    )
    reference.fit(X[fit].numpy(), y[fit].numpy())
    gap = (torch.tensor(reference.coef_) - w.detach()).abs().max()
    print(f"learnt lasso {lasso:.4f}, ridge {ridge:.4f}; scikit-learn's coefficients there differ by {gap:.1e}")
    print(layer.certificate)

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(curve, label=["validation", "test"])
    left.set(xlabel="step of the upper level", ylabel="mean squared error")
    left.legend()
    right.plot(torch.stack(path), label=["lasso", "ridge"])
    right.set(xlabel="step of the upper level", ylabel="weight", yscale="log")
    right.legend()
    settings.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(settings.plot, dpi=100)
    print(f"picture: {settings.plot}")


if __name__ == "__main__":
    main()
