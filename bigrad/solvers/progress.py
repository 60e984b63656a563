"""How far each problem of a batch has come and when it ends, for the solvers that go by the residual."""

from __future__ import annotations

import torch
from torch import Tensor

from ..certificate import Certificate
from .solver import Gradient, at_rounding_floor, outcome, tolerance

_LOOK, _PATIENCE = 50, 500  # steps between looks at the rounding floor, and without progress before giving up


class Progress:
    """The best points so far, and which problems still move.

    A problem ends once its residual is small enough or as small as rounding lets it be, is not finite, or has not
    become smaller by a millionth, nor the objective's value lower, in 500 steps.

    Attributes:
        live: which problems still move ``(*batch)``.
        near: whether the host sees the numbers at no cost; where it has to wait for a device, it looks once a step.
        whole: whether all problems move, as far as the host has looked.
        smooth: whether the last step left all at their best points, and each that moved gained: the usual step.
        steps: how many steps each has taken.
        y, residual, norm: the best point of each, its residual and the norm of that.
    """

    def __init__(
        self,
        function: Gradient,
        start: Tensor,
        residual: Tensor,
        stopping: tuple[float | None, float | None, int],
        value: Tensor | None = None,
    ) -> None:
        """Begin at ``start`` ``(*batch, n)``.

        Args:
            function: the residual as a function of ``y``.
            start: where the iteration starts.
            residual: the residual there.
            stopping: ``(rtol, atol, max_steps)``.
            value: the objective's value there ``(*batch)``, where there is one.
        """
        rtol, atol, self.max_steps = stopping
        self._function, self._start = function, start
        self.y, self.residual, self.norm = start, residual, residual.norm(dim=-1)
        self._first = self.norm
        self.wanted = tolerance(rtol, atol, self.norm)
        self.finite = self.norm.isfinite()
        self.live = self.finite & (self.norm > self.wanted)
        self.floor, self.given_up = torch.zeros_like(self.live), torch.zeros_like(self.live)
        self.steps = torch.zeros(self.norm.shape, dtype=torch.int64, device=start.device)
        self.taken, self.near, self.whole, self.smooth = 0, start.is_cpu, False, False
        self._marks = self.norm, self.norm, value  # the norm at the last look, and norm and value at the last but ten

    def going(self) -> bool:
        """Whether any problem has a step to take."""
        if self.taken >= self.max_steps:
            return False
        count = int(self.live.sum())
        self.whole = self.near and count == self.live.numel()
        return count > 0

    def note(
        self, y: Tensor, residual: Tensor, value: Tensor | None = None, retractable: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Take in a step of the live problems.

        Args:
            y: where they are now ``(*batch, n)``.
            residual: the residual there.
            value: the objective's value there ``(*batch)``, where there is one.
            retractable: which problems may take the step back where the residual is not finite ``(*batch)``.

        Returns:
            the residual norms ``(*batch)``, and which live problems are at their best point so far.
        """
        norm = residual.norm(dim=-1)
        self.steps, self.taken = self.steps + self.live, self.taken + 1
        improved = self.live & (norm < self.norm)
        self.smooth = self.near and bool((improved | ~self.live & (norm == self.norm)).all())
        if self.smooth:  # what follows comes to the same, in fewer operations
            self.y, self.residual, self.norm = y, residual, norm
            self.live = self.live & (norm > self.wanted)
        else:
            mask = improved.unsqueeze(-1)
            self.y, self.residual = torch.where(mask, y, self.y), torch.where(mask, residual, self.residual)
            self.norm = torch.where(improved, norm, self.norm)
            broken = self.live & ~norm.isfinite()
            if retractable is not None:
                broken = broken & ~retractable
            self.finite = self.finite & ~broken
            self.live = self.live & ~broken & (self.norm > self.wanted)
        if self.taken % _LOOK == 0:
            self._look(value)
        return norm, improved

    def give_up(self, where: Tensor) -> None:
        """End the live problems among ``where``: they cannot move any more."""
        self.given_up = self.given_up | (self.live & where)
        self.live = self.live & ~where

    def _look(self, value: Tensor | None) -> None:
        recent, norm, then = self._marks
        stale = self.live & ~(self.norm < 0.9 * recent)
        if bool(stale.any()):
            self.floor = self.floor | (stale & self._resting(self.y, self.residual))
            self.live = self.live & ~self.floor
        if self.taken % _PATIENCE == 0:
            idle = ~(self.norm < (1 - 1e-6) * norm)  # at less than that it would take forever
            if value is not None and then is not None:
                idle = idle & ~(value < then - 4 * torch.finfo(value.dtype).eps * then.abs())
            self.give_up(idle)
            norm, then = self.norm, value
        self._marks = self.norm, norm, then

    def _resting(self, y: Tensor, residual: Tensor) -> Tensor:
        extent = torch.maximum((y - self._start).abs(), self._start.abs())
        return at_rounding_floor(self._function, y, residual, extent)

    def finish(self, y: Tensor | None = None, residual: Tensor | None = None) -> tuple[Tensor, Certificate]:
        """The answer and its certificate; ``y`` and its residual are the last point of the problems out of steps.

        Without them the best point is returned there too.
        """
        if y is not None and residual is not None:
            mask = self.live.unsqueeze(-1)
            self.y, self.residual = torch.where(mask, y, self.y), torch.where(mask, residual, self.residual)
            self.norm = self.residual.norm(dim=-1)
        doubtful = (self.live | self.given_up) & self.finite & ~self.floor
        if bool(doubtful.any()):
            self.floor = self.floor | (doubtful & self._resting(self.y, self.residual))
        # So far out that one rounding of y moves it further than the first residual: what is zero there is no solution.
        lost = (self.steps > 0) & (torch.finfo(self.y.dtype).eps * self.y.norm(dim=-1) > self._first)
        done = (self.norm <= self.wanted) & ~lost
        return self.y, outcome(done, self.finite, self.floor, self.live, self.norm, self.wanted, self.steps)
