"""Quadratic objectives that count how often their Hessian is multiplied with a vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from problems import InnerProblem, random
from torch import Tensor


class Counter:
    """Symmetric matrices ``(*batch, n, n)`` and how many products with them there were."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.products = matrix, 0

    def times(self, v: Tensor) -> Tensor:
        """One product for each matrix, counted once."""
        self.products += 1
        return (self.matrix @ v.unsqueeze(-1)).squeeze(-1)


class Product(torch.autograd.Function):
    """``A v``."""

    @staticmethod
    def forward(v: Tensor, counter: Counter) -> Tensor:
        return counter.times(v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.counter = inputs[1]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        return Product.apply(cotangent, ctx.counter), None


class Quadratic(torch.autograd.Function):
    """``v A v / 2`` for each matrix; only its gradient and the products with its Hessian are counted."""

    @staticmethod
    def forward(v: Tensor, counter: Counter) -> Tensor:
        return (v * (counter.matrix @ v.unsqueeze(-1)).squeeze(-1)).sum(-1) / 2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.counter = inputs[1]
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return cotangent.unsqueeze(-1) * Product.apply(v, ctx.counter), None


def spd(size: int, condition: float, generator: torch.Generator) -> Tensor:
    """A symmetric positive definite matrix with logarithmically spaced eigenvalues from 1 to ``condition``."""
    basis, _ = torch.linalg.qr(random(generator, size, size))
    values = torch.logspace(0, torch.log10(torch.tensor(condition)).item(), size, dtype=torch.float64)
    return basis @ torch.diag(values) @ basis.mT


def quadratic_problem(matrix: Tensor, coupled: bool = True) -> tuple[InnerProblem, Counter]:
    """``y A y / 2 - theta y``: with matrices ``(B, n, n)``, B problems or (``coupled``) their sum as one."""
    generator, counter = torch.Generator().manual_seed(1), Counter(matrix)
    theta, weight = random(generator, *matrix.shape[:-1]), random(generator, *matrix.shape[:-1])
    solution = torch.linalg.solve(matrix, theta)

    def objective(y: Tensor, theta: Tensor) -> Tensor:
        values = Quadratic.apply(y, counter) - (theta * y).sum(-1)
        return values.sum() if coupled else values

    name = "coupled" if coupled else "side by side"
    return InnerProblem(name, objective, theta, solution, weight, float(torch.linalg.cond(matrix).max())), counter


def products_of(phases: dict[str, Callable[[Any], Any]], counter: Counter) -> tuple[Tensor, int]:
    """The gradient and the number of products of the backward pass alone, one of them for the gradient's graph."""
    prepared = phases["prepare"](None)
    counter.products = 0
    return phases["backward"](prepared), counter.products
