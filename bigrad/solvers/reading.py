"""The reading of a user's function: what it is called with, what it depends on, and its flat form for the solvers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import calculus, capture
from ..certificate import Certificate, OnFailure, check_on_failure
from ..equation import Problem
from ..errors import InputError, UnsupportedError
from ..gradients import GradientRule, Record, WarmStart
from ..tree import Arguments, Structure, tensors_of, tree_map
from .coupling import COUPLED, coupled
from .custom import Custom
from .solver import Solver, note_jumps

Init = Any  # nested tensors, or a callable of the inputs that returns them


@dataclass
class Reading(ABC):
    """A user's function, start and inputs, read once into a flat problem.

    Attributes:
        function: as the user wrote it.
        init: nested tensors or a callable of the inputs.
        inputs: the call's arguments.
        probe: whether to check that the problems of a batch do not depend on each other; false once it is done.
    """

    function: Callable[..., Any]
    init: Init
    inputs: tuple[Any, ...]
    probe: bool = True

    name: ClassVar[str]  # of the function in messages
    what: ClassVar[str]  # of the solve in messages
    needs_y: ClassVar[bool] = True  # whether a function that ignores y is an error
    batch_dims: int = field(init=False)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InputError(
                f"{self.name} is {type(self.function).__name__}; wanted a callable {self.name}(y, *inputs)"
            )
        if torch.is_inference_mode_enabled():
            raise UnsupportedError("torch.inference_mode forbids the derivatives that solve: use torch.no_grad()")
        tree = self.init(*self.inputs) if callable(self.init) else self.init
        leaves = tensors_of(tree, "init")
        self.dtype, self.device = leaves[0].dtype, leaves[0].device
        if self.device.type == "meta":
            raise InputError("init is on the meta device, which holds no numbers: give it some with .to_empty()")
        tree = tree_map(torch.Tensor.detach, tree)
        self.arguments = Arguments.of(self.inputs)
        if torch.is_autocast_enabled(self.device.type):
            tree = self._raise_precision(tree)
        if self.dtype.itemsize < torch.float32.itemsize:
            raise InputError(
                f"init has dtype {self.dtype}; a solve needs at least torch.float32: convert with .float()"
            )
        self.parameters: dict[str, Tensor] = {}
        if isinstance(self.function, torch.nn.Module):
            self.parameters = dict(self.function.named_parameters())
        self._check_placement()
        self.captured: list[Tensor] = []
        with calculus.precise(self.device):
            self._shape(tree)
            self._find_captured()

    @abstractmethod
    def _shape(self, tree: Any) -> None:
        """Find ``batch_dims`` and :meth:`_adopt` the start in its full shape."""

    @abstractmethod
    def problem(self) -> Problem:
        """What the solvers and the gradient rules see."""

    @abstractmethod
    def _flat(self, result: Any) -> Tensor:
        """What the function returned, as one tensor."""

    def _raise_precision(self, tree: Any) -> Any:
        """Under autocast low-precision tensors are raised to the dtype of the solve, at least float32."""
        self.dtype = torch.promote_types(self.dtype, torch.float32)
        raised = (t.to(self.dtype) if _lower(t.dtype, self.dtype) else t for t in self.arguments.tensors)
        self.arguments = Arguments(self.arguments.spec, self.arguments.fixed, tuple(raised))
        return tree_map(lambda leaf: leaf.to(self.dtype), tree)

    def _check_placement(self) -> None:
        for name, tensor in [
            *((f"input {place}", tensor) for place, tensor in enumerate(self.arguments.tensors)),
            *self.parameters.items(),
        ]:
            if tensor.device != self.device and tensor.ndim > 0:
                raise InputError(f"{name} is on {tensor.device} and init on {self.device}: move one with .to()")
            if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype != self.dtype):
                raise InputError(f"{name} has dtype {tensor.dtype} and init {self.dtype}: convert one with .to()")

    def _evaluate(self, tree: Any, tensors: tuple[Tensor, ...]) -> Any:
        """The user's function at ``tree``; ``tensors`` are inputs, parameters and captured ones, in this order."""
        given, own = len(self.arguments.tensors), len(self.parameters)
        arguments = (tree, *self.arguments.rebuild(tensors[:given]))
        with calculus.precise(self.device), capture.substituted(self.captured, tensors[given + own :]):
            if not self.parameters:
                return self.function(*arguments)
            named = dict(zip(self.parameters, tensors[given : given + own], strict=True))
            return calculus.call_module(self.function, named, arguments)  # type: ignore[arg-type]  # it is a module

    def _tensors(self) -> tuple[Tensor, ...]:
        return (*self.arguments.tensors, *self.parameters.values(), *self.captured)

    def _try(self, tree: Any) -> Any:
        with torch.no_grad():
            return self._evaluate(tree, self._tensors())

    def _check_result(self, value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise InputError(f"the {self.name} returned {type(value).__name__}; wanted a tensor")
        if value.dtype != self.dtype:
            raise InputError(f"the {self.name} returned {value.dtype}; init is {self.dtype}: convert one of them")
        if value.device != self.device:
            raise InputError(f"the {self.name} returned a tensor on {value.device}; init is on {self.device}: move one")
        return value

    def _adopt(self, tree: Any) -> None:
        self.structure = Structure.of(tree, self.batch_dims)
        self.start = self.structure.ravel(tree)

    def _find_captured(self) -> None:
        level = calculus.transform_level()
        start = self.start.detach() if level else self.start.detach().requires_grad_()
        tensors = tuple(tensor.detach() for tensor in self._tensors())
        value, found = capture.captured_by(self.flat, start, *tensors)
        strangers = [
            tensor
            for tensor in found
            if tensor.is_floating_point()
            and (level or tensor.is_leaf or any(leaf is not start for leaf in capture.graph_leaves(tensor)))
        ]
        if level and strangers:
            raise InputError(
                f"under a torch.func transform the {self.name} uses a tensor that needs a gradient and is not among "
                f"its arguments: pass it as an input, or make the {self.name} an nn.Module that owns it"
            )
        if strangers:
            self.captured = strangers
            tensors = tuple(tensor.detach() for tensor in self._tensors())
            with torch.enable_grad():
                value = self.flat(start, *tensors)
        leaves = [] if level else capture.graph_leaves(value)
        if self.needs_y and not level and not any(leaf is start for leaf in leaves):
            raise InputError(f"the {self.name} does not depend on y through differentiable operations")
        if any(leaf is not start for leaf in leaves):
            raise InputError(
                f"the {self.name} uses a tensor that needs a gradient in a way that cannot be traced: pass it as input"
            )

    def flat(self, y: Tensor, *tensors: Tensor) -> Tensor:
        """The function in flat coordinates, of ``y`` ``(*batch, n)``."""
        return self._flat(self._evaluate(self.structure.unravel(y), tensors))

    def solve(
        self, solver: Any, rule: GradientRule, on_failure: OnFailure, warm: WarmStart | None = None
    ) -> tuple[Any, Certificate | None]:
        """Solve, attach the derivative, and return the nested answer and the certificate."""
        if not isinstance(solver, Solver):
            if not callable(solver):
                raise InputError(f"solver is {solver!r}; wanted one of bigrad.solvers, or a function (init, *inputs)")
            solver = Custom(solver)
        if not isinstance(rule, GradientRule):
            raise InputError(f"gradient is {rule!r}; wanted one of bigrad.gradients, such as gradients.Implicit()")
        record = Record(check_on_failure(on_failure), warm=warm)
        start = self._warmed(warm)
        with calculus.precise(self.device):
            y = rule.attach(self.problem(), _Run(self, solver), start, self._tensors(), record)
        if warm is not None:
            warm.solution = y.detach()
        return self._answer(y), None if calculus.transforming() else record.certificate

    def _answer(self, y: Tensor) -> Any:
        """The solution ``(*batch, n)`` in the user's shapes."""
        return self.structure.unravel(y)

    def _begin(self, tree: Any) -> Tensor:
        """A point in the user's shapes as a start ``(*batch, n)``."""
        return self.structure.ravel(tree)

    def completed(self, problem: Problem, y: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """An answer of a user's solver with what the problem asks for besides."""
        return y

    def _warmed(self, warm: WarmStart | None) -> Tensor:
        if warm is None:
            return self.start
        if calculus.transforming():
            raise UnsupportedError("a warm start remembers plain numbers: leave it out under a torch.func transform")
        if warm.solution is None:
            return self.start
        if warm.solution.shape != self.start.shape:
            raise InputError(
                f"the warm start holds a solution of shape {tuple(warm.solution.shape)}, this call's is "
                f"{tuple(self.start.shape)}: use another gradients.WarmStart()"
            )
        sound = warm.solution.isfinite().all(-1, keepdim=True)  # a failed solve may have left what is no start
        return torch.where(sound, warm.solution, self.start).to(self.start)

    def on_user_terms(
        self, call: Callable[..., Any], problem: Problem, start: Tensor, tensors: tuple[Tensor, ...]
    ) -> Tensor:
        """``call(init, *inputs)`` in the user's own shapes, once per problem of a vmapped dimension."""

        def once(levels: tuple[tuple[int | None, ...], ...], begin: Tensor, fixed: tuple[Tensor, ...]) -> Tensor:
            if levels:
                return torch.stack(
                    [
                        once(
                            levels[:-1],
                            begin[place],
                            tuple(
                                tensor if dim is None else tensor[place]
                                for tensor, dim in zip(fixed, levels[-1], strict=True)
                            ),
                        )
                        for place in range(begin.shape[0])
                    ]
                )
            given = self.arguments.rebuild(fixed[: len(self.arguments.tensors)])
            with torch.enable_grad():
                answer = call(self._answer(begin), *given)
            return self._begin(tree_map(torch.Tensor.detach, answer)).expand_as(begin)

        return once(problem.levels, start, tensors)


@dataclass(frozen=True)
class _Run:
    """The forward solve that a gradient rule is handed."""

    reading: Reading
    solver: Solver

    @property
    def steps(self) -> Solver:
        """The solver, for a rule that replays its steps."""
        return self.solver

    def __call__(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        reading = self.reading
        if reading.probe and problem.batch_dims > 0 and start.numel() > start.shape[-1]:
            reading.probe = False
            if coupled(problem, start, inputs):
                raise InputError(COUPLED.format(""))
        if isinstance(self.solver, Custom):
            if len(inputs) != len(reading._tensors()):  # noqa: SLF001  # its own reading's
                raise UnsupportedError(
                    "this gradient rule solves other problems than the user's, which a function cannot: use Implicit()"
                )
            y = reading.on_user_terms(self.solver.function, problem, start, inputs)
            y = reading.completed(problem, y, inputs)
            certificate = self.solver.judge(problem, start, y, inputs)
        else:
            y, certificate = self.solver.solve(problem, start, inputs)
        note_jumps(problem, y, inputs, certificate)
        certificate.what = reading.what
        return y, certificate


def _lower(dtype: torch.dtype, than: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize < than.itemsize
