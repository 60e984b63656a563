"""Inner problems with a chosen condition number, and the exact derivatives of their minimisers.

The truth is the minimiser by Newton's method to rounding error and, for its derivatives, two more Newton steps
differentiated as they stand: each dense step doubles the order of the derivatives that are right, so two have the first
and second derivative exact. That uses nothing but dense algebra in float64: the relative error of the truth is about
1e-16 times the condition number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]

FEATURES, SAMPLES, CLASSES = 20, 40, 3


@dataclass(frozen=True)
class InnerProblem:
    """``argmin_y objective(y, theta)``, y a vector, and the outer value ``weight @ y``.

    Attributes:
        name: what it is.
        objective: the inner objective.
        theta: where the derivative is taken.
        solution: the minimiser there.
        weight: the cotangent.
        condition: condition number of the Hessian at the solution.
    """

    name: str
    objective: Objective
    theta: Tensor
    solution: Tensor
    weight: Tensor
    condition: float

    def gradient(self) -> Tensor:
        """The exact derivative of ``weight @ y(theta)``."""
        return torch.func.grad(self.outer)(self.theta)

    def curvature(self, direction: Tensor) -> Tensor:
        """The exact second derivative of ``weight @ y(theta)`` times a direction."""
        return torch.func.jvp(torch.func.grad(self.outer), (self.theta,), (direction,))[1]

    def outer(self, theta: Tensor) -> Tensor:
        """``weight @ y(theta)``, right up to the second derivative at ``theta``."""
        y = self.solution
        for _ in range(2):
            y = newton_step(self.objective, y, theta)
        return self.weight @ y


def newton_step(objective: Objective, y: Tensor, theta: Tensor) -> Tensor:
    """One dense step, with one refinement of the linear solve."""
    slope, hessian = torch.func.grad(objective)(y, theta), torch.func.hessian(objective)(y, theta)
    step = torch.linalg.solve(hessian, slope)
    return y - step - torch.linalg.solve(hessian, slope - hessian @ step)


def minimise(objective: Objective, theta: Tensor, y: Tensor) -> Tensor:
    """The minimiser by damped Newton steps, to rounding error."""
    for _ in range(200):
        step = newton_step(objective, y, theta) - y
        size, value = 1.0, objective(y, theta)
        while size > 1e-6 and objective(y + size * step, theta) > value:
            size /= 2
        y = y + size * step
        if step.norm() <= 1e-7 * y.norm().clamp_min(1e-300):
            break
    return newton_step(objective, newton_step(objective, y, theta), theta)


def condition_of(objective: Objective, y: Tensor, theta: Tensor) -> float:
    """The condition number of the Hessian."""
    return float(torch.linalg.cond(torch.func.hessian(objective)(y, theta)))


Family = Callable[[float, torch.Generator], tuple[Objective, Tensor, int]]  # of the ridge, which sets the condition


def random(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def design(generator: torch.Generator) -> Tensor:
    """A design matrix whose Gram matrix has a condition number of 1e8: a ridge makes of it what is wanted."""
    left, _ = torch.linalg.qr(random(generator, SAMPLES, FEATURES))
    right, _ = torch.linalg.qr(random(generator, FEATURES, FEATURES))
    return left @ torch.diag(torch.logspace(0, -4, FEATURES, dtype=torch.float64)) @ right * SAMPLES**0.5


def penalties(ridge: float, generator: torch.Generator, count: int = FEATURES) -> Tensor:
    """Logarithms of penalties around ``ridge``."""
    return torch.log(torch.tensor(ridge, dtype=torch.float64)) + 0.3 * random(generator, count)


def ridge_regression(ridge: float, generator: torch.Generator) -> tuple[Objective, Tensor, int]:
    """Least squares with one penalty per feature."""
    X, t = design(generator), random(generator, SAMPLES)
    return lambda w, s: ((X @ w - t) ** 2).sum() / 2 + (s.exp() * w**2).sum() / 2, penalties(ridge, generator), FEATURES


def weighted_ridge(ridge: float, generator: torch.Generator) -> tuple[Objective, Tensor, int]:
    """Least squares with one weight per sample."""
    X, t, s = design(generator), random(generator, SAMPLES), 0.3 * random(generator, SAMPLES)
    return lambda w, s: (s.exp() * (X @ w - t) ** 2).sum() / 2 + ridge * (w**2).sum() / 2, s, FEATURES


def logistic(ridge: float, generator: torch.Generator) -> tuple[Objective, Tensor, int]:
    """Logistic regression with one penalty per feature."""
    X, t = design(generator), torch.where(random(generator, SAMPLES) > 0, 1.0, -1.0)

    def objective(w: Tensor, s: Tensor) -> Tensor:
        return torch.nn.functional.softplus(-t * (X @ w)).sum() + (s.exp() * w**2).sum() / 2

    return objective, penalties(ridge, generator), FEATURES


def softmax(ridge: float, generator: torch.Generator) -> tuple[Objective, Tensor, int]:
    """Softmax regression with one penalty per feature."""
    X, t = design(generator), random(generator, SAMPLES, CLASSES).argmax(1)
    pick = torch.nn.functional.one_hot(t, CLASSES).double()

    def objective(w: Tensor, s: Tensor) -> Tensor:
        table = w.reshape(FEATURES, CLASSES)
        logits = X @ table
        return (logits.logsumexp(1) - (pick * logits).sum(1)).sum() + (s.exp() * (table**2).sum(1)).sum() / 2

    return objective, penalties(ridge, generator), FEATURES * CLASSES


def poisson(ridge: float, generator: torch.Generator) -> tuple[Objective, Tensor, int]:
    """Poisson regression with one penalty per feature."""
    X = design(generator)
    t = torch.poisson(torch.exp(0.5 * random(generator, SAMPLES)), generator=generator)
    return (
        lambda w, s: ((X @ w).exp() - t * (X @ w)).sum() + (s.exp() * w**2).sum() / 2,
        penalties(ridge, generator),
        FEATURES,
    )


def pseudo_huber(ridge: float, generator: torch.Generator) -> tuple[Objective, Tensor, int]:
    """Robust regression; the parameters are the targets."""
    X, t = design(generator), random(generator, SAMPLES)
    return lambda w, s: (1 + (X @ w - s) ** 2).sqrt().sum() + ridge * (w**2).sum() / 2, t, FEATURES


def log_sum_exp(ridge: float, generator: torch.Generator) -> tuple[Objective, Tensor, int]:
    """A smooth maximum of affine functions; the parameters are their offsets."""
    X, s = design(generator), random(generator, SAMPLES)
    return lambda w, s: (X @ w + s).logsumexp(0) + ridge * (w**2).sum() / 2, s, FEATURES


def quartic(ridge: float, generator: torch.Generator) -> tuple[Objective, Tensor, int]:
    """A quartic; the parameters are its linear part."""
    X, w = design(generator), random(generator, FEATURES) / 2

    def objective(w: Tensor, s: Tensor) -> Tensor:
        return ((X @ w) ** 4).sum() / 4 + ((X @ w) ** 2).sum() / 2 + ridge * (w**2).sum() / 2 - s @ w

    return objective, X.mT @ (X @ w), FEATURES


def portfolio(ridge: float, generator: torch.Generator) -> tuple[Objective, Tensor, int]:
    """Mean and variance with smooth trading costs and a soft budget; the parameters are the returns."""
    X, w = design(generator), random(generator, FEATURES) / FEATURES

    def objective(w: Tensor, s: Tensor) -> Tensor:
        costs = 0.1 * ridge * (w**2 + 1e-2).sqrt().sum()
        return ((X @ w) ** 2).sum() / 2 - s @ w + costs + ridge * (w**2).sum() / 2 + (w.sum() - 1) ** 2 / 2

    return objective, X.mT @ (X @ w), FEATURES


def kernel_ridge(ridge: float, generator: torch.Generator) -> tuple[Objective, Tensor, int]:
    """Kernel ridge regression in its dual; the parameters are the logarithms of length scales."""
    X, theta = random(generator, FEATURES, 2), torch.full((2,), 0.5, dtype=torch.float64)
    eye = torch.eye(FEATURES, dtype=torch.float64)

    def kernel(s: Tensor) -> Tensor:
        scaled = X * (-s).exp()
        return (-(scaled[:, None] - scaled[None]).square().sum(-1) / 2).exp()

    t = kernel(theta) @ random(generator, FEATURES)
    return lambda w, s: w @ (kernel(s) + ridge * eye) @ w / 2 - t @ w, theta, FEATURES


FAMILIES: tuple[Family, ...] = (
    ridge_regression,
    weighted_ridge,
    logistic,
    softmax,
    poisson,
    pseudo_huber,
    log_sum_exp,
    quartic,
    portfolio,
    kernel_ridge,
)


def build(family: Family, condition: float, seed: int = 0) -> InnerProblem:
    """The problem of a family whose Hessian has this condition number, by adjusting the ridge."""
    ridge = 1 / condition
    for _ in range(30):
        objective, theta, size = family(ridge, torch.Generator().manual_seed(seed))
        y = minimise(objective, theta, torch.zeros(size, dtype=torch.float64))
        found = condition_of(objective, y, theta)
        if 0.95 < found / condition < 1.05:
            break
        ridge *= found / condition
    weight = random(torch.Generator().manual_seed(seed + 1), y.numel())
    return InnerProblem(family.__name__.replace("_", " "), objective, theta, y, weight, found)


def ridge_problem(features: int, seed: int = 0) -> tuple[InnerProblem, Tensor, Tensor]:
    """Well-conditioned ridge regression of a given size with one penalty per feature, its design and its targets."""
    generator = torch.Generator().manual_seed(seed)
    X, t = random(generator, 2 * features, features), random(generator, 2 * features)
    theta, weight = 0.5 * random(generator, features), random(generator, features)

    def objective(w: Tensor, s: Tensor) -> Tensor:
        return ((X @ w - t) ** 2).sum() / 2 + (s.exp() * w**2).sum() / 2

    hessian = X.mT @ X + torch.diag(theta.exp())
    solution = torch.linalg.solve(hessian, X.mT @ t)
    solution = solution + torch.linalg.solve(hessian, X.mT @ t - hessian @ solution)
    condition = float(torch.linalg.cond(hessian))
    return InnerProblem("ridge", objective, theta, solution, weight, condition), X, t
