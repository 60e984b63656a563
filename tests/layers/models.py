"""Every layer with something to learn, as a function of one batch of vectors."""

from __future__ import annotations

from collections.abc import Callable

import cvxpy as cp
import torch
from torch import Tensor, nn

from bigrad.layers import ArgMin, Bilevel, ConvexProgram, FixedPoint, QuadraticProgram, Root

from .cases import D, vector

BATCH = 4


class Mixed(nn.Module):
    """A function of a variable and an input with a learnt matrix, of which autocast would round the product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * vector(3, 3, seed=1))

    def image(self, y: Tensor) -> Tensor:
        return y @ self.weight.mT


class Objective(Mixed):
    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return ((self.image(y) - x) ** 2).sum(-1) + ((y - x) ** 2).sum(-1) + 0.1 * (y**4).sum(-1)


class Contraction(Mixed):
    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return 0.5 * self.image(y).tanh() + x


class Residual(Mixed):
    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y**3 + 2 * y + 0.5 * self.image(y) - x


def leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return ((y - z) ** 2).sum(-1) + 0.5 * ((x - 1) ** 2).sum(-1)


class Follower(Mixed):
    def forward(self, y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return ((y - self.image(x)) ** 2).sum(-1) + 0.5 * ((y - z) ** 2).sum(-1)


class Quadratic(Mixed):
    """A quadratic program whose matrix is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = QuadraticProgram()

    def forward(self, x: Tensor) -> Tensor:
        eye = torch.eye(3, dtype=x.dtype)
        Q = (self.weight.unsqueeze(0) * self.weight.unsqueeze(1)).sum(-1) + eye  # a product that autocast leaves alone
        y: Tensor = self.layer(Q, -x, torch.ones(1, 3, dtype=x.dtype), torch.ones(1, dtype=x.dtype), -eye, eye[0] + 0.1)
        return y


class Joined(nn.Module):
    """A layer, with all that it returns in one tensor."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        found = self.layer(x)
        return torch.cat(found, -1) if isinstance(found, tuple) else found


class Scaled(Mixed):
    """A learnt point, projected on the simplex."""

    def __init__(self) -> None:
        super().__init__()
        y, point = cp.Variable(3), cp.Parameter(3)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(y - point)), [y >= 0, cp.sum(y) == 1])
        self.layer = ConvexProgram(problem, [point], [y])

    def forward(self, x: Tensor) -> Tensor:
        point = x + (self.weight * x.unsqueeze(-2)).sum(-1)
        found: Tensor = self.layer(point)[0]
        return found


ZERO = torch.zeros(3, dtype=D)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "ArgMin": lambda: ArgMin(Objective(), ZERO),
    "FixedPoint": lambda: FixedPoint(Contraction(), ZERO, batch_dims=1),
    "Root": lambda: Root(Residual(), ZERO, batch_dims=1),
    "Bilevel": lambda: Joined(Bilevel(leader, Follower(), (ZERO, ZERO))),
    "QuadraticProgram": Quadratic,
    "ConvexProgram": Scaled,
}
INPUT = 0.5 * vector(BATCH, 3, seed=7)


def model(name: str) -> nn.Sequential:
    """The layer between others."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3, dtype=D), LAYERS[name](), nn.Tanh())
