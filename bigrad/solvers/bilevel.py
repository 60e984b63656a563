"""The function door of the bilevel layer, and the reading of its two levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import calculus
from ..certificate import OnFailure
from ..constraints import Constraints
from ..equation import Problem
from ..errors import InputError
from ..gradients import GradientRule, Implicit, WarmStart
from ..tree import Structure, tensors_of, tree_map
from .coupling import COUPLED, coupled
from .leader_descent import Descent
from .reading import Init, Reading
from .solver import Solver
from .stackelberg import Stackelberg
from .two_level import Sizes, TwoLevel

_PARTS = ("leader", "follower", "follower_equal", "follower_below", "leader_equal", "leader_below")


@calculus.eager
def bilevel(
    leader: Callable[..., Tensor],
    follower: Callable[..., Tensor],
    init: Init,
    *inputs: Any,
    leader_constraints: Constraints | None = None,
    follower_constraints: Constraints | None = None,
    solver: Solver | Callable[..., Any] | None = None,
    gradient: GradientRule | None = None,
    on_failure: OnFailure = "raise",
    warm_start: WarmStart | None = None,
) -> Any:
    r"""The two-level program :math:`\min_x f(x, y, z)` with :math:`y \in \arg\min_y g(y, x, z)`.

    Both answers are differentiable in everything that either level depends on, through the one symmetric system of
    their stationary point; each level alone would give another, wrong derivative.

    Args:
        leader: ``leader(x, y, *inputs)``, one number per independent program: its shape is the batch shape.
        follower: ``follower(y, x, *inputs)``, of the same shape, strictly convex in ``y`` near the answer.
        init: ``(x0, y0)``, where the search starts and what shapes ``x`` and ``y`` have, or a callable of the inputs.
        inputs: what the levels depend on: tensors, nested tensors or anything else.
        leader_constraints: what ``x`` has to respect.
        follower_constraints: what ``y`` has to respect.
        solver: how to solve; default ``solvers.Stackelberg()``. A function ``(init, *inputs) -> (x, y)`` of yours
            serves a program without constraints: those need multipliers that it does not return.
        gradient: how to differentiate; default ``gradients.Implicit()``.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"`` when a solve fails.
        warm_start: where this call starts, and where it leaves its answer for the next one.

    Returns:
        ``(x, y)``, nested as in ``init``.

    Raises:
        InputError: an argument has the wrong shape, dtype or device, or couples the programs of a batch.
        SolveError: the forward or the backward solve failed and ``on_failure="raise"``.

    Source: Implicit Bilevel Optimization: Differentiating through Bilevel Optimization Programming (Alesiani, 2023).

    Example:
        >>> import torch, bigrad
        >>> def duopoly(own, other, cost):
        ...     return -((100 - own - other - cost) * own).sum()
        >>> costs = torch.tensor([5.0, 2.0], dtype=torch.float64, requires_grad=True)
        >>> leader = lambda x, y, costs: duopoly(x, y, costs[0])
        >>> follower = lambda y, x, costs: duopoly(y, x, costs[1])
        >>> start = (torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
        >>> x, y = bigrad.bilevel(leader, follower, start, costs)
        >>> round(x.item(), 9), round(y.item(), 9)
        (46.0, 26.0)
    """
    reading = BilevelReading(Levels(leader, follower, leader_constraints, follower_constraints), init, inputs)
    rule = Implicit() if gradient is None else gradient
    return reading.solve(Stackelberg() if solver is None else solver, rule, on_failure, warm_start)[0]


class Levels(nn.Module):
    """Both levels and their constraints as one function, so that one reading finds what they depend on."""

    def __init__(
        self,
        leader: Callable[..., Tensor],
        follower: Callable[..., Tensor],
        leader_constraints: Constraints | None,
        follower_constraints: Constraints | None,
    ) -> None:
        super().__init__()
        for name, level in (("leader", leader), ("follower", follower)):
            if not callable(level):
                raise InputError(f"{name} is {type(level).__name__}; wanted a callable such as leader(x, y, *inputs)")
        for name, given in (("leader", leader_constraints), ("follower", follower_constraints)):
            if not isinstance(given, Constraints | None):
                raise InputError(f"{name}_constraints is {type(given).__name__}; wanted bigrad.Constraints(...)")
        self.leader, self.follower = leader, follower
        self.leader_constraints = leader_constraints or Constraints()
        self.follower_constraints = follower_constraints or Constraints()
        for name, part in (
            ("leader_equality", self.leader_constraints.equality),
            ("leader_inequality", self.leader_constraints.inequality),
            ("follower_equality", self.follower_constraints.equality),
            ("follower_inequality", self.follower_constraints.inequality),
        ):
            if isinstance(part, nn.Module):
                self.add_module(name, part)  # its parameters are the program's

    def extra_repr(self) -> str:
        """What repr shows of the levels that are no modules."""
        shown = {
            name: getattr(self, name)
            for name in ("leader", "follower", "leader_constraints", "follower_constraints")
            if not isinstance(getattr(self, name), nn.Module) and getattr(self, name) != Constraints()
        }
        return ", ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in shown.items())

    def forward(self, point: tuple[str, Any, Any], *inputs: Any) -> Any:
        """One part of the program at ``point = (part, x, y)``."""
        part, x, y = point
        if part == "leader":
            return self.leader(x, y, *inputs)
        if part == "follower":
            return self.follower(y, x, *inputs)
        constraints = self.leader_constraints if part.startswith("leader") else self.follower_constraints
        own, other = (x, y) if part.startswith("leader") else (y, x)
        side = constraints.equal if part.endswith("equal") else constraints.at_most_zero
        return side(own, other, *inputs)


class BilevelReading(Reading):
    """Two levels: the shape of the leader's value is the batch shape."""

    name = "leader or follower"
    what = "bilevel program"

    def problem(self) -> TwoLevel:
        """The stationary point of both levels in flat coordinates."""
        return TwoLevel(self.level, self.sizes, self.batch_dims)

    def level(self, part: str, x: Tensor, y: Tensor, *tensors: Tensor) -> Tensor:
        """One part of the program: an objective ``(*batch)`` or constraints ``(*batch, m)``."""
        result = self._evaluate((part, self.of_x.unravel(x), self.of_y.unravel(y)), tensors)
        if part in ("leader", "follower"):
            return self._check_result(result)
        batch = x.shape[: self.batch_dims]
        rows = [self._check_result(row).expand(*batch, *row.shape[-1:]) for row in result]
        return torch.cat(rows, -1) if rows else x.new_zeros(*batch, 0)

    def flat(self, y: Tensor, *tensors: Tensor) -> Tensor:
        """Every part of the program side by side: what it depends on is what they depend on."""
        x, y = y.split([self.sizes.x, self.sizes.y, sum(self.sizes[2:])], -1)[:2]
        values = [self.level(part, x, y, *tensors) for part in _PARTS]
        return torch.cat([v if v.ndim > self.batch_dims else v.unsqueeze(-1) for v in values], -1)

    def _flat(self, result: Any) -> Tensor:
        return self._check_result(result)

    def _shape(self, tree: Any) -> None:
        if not (isinstance(tree, (tuple, list)) and len(tree) == 2):
            raise InputError("init must be a pair (x0, y0) of the leader's and the follower's start")
        batch = self._flat(self._try(("leader", *tree))).shape
        self.batch_dims = len(batch)
        fits = [all(leaf.shape[: len(batch)] == batch for leaf in tensors_of(own, "init")) for own in tree]
        expanded = [tree_map(lambda leaf: leaf.expand((*batch, *leaf.shape)), own) for own in tree]
        chosen = [own if fit else other for own, other, fit in zip(tree, expanded, fits, strict=True)]
        ambiguous = bool(batch) and any(fits)  # a start without a batch may happen to begin with the batch's size
        try:
            complaint = self._complaint(chosen, batch, probe=ambiguous)
        except RuntimeError:
            if not (ambiguous and self._takes(expanded, batch)):
                raise
            return
        if complaint and not (ambiguous and self._takes(expanded, batch)):
            raise InputError(complaint)

    def _takes(self, start: list[Any], batch: torch.Size) -> bool:
        """Whether the levels see that many independent programs in this start, which is then the start."""
        try:
            return self._complaint(start, batch, probe=True) is None
        except RuntimeError:
            return False

    def _complaint(self, start: list[Any], batch: torch.Size, *, probe: bool) -> str | None:
        """Adopt a start in its full shape; what speaks against it, coupled programs included where to ``probe``."""
        x, y = start
        self.of_x, self.of_y = Structure.of(x, len(batch)), Structure.of(y, len(batch))
        x, y = self.of_x.ravel(x), self.of_y.ravel(y)
        if not (x.shape[-1] and y.shape[-1]):
            return f"init has {x.shape[-1]} and {y.shape[-1]} numbers for x and y; wanted at least one each"
        shapes = {}
        for part in _PARTS:
            with torch.no_grad():
                shapes[part] = self.level(part, x, y, *self._tensors()).shape
        for part in ("leader", "follower"):
            if shapes[part] != batch:
                return (
                    f"the {part}'s value has shape {tuple(shapes[part])}, the leader's has {tuple(batch)}: return one "
                    "number per independent program from both"
                )
        below, equal = shapes["follower_below"][-1], shapes["follower_equal"][-1]
        self.sizes = Sizes(
            x.shape[-1], y.shape[-1], equal, below, y.shape[-1] + equal + below,
            shapes["leader_equal"][-1], shapes["leader_below"][-1],
        )  # fmt: skip
        self.start = torch.cat([x, y, x.new_zeros(*batch, sum(self.sizes[2:]))], -1)
        if probe and calculus.transforming():
            self.probe = True  # it cannot be tried here: the solve must at least not take the wrong one
        elif probe and coupled(self.problem(), self.start, tuple(tensor.detach() for tensor in self._tensors())):
            return COUPLED.format(f"of shape {tuple(batch)} ")
        return None

    def _answer(self, y: Tensor) -> tuple[Any, Any]:
        parts = self.problem().split(y)
        return self.of_x.unravel(parts.x), self.of_y.unravel(parts.y)

    def _begin(self, tree: Any) -> Tensor:
        x, y = tree
        x, y = self.of_x.ravel(x), self.of_y.ravel(y)
        return torch.cat([x, y, x.new_zeros(*x.shape[:-1], sum(self.sizes[2:]))], -1)

    def completed(self, problem: Problem, y: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """With the multipliers of the follower's conditions; those of constraints stay zero."""
        assert isinstance(problem, TwoLevel)
        return Descent(problem, inputs, y).multipliers()
