"""How a solve ended: the status, the numbers behind it, and what to do where it failed."""

from __future__ import annotations

import enum
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .errors import (
    Diverged,
    Indefinite,
    Infeasible,
    InputError,
    NotConverged,
    Singular,
    SolveError,
    SolveWarning,
    Stalled,
    Unbounded,
)

OnFailure = Literal["raise", "warn", "ignore"]


class Status(enum.IntEnum):
    """How one problem of a batch ended. From ``MAX_STEPS`` on the solve has failed."""

    CONVERGED = 0
    ROUNDING_FLOOR = 1
    MAX_STEPS = 2
    STALLED = 3
    NON_FINITE = 4
    INDEFINITE = 5
    SINGULAR = 6
    INFEASIBLE = 7
    UNBOUNDED = 8

    @property
    def failed(self) -> bool:
        """Whether the answer must not be trusted."""
        return self >= Status.MAX_STEPS


_FAILURES: dict[Status, tuple[type[SolveError], str, str]] = {
    Status.MAX_STEPS: (NotConverged, "used all its steps", "raise max_steps, loosen rtol/atol, or start closer"),
    Status.STALLED: (
        Stalled,
        "can make no further progress",
        "check that the problem is differentiable and bounded near the solution, rescale it, or loosen rtol/atol",
    ),
    Status.NON_FINITE: (
        Diverged,
        "met an infinite or NaN number",
        "check the inputs for NaN, start inside the domain, or take a smaller step_size",
    ),
    Status.INDEFINITE: (
        Indefinite,
        "met a direction of zero or negative curvature",
        "the point found is no strict minimum: start elsewhere, add a ridge to the objective, or set damping > 0",
    ),
    Status.SINGULAR: (
        Singular,
        "has no unique solution",
        "the answer is not unique: add a ridge to the objective or set damping > 0",
    ),
    Status.INFEASIBLE: (
        Infeasible,
        "has no feasible point",
        "two constraints contradict each other at these inputs: loosen one, or give it a slack variable with a cost",
    ),
    Status.UNBOUNDED: (
        Unbounded,
        "is unbounded",
        "the objective improves without end on the constraints: bound the variables, or add a ridge to the objective",
    ),
}


def check_on_failure(on_failure: str) -> OnFailure:
    """Return ``on_failure`` if it is one of the three modes, else raise :class:`InputError`."""
    if on_failure not in ("raise", "warn", "ignore"):
        raise InputError(f'on_failure is {on_failure!r}; it must be "raise", "warn" or "ignore"')
    return on_failure  # type: ignore[return-value]  # narrowed by the test above


@dataclass(repr=False)
class Certificate:
    """What one solve can prove about itself: detached CPU tensors of the batch shape.

    Attributes:
        what: the solve's name in messages ("argmin", "adjoint").
        status: int64 codes of :class:`Status`.
        stationarity: norm of the residual at the answer: the gradient for an argmin, ``A u - b`` for a linear solve.
            Where a gradient of zero belongs to a kink, how far it jumps there.
        tolerance: the norm that was asked for.
        steps: iterations used.
        feasibility: largest violation of a constraint, ``None`` where there are none.
        margin: the least of max(multiplier, slack) over the inequality constraints, ``None`` where there are none; near
            zero a constraint is weakly active, and the derivative is one of several. Where a leader pins its follower
            to a constraint, the lesser of what either side of it would cost.
        adjoint: the certificate of the backward pass's linear solve, once it has run.
        ritz: diagonals and off-diagonals ``(steps, *batch)`` of the Lanczos matrix that conjugate gradients leave.
        triangle: diagonals ``(steps, *batch)``, the main one and those above it, of the triangular matrix that MINRES
            or GMRES leave: its singular values lie among those of the system.
        factor: a factor of the linearised problem at the answer, until the gradient rule takes it over.
    """

    what: str
    status: Tensor
    stationarity: Tensor
    tolerance: Tensor
    steps: Tensor
    feasibility: Tensor | None = None
    margin: Tensor | None = None
    adjoint: Certificate | None = None
    ritz: tuple[Tensor, Tensor] | None = None
    triangle: tuple[Tensor, ...] | None = None
    factor: Any = None

    def __setattr__(self, name: str, value: Any) -> None:
        """A number is kept as a CPU tensor, whenever it comes."""
        object.__setattr__(self, name, value.detach().cpu() if isinstance(value, Tensor) else value)

    def __repr__(self) -> str:
        ends = ", ".join(
            status.name if self.status.ndim == 0 else f"{count} {status.name}"
            for status in Status
            if (count := int((self.status == status).sum()))
        )
        numbers = ""
        if self.status.numel():
            worst = self.stationarity.reshape(-1).argmax()
            found, wanted = (float(part.reshape(-1)[worst]) for part in (self.stationarity, self.tolerance))
            numbers = f", residual {found:.2g} (wanted {wanted:.2g}), {int(self.steps.max())} steps"
        adjoint = "" if self.adjoint is None else f", adjoint={self.adjoint!r}"
        return f"Certificate({self.what}: {ends or 'empty'}{numbers}{adjoint})"

    @property
    def failed(self) -> Tensor:
        """Which problems of the batch must not be trusted, bool of the batch shape."""
        return self.status >= Status.MAX_STEPS

    @property
    def adjoint_residual(self) -> Tensor | None:
        """The adjoint system's residual norm, ``None`` until backward has run."""
        return None if self.adjoint is None else self.adjoint.stationarity

    @property
    def condition(self) -> Tensor | None:
        """Estimate (from below) of the linearised system's condition number, ``None`` until it is known.

        Computed when asked for, from the matrix that the solver's Krylov space has left. Under a preconditioner it is
        that of the preconditioned system.
        """
        diagonals = self.triangle if self.ritz is None else self.ritz
        if diagonals is None:
            return None if self.adjoint is None else self.adjoint.condition
        size = diagonals[0].shape[0]
        if size == 0:
            return torch.ones_like(self.stationarity)
        upper = [
            torch.diag_embed(part[: size - k].movedim(0, -1).double(), offset=k)
            for k, part in enumerate(diagonals[:size])
        ]
        above: Tensor = sum(upper[1:], torch.zeros_like(upper[0]))
        matrix = upper[0] + above if self.ritz is None else upper[0] + above + above.mT
        # Problems that stopped early are padded with an entry of their own: no extreme is invented.
        values = torch.linalg.svdvals(matrix)
        estimate: Tensor = values[..., 0] / values[..., -1].clamp_min(torch.finfo(torch.float64).tiny)
        return estimate.clamp_min(1.0)

    def message(self) -> str:
        """One sentence on the worst problem: the number found, the number wanted, the remedy."""
        flat = self.status.reshape(-1)
        worst = int(flat.argmax())
        status = Status(int(flat[worst]))
        where = "" if self.status.ndim == 0 else f" (problem {worst} of {flat.numel()})"
        found = float(self.stationarity.reshape(-1)[worst])
        wanted = float(self.tolerance.reshape(-1)[worst])
        numbers = f"residual {found:.3g}, wanted {wanted:.3g}, after {int(self.steps.reshape(-1)[worst])} steps"
        if not status.failed:
            return f"{self.what}{where} ended with {status.name}: {numbers}"
        _, happened, remedy = _FAILURES[status]
        return f"{self.what}{where} {happened}: {numbers}. Remedy: {remedy}."

    def enforce(self, on_failure: OnFailure) -> None:
        """Raise, warn or stay silent about a failed solve.

        Raises:
            SolveError: the subclass of the worst status, under ``"raise"``.
        """
        if on_failure == "ignore" or not bool(self.failed.any()):
            return
        if on_failure == "warn":
            warnings.warn(self.message(), SolveWarning, stacklevel=3)
            return
        kind, _, _ = _FAILURES[Status(int(self.status.max()))]
        raise kind(self.message(), self)
