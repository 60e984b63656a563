"""The cone programs that cvxpylayers makes of a batch: solved, and their cotangents pulled back to their numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..certificate import Certificate, OnFailure, Status
from .cone_program import ConeProgram, Solution
from .cones import Cones

FLOOR = torch.finfo(torch.float64).eps ** 0.5  # relative residual down to which an interior point method always gets
FINEST = 1e-9  # below this Clarabel loses on second-order cones what it gains
AMBIGUOUS = 1e-6  # share of a gradient below which it is rounding error
NO_ANSWER = {"PrimalInfeasible": Status.INFEASIBLE, "DualInfeasible": Status.UNBOUNDED}  # Clarabel's words
NO_ANSWER |= {f"Almost{word}": status for word, status in NO_ANSWER.items()}


@dataclass(frozen=True)
class Answer:
    """How one cone program ended; failed programs may come without a solution."""

    status: Status
    steps: int = 0
    program: ConeProgram | None = None
    solution: Solution | None = None

    @property
    def residual(self) -> float:
        """Relative residual of the optimality conditions."""
        return torch.inf if self.solution is None else self.solution.residual

    @property
    def margin(self) -> float:
        """Distance from the nearest kink."""
        return torch.nan if self.solution is None else self.solution.margin


@dataclass
class Call:
    """What one call of the layer asks for, and what is found.

    Args:
        rtol: the relative residual asked for.
        max_steps: the solver's.
        on_failure: what a failed backward does.
        batch: the batch's shape.
        usable: bool ``(problems,)``, where all values are finite.
        wanted: for each parameter, whether its value requires a gradient.
    """

    rtol: float
    max_steps: int
    on_failure: OnFailure
    batch: torch.Size
    usable: Tensor
    wanted: list[bool]
    answers: list[Answer] = field(default_factory=list)
    certificate: Certificate | None = None

    def certify(self) -> Certificate:
        """The certificate of the solves."""
        columns = {"status": torch.int64, "residual": torch.float64, "steps": torch.int64, "margin": torch.float64}
        status, residual, steps, margin = (
            torch.tensor([getattr(answer, name) for answer in self.answers], dtype=dtype).reshape(self.batch)
            for name, dtype in columns.items()
        )
        tolerance, known = torch.full_like(residual, self.rtol), None if (margin == torch.inf).all() else margin
        self.certificate = Certificate("convex program", status, residual, tolerance, steps, margin=known)
        return self.certificate


class CanonicalForm:
    r""":math:`\min x^\top P x / 2 + q^\top x` with :math:`A x + s = b`, :math:`s \in K`; where its numbers stand.

    Args:
        context: what cvxpylayers knows of the problem: the numbers are linear in the parameters.
        solver: cvxpy's interface to Clarabel.
    """

    def __init__(self, context: Any, solver: Any) -> None:
        self.solver, self.dims = solver, context.cone_dims
        dims = self.dims
        powers = (*((alpha, 1 - alpha) for alpha in dims.p3d), *map(tuple, dims.pnd))
        self.cones = Cones(dims.zero, dims.nonneg, tuple(dims.soc), tuple(dims.psd), dims.exp, powers)
        self.unknowns = context.q.shape[0] - 1
        self.quadratic_places = context.reduced_P.problem_data_index
        self.constraint_places = context.reduced_A.problem_data_index
        self.maps = (context.reduced_P.reduced_mat, context.q.tocsr(), context.reduced_A.reduced_mat)
        self.sizes = _columns(context)

    def solve(self, quadratic: Tensor | None, linear: Tensor, constraint: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Primal and dual answers ``(problems, n)``, ``(problems, m)``, NaN where there are none."""
        for place in range(len(linear)):
            numbers = None if quadratic is None else quadratic[place]
            call.answers.append(self._solve_one(numbers, linear[place], constraint[place], call))
        primal = linear.new_full((len(linear), self.unknowns), torch.nan)
        dual = linear.new_full((len(linear), self.cones.size), torch.nan)
        for place, answer in enumerate(call.answers):
            if answer.solution is not None:
                primal[place], dual[place] = answer.solution.x, answer.solution.z
        return primal, dual

    def _solve_one(self, quadratic: Tensor | None, linear: Tensor, constraint: Tensor, call: Call) -> Answer:
        finite = all(bool(part.isfinite().all()) for part in (quadratic, linear, constraint) if part is not None)
        if not (finite and call.usable[len(call.answers)]):
            return Answer(Status.NON_FINITE)
        P = self._matrix(quadratic, self.quadratic_places, (self.unknowns, self.unknowns))
        augmented = self._matrix(constraint, self.constraint_places, (self.cones.size, self.unknowns + 1))
        A, b, q = -augmented[:, :-1], augmented[:, [-1]].toarray().ravel(), linear[:-1].numpy()
        options = dict.fromkeys(("tol_feas", "tol_gap_abs", "tol_gap_rel"), max(call.rtol, FINEST))
        data = {"P": P, "A": A, "b": b, "c": q, "dims": self.dims}
        found = self.solver.solve_via_data(data, False, False, options | {"max_iter": call.max_steps})
        if (status := NO_ANSWER.get(str(found.status))) is not None:
            return Answer(status, found.iterations)
        x, s, z = (torch.tensor(part, dtype=torch.float64) for part in (found.x, found.s, found.z))
        numbers = (torch.from_numpy(part) for part in (P.toarray(), A.toarray(), q, b))
        program = ConeProgram(self.cones, *numbers)
        solution = program.polished(x, s, z)
        return Answer(_status(solution.residual, call.rtol, str(found.status)), found.iterations, program, solution)

    def _matrix(self, numbers: Tensor | None, places: Any, shape: tuple[int, int]) -> Any:
        """The sparse matrix with these numbers, by columns."""
        sparse = type(self.maps[1])
        if numbers is None or places is None:
            return sparse(shape[::-1]).T
        rows, starts, _ = places
        return sparse((numbers.numpy(), rows, starts), shape=shape[::-1]).T

    def pull_back(self, cotangent: Tensor, call: Call) -> tuple[Tensor | None, Tensor, Tensor]:
        """Gradients with respect to the numbers of ``P``, ``q`` and ``(-A, b)``, for a cotangent ``(problems, n)``."""
        found = [self._pull_back_one(*pair, call.wanted) for pair in zip(cotangent, call.answers, strict=True)]
        gradients, *columns = zip(*found, strict=True)
        status, residual, tolerance = (torch.tensor(column).reshape(call.batch) for column in columns)
        certificate = Certificate("adjoint solve", status, residual, tolerance, torch.ones_like(status))
        assert call.certificate is not None
        call.certificate.adjoint = certificate
        certificate.enforce(call.on_failure)
        quadratic, linear, constraint = (torch.stack(part) for part in zip(*gradients, strict=True))
        return None if self.quadratic_places is None else quadratic, linear, constraint

    def _pull_back_one(
        self, cotangent: Tensor, answer: Answer, wanted: list[bool]
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Status, float, float]:
        size = float(cotangent.norm())
        program, solution = answer.program, answer.solution
        if program is None or solution is None or not size:
            # An answer that is not there may be masked out, and then nothing comes back to it.
            x, z = (cotangent.new_full((length,), size and torch.nan) for length in (self.unknowns, self.cones.size))
            status = answer.status if size else Status.CONVERGED
            return self._numbers(x, z, x, z), status, size, 0.0
        found = program.adjoint(solution, cotangent)
        tolerance = FLOOR * size
        unique = not self._ambiguous(found.free, solution, wanted)
        status = Status.CONVERGED if found.residual <= tolerance and unique else Status.SINGULAR
        if not found.residual.isfinite():
            status = Status.NON_FINITE
        return self._numbers(found.u, found.w, solution.x, solution.z), status, float(found.residual), tolerance

    def _numbers(self, u: Tensor, w: Tensor, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients with respect to the numbers, from adjoint solutions ``(..., n)``, ``(..., m)``."""
        none = u.new_zeros(*u.shape[:-1], 1)
        longer, one = torch.cat([u, none], -1), torch.cat([x, x.new_ones(1)])
        rows, columns = _entries(self.quadratic_places)
        quadratic = -u[..., rows] * x[columns]
        rows, columns = _entries(self.constraint_places)
        constraint = longer[..., columns] * z[rows] + w[..., rows] * one[columns]
        return quadratic, -longer, constraint

    def _ambiguous(self, free: Tensor, at: Solution, wanted: list[bool]) -> bool:
        """Whether a direction that the adjoint system leaves open shows in a gradient that is wanted."""
        if not len(free):
            return False
        asked = torch.cat([torch.full((size,), wanted[place]) for place, size in self.sizes] + [torch.zeros(1).bool()])
        shown = self._of_parameters(self._numbers(free[:, : self.unknowns], free[:, self.unknowns :], at.x, at.z))
        ones = torch.ones(1, self.unknowns + self.cones.size, dtype=free.dtype)
        largest = self._numbers(ones[:, : self.unknowns], ones[:, self.unknowns :], at.x.abs(), at.z.abs())
        bound = self._of_parameters(largest, absolute=True)
        return bool((shown[asked].norm(dim=0) > AMBIGUOUS * bound[asked].norm(dim=0)).any())

    def _of_parameters(self, numbers: tuple[Tensor, ...], absolute: bool = False) -> Tensor:
        """Gradients ``(columns, k)`` with respect to the parameters, from those with respect to the numbers."""
        found = torch.zeros((), dtype=torch.float64)
        for dependence, part in zip(self.maps, numbers, strict=True):
            if dependence is not None and part.numel():
                matrix = abs(dependence) if absolute else dependence
                found = found + torch.from_numpy(matrix.T @ (part.abs() if absolute else part).mT.numpy())
        return found


def _entries(places: Any) -> tuple[Tensor, Tensor]:
    """Row and column of each number."""
    if places is None:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    rows, starts, _ = places
    counts = torch.as_tensor(starts).long().diff()
    return torch.as_tensor(rows).long(), torch.repeat_interleave(torch.arange(len(counts)), counts)


def _columns(context: Any) -> list[tuple[int, int]]:
    """Which parameter, and how many columns it has, in the order of the columns of the maps."""
    triangles = context.param_triu_indices
    sizes = [
        parameter.size if triangles[place] is None else len(triangles[place][0])
        for place, parameter in enumerate(context.parameters)
    ]
    order = sorted(range(len(sizes)), key=lambda place: int(context.user_order_to_col_order[place]))
    return [(place, sizes[place]) for place in order]


def _status(residual: float, rtol: float, word: str) -> Status:
    if residual <= rtol:
        return Status.CONVERGED
    if word == "MaxIterations":
        return Status.MAX_STEPS
    return Status.ROUNDING_FLOOR if residual <= FLOOR else Status.STALLED
