"""What a gradient rule is: it gives a solution ``y*(inputs)`` a derivative."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..certificate import Certificate, OnFailure
from ..equation import Problem
from ..errors import UnsupportedError
from ..linear import Kept

Solve = Callable[[Problem, Tensor, tuple[Tensor, ...]], tuple[Tensor, Certificate]]


@runtime_checkable
class Steps(Protocol):
    """A solver's iteration as differentiable operations, in eager mode and under ``torch.func``.

    From ``y = start`` and ``state = begin(...)``, as many calls of ``step`` as the certificate counts in ``steps`` lead
    to the answer of the solve. The tensors of the state are floating-point and carry the batch dimensions of ``y`` in
    front, so that each problem of a batch can be frozen by itself.
    """

    def begin(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the iteration remembers besides ``y``, before its first step."""

    def step(
        self, problem: Problem, y: Tensor, state: tuple[Tensor, ...], inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The next ``y`` ``(*batch, n)`` and the next state, for every problem of the batch."""


def steps_of(solve: Solve, rule: str) -> Steps:
    """The attribute ``steps`` of a solve.

    Raises:
        UnsupportedError: the solve has none, or it shows no differentiable steps.
    """
    steps = getattr(solve, "steps", None)
    if not isinstance(steps, Steps):
        raise UnsupportedError(
            f"{rule} differentiates through the solver's own steps, and those of "
            f"{'this solver' if steps is None else type(steps).__name__} are no differentiable operations: solve with "
            "GradientDescent or FixedPointIteration, or differentiate with Implicit()"
        )
    return steps


@dataclass
class WarmStart:
    """Where the next solve starts: hand the same object to a layer at every outer step.

    Each call reads it and leaves its own solution; each backward pass reads it and leaves its adjoint vector. The
    answer is the same to within the tolerances; only the work is less.

    Attributes:
        solution: the last solution ``(*batch, n)``, ``None`` before the first call.
        adjoint: the last adjoint vector ``(*batch, n)``, ``None`` before the first backward pass.
    """

    solution: Tensor | None = None
    adjoint: Tensor | None = None


@dataclass
class Record:
    """What one call leaves behind: how failures are treated, and the certificate once it is known.

    Attributes:
        on_failure: what a failed solve does.
        certificate: how the solve ended.
        warm: where the solves start and what they leave there.
        kept: the factor of the linearised problem at the solution, once a solve has computed one.
        at: the solution that ``kept`` belongs to.
    """

    on_failure: OnFailure = "raise"
    certificate: Certificate | None = None
    warm: WarmStart | None = None
    kept: Kept = field(default_factory=Kept)
    at: Tensor | None = None

    def factors_at(self, y: Tensor) -> Kept:
        """The place for factors of the problem linearised at ``y`` ``(*more, *batch, n)``."""
        if self.at is None or self.at.ndim > y.ndim or self.at.shape != y.shape[y.ndim - self.at.ndim :]:
            self.at, self.kept = y, Kept()
        elif not (torch.equal(self.at, y) if self.at.shape == y.shape else bool((self.at == y).all())):
            return Kept()
        return self.kept


class GradientRule(ABC):
    """Turns a solver's answer into a differentiable function of the inputs."""

    @abstractmethod
    def attach(
        self, problem: Problem, solve: Solve, start: Tensor, inputs: tuple[Tensor, ...], record: Record
    ) -> Tensor:
        """Solve ``problem`` from ``start`` and return ``y`` ``(*batch, n)`` with its derivatives.

        Args:
            problem: the equation ``y`` solves.
            solve: ``(problem, start, inputs) -> (y, certificate)``; never raises on a failed solve. Its
                attribute ``steps``, where there is one, shows the iteration (:class:`Steps`).
            start: where the search starts, ``(*batch, n)``.
            inputs: tensors that the problem depends on.
            record: where the certificate goes.
        """
