"""Two-level programs whose answer can be written down, and what their derivatives are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bigrad import Constraints
from bigrad.gradients import WarmStart
from bigrad.layers import Bilevel
from bigrad.solvers import Stackelberg

from .cases import D, vector

Level = Callable[..., Tensor]
TIGHT = Stackelberg(rtol=0.0, atol=1e-13)


@dataclass(frozen=True)
class Program:
    """Two levels of ``(x, y, z)`` and ``(y, x, z)``, a start, a ``z``, and the answer ``(x, y)`` as a formula in z."""

    name: str
    leader: Level
    follower: Level
    sizes: tuple[int, int]
    z: Tensor
    formula: Callable[[Tensor], tuple[Tensor, Tensor]]
    constraints: dict[str, Constraints] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name

    @property
    def init(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(self.sizes[0], dtype=D), torch.zeros(self.sizes[1], dtype=D)

    def layer(self, **settings: Any) -> Bilevel:
        given = {"init": self.init, "solver": TIGHT, **self.constraints, **settings}
        return Bilevel(self.leader, self.follower, **given)


A = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=D)
B = torch.tensor([[1.0, 0.0], [1.0, 2.0]], dtype=D)


def anchored_leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 0.5 * ((y - z[:2]).square().sum() + x.square().sum())


def anchored_follower(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return 0.5 * (y * (A @ y)).sum() - (y * (B @ x)).sum() + 0.5 * ((z[2] * y) ** 2).sum()


def anchored_formula(z: Tensor) -> tuple[Tensor, Tensor]:
    # torch.linalg.solve is silently wrong under jacrev of jacfwd and vmap of hessian in torch 2.13
    response = torch.linalg.inv(A + z[2] ** 2 * torch.eye(2, dtype=D)) @ B
    x = torch.linalg.inv(response.T @ response + torch.eye(2, dtype=D)) @ response.T @ z[:2]
    return x, response @ x


def tied_leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 0.5 * ((x - z.sin()).square().sum() + (y - z.cos()).square().sum())


def tied_follower(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return 0.5 * (y - x * z.exp()).square().sum()


def weights(z: Tensor) -> Tensor:
    return torch.stack([z[0].cosh(), z[1].cos(), z[2]])


ALONG = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]], dtype=D).T


def tied_formula(z: Tensor) -> tuple[Tensor, Tensor]:
    """The follower projects on ``<weights, y> = z0^2``; the leader moves along ``sum x = z1``."""
    a = weights(z)
    normal = a / (a * a).sum()
    respond = (torch.eye(3, dtype=D) - torch.outer(normal, a)) * z.exp()  # y = respond x + normal z0^2
    base = torch.ones(3, dtype=D) * z[1] / 3
    moved = respond @ ALONG
    gap = respond @ base + normal * z[0] ** 2 - z.cos()
    u = -torch.linalg.inv(ALONG.T @ ALONG + moved.T @ moved) @ (ALONG.T @ (base - z.sin()) + moved.T @ gap)
    x = base + ALONG @ u
    return x, respond @ x + normal * z[0] ** 2


def cut_leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    free = 0.5 * ((x - z.exp()).square()[:3].sum() + (y - z.sin()).square()[:3].sum())
    return free + 0.5 * (x[3] - y[3]) * z[3].cosh() + 0.1 * (x[3] - 1).square() - 0.2 * y[3]


def cut_follower(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return 0.5 * (y - x).square().sum()


def cut_below(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """The last one makes a kink in the answer ``y3 = min(x3, z3^2)``, and the leader stays on it."""
    return torch.stack([y[0] - 10, y[1] - 0.5 * z[1].cos(), y[2] - 10, y[3] - z[3] ** 2])


def cut_formula(z: Tensor) -> tuple[Tensor, Tensor]:
    """One coordinate is free, the follower's bound holds on the next, the leader's on the third, a kink on the last."""
    free, corner, kink = 0.5 * (z[0].exp() + z[0].sin()), z[2] ** 2, z[3] ** 2
    return torch.stack([free, z[1].exp(), corner, kink]), torch.stack([free, 0.5 * z[1].cos(), corner, kink])


ANCHORED = Program(
    "anchored", anchored_leader, anchored_follower, (2, 2), torch.tensor([1.0, 0.2, 0.6], dtype=D), anchored_formula
)
TIED = Program(
    "tied",
    tied_leader,
    tied_follower,
    (3, 3),
    vector(3, seed=3) * 0.5,
    tied_formula,
    {
        "leader_constraints": Constraints(equality=lambda x, y, z: (x.sum() - z[1])[None]),
        "follower_constraints": Constraints(equality=lambda y, x, z: ((weights(z) * y).sum() - z[0] ** 2)[None]),
    },
)
CUT_OFF = Program(
    "cut off",
    cut_leader,
    cut_follower,
    (4, 4),
    torch.tensor([-0.5, 0.3, 0.4, 0.2], dtype=D),
    cut_formula,
    {
        "leader_constraints": Constraints(inequality=lambda x, y, z: (x[2] - z[2] ** 2)[None]),
        "follower_constraints": Constraints(inequality=cut_below),
    },
)
PROGRAMS = [ANCHORED, TIED, CUT_OFF]


def joined(answer: tuple[Tensor, Tensor]) -> Tensor:
    return torch.cat(answer, -1)


def both_slopes(layer: Bilevel, z: Tensor, weight: Tensor, step: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Slopes of ``<weight, answer>`` along three directions: the layer's, and by solving again on either side."""
    base = WarmStart()
    layer(z, warm_start=base)
    solution = base.solution

    def value(z: Tensor) -> Tensor:
        return (weight * joined(layer(z, warm_start=WarmStart(solution)))).sum()

    free = z.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(free), free)
    directions = vector(3, *z.shape, seed=11)
    slopes = [(value(z + step * way) - value(z - step * way)) / (2 * step) for way in directions]
    return directions.flatten(1) @ gradient.flatten(), torch.stack(slopes)


def gradient_of(layer: Bilevel, z: Tensor, weight: Tensor) -> Tensor:
    """The gradient of ``<weight, answer>``."""
    z = z.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad((weight * joined(layer(z))).sum(), z)
    return found


def error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())
