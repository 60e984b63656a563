"""Anderson's acceleration of a fixed-point iteration, many problems in lockstep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import Certificate
from ..equation import Problem
from ..errors import InputError
from .progress import Progress
from .solver import Solver, check_stopping, residual_of

_GROWTH = 2.0  # how much larger than the smallest one an accelerated step's residual may be


@dataclass(frozen=True)
class Anderson(Solver):
    r"""Anderson acceleration: the combination of the last steps whose residual is smallest.

    With :math:`f_k = -F(y_k)`, which is :math:`T(y_k) - y_k` for a map, and :math:`\gamma` the least-squares solution
    of :math:`\Delta F\, \gamma \approx f_k` over the last ``history`` differences,

    .. math:: y_{k+1} = y_k + \beta f_k - (\Delta Y + \beta\, \Delta F)\, \gamma.

    An accelerated step after which the residual is more than twice the smallest one so far is taken back: the memory is
    cleared and the plain iteration goes on from the best point, for one step, and for twice as many as before where
    that did not help.

    Args:
        rtol, atol: stop a problem at residual norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most iterations, with one evaluation of the map each.
        history: how many differences are combined; 0 is the plain iteration.
        damping: :math:`\beta`, the part of the residual that is added to the combination.
        ridge: penalty on :math:`\gamma^2` for differences of unit length; ``None`` is the rounding error of the dtype.

    Source: Anderson Acceleration for Fixed-Point Iterations (Walker, Ni, 2011).

    Example:
        >>> import torch
        >>> from bigrad.equation import Mapping
        >>> Anderson().solve(Mapping(torch.cos, batch_dims=0), torch.zeros(1), ())[0]
        tensor([0.7391])
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 1_000
    history: int = 10
    damping: float = 1.0
    ridge: float | None = None

    def __post_init__(self) -> None:
        check_stopping("Anderson", self.rtol, self.atol, self.max_steps)
        if self.history < 0:
            raise InputError(f"Anderson: history is {self.history}; it must be >= 0")
        if not 0 < self.damping < float("inf"):
            raise InputError(f"Anderson: damping is {self.damping}; it must be positive and finite")
        if self.ridge is not None and not 0 < self.ridge < float("inf"):
            raise InputError(f"Anderson: ridge is {self.ridge}; it must be positive and finite")

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Iterate from ``start``; the point with the smallest residual is returned."""
        function = residual_of(problem, inputs)
        window = _Window.empty(start, min(self.history, start.shape[-1]), self.ridge)
        y, residual = start, function(start)
        progress = Progress(function, start, residual, (self.rtol, self.atol, self.max_steps))
        hold = torch.zeros_like(progress.steps)  # plain steps to take now
        next_hold = torch.ones_like(hold)  # and after the next step that is taken back
        while progress.going():
            live = progress.live
            accelerated = (window.count > 0) & (hold == 0)
            moved = y + window.step(residual, self.damping, accelerated)
            y_next = torch.where(live.unsqueeze(-1), moved, progress.y)
            residual_next = function(y_next)
            norm, improved = progress.note(y_next, residual_next, retractable=accelerated)
            back = live & accelerated & ~(norm <= _GROWTH * progress.norm)
            window.push(y_next - y, residual_next - residual, live & ~back & norm.isfinite())
            next_hold = torch.where(improved, 1, next_hold)
            y, residual, hold = y_next, residual_next, (hold - 1).clamp_min(0)
            if not progress.near or bool(back.any()):
                window.forget(back)
                y = torch.where(back.unsqueeze(-1), progress.y, y)
                residual = torch.where(back.unsqueeze(-1), progress.residual, residual)
                hold, next_hold = torch.where(back, next_hold, hold), torch.where(back, 2 * next_hold, next_hold)
        return progress.finish()


@dataclass
class _Window:
    """The last differences, each pair divided by the length of its change of residual; forgotten ones are zero.

    Attributes:
        steps: differences of ``y`` ``(*batch, m, n)``.
        table: rows of the least-squares problem with its ridge, ``(*batch, m + 1, n + m)``: differences of ``F`` of
            unit length, each with its unit of the ridge behind it, and last the residual.
        count: how many differences each problem remembers ``(*batch)``.
        place: the row that the next difference replaces.
    """

    steps: Tensor
    table: Tensor
    count: Tensor
    place: int = 0

    @classmethod
    def empty(cls, like: Tensor, size: int, ridge: float | None) -> _Window:
        *batch, n = like.shape
        weight = torch.finfo(like.dtype).eps if ridge is None else ridge
        table = like.new_zeros((*batch, size + 1, n + size))
        table[..., :size, n:] = weight**0.5 * torch.eye(size, dtype=like.dtype, device=like.device)
        return cls(like.new_zeros((*batch, size, n)), table, like.new_zeros(batch, dtype=torch.int64))

    def step(self, residual: Tensor, damping: float, accelerated: Tensor) -> Tensor:
        """The next step ``(*batch, n)``, from the memory for the problems that are ``accelerated``."""
        size, n = self.steps.shape[-2:]
        if size == 0:
            return -damping * residual
        length = residual.norm(dim=-1, keepdim=True)
        length = torch.where((length > 0) & length.isfinite(), length, 1.0)
        self.table[..., size, :n] = torch.nan_to_num(residual / length, 0.0, 0.0, 0.0)
        # The last column of R is Q^T times the residual: Q itself is not needed.
        triangle = torch.linalg.qr(self.table.mT, mode="r").R
        gamma = torch.linalg.solve_triangular(triangle[..., :size, :size], triangle[..., :size, size:], upper=True)
        changes = self.table[..., :size, :n]
        combined = length * (gamma.mT @ (self.steps - damping * changes)).squeeze(-2)
        return torch.where(accelerated.unsqueeze(-1), -combined, 0.0) - damping * residual

    def push(self, step: Tensor, change: Tensor, valid: Tensor) -> None:
        """Remember a step and its change of ``F`` where ``valid``."""
        size, n = self.steps.shape[-2:]
        if size == 0:
            return
        length = change.norm(dim=-1)
        valid = (valid & (length > 0)).unsqueeze(-1)
        self.steps[..., self.place, :] = torch.where(valid, step / length.unsqueeze(-1), 0.0)
        self.table[..., self.place, :n] = torch.where(valid, change / length.unsqueeze(-1), 0.0)
        self.place = (self.place + 1) % size
        self.count = self.count + valid.squeeze(-1)

    def forget(self, where: Tensor) -> None:
        """Remember nothing there ``(*batch)``."""
        size, n = self.steps.shape[-2:]
        gone = where[..., None, None]
        self.steps.masked_fill_(gone, 0.0)
        self.table[..., :size, :n].masked_fill_(gone, 0.0)
        self.count = torch.where(where, 0, self.count)
