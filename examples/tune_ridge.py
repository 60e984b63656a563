"""Tune one ridge weight a feature: the lower level fits a regression, the upper level lowers its validation loss.

python examples/tune_ridge.py [--quick]
"""

import argparse

import torch

from bigrad.layers import ArgMin


def data(samples: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Forty features, of which only the first five matter."""
    X = torch.randn(samples, 40, generator=generator, dtype=torch.float64)
    return X, X[:, :5].sum(1) + 2 * torch.randn(samples, generator=generator, dtype=torch.float64)


def training_loss(w: torch.Tensor, log_ridge: torch.Tensor, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((X @ w - y) ** 2).mean() + (log_ridge.exp() * w**2).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    steps = 20 if parser.parse_args().quick else 200

    generator = torch.Generator().manual_seed(0)
    (X, y), (X_valid, y_valid), (X_test, y_test) = (data(samples, generator) for samples in (60, 200, 2000))
    log_ridge = torch.full((40,), -3.0, dtype=torch.float64, requires_grad=True)
    fit = ArgMin(training_loss, torch.zeros(40, dtype=torch.float64))
    optimizer = torch.optim.Adam([log_ridge], lr=0.1)

    for step in range(steps + 1):
        w = fit(log_ridge, X, y)
        loss = ((X_valid @ w - y_valid) ** 2).mean()
        if step % (steps // 4) == 0:
            test = ((X_test @ w - y_test) ** 2).mean()
            print(f"step {step:3d}  validation {loss:.3f}  test {test:.3f}  (noise alone: 4.0)")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    ridge = log_ridge.detach().exp()
    print(f"mean ridge on the five features that matter {ridge[:5].mean():.4f}, on the others {ridge[5:].mean():.2f}")
    print(fit.certificate)


if __name__ == "__main__":
    main()
