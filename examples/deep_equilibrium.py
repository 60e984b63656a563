"""A deep-equilibrium classifier: its one hidden layer is applied until nothing changes, and costs no more memory.

python examples/deep_equilibrium.py [--quick] [--plot runs/deep_equilibrium.png]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from bigrad.layers import FixedPoint

HIDDEN = 48


class Cell(nn.Module):
    """``z -> tanh(W z + U x + b)`` with ``|W| <= 0.9``: a contraction, so there is one fixed point."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.randn(HIDDEN, HIDDEN) / HIDDEN**0.5)
        self.outer = nn.Linear(64, HIDDEN)

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        W = 0.9 * self.inner / torch.linalg.matrix_norm(self.inner).clamp_min(0.9)  # the Frobenius norm is larger yet
        return torch.tanh(z @ W.T + self.outer(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two epochs instead of ten")
    parser.add_argument("--plot", type=Path, default=Path("runs/deep_equilibrium.png"), help="where the picture goes")
    settings = parser.parse_args()

    torch.manual_seed(0)
    X, label = (torch.tensor(part) for part in load_digits(return_X_y=True))
    X = X.float() / 16
    fit, test = torch.randperm(len(X)).split([1200, len(X) - 1200])
    equilibrium = FixedPoint(Cell(), torch.zeros(HIDDEN), batch_dims=1)
    head = nn.Linear(HIDDEN, 10)
    optimizer = torch.optim.Adam([*equilibrium.parameters(), *head.parameters()], lr=3e-3)
    curve, iterations = [], []
    for epoch in range(2 if settings.quick else 10):
        for rows in torch.randperm(len(fit)).split(100):
            loss = cross_entropy(head(equilibrium(X[fit][rows])), label[fit][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            iterations.append(float(equilibrium.certificate.steps.double().mean()))
        with torch.no_grad():
            curve.append((head(equilibrium(X[test])).argmax(1) == label[test]).float().mean().item())
        print(
            f"epoch {epoch}  loss {loss:.3f}  test accuracy {curve[-1]:.3f}  iterations a sample {iterations[-1]:.1f}"
        )
    print(equilibrium.certificate)

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(range(1, len(curve) + 1), curve, marker="o")
    left.set(xlabel="epoch", ylabel="test accuracy")
    right.plot(iterations)
    right.set(xlabel="step", ylabel="iterations to the fixed point")
    settings.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(settings.plot, dpi=100)
    print(f"picture: {settings.plot}")


if __name__ == "__main__":
    main()
