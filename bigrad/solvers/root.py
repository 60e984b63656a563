"""The function doors of the root and fixed-point layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optree
from torch import Tensor

from .. import calculus
from ..certificate import OnFailure
from ..equation import Equation, Mapping
from ..errors import InputError
from ..gradients import GradientRule, Implicit, WarmStart
from ..tree import tensors_of, tree_map
from .anderson import Anderson
from .newton import Newton
from .reading import Init, Reading
from .solver import Solver


@calculus.eager
def root(
    residual: Callable[..., Any],
    init: Init,
    *inputs: Any,
    batch_dims: int = 0,
    solver: Solver | Callable[..., Any] | None = None,
    gradient: GradientRule | None = None,
    on_failure: OnFailure = "raise",
    warm_start: WarmStart | None = None,
) -> Any:
    r"""The root :math:`F(y, x) = 0` near ``init``, differentiable in everything ``F`` depends on.

    Args:
        residual: ``residual(y, *inputs)``, nested as ``y`` is.
        init: where the search starts and what shape ``y`` has: nested tensors ``(*batch, ...)``, without the batch
            (they are expanded to it), or a callable of the inputs.
        inputs: what the residual depends on: tensors, nested tensors or anything else.
        batch_dims: how many leading dimensions of ``y`` hold independent problems.
        solver: how to solve: one of ``bigrad.solvers``, or a function ``(init, *inputs) -> y`` of yours; default
            ``solvers.Newton()``.
        gradient: how to differentiate; default ``gradients.Implicit()``.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"`` when a solve fails.
        warm_start: where this call starts, and where it leaves its answer for the next one.

    Returns:
        ``y`` with the nesting of ``init``.

    Raises:
        InputError: the residual or its arguments have the wrong shape, dtype or device, or couple their problems.
        SolveError: the forward or the backward solve failed and ``on_failure="raise"``.

    Example:
        >>> import torch, bigrad
        >>> x = torch.tensor(8.0, requires_grad=True)
        >>> y = bigrad.root(lambda y, x: y**3 - x, torch.tensor(1.0), x)
        >>> y.detach()
        tensor(2.)
        >>> torch.autograd.grad(y, x)[0]
        tensor(0.0833)
    """
    reading = ResidualReading(residual, init, inputs, batch_dims=batch_dims)
    rule = Implicit() if gradient is None else gradient
    return reading.solve(Newton() if solver is None else solver, rule, on_failure, warm_start)[0]


@calculus.eager
def fixed_point(
    mapping: Callable[..., Any],
    init: Init,
    *inputs: Any,
    batch_dims: int = 0,
    solver: Solver | Callable[..., Any] | None = None,
    gradient: GradientRule | None = None,
    on_failure: OnFailure = "raise",
    warm_start: WarmStart | None = None,
) -> Any:
    r"""The fixed point :math:`y = T(y, x)`, differentiable in everything ``T`` depends on.

    Args:
        mapping: ``mapping(y, *inputs)``, nested as ``y`` is.
        init: as in :func:`root`, and so are the other arguments.
        inputs: what the mapping depends on.
        batch_dims: how many leading dimensions of ``y`` hold independent problems.
        solver: how to solve; default ``solvers.Anderson()``.
        gradient: how to differentiate; default ``gradients.Implicit()``.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"`` when a solve fails.
        warm_start: where this call starts, and where it leaves its answer for the next one.

    Returns:
        ``y`` with the nesting of ``init``.

    Raises:
        InputError: the mapping or its arguments have the wrong shape, dtype or device, or couple their problems.
        SolveError: the forward or the backward solve failed and ``on_failure="raise"``.

    Source: Deep Equilibrium Models (Bai, Kolter, Koltun, 2019).

    Example:
        >>> import torch, bigrad
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> y = bigrad.fixed_point(lambda y, x: (y + x / y) / 2, torch.tensor(1.0), x)
        >>> y.detach()
        tensor(1.4142)
        >>> torch.autograd.grad(y, x)[0]
        tensor(0.3536)
    """
    reading = MappingReading(mapping, init, inputs, batch_dims=batch_dims)
    rule = Implicit() if gradient is None else gradient
    return reading.solve(Anderson() if solver is None else solver, rule, on_failure, warm_start)[0]


@dataclass
class ResidualReading(Reading):
    """A residual, with the caller's word for how many dimensions are batch."""

    batch_dims: int = 0
    name = "residual"
    what = "root"

    def problem(self) -> Equation:
        """The root in flat coordinates."""
        return Equation(self.flat, self.batch_dims)

    def _flat(self, result: Any) -> Tensor:
        leaves = optree.tree_leaves(result)
        for leaf in leaves:
            self._check_result(leaf)
        return self.structure.ravel(result)

    def _shape(self, tree: Any) -> None:
        if not isinstance(self.batch_dims, int) or self.batch_dims < 0:
            raise InputError(f"batch_dims is {self.batch_dims!r}; it must be an integer >= 0")
        result = self._try(tree)
        leaves, spec = optree.tree_flatten(result)
        if spec != optree.tree_structure(tree):
            raise InputError(
                f"the {self.name} returned the structure {spec}; wanted init's {optree.tree_structure(tree)}"
            )
        shapes = [tuple(self._check_result(leaf).shape) for leaf in leaves]
        starts = [tuple(leaf.shape) for leaf in tensors_of(tree, "init")]
        if shapes != starts:
            batches = {shape[: self.batch_dims] for shape in shapes}
            if len(batches) != 1 or [shape[self.batch_dims :] for shape in shapes] != starts:
                raise InputError(
                    f"the {self.name} returned shapes {shapes} for y of shapes {starts}; wanted the same ones"
                )
            (batch,) = batches
            tree = tree_map(lambda leaf: leaf.expand((*batch, *leaf.shape)), tree)
        elif len({shape[: self.batch_dims] for shape in starts}) != 1 or len(starts[0]) < self.batch_dims:
            raise InputError(f"init has shapes {starts}; wanted {self.batch_dims} leading batch dimensions in common")
        self._adopt(tree)


class MappingReading(ResidualReading):
    """A mapping whose fixed point is wanted."""

    name = "mapping"
    what = "fixed point"
    needs_y = False

    def problem(self) -> Mapping:
        """The fixed point in flat coordinates."""
        return Mapping(self.flat, self.batch_dims)
