"""A leader's number that is an expectation over segments of the follower's behaviour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..errors import InputError
from .paths import Paths, chance, every_path


@dataclass(frozen=True)
class SegmentLoss:
    r"""The mean of a loss over independent segments: :math:`E_{d_i \sim P(\cdot; \pi)}[l(d_1, \dots, d_I; x)]`.

    Attributes:
        loss: ``(x, segments) -> (M,)`` with segments ``(M, I, H)``, smooth in ``x``.
        steps: the length H of a segment; an episode may end before.
        segments: how many segments I the loss looks at.

    Example:
        >>> import torch
        >>> table = torch.tensor([[1.0, 3.0]])
        >>> loss = SegmentLoss(lambda x, segments: segments.look_up(table).sum((1, 2)), steps=2)
        >>> stay, start, policy = torch.ones(1, 2, 1), torch.ones(1), torch.tensor([[0.5, 0.5]])
        >>> loss.expected(torch.zeros(1), policy, stay, start)
        tensor(4.)
    """

    loss: Callable[[Tensor, Paths], Tensor]
    steps: int
    segments: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.segments not in (1, 2):
            raise InputError(f"steps is {self.steps} and segments {self.segments}; wanted at least 1 step, and 1 or 2")

    def __call__(self, x: Tensor, segments: Paths) -> Tensor:
        """The losses ``(M,)``, one for each tuple of segments."""
        losses = self.loss(x, segments)
        if losses.shape != segments.states.shape[:1]:
            raise InputError(
                f"the loss returned shape {tuple(losses.shape)} for {segments.states.shape[0]} tuples of segments; "
                "wanted one number for each"
            )
        return losses

    def expected(self, x: Tensor, policy: Tensor, transition: Tensor, start: Tensor) -> Tensor:
        """The exact mean, by enumeration; differentiable in ``x``, the policy and the transition.

        Raises:
            UnsupportedError: there are millions of segments.
        """
        paths = every_path(transition.detach(), start, self.steps)
        weight = chance(paths, policy, transition, start)
        if self.segments == 1:
            return weight @ self(x, paths.reshape(-1, 1))
        count = len(weight)
        losses = self(x, paths.pairs())
        return weight @ losses.reshape(count, count) @ weight
