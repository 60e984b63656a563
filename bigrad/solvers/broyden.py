"""Broyden's method with limited memory, many problems in lockstep."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import Certificate
from ..equation import Problem
from ..errors import InputError
from .backtracking import backtrack
from .progress import Progress
from .solver import Solver, check_stopping, residual_of

_RECENT = 10  # residuals of which the largest need not be undercut by more than a little


@dataclass(frozen=True)
class Broyden(Solver):
    r"""Broyden's good method: a quasi-Newton method for roots, which needs no derivative.

    With :math:`s = y_{k+1} - y_k` and :math:`z = F(y_{k+1}) - F(y_k)`,

    .. math:: H_{k+1} = H_k + \frac{(s - H_k z)\, s^\top H_k}{s^\top H_k z}, \qquad y_{k+1} = y_k - t\, H_k F(y_k),

    where after each step the residual is less than :math:`1 + (k + 1)^{-2}` times the largest of the last ten, and
    :math:`H_0` is the identity times the length :math:`s^\top z / z^\top z` of the first step. The memory is cleared
    when it is full, or where no part of a step is good enough.

    Args:
        rtol, atol: stop a problem at residual norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most iterations.
        history: how many updates of rank one are remembered.

    Source: A Class of Methods for Solving Nonlinear Simultaneous Equations (Broyden, 1965); A Nonmonotone
    Line Search Technique for Newton's Method (Grippo, Lampariello, Lucidi, 1986).

    Example:
        >>> import torch
        >>> from bigrad.equation import Equation
        >>> Broyden().solve(Equation(lambda y: y**3 + y - 2, 0), torch.zeros(1), ())[0]
        tensor([1.0000])
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 1_000
    history: int = 50

    def __post_init__(self) -> None:
        check_stopping("Broyden", self.rtol, self.atol, self.max_steps)
        if self.history < 1:
            raise InputError(f"Broyden: history is {self.history}; it must be >= 1")

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Search from ``start``; the point with the smallest residual is returned."""
        function = residual_of(problem, inputs)
        y, F = start, function(start)
        progress = Progress(function, start, F, (self.rtol, self.atol, self.max_steps))
        inverse = _Inverse.identity(start, self.history)
        recent = deque([progress.norm], maxlen=_RECENT)
        while progress.going():
            live, fresh = progress.live, inverse.count == 0
            direction = -inverse.times(F)
            reference = (1 + (progress.taken + 1) ** -2.0) * torch.stack(list(recent)).amax(0)
            y_next, F_next, found = backtrack(function, y, F, direction, live, reference)
            step, change = y_next - y, F_next - F
            recent.append(progress.note(y_next, F_next)[0])
            progress.give_up(live & ~found & fresh)
            length = ((step * change).sum(-1) / change.square().sum(-1)).abs()
            scaled = found & fresh & (length > 0) & length.isfinite()
            inverse.scale = torch.where(scaled.unsqueeze(-1), length.unsqueeze(-1), inverse.scale)
            inverse.update(step, change, found, live & ~found)
            y, F = y_next, F_next
        return progress.finish()


@dataclass
class _Inverse:
    """``H = scale I + sum of u v^T``, with ``u`` and ``v`` in the rows of ``(*batch, m, n)``; unused rows are zero.

    Attributes:
        count: how many rows each problem uses ``(*batch)``.
        scale: ``(*batch, 1)``.
    """

    u: Tensor
    v: Tensor
    count: Tensor
    scale: Tensor

    @classmethod
    def identity(cls, like: Tensor, history: int) -> _Inverse:
        *batch, n = like.shape
        rows = like.new_zeros((*batch, history, n))
        return cls(rows, rows.clone(), like.new_zeros(batch, dtype=torch.int64), like.new_ones((*batch, 1)))

    def times(self, x: Tensor) -> Tensor:
        """``H x``."""
        return self.scale * x + ((self.v @ x.unsqueeze(-1)).mT @ self.u).squeeze(-2)

    def transposed_times(self, x: Tensor) -> Tensor:
        """``H^T x``."""
        return self.scale * x + ((self.u @ x.unsqueeze(-1)).mT @ self.v).squeeze(-2)

    def update(self, step: Tensor, change: Tensor, valid: Tensor, forget: Tensor) -> None:
        """The update of rank one where ``valid``; a cleared memory where ``forget`` or where it is full."""
        Hz, sH = self.times(change), self.transposed_times(step)
        ss = (step * step).sum(-1)
        ratio = (sH * change).sum(-1) / ss
        # H stays safely invertible: a part of the update where the whole would make it nearly singular.
        sign = torch.where(ratio < 0, -1.0, 1.0)
        part = torch.where(ratio.abs() < 0.1, (1 - 0.1 * sign) / (1 - ratio), 1.0)
        weight = part / ((1 - part) * ss + part * ratio * ss)
        u = weight.unsqueeze(-1) * (step - Hz)
        valid = valid & u.isfinite().all(-1) & sH.isfinite().all(-1)
        size = self.u.shape[-2]
        forget = forget | (valid & (self.count == size))
        self.u.masked_fill_(forget[..., None, None], 0.0)
        self.v.masked_fill_(forget[..., None, None], 0.0)
        self.count = torch.where(forget, 0, self.count)
        valid = valid & ~forget
        place = (torch.arange(size, device=u.device) == self.count.unsqueeze(-1)) & valid.unsqueeze(-1)
        self.u = torch.where(place.unsqueeze(-1), u.unsqueeze(-2), self.u)
        self.v = torch.where(place.unsqueeze(-1), sH.unsqueeze(-2), self.v)
        self.count = self.count + valid
