"""The bilevel layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bigrad.certificate import OnFailure
from bigrad.constraints import Constraints
from bigrad.gradients import GradientRule
from bigrad.layers.solved import Solved
from bigrad.solvers import BilevelReading, Levels, Solver, Stackelberg


class Bilevel(Solved):
    r"""A leader over a follower, :math:`\min_x f(x, y)` with :math:`y \in \arg\min_y g(y, x)`, as a layer.

    See :func:`bigrad.bilevel` for the arguments. Gradients go to the inputs, to the parameters of a level that is an
    ``nn.Module``, and in eager mode to tensors that a level captures.

    Attributes:
        certificate: how the last eager call ended.

    Example:
        >>> import torch
        >>> from bigrad.layers import Bilevel
        >>> leader = lambda x, y, z: ((y - z) ** 2).sum() + (x**2).sum()
        >>> follower = lambda y, x, z: ((y - x) ** 2).sum()
        >>> layer = Bilevel(leader, follower, init=(torch.zeros(2), torch.zeros(2)))
        >>> x, y = layer(torch.tensor([2.0, -4.0]))
        >>> x
        tensor([ 1., -2.])
    """

    word = "levels"

    def __init__(
        self,
        leader: Callable[..., Tensor],
        follower: Callable[..., Tensor],
        init: Any,
        *,
        leader_constraints: Constraints | None = None,
        follower_constraints: Constraints | None = None,
        solver: Solver | Callable[..., Any] | None = None,
        gradient: GradientRule | None = None,
        on_failure: OnFailure = "raise",
    ) -> None:
        levels = Levels(leader, follower, leader_constraints, follower_constraints)
        super().__init__(levels, init, Stackelberg() if solver is None else solver, gradient, on_failure)

    def _read(self, init: Any, inputs: tuple[Any, ...]) -> BilevelReading:
        return BilevelReading(self._function, init, inputs, probe=not self._probed)
