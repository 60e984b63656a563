"""Gradient descent with a fixed step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import Certificate
from ..equation import Problem
from ..errors import InputError
from .solver import Solver, at_rounding_floor, check_stopping, outcome, tolerance


@dataclass(frozen=True)
class GradientDescent(Solver):
    """``y <- y - step_size * F(y)``, each problem until its own gradient norm is small enough.

    Args:
        step_size: step length; convergence needs less than 2 over the largest curvature.
        rtol, atol: stop a problem at gradient norm ``atol + rtol * (norm at the start)``; ``None`` is 1e-10 in float64
            and 1e-5 in float32.
        max_steps: most iterations.
    """

    step_size: float
    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        check_stopping("GradientDescent", self.rtol, self.atol, self.max_steps)
        if not 0 < self.step_size < float("inf"):
            raise InputError(f"GradientDescent: step_size is {self.step_size}; it must be positive and finite")

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Descend from ``start``."""

        def gradient(y: Tensor) -> Tensor:
            return problem.residual(y, *inputs).detach()

        y, g = start, gradient(start)
        norm = g.norm(dim=-1)
        wanted = tolerance(self.rtol, self.atol, norm)
        live = norm.isfinite() & (norm > wanted)
        floor = torch.zeros_like(live)
        steps = torch.zeros(norm.shape, dtype=torch.int64, device=norm.device)
        while bool((live := live & (steps < self.max_steps)).any()):
            moved = torch.where(live.unsqueeze(-1), y - self.step_size * g, y)
            # A step lost in rounding cannot be followed by another.
            floor = floor | (live & (moved == y).all(-1))
            y, g = moved, gradient(moved)
            norm = g.norm(dim=-1)
            steps = steps + live
            live = live & ~floor & norm.isfinite() & (norm > wanted)
        exhausted = ~floor & (steps >= self.max_steps)
        open_ = (exhausted | floor) & (norm > wanted)
        if bool(open_.any()):
            extent = torch.maximum((y - start).abs(), start.abs())
            floor = open_ & at_rounding_floor(gradient, y, g, extent)
        return y, outcome(norm <= wanted, norm.isfinite(), floor, exhausted, norm, wanted, steps)
