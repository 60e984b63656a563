"""What a call of a combinatorial layer can say about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(repr=False)
class OracleCertificate:
    """What one call has asked of its oracle, forward and backward, and what came of it.

    The solutions themselves are as exact as the oracle. The derivative is an estimate.

    Attributes:
        what: the estimator's name.
        calls: how often the oracle was called, with a batch each time.
        solves: problems solved in these calls.
        costs: entries of the costs that were solved.
        outside: how many of them were outside the oracle's domain and have been projected onto it.
        step: the step of each problem, of the batch shape, once backward has run; ``None`` where the rule takes none.
        asked: which problems met a gradient other than zero in backward, bool of the batch shape.
        zero_gradients: which of those handed back a gradient of zero. That is right where no solution lowers the
            linearised loss, and a step too small, or too little noise, everywhere else.
    """

    what: str
    calls: int = 0
    solves: int = 0
    costs: int = 0
    outside: int = 0
    step: Tensor | None = None
    asked: Tensor | None = None
    zero_gradients: Tensor | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """A number is kept as a CPU tensor, whenever it comes."""
        object.__setattr__(self, name, value.detach().cpu() if isinstance(value, Tensor) else value)

    def count(self, solves: int, costs: int, outside: int) -> None:
        """Add one call of the oracle."""
        self.calls += 1
        self.solves += solves
        self.costs += costs
        self.outside += outside

    @property
    def projected(self) -> float:
        """The share of the solved costs that was projected onto the oracle's domain."""
        return self.outside / self.costs if self.costs else 0.0

    def __repr__(self) -> str:
        parts = [f"{self.solves} solves in {self.calls} calls", f"{self.projected:.1%} of the costs projected"]
        if self.asked is not None and self.zero_gradients is not None:
            parts.append(f"{int(self.zero_gradients.sum())} of {int(self.asked.sum())} gradients zero")
        return f"OracleCertificate({self.what}: {', '.join(parts)})"
