"""The problems of benchmark_bilevel: its simulated one rebuilt from its definition, and stand-ins for its data sets.

The truth is the squared norm of the exact hyper-gradient, by Newton's method and dense algebra on the lower level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from stochastic_methods import Oracle
from torch import Tensor

D = torch.float64
Mean = Callable[[Tensor, Tensor, slice], Tensor]


@dataclass(frozen=True)
class Problem:
    """Two means over samples.

    Attributes:
        name: what it is.
        below: ``(y, x, batch)``, the lower mean over a batch.
        above: the upper one.
        sizes: lower and upper samples.
        init: where both variables start.
        outer_steps: the steps of the upper level that each method may choose from.
    """

    name: str
    below: Mean
    above: Mean
    sizes: tuple[int, int]
    init: tuple[Tensor, Tensor]
    outer_steps: tuple[float, ...]

    def lower(self, y: Tensor, x: Tensor) -> Tensor:
        """The lower objective."""
        return self.below(y, x, slice(0, self.sizes[0]))

    def oracle(self) -> Oracle:
        """The same as gradients and products."""

        def inner(y: Tensor, x: Tensor, v: Tensor, batch: slice) -> tuple[Tensor, Tensor, Tensor]:
            y, x = y.requires_grad_(), x.requires_grad_()
            (slope,) = torch.autograd.grad(self.below(y, x, batch), y, create_graph=True)
            curved, crossed = torch.autograd.grad(slope, (y, x), v)
            return slope.detach(), curved, crossed

        def outer(y: Tensor, x: Tensor, batch: slice) -> tuple[Tensor, Tensor]:
            y, x = y.detach().requires_grad_(), x.detach().requires_grad_()
            slope, direct = torch.autograd.grad(self.above(y, x, batch), (y, x), materialize_grads=True)
            return slope, direct

        return Oracle(lambda y, x, v, batch: inner(y.detach(), x.detach(), v, batch), outer, self.sizes, self.init)

    def solve(self, x: Tensor, y: Tensor) -> Tensor:
        """The lower minimiser by damped Newton steps with dense algebra."""
        for _ in range(50):
            slope, _, _ = self.oracle().inner(y, x, torch.zeros_like(y), slice(0, self.sizes[0]))
            if slope.norm() < 1e-13:
                break
            step = torch.linalg.solve(self.curvature(y, x), slope)
            size, value = 1.0, self.lower(y, x)
            while size > 1e-3 and self.lower(y - size * step, x) > value + 1e-14:
                size /= 2
            y = y - size * step
        return y

    def curvature(self, y: Tensor, x: Tensor) -> Tensor:
        """The Hessian of the lower objective."""
        return torch.autograd.functional.hessian(lambda y: self.lower(y, x), y)

    def squared_norm(self, x: Tensor) -> float:
        """Of the exact hyper-gradient at ``x``."""
        y = self.solve(x, self.init[0])
        slope, direct = self.oracle().outer(y, x, slice(0, self.sizes[1]))
        u = torch.linalg.solve(self.curvature(y, x), slope)
        _, _, crossed = self.oracle().inner(y, x, u, slice(0, self.sizes[0]))
        return float((direct - crossed).square().sum())


def simulated(samples: int = 512, size: int = 20, seed: int = 0, curvature: float = 1e-3) -> Problem:
    """Sums of quadratics of rank one with spectra from .1 to 1, coupled by matrices of rank one of size .1.

    A level's sample is ``(a z)^2 / 2 + (b x)^2 / 2 + (x c)(d z) + l z + m x``. Drawn again until the value function has
    at least this curvature.
    """
    for attempt in range(20):
        generator = torch.Generator().manual_seed(1000 * seed + attempt)
        levels = [quadratics(samples, size, generator) for _ in range(2)]

        def mean(parts: tuple[Tensor, ...], y: Tensor, x: Tensor, batch: slice) -> Tensor:
            a, b, c, d, linear, other = (part[batch] for part in parts)
            squares = ((a @ y) ** 2 + (b @ x) ** 2) / 2 + (c @ x) * (d @ y)
            return (squares + linear @ y + other @ x).mean()

        start = torch.randn(2, size, generator=generator, dtype=D)
        problem = Problem(
            "simulated quadratics",
            lambda y, x, batch, parts=levels[0]: mean(parts, y, x, batch),
            lambda y, x, batch, parts=levels[1]: mean(parts, y, x, batch),
            (samples, samples),
            (start[0], start[1]),
            (0.1, 0.3, 1.0),
        )
        if value_curvature(problem) > curvature:
            return problem
    raise ValueError(f"no value function of curvature {curvature} in 20 draws: take another seed")


def value_curvature(problem: Problem) -> float:
    """The least curvature of the value function, which is quadratic: its gradient is affine."""
    x = problem.init[1]

    def gradient(x: Tensor) -> Tensor:
        y = problem.solve(x, problem.init[0])
        slope, direct = problem.oracle().outer(y, x, slice(0, problem.sizes[1]))
        u = torch.linalg.solve(problem.curvature(y, x), slope)
        return direct - problem.oracle().inner(y, x, u, slice(0, problem.sizes[0]))[2]

    base = gradient(torch.zeros_like(x))
    columns = torch.stack([gradient(axis) - base for axis in torch.eye(len(x), dtype=D)])
    return float(torch.linalg.eigvalsh((columns + columns.mT) / 2).min())


def quadratics(samples: int, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """The vectors of one level."""

    def root(values: Tensor) -> Tensor:
        basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=D))
        return basis @ torch.diag(values) @ basis.mT

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=D)

    spectrum = torch.logspace(-0.5, 0, size, dtype=D)
    a = normal(samples, size) @ root(spectrum)
    b = normal(samples, size) @ root(torch.cat([spectrum.new_zeros(1), torch.logspace(-0.5, 0, size - 1, dtype=D)]))
    left, _ = torch.linalg.qr(normal(size, size))
    right, _ = torch.linalg.qr(normal(size, size))
    shared = normal(samples, size)
    c, d = shared @ (left @ torch.diag(torch.logspace(-1, -1, size, dtype=D))).mT, shared @ right.mT
    return a, b, c, d, normal(samples, size), normal(samples, size)


def regularisation(seed: int = 0) -> Problem:
    """Logistic regression on breast_cancer with ``exp(x_k)`` as the ridge of each feature: for ijcnn1."""
    data = load_breast_cancer()
    X = torch.tensor((data.data - data.data.mean(0)) / data.data.std(0), dtype=D)
    t = torch.tensor(2.0 * data.target - 1, dtype=D)
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[:512]
    (X, t), half = (X[order], t[order]), 256

    def below(y: Tensor, x: Tensor, batch: slice) -> Tensor:
        rows, labels = X[:half][batch], t[:half][batch]
        return torch.nn.functional.softplus(-labels * (rows @ y)).mean() + (x.exp() * y**2).sum() / 2

    def above(y: Tensor, x: Tensor, batch: slice) -> Tensor:
        rows, labels = X[half:][batch], t[half:][batch]
        return torch.nn.functional.softplus(-labels * (rows @ y)).mean()

    zero = torch.zeros(X.shape[1], dtype=D)
    return Problem("breast_cancer", below, above, (half, half), (zero, zero - 1.0), (0.1, 1.0, 10.0))


def cleaning(seed: int = 0, corrupted: float = 0.5) -> Problem:
    """Softmax regression on digits of 4x4 cells, half of the labels wrong, a weight for each sample: for MNIST."""
    data = load_digits()
    cells = data.images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(cells))[:512]
    X = torch.tensor(np.c_[cells[order] / 16, np.ones(len(order))], dtype=D)
    labels, half = data.target[order].copy(), 256
    wrong = draw.random(half) < corrupted
    labels[:half][wrong] = draw.integers(0, 10, wrong.sum())
    target = torch.nn.functional.one_hot(torch.tensor(labels), 10).to(D)

    def losses(y: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
        logits = rows @ y.reshape(X.shape[1], 10)
        return logits.logsumexp(1) - (wanted * logits).sum(1)

    def below(y: Tensor, x: Tensor, batch: slice) -> Tensor:
        weighted = torch.sigmoid(x[batch]) * losses(y, X[:half][batch], target[:half][batch])
        return weighted.mean() + 0.1 * (y**2).sum()

    def above(y: Tensor, x: Tensor, batch: slice) -> Tensor:
        return losses(y, X[half:][batch], target[half:][batch]).mean()

    start = torch.zeros(X.shape[1] * 10, dtype=D), torch.zeros(half, dtype=D)
    return Problem("digits, half wrong", below, above, (half, half), start, (10.0, 100.0, 1e3))
