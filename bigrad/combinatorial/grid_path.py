"""Shortest paths on grids of vertex costs in plain torch: every problem of a batch in the same few operations."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

EIGHT = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
FOUR = ((-1, 0), (0, -1), (0, 1), (1, 0))
CACHE = 2**19  # bytes of costs that main memory's cache is kept to
Shifts = tuple[tuple[int, int], ...]


def grid_paths(cost: Tensor, connectivity: int) -> Tensor:
    """The paths as 0/1 masks ``(B, H, W)`` for costs ``(B, H, W)``.

    A cell's distance is the least sum of the costs on the way to it, added up from the start. The path is read
    backwards: to the first of the nearest neighbours in reading order, and inside a plateau (costs of zero) to the
    first of those with the fewest steps to its edge.
    """
    count = max(CACHE // (cost[0].numel() * cost.itemsize), 1) if cost.is_cpu else len(cost)
    return torch.cat([_paths(part, connectivity) for part in cost.split(count)])


def _paths(cost: Tensor, connectivity: int) -> Tensor:
    """As many paths as are found side by side."""
    last = cost.permute(1, 2, 0)  # the batch last: each operation runs over long rows
    distance = _distances(last.clone(memory_format=torch.contiguous_format), connectivity == 8)
    if not bool(distance[-2, -2].isfinite().all()):
        raise too_large(cost)
    return _trace(distance, EIGHT if connectivity == 8 else FOUR).permute(2, 0, 1).contiguous()


def too_large(cost: Tensor) -> InputError:
    """What is raised where no path has a finite cost."""
    return InputError(f"ShortestPath: every path's cost overflows {cost.dtype}; divide the costs by their largest")


def _distances(c: Tensor, eight: bool) -> Tensor:
    """Distances ``(H + 2, W + 2, B)``, infinite on the border: all are lowered together until none changes."""
    height, width, batch = c.shape
    distance = c.new_full((height + 2, width + 2, batch), torch.inf)
    inner, middle, above, below = distance[1:-1, 1:-1], distance[1:-1], distance[:-2], distance[2:]
    inner[0, 0] = c[0, 0]
    c[0, 0] = 0  # from the first cell a way may start at any sweep
    rows, lower = torch.empty_like(middle), torch.empty_like(c)
    across = rows if eight else middle
    west, here, east = across[:, :-2], rows[:, 1:-1], across[:, 2:]
    for sweep in range(1, height * width + 1):
        torch.minimum(above, below, out=rows)
        torch.minimum(rows, middle, out=rows)
        torch.minimum(west, east, out=lower)
        torch.minimum(lower, here, out=lower)
        if sweep % 4 or sweep < max(height, width):
            torch.add(lower, c, out=inner)
        elif torch.equal(lower.add_(c), inner):
            break
        else:
            inner.copy_(lower)
    return distance


def _trace(distance: Tensor, shifts: Shifts) -> Tensor:
    """Masks ``(H, W, B)`` of the cells from the last one back to the first."""
    height, width, batch = distance.shape
    flat, steps = distance.view(-1, batch), _steps_to_edge(distance, shifts)
    start = width + 1
    # The cell itself is looked at last: it is the nearest of all only where the path ends.
    offsets = torch.tensor([[down * width + right] for down, right in (*shifts, (0, 0))], device=flat.device)
    cell = torch.full((1, batch), len(flat) - start - 1, device=flat.device)
    path = [cell]
    while len(path) < max(height, width) - 2 or bool((cell != start).any()):
        around = cell + offsets
        near = flat.gather(0, around)
        if steps is not None:
            fewest = torch.where(near == near.amin(0), steps.view(-1, batch).gather(0, around), torch.inf)
            near = torch.where(near.amin(0) == near[-1], fewest, near)
        cell = around.gather(0, near.min(0, keepdim=True).indices)
        path.append(cell)
    mask = torch.zeros_like(flat).scatter_(0, torch.cat(path), 1)
    return mask.view_as(distance)[1:-1, 1:-1]


def _steps_to_edge(distance: Tensor, shifts: Shifts) -> Tensor | None:
    """How many steps a cell is from one with a nearer neighbour, along cells of its own distance; zero for the first.

    ``None`` where all cells have nearer neighbours.
    """
    here = distance[1:-1, 1:-1]
    least = torch.full_like(here, torch.inf)
    for shift in shifts:
        torch.minimum(least, _shifted(distance, shift), out=least)
    level = least == here
    level[0, 0] = False
    if not bool(level.any()):
        return None
    steps = torch.full_like(distance, torch.inf)
    inner = steps[1:-1, 1:-1]
    inner[~level] = 0
    while True:
        fewer = inner.clone()
        for shift in shifts:
            beside = torch.where(_shifted(distance, shift) == here, _shifted(steps, shift) + 1, torch.inf)
            torch.minimum(fewer, beside, out=fewer)
        if torch.equal(fewer, inner):
            return steps
        inner.copy_(fewer)


def _shifted(padded: Tensor, shift: tuple[int, int]) -> Tensor:
    """What lies at ``shift`` of each inner cell."""
    down, right = shift
    height, width = padded.shape[:2]
    return padded[1 + down : height - 1 + down, 1 + right : width - 1 + right]
