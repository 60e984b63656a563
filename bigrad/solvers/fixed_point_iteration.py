"""The fixed-point iteration, plain or damped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..equation import Problem
from ..errors import InputError
from .solver import check_stopping
from .stepping import State, Stepping


@dataclass(frozen=True)
class FixedPointIteration(Stepping):
    r"""The map applied again and again: :math:`y \leftarrow y - \text{damping}\, F(y)` with :math:`F(y) = y - T(y)`.

    Converges where the damped map is a contraction; where the residual has not shrunk after 500 steps the problem ends
    as ``STALLED``, and where it overflows earlier as ``NON_FINITE``.

    Args:
        rtol, atol: stop a problem at residual norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most iterations.
        damping: the part of each step that is taken; 1 is the plain iteration.

    Source: Sur les opérations dans les ensembles abstraits et leur application aux équations intégrales (Banach, 1922).

    Example:
        >>> import torch
        >>> from bigrad.equation import Mapping
        >>> FixedPointIteration().solve(Mapping(torch.cos, batch_dims=0), torch.zeros(1), ())[0]
        tensor([0.7391])
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 10_000
    damping: float = 1.0

    def __post_init__(self) -> None:
        check_stopping("FixedPointIteration", self.rtol, self.atol, self.max_steps)
        if not 0 < self.damping < float("inf"):
            raise InputError(f"FixedPointIteration: damping is {self.damping}; it must be positive and finite")

    @property
    def stopping(self) -> tuple[float | None, float | None, int]:
        """``(rtol, atol, max_steps)``."""
        return self.rtol, self.atol, self.max_steps

    def begin(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> State:
        """Nothing is remembered."""
        return ()

    def advance(self, y: Tensor, residual: Tensor, state: State) -> tuple[Tensor, State]:
        """One application of the damped map."""
        return torch.sub(y, residual, alpha=self.damping), ()
