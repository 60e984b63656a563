"""The function door of the argmin layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import calculus
from ..certificate import OnFailure
from ..equation import Objective
from ..errors import InputError
from ..gradients import GradientRule, Implicit, WarmStart
from ..tree import tensors_of, tree_map
from .coupling import COUPLED, coupled
from .lbfgs import LBFGS
from .reading import Init, Reading
from .solver import Solver


@calculus.eager
def argmin(
    objective: Callable[..., Tensor],
    init: Init,
    *inputs: Any,
    solver: Solver | Callable[..., Any] | None = None,
    gradient: GradientRule | None = None,
    on_failure: OnFailure = "raise",
    warm_start: WarmStart | None = None,
) -> Any:
    r"""The minimiser :math:`y^*(x) = \arg\min_y f(y, x)`, differentiable in everything ``f`` depends on.

    Args:
        objective: ``objective(y, *inputs)``, one number per independent problem: its shape is the batch shape.
        init: where the search starts and what shape ``y`` has: nested tensors ``(*batch, ...)``, without the batch
            (they are expanded to it), or a callable of the inputs.
        inputs: what the objective depends on: tensors, nested tensors or anything else.
        solver: how to minimise: one of ``bigrad.solvers``, or a function ``(init, *inputs) -> y`` of yours; default
            ``solvers.LBFGS()``.
        gradient: how to differentiate; default ``gradients.Implicit()``.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"`` when a solve fails.
        warm_start: where this call starts, and where it leaves its answer for the next one.

    Returns:
        ``y`` with the nesting of ``init``.

    Raises:
        InputError: the objective or its arguments have the wrong shape, dtype or device, or couple their problems.
        SolveError: the forward or the backward solve failed and ``on_failure="raise"``.

    Source: Implicit Bilevel Optimization: Differentiating through Bilevel Optimization Programming (Alesiani, 2023).

    Example:
        >>> import torch, bigrad
        >>> target = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> y = bigrad.argmin(lambda y, t: ((y - t) ** 2).sum() + (y**2).sum(), torch.zeros(2), target)
        >>> y.detach()
        tensor([0.5000, 1.0000])
        >>> torch.autograd.grad(y.sum(), target)[0]
        tensor([0.5000, 0.5000])
    """
    rule = Implicit() if gradient is None else gradient
    reading = ObjectiveReading(objective, init, inputs)
    return reading.solve(LBFGS() if solver is None else solver, rule, on_failure, warm_start)[0]


class ObjectiveReading(Reading):
    """An objective: the shape of its value is the batch shape."""

    name = "objective"
    what = "argmin"

    def problem(self) -> Objective:
        """The minimisation in flat coordinates."""
        return Objective(self.flat, self.batch_dims)

    def _flat(self, result: Any) -> Tensor:
        return self._check_result(result)

    def _shape(self, tree: Any) -> None:
        """Find the batch shape from the objective's value, and expand the start to it where it lacks it."""
        batch = self._flat(self._try(tree)).shape
        self.batch_dims = len(batch)
        batched = all(leaf.shape[: self.batch_dims] == batch for leaf in tensors_of(tree, "init"))
        expanded = tree_map(lambda leaf: leaf.expand((*batch, *leaf.shape)), tree)
        if not batched:
            try:
                shape = self._flat(self._try(expanded)).shape
            except RuntimeError as error:
                raise InputError(_complaint(batch, str(error))) from error
            if shape != batch:
                raise InputError(_complaint(batch, f"with init expanded to it, the value is {tuple(shape)}"))
            tree = expanded
        self._adopt(tree)
        if not (batched and batch):
            return
        # Where a start without a batch happens to begin with the batch's size, the coupling tells which was meant.
        if calculus.transforming():
            self.probe = True  # it cannot be tried here: the solve must at least not take the wrong one
        elif self._coupled():
            self._adopt(expanded)
            if not self._fits(expanded, batch):
                raise InputError(COUPLED.format(f"of shape {tuple(batch)} "))
            self.probe = False

    def _fits(self, tree: Any, batch: torch.Size) -> bool:
        """Whether the objective takes the adopted ``tree`` as that many independent problems."""
        try:
            return self._flat(self._try(tree)).shape == batch and not self._coupled()
        except RuntimeError:
            return False

    def _coupled(self) -> bool:
        return coupled(self.problem(), self.start, tuple(tensor.detach() for tensor in self._tensors()))


def _complaint(batch: torch.Size, detail: str) -> str:
    return (
        f"the objective returned shape {tuple(batch)}, which is then the batch shape, but it cannot be evaluated "
        f"on that many problems ({detail}): return one number per independent problem"
    )
