"""The quadratic program layer."""

from __future__ import annotations

from torch import Tensor, nn

from bigrad.certificate import Certificate, OnFailure, check_on_failure
from bigrad.gradients import GradientRule
from bigrad.solvers import InteriorPoint, solve_quadratic_program


class QuadraticProgram(nn.Module):
    r"""The solution of a quadratic program, differentiable in every number of it.

    .. math::
        y^* = \arg\min_y \tfrac12 y^\top Q y + q^\top y \quad\text{subject to}\quad A y = b,\; G y \le h

    Every problem of a batch is solved to rounding error: an interior point method ends as soon as the set of active
    constraints is found, solved exactly and verified. The derivatives are those of the KKT conditions on that set, of
    any order, in reverse and forward mode, under ``torch.func`` and under ``torch.compile(fullgraph=True)``; their
    linear system is factorised once, in the forward pass.

    Only the symmetric part of ``Q`` counts, and the gradient in ``Q`` is symmetric. ``Q`` may be singular, or zero,
    where the solution is unique all the same; at a vertex of a linear program the derivative in ``Q``, ``q`` is zero.

    The derivative exists where every constraint has a positive slack or a positive multiplier, and the gradients of
    the active ones are independent. How far from that a problem is, ``certificate.margin`` tells: the least, over the
    inequalities, of max(multiplier, slack), the multiplier relative to the size of the gradient's terms and the slack
    relative to that of the constraint's, both in equilibrated units. Where it is zero, the derivative is one of
    several: a constraint with slack and multiplier zero is left out, and of dependent active constraints each bears
    the share that gives the multipliers' derivative the least norm; a derivative that does not exist even so, such as
    a second one there, ends with ``Singular``.

    Args:
        solver: ``solvers.InteriorPoint()`` with other tolerances or steps.
        gradient: how to differentiate; default ``gradients.Implicit(linear.Direct())``.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"`` when a solve fails. Under the last two, a problem that has
            no solution is answered with NaN.

    Attributes:
        certificate: how the last eager call ended; ``None`` after ``torch.func`` and ``torch.compile``.

    Raises:
        InputError: an argument has the wrong shape, dtype or device, or one of a pair is missing.
        SolveError: ``Infeasible`` where no point satisfies the constraints, ``Unbounded`` where the objective falls
            without end, ``Indefinite`` where ``Q`` has negative curvature along ``A y = b``, ``Singular`` where the
            solution is not unique, or only because of constraints whose multiplier is zero, ``Diverged`` at infinite
            or NaN numbers, ``NotConverged`` or ``Stalled`` else.

    Source: OptNet: Differentiable Optimization as a Layer in Neural Networks (Amos, Kolter, 2017).

    Example:
        >>> import torch
        >>> from bigrad.layers import QuadraticProgram
        >>> point = torch.tensor([0.75, 0.75, -2.0], requires_grad=True)
        >>> ones, zeros = torch.ones(1, 3), torch.zeros(3)
        >>> y = QuadraticProgram()(torch.eye(3), -point, ones, torch.ones(1), -torch.eye(3), zeros)
        >>> y.detach()[:2]  # of the nearest point of the simplex, whose last entry is zero
        tensor([0.5000, 0.5000])
        >>> torch.autograd.grad(y[0], point)[0][:2]
        tensor([ 0.5000, -0.5000])
    """

    certificate: Certificate | None

    def __init__(
        self,
        *,
        solver: InteriorPoint | None = None,
        gradient: GradientRule | None = None,
        on_failure: OnFailure = "raise",
    ) -> None:
        super().__init__()
        self.solver = InteriorPoint() if solver is None else solver
        self.gradient = gradient
        self.on_failure = check_on_failure(on_failure)
        self.certificate = None

    def forward(
        self,
        Q: Tensor,
        q: Tensor,
        A: Tensor | None = None,
        b: Tensor | None = None,
        G: Tensor | None = None,
        h: Tensor | None = None,
    ) -> Tensor:
        """Solve a batch of programs; each argument may lack batch dimensions, and is then shared.

        Args:
            Q: ``(*batch, n, n)``.
            q: ``(*batch, n)``.
            A, b: equations ``(*batch, p, n)`` and ``(*batch, p)``, or neither.
            G, h: inequalities ``(*batch, m, n)`` and ``(*batch, m)``, or neither.

        Returns:
            ``y`` ``(*batch, n)`` in the dtype given: float32 or float64; under autocast, half precision is raised to
            float32.
        """
        y, self.certificate = solve_quadratic_program(
            *(Q, q, A, b, G, h), solver=self.solver, gradient=self.gradient, on_failure=self.on_failure
        )
        return y

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        return f"solver={self.solver}, gradient={self.gradient}, on_failure={self.on_failure!r}"
