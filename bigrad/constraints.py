"""What a level of a bilevel program has to respect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .errors import InputError

Side = Tensor | Callable[..., Tensor]


@dataclass(frozen=True)
class Constraints:
    """Constraints on one level; functions are called as the level's objective is, with its own variable first.

    Args:
        equality: ``equality(own, other, *inputs) -> (*batch, p)``, zero where it holds and affine in ``own``; or a pair
            ``(A, b)`` of ``A own = b`` with ``A`` ``(p, n)`` and ``b`` ``(p,)`` or ``(*batch, p)``, for a variable that
            is one tensor ``(*batch, n)``.
        inequality: ``inequality(own, other, *inputs) -> (*batch, m)``, at most zero where it holds.
        lower, upper: bounds of a variable that is one tensor ``(*batch, n)``: numbers, or tensors of its shape.

    Tensors given here receive gradients as captured ones do: in eager mode.

    Example:
        >>> from bigrad import Constraints
        >>> Constraints(lower=0.0, upper=1.0)
        Constraints(equality=None, inequality=None, lower=0.0, upper=1.0)
    """

    equality: Callable[..., Tensor] | tuple[Tensor, Tensor] | None = None
    inequality: Callable[..., Tensor] | None = None
    lower: float | Tensor | None = None
    upper: float | Tensor | None = None

    def __post_init__(self) -> None:
        pair = isinstance(self.equality, tuple) and len(self.equality) == 2
        if not (self.equality is None or callable(self.equality) or pair):
            raise InputError("Constraints: equality must be a function (own, other, *inputs) or a pair (A, b)")
        if not (self.inequality is None or callable(self.inequality)):
            raise InputError("Constraints: inequality must be a function (own, other, *inputs)")

    def equal(self, own: Any, other: Any, *inputs: Any) -> list[Tensor]:
        """What has to be zero."""
        if self.equality is None:
            return []
        if callable(self.equality):
            return [self.equality(own, other, *inputs)]
        matrix, side = self.equality
        return [(matrix @ own.unsqueeze(-1)).squeeze(-1) - side]

    def at_most_zero(self, own: Any, other: Any, *inputs: Any) -> list[Tensor]:
        """What has to be at most zero."""
        parts = [] if self.inequality is None else [self.inequality(own, other, *inputs)]
        if self.lower is not None:
            parts.append(self.lower - own)
        if self.upper is not None:
            parts.append(own - self.upper)
        return parts
