"""The function door of the argmin layer, and the reading of a user's objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate, OnFailure, check_on_failure
from ..equation import Objective, Problem
from ..errors import InputError, UnsupportedError
from ..gradients import GradientRule, Implicit, Record
from ..tree import Arguments, Structure, tensors_of, tree_map
from .lbfgs import LBFGS
from .solver import Solver

Init = Any  # nested tensors, or a callable of the inputs that returns them

_COUPLED = (
    "the objective's value {}means as many independent problems, but the value of one depends on the variables of "
    "another: return one number for a coupled problem (.sum()), or remove what couples them (a batch norm in training "
    "mode, a mean over the batch); an init without batch dimensions that begins with the batch's size is ambiguous "
    "under torch.func: expand it"
)


def argmin(
    objective: Callable[..., Tensor],
    init: Init,
    *inputs: Any,
    solver: Solver | None = None,
    gradient: GradientRule | None = None,
    on_failure: OnFailure = "raise",
) -> Any:
    r"""The minimiser :math:`y^*(x) = \arg\min_y f(y, x)`, differentiable in everything ``f`` depends on.

    Args:
        objective: ``objective(y, *inputs)``, one number per independent problem: its shape is the batch shape.
        init: where the search starts and what shape ``y`` has: nested tensors ``(*batch, ...)``, without the batch
            (they are expanded to it), or a callable of the inputs.
        inputs: what the objective depends on: tensors, nested tensors or anything else.
        solver: how to minimise; default ``solvers.LBFGS()``.
        gradient: how to differentiate; default ``gradients.Implicit(linear.CG())``.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"`` when a solve fails.

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
    return Reading(objective, init, inputs).solve(LBFGS() if solver is None else solver, rule, on_failure)[0]


@dataclass
class Reading:
    """A user's objective, start and inputs, read once into a flat problem.

    Attributes:
        objective: as the user wrote it.
        init: nested tensors or a callable of the inputs.
        inputs: the call's arguments.
        probe: whether to check that the problems of a batch do not depend on each other; false once it is done.
    """

    objective: Callable[..., Tensor]
    init: Init
    inputs: tuple[Any, ...]
    probe: bool = True

    def __post_init__(self) -> None:
        if not callable(self.objective):
            raise InputError(f"objective is {type(self.objective).__name__}; wanted a callable objective(y, *inputs)")
        if torch.is_inference_mode_enabled():
            raise UnsupportedError("torch.inference_mode forbids the derivatives that minimise: use torch.no_grad()")
        tree = self.init(*self.inputs) if callable(self.init) else self.init
        leaves = tensors_of(tree, "init")
        tree = tree_map(torch.Tensor.detach, tree)
        self.arguments = Arguments.of(self.inputs)
        self.dtype, self.device = leaves[0].dtype, leaves[0].device
        self.parameters: dict[str, Tensor] = {}
        if isinstance(self.objective, torch.nn.Module):
            self.parameters = dict(self.objective.named_parameters())
        self._check_placement()
        self.captured: list[Tensor] = []
        self._shape_batch(tree)
        self._find_captured()

    def _check_placement(self) -> None:
        for name, tensor in [
            *((f"input {place}", tensor) for place, tensor in enumerate(self.arguments.tensors)),
            *self.parameters.items(),
        ]:
            if tensor.device != self.device and tensor.ndim > 0:
                raise InputError(f"{name} is on {tensor.device} and init on {self.device}: move one with .to()")
            if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype != self.dtype):
                raise InputError(f"{name} has dtype {tensor.dtype} and init {self.dtype}: convert one with .to()")

    def _evaluate(self, tree: Any, tensors: tuple[Tensor, ...]) -> Tensor:
        """The user's objective at ``tree``; ``tensors`` are inputs, parameters and captured ones, in this order."""
        given, own = len(self.arguments.tensors), len(self.parameters)
        arguments = (tree, *self.arguments.rebuild(tensors[:given]))
        with calculus.substituted(self.captured, tensors[given + own :]):
            if not self.parameters:
                return self.objective(*arguments)
            named = dict(zip(self.parameters, tensors[given : given + own], strict=True))
            value: Tensor = calculus.call_module(self.objective, named, arguments)  # type: ignore[arg-type]
            return value

    def _tensors(self) -> tuple[Tensor, ...]:
        return (*self.arguments.tensors, *self.parameters.values(), *self.captured)

    def _value_at(self, tree: Any) -> Tensor:
        with torch.no_grad():
            value = self._evaluate(tree, self._tensors())
        if not isinstance(value, Tensor):
            raise InputError(f"the objective returned {type(value).__name__}; wanted a tensor, one number per problem")
        if value.dtype != self.dtype:
            raise InputError(f"the objective returned {value.dtype}; init is {self.dtype}: convert one of them")
        if value.device != self.device:
            raise InputError(f"the objective returned a tensor on {value.device}; init is on {self.device}: move one")
        return value

    def _shape_batch(self, tree: Any) -> None:
        """Find the batch shape from the objective's value, and expand the start to it where it lacks it."""
        batch = self._value_at(tree).shape
        self.batch_dims = len(batch)
        batched = all(leaf.shape[: self.batch_dims] == batch for leaf in tensors_of(tree, "init"))
        expanded = tree_map(lambda leaf: leaf.expand((*batch, *leaf.shape)), tree)
        if not batched:
            try:
                shape = self._value_at(expanded).shape
            except RuntimeError as error:
                raise InputError(self._batch_complaint(batch, str(error))) from error
            if shape != batch:
                raise InputError(self._batch_complaint(batch, f"with init expanded to it, the value is {tuple(shape)}"))
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
                raise InputError(_COUPLED.format(f"of shape {tuple(batch)} "))
            self.probe = False

    def _fits(self, tree: Any, batch: torch.Size) -> bool:
        """Whether the objective takes the adopted ``tree`` as that many independent problems."""
        try:
            return self._value_at(tree).shape == batch and not self._coupled()
        except RuntimeError:
            return False

    def _batch_complaint(self, batch: torch.Size, detail: str) -> str:
        return (
            f"the objective returned shape {tuple(batch)}, which is then the batch shape, but it cannot be evaluated "
            f"on that many problems ({detail}): return one number per independent problem"
        )

    def _adopt(self, tree: Any) -> None:
        self.structure = Structure.of(tree, self.batch_dims)
        self.start = self.structure.ravel(tree)

    def _find_captured(self) -> None:
        level = calculus.transform_level()
        start = self.start.detach() if level else self.start.detach().requires_grad_()
        tensors = tuple(tensor.detach() for tensor in self._tensors())
        value, found = calculus.captured_by(self.value, start, *tensors)
        strangers = [tensor for tensor in found if calculus.level_of(tensor) <= level and tensor.is_floating_point()]
        if level and strangers:
            raise InputError(
                "under a torch.func transform the objective uses a tensor that needs a gradient and is not among its "
                "arguments: pass it as an input, or make the objective an nn.Module that owns it"
            )
        if strangers:
            self.captured = strangers
            tensors = tuple(tensor.detach() for tensor in self._tensors())
            with torch.enable_grad():
                value = self.value(start, *tensors)
        leaves = [] if level else calculus.graph_leaves(value)
        if not level and not any(leaf is start for leaf in leaves):
            raise InputError("the objective does not depend on y through differentiable operations")
        if any(leaf is not start for leaf in leaves):
            raise InputError(
                "the objective uses a tensor that needs a gradient in a way that cannot be traced: pass it as an input"
            )

    def value(self, y: Tensor, *tensors: Tensor) -> Tensor:
        """The objective in flat coordinates: ``(*batch, n)`` to ``(*batch)``."""
        return self._evaluate(self.structure.unravel(y), tensors)

    def problem(self) -> Objective:
        """What the solvers and the gradient rules see."""
        return Objective(self.value, self.batch_dims)

    def _coupled(self) -> bool:
        return coupled(self.problem(), self.start, tuple(tensor.detach() for tensor in self._tensors()))

    def solve(self, solver: Solver, rule: GradientRule, on_failure: OnFailure) -> tuple[Any, Certificate | None]:
        """Minimise, attach the derivative, and return the nested answer and the certificate."""
        if not isinstance(solver, Solver):
            raise InputError(f"solver is {solver!r}; wanted one of bigrad.solvers, such as solvers.LBFGS()")
        if not isinstance(rule, GradientRule):
            raise InputError(f"gradient is {rule!r}; wanted one of bigrad.gradients, such as gradients.Implicit()")
        record = Record(check_on_failure(on_failure))

        def run(problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
            if self.probe and isinstance(problem, Objective) and _side_by_side(problem, start):
                self.probe = False
                if coupled(problem, start, inputs):
                    raise InputError(_COUPLED.format(""))
            y, certificate = solver.solve(problem, start, inputs)
            certificate.what = "argmin"
            return y, certificate

        y = rule.attach(self.problem(), run, self.start, self._tensors(), record)
        return self.structure.unravel(y), None if calculus.transforming() else record.certificate


def _side_by_side(problem: Objective, y: Tensor) -> bool:
    """Whether there is more than one problem, none of them empty."""
    return problem.batch_dims > 0 and y.numel() > y.shape[-1]


def coupled(problem: Objective, y: Tensor, inputs: tuple[Tensor, ...]) -> bool:
    """Whether one problem's value depends on another's variables, tried at two points.

    Weighting the values must weight each problem's gradient by its own weight and nothing else.
    """
    if not _side_by_side(problem, y):
        return False
    place = torch.arange(y.numel(), device=y.device, dtype=torch.float64).reshape(y.shape)
    wiggle = ((place + 1) * 0.6180339887498949 % 1).to(y.dtype) - 0.5
    weight = 1 + torch.arange(y.shape[:-1].numel(), device=y.device).reshape(y.shape[:-1]).to(y.dtype) % 3
    weighted = lambda z, *rest: weight * problem.value(z, *rest)  # noqa: E731  # a name for a one-liner
    error = size = torch.zeros_like(weight)
    for point in (y, y + 0.1 * wiggle * y.abs().clamp_min(1.0)):
        _, plain = calculus.value_and_gradient(problem.value, point, *inputs)
        _, scaled = calculus.value_and_gradient(weighted, point, *inputs)
        expected = weight.unsqueeze(-1) * plain
        error = torch.fmax(error, (scaled - expected).abs().amax(-1))
        size = torch.fmax(size, expected.abs().amax(-1))
    # At most one of the points is an optimum, where gradients are rounding error; NaN is left for the solve to tell.
    return bool((error > torch.finfo(y.dtype).eps ** 0.5 * size).any())
