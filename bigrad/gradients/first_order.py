"""Derivatives of a minimiser from gradients alone: the minimiser of a tilted objective is compared with it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate, Status
from ..equation import Objective, Problem
from ..errors import InputError, NotConverged, SolveWarning, UnsupportedError
from .detached import Tensors
from .once import Once, Point
from .rule import Record, Solve

_ROUNDS = 5  # most attempts at a tilt that moves the solution as far as wanted


@dataclass(frozen=True)
class FirstOrder(Once):
    r"""A difference quotient in the place of the Hessian: with :math:`y_t = \arg\min_y f(y, x) + t\, \bar y^\top y`,

    .. math:: \bar x \approx \frac{\partial_x f(y_t, x) - \partial_x f(y_{-t}, x)}{2 t}
        = -\partial_{xy} f\, (\partial_{yy} f)^{-1} \bar y + O(t^2)

    and one-sided with :math:`y^*` for :math:`y_{-t}` and :math:`t` for :math:`2 t`, an error :math:`O(t)`. It takes the
    solver two more times (once) in the backward pass, from :math:`y^*`, and no second derivative of :math:`f`.

    Each problem of a batch has its own :math:`t`, such that the solution moves by about ``step * (1 + |y*|)``: it is
    ``step * (1 + |y*|) * c / |cotangent|`` with the curvature :math:`c` along the cotangent from two gradients, and it
    is reduced where the solution has moved four times as far.

    The relative error is estimated and left in ``certificate.adjoint``, ``stationarity``: the gradient norms that the
    solver left over :math:`t |\bar y|`, plus how far the path from :math:`y_{-t}` to :math:`y_t` and the gradients in
    ``x`` along it are from straight, both measured half-way. Like a linear solve's residual it does not know the
    condition of the Hessian. Above ``rtol`` the derivative counts as failed.

    Args:
        step: how far the solution moves, relative to ``1 + |y*|``; ``None`` is the cube root (one-sided: the square
            root) of the solvers' default tolerance, 5e-4 in float64 and 2e-2 in float32 (1e-5 and 3e-3).
        two_sided: whether to tilt both ways.
        rtol: the largest estimated relative error that is no failure.

    Raises:
        UnsupportedError: the problem is no minimum, or a second derivative or forward mode is asked for.

    Raises (in backward):
        SolveError: a tilted solve failed, or the estimated error is above ``rtol``.

    Source: Equilibrium Propagation (Scellier, Bengio, 2017); Scaling Equilibrium Propagation to Deep ConvNets by
    Drastically Reducing its Gradient Estimator Bias (Laborieux, Ernoult, Scellier, Bengio, Grollier, Querlioz, 2021).

    Example:
        >>> import torch, bigrad
        >>> from bigrad.gradients import FirstOrder
        >>> x = torch.tensor(3.0, requires_grad=True, dtype=torch.float64)
        >>> y = bigrad.argmin(
        ...     lambda y, x: (y - x**2) ** 2, torch.zeros((), dtype=torch.float64), x, gradient=FirstOrder()
        ... )
        >>> torch.autograd.grad(y, x)[0]
        tensor(6.0000, dtype=torch.float64)
    """

    step: float | None = None
    two_sided: bool = True
    rtol: float = 1e-2

    def __post_init__(self) -> None:
        if self.step is not None and not 0 < self.step < math.inf:
            raise InputError(f"FirstOrder: step is {self.step}; it must be positive and finite")
        if not self.rtol > 0:
            raise InputError(f"FirstOrder: rtol is {self.rtol}; it must be > 0")

    def check(self, problem: Problem, solve: Solve) -> None:
        """Minima only."""
        if not isinstance(problem, Objective):
            raise UnsupportedError(
                f"FirstOrder tilts an objective, and a {type(problem).__name__} has none: differentiate with Implicit()"
            )

    def pullback(
        self, point: Point, cotangent: Tensor, wanted: tuple[int, ...], solve: Solve, record: Record
    ) -> Tensors:
        """Solve the tilted problems and divide the difference of their gradients."""
        quotient = _Quotient(point, cotangent, wanted, solve, record)
        default = 1e-10 if point.y.dtype == torch.float64 else 1e-5
        step = default ** (1 / 3 if self.two_sided else 1 / 2) if self.step is None else self.step
        grads, error = quotient.two_sided(step) if self.two_sided else quotient.one_sided(step)
        self._certify(error, quotient, record)
        return grads

    def _certify(self, error: Tensor, quotient: _Quotient, record: Record) -> None:
        status = torch.where(error <= self.rtol, int(Status.CONVERGED), int(Status.MAX_STEPS))
        status = torch.where(error.isfinite(), status, int(Status.NON_FINITE))
        tolerance = torch.full_like(error, self.rtol)
        certificate = Certificate("tilted argmin", status, error, tolerance, quotient.steps)
        for failed in quotient.failures:
            certificate.status = torch.maximum(certificate.status, failed.status)
        if record.certificate is not None:
            record.certificate.adjoint = certificate
        for failed in quotient.failures:
            failed.enforce(record.on_failure)
        if record.on_failure == "ignore" or not bool(certificate.failed.any()) or quotient.failures:
            return
        worst = torch.where(error.isnan(), torch.inf, error).reshape(-1).argmax()
        message = (
            f"FirstOrder (problem {int(worst)} of {error.numel()}): the relative error of the derivative is estimated "
            f"as {float(error.reshape(-1)[worst]):.3g}, wanted {self.rtol:.3g}. Remedy: tighten the solver's rtol and "
            "atol; or change step, up where the solver limits the accuracy and down where the objective is far from "
            "quadratic; or differentiate with Implicit()."
        )
        if record.on_failure == "warn":
            warnings.warn(message, SolveWarning, stacklevel=2)
            return
        raise NotConverged(message, certificate)


class _Quotient:
    """The difference quotients at one point, for one cotangent ``(*batch, n)``."""

    def __init__(self, point: Point, cotangent: Tensor, wanted: tuple[int, ...], solve: Solve, record: Record) -> None:
        assert isinstance(point.problem, Objective)
        self.objective = point.problem
        self.point, self.y, self.g, self.wanted, self.solve, self.record = (
            point,
            point.y,
            cotangent,
            wanted,
            solve,
            record,
        )
        self.size = cotangent.norm(dim=-1)
        self.live = self.size != 0
        self.extent = 1 + self.y.norm(dim=-1)
        self.steps = torch.zeros(self.size.shape, dtype=torch.int64)
        self.failures: list[Certificate] = []

    def two_sided(self, step: float) -> tuple[Tensors, Tensor]:
        """The vector-Jacobian products and their estimated relative error ``(*batch)``."""
        t, above, left_above = self._first(step)
        below, left_below = self._tilted(-t, self.y)
        odd, even = (above - below) / 2, (above + below) / 2 - self.y
        # The parabola through the three points, half-way: exact to the third order of the path.
        half_above, half_below = self.y + odd / 2 + even / 4, self.y - odd / 2 + even / 4
        bend = self._gradient(half_above) - self._gradient(half_below)
        bend = bend - (self._gradient(above) - self._gradient(below)) / 2
        grads = self._difference(above, below, 1 / (2 * t))
        halves = self._difference(half_above, half_below, 1 / t)
        left = (left_above + left_below) / 2
        return grads, self._error(
            t, left, 4 / 3 * bend, [4 / 3 * (a - b) for a, b in zip(grads, halves, strict=True)], grads
        )

    def one_sided(self, step: float) -> tuple[Tensors, Tensor]:
        """As :meth:`two_sided`, from one tilted solve."""
        t, above, left = self._first(step)
        half = (above + self.y) / 2
        rest = self._gradient(self.y)
        bend = self._gradient(half) - (self._gradient(above) + rest) / 2
        grads = self._difference(above, self.y, 1 / t)
        halves = self._difference(half, self.y, 2 / t)
        return grads, self._error(
            t, left + rest.norm(dim=-1), 4 * bend, [2 * (a - b) for a, b in zip(grads, halves, strict=True)], grads
        )

    def _first(self, step: float) -> tuple[Tensor, Tensor, Tensor]:
        """The tilt's weight, the solution tilted by it, and the gradient norm that the solver left."""
        aim = step * self.extent
        t = torch.where(self.live, aim * self._curvature() / torch.where(self.live, self.size, 1.0), 1.0)
        start = self.y
        for _ in range(_ROUNDS):
            self.failures = []
            above, left = self._tilted(t, start)
            far = (above - self.y).norm(dim=-1) / aim
            for failed in self.failures:  # a tilt too strong may have no minimiser at all
                far = torch.where((failed.status > Status.MAX_STEPS).to(far.device), 30.0, far)
            far = torch.where(far > 4, far, 1.0)
            if not bool((far > 1).any()):
                break
            t = t / far
            start = torch.where(above.isfinite(), self.y + (above - self.y) / far.unsqueeze(-1), self.y)
        return t, above, left

    def _curvature(self) -> Tensor:
        """How fast the gradient changes along the cotangent, ``(*batch)``."""
        width = torch.finfo(self.y.dtype).eps ** 0.5 * self.extent
        move = (width / torch.where(self.live, self.size, 1.0)).unsqueeze(-1) * self.g
        change = (self._gradient(self.y + move) - self._gradient(self.y - move)).norm(dim=-1) / (2 * width)
        return torch.where(change.isfinite() & (change > 0), change, 1.0)

    def _tilted(self, t: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The minimiser of the tilted objective, and the norm of its gradient there."""
        tilt = t.unsqueeze(-1) * self.g
        levels = tuple((0, *level) for level in self.objective.levels)
        problem = Objective(_tilt(self.objective.value), self.objective.batch_dims, levels)
        y, certificate = self.solve(problem, start, (tilt, *self.point.inputs))
        certificate.what = "tilted argmin"
        self.steps = self.steps + certificate.steps
        if bool(certificate.failed.any()):
            self.failures.append(certificate)
        return y.detach(), certificate.stationarity.to(y.device)

    def _gradient(self, y: Tensor) -> Tensor:
        return self.objective.residual(y, *self.point.inputs).detach()

    def _difference(self, above: Tensor, below: Tensor, weight: Tensor) -> Tensors:
        """The weighted difference of the gradients in the wanted inputs at two points, summed over the problems."""
        weight = torch.where(self.live, weight, 0.0)

        def function(*chosen: Tensor) -> Tensor:
            inputs = self.point.with_inputs(self.wanted, chosen)
            return self.objective.value(above, *inputs) - self.objective.value(below, *inputs)

        return calculus.vjp(function, *(self.point.inputs[place] for place in self.wanted))[1](weight)

    def _error(self, t: Tensor, left: Tensor, bend: Tensor, change: list[Tensor], grads: Tensors) -> Tensor:
        """The estimated relative error ``(*batch)``, zero where the cotangent is."""
        pull = torch.where(self.live, t * self.size, 1.0)
        batch = self.y.shape[:-1]
        moved, whole = (
            sum((_squares(part, batch) for part in parts), torch.zeros_like(t)) for parts in (change, grads)
        )
        path = (moved / torch.where(whole > 0, whole, 1.0)).sqrt()
        error = (left + bend.norm(dim=-1)) / pull + path
        return torch.where(self.live, error, 0.0)


def _tilt(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``value(y, *inputs) + tilt . y`` as a function of ``(y, tilt, *inputs)``."""
    return lambda y, tilt, *inputs: value(y, *inputs) + (tilt * y).sum(-1)


def _squares(part: Tensor, batch: torch.Size) -> Tensor:
    """The squared norm of a gradient, of each problem as far as its shape begins with the batch's."""
    common = 0
    while common < min(part.ndim, len(batch)) and part.shape[common] == batch[common]:
        common += 1
    squares = part.square().unsqueeze(-1).flatten(common).sum(-1)
    return squares.reshape(squares.shape + (1,) * (len(batch) - common))
