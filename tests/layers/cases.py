"""Problems whose minimiser can be written down, and ways to compare derivatives with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optree
import torch
from torch import Tensor, nn

from bigrad.layers import ArgMin

D = torch.float64


def vector(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=D)


@dataclass(frozen=True)
class Case:
    """An objective of ``(y, x)``, a start, an ``x``, and the minimiser as a formula in ``x``.

    ``step_size`` suits gradient descent.
    """

    objective: Callable[..., Tensor]
    init: Any
    x: Tensor
    formula: Callable[[Tensor], Any]
    step_size: float

    def __repr__(self) -> str:
        return self.objective.__name__


DESIGN, LABEL = vector(8, 3), vector(8, seed=1)


def ridge(w: Tensor, x: Tensor) -> Tensor:
    return ((DESIGN @ w - LABEL) ** 2).sum() + (x.exp() * w**2).sum()


def ridge_formula(x: Tensor) -> Tensor:
    # torch.linalg.solve is silently wrong under jacrev of jacfwd and vmap of hessian in torch 2.13
    return torch.linalg.inv(DESIGN.T @ DESIGN + torch.diag(x.exp())) @ DESIGN.T @ LABEL


def entropy(y: Tensor, x: Tensor) -> Tensor:
    return (y.exp() - (1 + x**2) * y).sum()


def scalar(y: Tensor, x: Tensor) -> Tensor:
    return (y - x[0] ** 2) ** 2 + (x[1].exp() * y) ** 2


def nested(y: dict[str, Any], x: Tensor) -> Tensor:
    (slope, curve), level = y["line"], y["level"]
    return (
        ((slope - x.sin()) ** 2).sum() + ((curve - x.outer(slope)) ** 2).sum() + (level - slope.sum()) ** 2 + level**2
    )


def nested_formula(x: Tensor) -> dict[str, Any]:
    """The curve follows the slope for free; what is left is quadratic in the slope alone."""
    slope = torch.linalg.solve(torch.eye(2, dtype=x.dtype) + 0.5 * torch.ones(2, 2, dtype=x.dtype), x.sin())
    return {"line": (slope, x.outer(slope)), "level": slope.sum() / 2}


SCALE = torch.tensor([1e-3, 1.0, 1e3, 30.0], dtype=D)


def mixed(y: Tensor, x: Tensor) -> Tensor:
    """Four problems whose objectives, but not answers, are of different size."""
    shift = torch.arange(4.0, dtype=D).unsqueeze(-1)
    return SCALE * ((y - torch.sin(x + shift)) ** 2 + (x * y) ** 2).sum(-1)


def mixed_formula(x: Tensor) -> Tensor:
    return torch.sin(x + torch.arange(4.0, dtype=D).unsqueeze(-1)) / (1 + x**2)


RIDGE = Case(ridge, torch.zeros(3, dtype=D), vector(3, seed=2), ridge_formula, 0.03)
SCALAR = Case(scalar, torch.zeros((), dtype=D), vector(2, seed=2), lambda x: x[0] ** 2 / (1 + (2 * x[1]).exp()), 0.2)
ENTROPY = Case(entropy, torch.zeros(3, dtype=D), vector(3, seed=4), lambda x: torch.log1p(x**2), 0.2)
MIXED = Case(mixed, torch.zeros(2, dtype=D), vector(2, seed=5), mixed_formula, 3e-4)
NESTED = Case(
    nested,
    {"line": (torch.zeros(2, dtype=D), torch.ones(2, 2, dtype=D)), "level": torch.ones((), dtype=D)},
    vector(2, seed=3),
    nested_formula,
    0.05,
)
CASES = [RIDGE, SCALAR, ENTROPY, NESTED, MIXED]


def flat(tree: Any) -> Tensor:
    return torch.cat([leaf.reshape(-1) for leaf in optree.tree_leaves(tree)])


def derivatives(function: Callable[[Tensor], Any], x: Tensor, order: int) -> list[Tensor]:
    """The value of ``function`` and ``order`` derivatives along fixed weights, each a plain tensor."""
    x = x.detach().clone().requires_grad_()
    current = flat(function(x))
    found = [current.detach()]
    for turn in range(order):
        weight = torch.cos(torch.arange(current.numel(), dtype=D) + turn).to(x)
        (current,) = torch.autograd.grad((weight * current).sum(), x, create_graph=turn < order - 1)
        found.append(current.detach())
    return found


def errors(layer: ArgMin, case: Case, order: int = 3) -> list[float]:
    """Relative errors of the value and of each derivative against the formula."""
    found, truth = derivatives(layer, case.x, order), derivatives(case.formula, case.x, order)
    return [float((one - other).norm() / other.norm()) for one, other in zip(found, truth, strict=True)]


def stretched(y: Tensor, x: Tensor) -> Tensor:
    """Quadratic with Hessian eigenvalues 2, 20 and 200; ``y = x``."""
    return (torch.tensor([1.0, 10.0, 100.0], dtype=D) * (y - x) ** 2).sum(-1)


def start(size: int = 3) -> Tensor:
    return torch.zeros(size, dtype=D)


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return vector(*shape, seed=seed).requires_grad_()


class Proximal(nn.Module):
    """Between ``x`` and a learnt linear image of it."""

    def __init__(self) -> None:
        super().__init__()
        self.target = nn.Linear(3, 3, dtype=D)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return ((y - x) ** 2).sum(-1) + ((y - self.target(x)) ** 2).sum(-1)
