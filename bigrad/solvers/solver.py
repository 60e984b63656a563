"""What a solver is: it finds ``y`` from a problem and a start. And what every solver needs to know about its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate, Status
from ..equation import Objective, Problem
from ..errors import InputError

Gradient = Callable[[Tensor], Tensor]


class Solver(ABC):
    """Finds the root of a problem, each problem of a batch with its own stopping test."""

    @abstractmethod
    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Solve from ``start`` ``(*batch, n)``; never raises on a failed solve: the certificate tells."""


def check_stopping(name: str, rtol: float | None, atol: float | None, max_steps: int) -> None:
    """Raise :class:`InputError` where a stopping rule makes no sense."""
    for word, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not value >= 0:
            raise InputError(f"{name}: {word} is {value}; it must be >= 0")
    if max_steps < 0:
        raise InputError(f"{name}: max_steps is {max_steps}; it must be >= 0")


def tolerance(rtol: float | None, atol: float | None, first: Tensor) -> Tensor:
    """The residual norm to reach, ``atol + rtol * first``; defaults 1e-10 in float64 and 1e-5 below.

    Args:
        rtol: relative part.
        atol: absolute part.
        first: residual norms at the start ``(*batch)``.
    """
    default = 1e-10 if first.dtype == torch.float64 else 1e-5
    absolute, relative = (default if given is None else given for given in (atol, rtol))
    return absolute + relative * first


def residual_of(problem: Problem, inputs: tuple[Tensor, ...]) -> Gradient:
    """``y -> F(y)`` outside any differentiation."""

    def residual(y: Tensor) -> Tensor:
        if isinstance(problem, Objective):
            return calculus.value_and_gradient(problem.value, y, *inputs)[1]
        with torch.no_grad():
            return problem.residual(y, *inputs).detach()

    return residual


def at_rounding_floor(gradient: Gradient, y: Tensor, g: Tensor, extent: Tensor) -> Tensor:
    """Whether ``g = gradient(y)`` is as close to zero as the dtype lets it be, bool ``(*batch)``.

    The gradient is measured again at a point a few roundings away and at one a square root of that away. The first
    difference is the noise. A kink changes the gradient as much at the small distance as at the large one: that is
    not noise, and no floor.

    Args:
        gradient: the residual as a function of ``y`` ``(*batch, n)``.
        y: where the search stalled.
        g: the residual there.
        extent: the size of the region searched, ``(*batch, n)``.
    """
    eps = torch.finfo(y.dtype).eps
    scale = torch.maximum(y.abs(), extent) * _signs(y)
    near = (gradient(y + 4 * eps * scale) - g).norm(dim=-1)
    far = (gradient(y + eps**0.5 * scale) - g).norm(dim=-1)
    norm = g.norm(dim=-1)
    smooth_noise = torch.where(far >= 30 * near, near, 0.0)
    floor: Tensor = norm <= 30 * torch.maximum(smooth_noise, far * eps**0.5)
    return floor


def note_jumps(problem: Problem, y: Tensor, inputs: tuple[Tensor, ...], certificate: Certificate) -> None:
    """Mark as ``STALLED`` what converged to a gradient of zero where the gradient jumps, by how much it does.

    At a kink torch's derivative is one of several: that of ``|y|`` is zero at zero. A search that begins or steps
    there is at rest, and the implicit function theorem does not hold.
    """
    rest = (certificate.stationarity == 0) & ~certificate.failed
    if not (problem.symmetric and bool(rest.any())):  # then the residual is a gradient
        return
    gradient, eps = residual_of(problem, inputs), torch.finfo(y.dtype).eps
    scale = y.abs().clamp_min(1.0) * _signs(y)
    near, far = (
        (gradient(y + width * scale) - gradient(y - width * scale)).norm(dim=-1).cpu() for width in (4 * eps, eps**0.5)
    )
    jumps = rest & (near > far / 3)
    certificate.status = torch.where(jumps, int(Status.STALLED), certificate.status)
    certificate.stationarity = torch.where(jumps, near, certificate.stationarity)


def _signs(y: Tensor) -> Tensor:
    """A fixed pattern of signs ``(n,)`` without a period: no random state is touched."""
    place = torch.arange(1, y.shape[-1] + 1, device=y.device, dtype=torch.float64)
    return torch.where((place * 0.6180339887498949) % 1 < 0.5, -1.0, 1.0).to(y.dtype)


def outcome(
    done: Tensor, finite: Tensor, floor: Tensor, exhausted: Tensor, norm: Tensor, wanted: Tensor, steps: Tensor
) -> Certificate:
    """The certificate of a solve, from what is true of each problem of the batch."""
    status = torch.where(exhausted, int(Status.MAX_STEPS), int(Status.STALLED))
    status = torch.where(floor, int(Status.ROUNDING_FLOOR), status)
    status = torch.where(done, int(Status.CONVERGED), status)
    status = torch.where(finite, status, int(Status.NON_FINITE))  # an infinite tolerance is met by anything
    return Certificate("solve", status, norm, wanted, steps)
