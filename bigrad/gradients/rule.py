"""What a gradient rule is: it gives a solution ``y*(inputs)`` a derivative."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from ..certificate import Certificate, OnFailure
from ..equation import Problem

Solve = Callable[[Problem, Tensor, tuple[Tensor, ...]], tuple[Tensor, Certificate]]


@dataclass
class Record:
    """What one call leaves behind: how failures are treated, and the certificate once it is known."""

    on_failure: OnFailure = "raise"
    certificate: Certificate | None = field(default=None)


class GradientRule(ABC):
    """Turns a solver's answer into a differentiable function of the inputs."""

    @abstractmethod
    def attach(
        self, problem: Problem, solve: Solve, start: Tensor, inputs: tuple[Tensor, ...], record: Record
    ) -> Tensor:
        """Solve ``problem`` from ``start`` and return ``y`` ``(*batch, n)`` with its derivatives.

        Args:
            problem: the equation ``y`` solves.
            solve: ``(problem, start, inputs) -> (y, certificate)``; never raises on a failed solve.
            start: where the search starts, ``(*batch, n)``.
            inputs: tensors that the problem depends on.
            record: where the certificate goes.
        """
