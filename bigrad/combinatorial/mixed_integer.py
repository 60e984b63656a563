"""Mixed-integer linear programs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import Infeasible, InputError, MissingPackage, NotConverged, SolveError, Unbounded
from .oracle import Oracle

ROUNDING = 1e-6  # how far a constraint may be off, over its size
SIZE = 1000.0  # of the largest cost that HiGHS sees
LEAST_GAP = 1e-6  # HiGHS stops there, whatever relative gap it is asked for
OPTIMAL, LIMIT, INFEASIBLE, UNBOUNDED, OTHER = range(5)


class MixedInteger(Oracle):
    r"""The best point of a mixed-integer linear program, by HiGHS.

    :math:`y = \arg\min \langle c, y \rangle`, or :math:`\arg\max`, over :math:`\text{lower} \le A y \le \text{upper}`
    within bounds, with the entries named by ``integrality`` whole. Problems are solved one after another in double
    precision. Integers are returned whole, and the constraints are checked again with them.

    Args:
        A: the constraints ``(m, n)``.
        lower, upper: one number for each constraint ``(m,)`` or one for all; ``None`` is no bound.
        integrality: whether each entry is an integer ``(n,)``, or one answer for all.
        bounds: the least and the greatest value of each entry ``(n,)``, or of all.
        maximise: whether the costs are profits.
        gap: the proven gap that is wanted, relative to the optimum; 1e-9 of the largest cost is always allowed.
        seconds: the most that one problem may take; ``None`` is no limit.

    Raises:
        MissingPackage: SciPy is not installed.

    Source: Parallelizing the Dual Revised Simplex Method (Huangfu, Hall, 2018).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import MixedInteger
        >>> oracle = MixedInteger([[3.0, 4.0, 5.0], [1.0, 2.0, 3.0]], upper=[8.0, 4.0], maximise=True)
        >>> oracle(torch.tensor([3.0, 4.0, 6.0]))
        tensor([1., 0., 1.])
    """

    def __init__(
        self,
        A: Any,
        lower: Any = None,
        upper: Any = None,
        *,
        integrality: Any = True,
        bounds: tuple[Any, Any] = (0.0, 1.0),
        maximise: bool = False,
        gap: float = 1e-9,
        seconds: float | None = None,
    ) -> None:
        self.A = torch.as_tensor(A).detach().cpu().double()
        if self.A.ndim != 2 or not bool(self.A.isfinite().all()):
            raise InputError(f"MixedInteger: A has shape {tuple(self.A.shape)}; wanted finite numbers (m, n)")
        rows, entries = self.A.shape
        self.lower = _vector("lower", -torch.inf if lower is None else lower, rows)
        self.upper = _vector("upper", torch.inf if upper is None else upper, rows)
        self.least, self.greatest = (_vector("bounds", bound, entries) for bound in bounds)
        self.integrality = _vector("integrality", integrality, entries) != 0
        if not gap >= 0 or (seconds is not None and not seconds > 0):
            raise InputError(f"MixedInteger: gap {gap} and seconds {seconds}; wanted a gap >= 0 and a time > 0")
        self.maximise, self.gap, self.seconds = maximise, gap, seconds

    def __repr__(self) -> str:
        rows, entries = self.A.shape
        return (
            f"MixedInteger({entries} entries, {int(self.integrality.sum())} of them integers, {rows} constraints, "
            f"maximise={self.maximise}, gap={self.gap}, seconds={self.seconds})"
        )

    def check(self, cost: Tensor) -> None:
        """Raise :class:`InputError` where there is not one cost for each entry."""
        self.check_count(cost, self.A.shape[1], "column of A")

    def solve(self, cost: Tensor) -> Tensor:
        """The best points ``(B, n)`` for costs ``(B, n)``.

        Raises:
            Infeasible: no point satisfies the constraints.
            Unbounded: the objective has no bound on them.
            NotConverged: the time is up; the message names the gap found and the gap wanted.
            SolveError: HiGHS has given up, or its point violates a constraint.
        """
        costs = cost.cpu().double()
        points = [self._solve(one, f"MixedInteger (problem {k} of {len(cost)})") for k, one in enumerate(costs)]
        return torch.stack(points).to(cost)

    def _solve(self, cost: Tensor, what: str) -> Tensor:
        """One point ``(n,)``."""
        largest = cost.abs().amax(0) if cost.any() else cost.new_ones(())
        result = self._milp(cost / largest * (-SIZE if self.maximise else SIZE))
        if result.status == OTHER and result.x is None:
            # "Unbounded or infeasible", says HiGHS: without a cost it is one of them.
            result.status = UNBOUNDED if self._milp(torch.zeros_like(cost)).status == OPTIMAL else INFEASIBLE
        if result.status == INFEASIBLE:
            raise Infeasible(f"{what}: no point satisfies the constraints; loosen lower, upper or the bounds")
        if result.status == UNBOUNDED:
            raise Unbounded(f"{what}: the objective has no bound on the constraints; add bounds, or check its sign")
        if result.status == LIMIT and result.x is None:
            raise NotConverged(
                f"{what}: no point was found in {self.seconds} s, wanted a gap of {self.gap:.3g}; allow more seconds"
            )
        if result.x is None:
            raise SolveError(f"{what}: HiGHS ended without a point: {result.message}")
        linear = result.status == OPTIMAL and result.mip_gap is None  # nothing to branch on, and no gap
        gap, bound = (torch.inf, -torch.inf) if result.mip_gap is None else (result.mip_gap, result.mip_dual_bound)
        if not (linear or gap <= self.gap or result.fun - bound <= LEAST_GAP):  # a gap may be NaN
            raise NotConverged(
                f"{what}: HiGHS ended with a gap of {gap:.3g}, wanted {self.gap:.3g} ({result.message}); allow more "
                "seconds, or a larger gap"
            )
        return self._whole(torch.from_numpy(result.x), what)

    def _milp(self, cost: Tensor) -> Any:
        """What HiGHS answers to a minimisation."""
        try:
            from scipy.optimize import Bounds, LinearConstraint, milp
        except ImportError as error:
            raise MissingPackage("scipy", "combinatorial", "MixedInteger") from error

        options = {"mip_rel_gap": self.gap} | ({} if self.seconds is None else {"time_limit": self.seconds})
        return milp(
            cost.numpy(),
            integrality=self.integrality.numpy().astype(int),
            bounds=Bounds(self.least.numpy(), self.greatest.numpy()),
            constraints=LinearConstraint(self.A.numpy(), self.lower.numpy(), self.upper.numpy()),
            options=options,
        )

    def _whole(self, y: Tensor, what: str) -> Tensor:
        """The point with its integers whole, if the constraints still hold."""
        y = torch.where(self.integrality, y.round(), y)
        found, size = self.A @ y, 1 + self.A.abs() @ y.abs()
        off = torch.maximum(self.lower - found, found - self.upper) / size
        if bool((off > ROUNDING).any()):
            raise SolveError(
                f"{what}: with whole integers a constraint is violated by {float(off.max()):.3g} of its size, wanted "
                f"{ROUNDING}; large coefficients do that: make them as small as the problem allows"
            )
        return y


def _vector(name: str, numbers: Any, count: int) -> Tensor:
    """One number for each of ``count``."""
    found = torch.as_tensor(numbers).detach().cpu().double()
    if found.shape not in ((), (count,)) or bool(found.isnan().any()):
        raise InputError(f"MixedInteger: {name} has shape {tuple(found.shape)}; wanted one number, or ({count},)")
    return found.expand(count)
