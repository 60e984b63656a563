"""What the reference problems share: where to start, what is known, and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..mdp import BilevelMDP
from .picture import draw_grid, draw_table

if TYPE_CHECKING:
    from .picture import Figure


@dataclass(frozen=True, kw_only=True)
class ReferenceProblem(BilevelMDP):
    """A bilevel MDP with a starting point, a known answer where there is one, and a picture.

    Attributes:
        name: its title.
        init: where the leader starts.
        optimum: the least value of the leader's number, ``None`` where it is not known.
        bound: a number that no ``x`` goes below, ``None`` where none is known.
        minimiser: an ``x`` that has it.
        layout: the state of each cell of a grid ``(rows, columns)``, -1 at walls; ``None`` is no grid.
        moves: the displacement (down, right) of each action on the grid ``(A, 2)``.
    """

    name: str
    init: Tensor
    optimum: float | None = None
    bound: float | None = None
    minimiser: Tensor | None = None
    layout: Tensor | None = None
    moves: Tensor | None = None

    def render(self, policy: Tensor, reward: Tensor) -> Figure:
        """Draw a policy and a reward, each ``(S, A)``: on the grid, or as two tables.

        Raises:
            MissingPackage: matplotlib is not installed.
        """
        if self.layout is None or self.moves is None:
            return draw_table(self.name, policy.detach().cpu(), reward.detach().cpu())
        parts = (self.layout, self.moves, policy, reward, self.start)
        return draw_grid(self.name, *(part.detach().cpu() for part in parts))
