"""A step length that makes a residual smaller."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def backtrack(
    residual: Callable[[Tensor], Tensor],
    y: Tensor,
    F: Tensor,
    direction: Tensor,
    live: Tensor,
    reference: Tensor | None = None,
    max_trials: int = 20,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shorten the step until ``|F(y + t d)| <= reference - 1e-4 t |F(y)|``, starting at ``t = 1``.

    Args:
        residual: ``F``, from ``(*batch, n)`` to ``(*batch, n)``.
        y: where the step starts ``(*batch, n)``, with residual ``F``.
        direction: ``d`` ``(*batch, n)``.
        live: which problems move at all ``(*batch)``.
        reference: residual norms that need not be undercut by more ``(*batch)``; ``None`` are those at ``y``.
        max_trials: most evaluations.

    Returns:
        new ``y`` and ``F``, and which live problems found a step; the others stay.
    """
    norm = F.norm(dim=-1)
    reference = norm if reference is None else reference
    strict = reference <= norm
    step, searching = torch.ones_like(norm), live & direction.isfinite().all(-1)
    new_y, new_F = y, F
    for _ in range(max_trials):
        trial = torch.where(searching.unsqueeze(-1), y + step.unsqueeze(-1) * direction, new_y)
        found = residual(trial)
        size = found.norm(dim=-1)
        accepted = searching & (size <= reference - 1e-4 * step * norm) & ((size < norm) | ~strict)
        new_y = torch.where(accepted.unsqueeze(-1), trial, new_y)
        new_F = torch.where(accepted.unsqueeze(-1), found, new_F)
        searching = searching & ~accepted
        if not bool(searching.any()):
            break
        # The minimum of the parabola through |F|^2 at 0 and t, and the slope -2 |F|^2 of a Newton step at 0.
        ratio = (size / norm).square()
        shrink = step / (ratio + 2 * step - 1)
        step = step * torch.where(shrink.isfinite(), shrink, 0.1).clamp(0.1, 0.5)
    return new_y, new_F, live & ~searching & (new_y != y).any(-1)
