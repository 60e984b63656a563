"""A step length along a descent direction, accepted by its gradients where values can no longer tell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ValueAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]


def line_search(
    evaluate: ValueAndGradient,
    y: Tensor,
    f: Tensor,
    g: Tensor,
    direction: Tensor,
    first: Tensor,
    live: Tensor,
    slope_tolerance: float = 0.9,
    max_trials: int = 30,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find points that meet the Wolfe conditions, or near the optimum their form in gradients alone.

    A value is only trusted down to the square root of its rounding error: closer than that the slope decides.
    Where no trial meets the conditions, the trial with the smallest gradient norm is taken if it is smaller than the
    one at ``y``.

    Args:
        evaluate: ``y -> (values, gradient)``.
        y: where the search starts ``(*batch, n)``, with value ``f`` and gradient ``g``.
        direction: descent direction ``(*batch, n)``.
        first: the first step length tried ``(*batch)``.
        live: which problems search at all ``(*batch)``.
        slope_tolerance: the slope's size at the new point over that at the old one.
        max_trials: most evaluations.

    Returns:
        new ``y``, ``f``, ``g``, and which live problems found a step.

    Source: A New Conjugate Gradient Method with Guaranteed Descent and an Efficient Line Search (Hager, Zhang, 2005).
    """
    slope = (g * direction).sum(-1)
    slack = torch.finfo(y.dtype).eps ** 0.5 * f.abs()
    low, low_slope = torch.zeros_like(f), slope
    high, high_slope = torch.full_like(f, torch.inf), torch.full_like(f, torch.nan)
    step = first
    best_y, best_f, best_g, best_norm = y, f, g, g.norm(dim=-1)
    searching = live
    for _ in range(max_trials):
        trial = torch.where(searching.unsqueeze(-1), y + step.unsqueeze(-1) * direction, best_y)
        value, gradient = evaluate(trial)
        here = (gradient * direction).sum(-1)
        finite = value.isfinite() & gradient.isfinite().all(-1)
        decrease = value <= f + 1e-4 * step * slope
        by_slope = (value <= f + slack) & (here <= -(1 - 2e-4) * slope)
        not_too_far = finite & (decrease | by_slope)
        far_enough = here >= slope_tolerance * slope
        accepted = searching & not_too_far & far_enough
        norm = torch.where(finite, gradient.norm(dim=-1), torch.inf)
        keep = accepted | (searching & (norm < 0.999 * best_norm) & (value <= f + slack))
        best_y = torch.where(keep.unsqueeze(-1), trial, best_y)
        best_f, best_norm = torch.where(keep, value, best_f), torch.where(keep, norm, best_norm)
        best_g = torch.where(keep.unsqueeze(-1), gradient, best_g)
        searching = searching & ~accepted
        if not bool(searching.any()):
            break
        too_far = searching & ~not_too_far
        high, high_slope = torch.where(too_far, step, high), torch.where(too_far, here, high_slope)
        low, low_slope = torch.where(too_far, low, step), torch.where(too_far, low_slope, here)
        step = torch.where(searching, _next_step(low, low_slope, high, high_slope, step, slope), step)
    found = live & ((best_y != y).any(-1))
    return best_y, best_f, best_g, found


def _next_step(low: Tensor, low_slope: Tensor, high: Tensor, high_slope: Tensor, step: Tensor, slope: Tensor) -> Tensor:
    """Secant on the slopes, kept inside the bracket; expansion while there is none."""
    width = high - low
    inside = low + width * (low_slope / (low_slope - high_slope)).clamp(0.1, 0.9)
    inside = torch.where(inside.isfinite() & (high_slope > 0), inside, low + 0.5 * width)
    ahead = step * (slope / (slope - low_slope))
    ahead = torch.where(low_slope > slope, ahead, torch.inf).clamp(2 * step, 100 * step)
    return torch.where(high.isfinite(), inside, ahead)
