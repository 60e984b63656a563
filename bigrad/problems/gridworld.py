"""Moves on a grid of rooms and walls."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

MOVES = torch.tensor([[-1, 0], [0, 1], [1, 0], [0, -1]])  # up, right, down, left: (down, right) each

FOUR_ROOMS = (
    "#############",
    "#     #     #",
    "#     #     #",
    "#           #",
    "#     #     #",
    "#     #     #",
    "## ####     #",
    "#     ### ###",
    "#     #     #",
    "#     #     #",
    "#           #",
    "#     #     #",
    "#############",
)


class Grid(NamedTuple):
    """A grid world: its cells and how the four moves go.

    Attributes:
        layout: the state of each cell ``(rows, columns)``, -1 at walls.
        transition: ``(S, 4, S)``.
    """

    layout: Tensor
    transition: Tensor

    def state(self, row: int, column: int) -> int:
        """The state of a free cell."""
        found = int(self.layout[row, column])
        if found < 0:
            raise InputError(f"cell ({row}, {column}) is a wall; wanted a free cell")
        return found

    def at(self, row: int, column: int) -> Tensor:
        """One in the state of a free cell, zero elsewhere ``(S,)``."""
        here = self.transition.new_zeros(len(self.transition))
        here[self.state(row, column)] = 1
        return here

    def ending(self, row: int, column: int) -> Tensor:
        """The transition of episodes that end in a free cell."""
        return self.transition * (1 - self.at(row, column))[:, None, None]


def grid_world(rows: tuple[str, ...], fail: float = 0.0, dtype: torch.dtype = torch.float64) -> Grid:
    """Walls are ``#``, all else is free; a move fails with a chance, then it is one of the other three.

    Whatever would leave the grid or enter a wall stays where it is.

    Example:
        >>> grid_world(("   ", " # "), fail=0.3).transition[0, 1]
        tensor([0.2000, 0.7000, 0.0000, 0.1000, 0.0000], dtype=torch.float64)
    """
    if not 0 <= fail < 1:
        raise InputError(f"fail is {fail}; wanted 0 <= fail < 1")
    free = torch.tensor([[cell != "#" for cell in row] for row in rows])
    layout = torch.where(free, free.flatten().cumsum(0).reshape(free.shape) - 1, -1)
    places = free.nonzero()
    ahead = places[:, None] + MOVES
    inside = ((ahead >= 0) & (ahead < torch.tensor(free.shape))).all(-1)
    target = layout[tuple(torch.where(inside[..., None], ahead, 0).unbind(-1))]
    target = torch.where(inside & (target >= 0), target, torch.arange(len(places))[:, None])
    reached = torch.nn.functional.one_hot(target, len(places)).to(dtype)
    slip = torch.full((4, 4), fail / 3, dtype=dtype).fill_diagonal_(1 - fail)
    return Grid(layout, torch.einsum("ab,sbt->sat", slip, reached))
