"""The bilevel layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from bigrad.certificate import OnFailure
from bigrad.constraints import Constraints
from bigrad.errors import InputError
from bigrad.gradients import FirstOrder, GradientRule, WarmStart
from bigrad.layers.answers import Anticipation, MutualAnswers
from bigrad.layers.convex_program import ConvexProgram
from bigrad.layers.solved import Solved
from bigrad.solvers import (
    LBFGS,
    Anderson,
    BilevelReading,
    Levels,
    MappingReading,
    ObjectiveReading,
    Reading,
    Solver,
    Stackelberg,
)


class Bilevel(Solved):
    r"""A leader over a follower, :math:`\min_x f(x, y)` with :math:`y \in \arg\min_y g(y, x)`, as a layer.

    See :func:`bigrad.bilevel` for the arguments. The follower may also be a :class:`ConvexProgram` of ``(x, *inputs)``,
    whose solution is ``y``: the derivative is then that of :class:`bigrad.gradients.FirstOrder`, as a cone program has
    no second derivative. With two of them, the leader's of ``(y, *inputs)``, each level takes the other's variable as
    given, and the answer is where neither moves. ``y`` is then found from ``x``: ``init`` is ``(x0, None)``.

    Gradients go to the inputs, to the parameters of a level that is an
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
    default = Stackelberg

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
        levels: nn.Module = Levels(leader, follower, leader_constraints, follower_constraints)
        reading: type[Reading] = BilevelReading
        if isinstance(follower, ConvexProgram):
            if leader_constraints is not None or follower_constraints is not None:
                raise InputError("Bilevel: a ConvexProgram has its constraints inside; a leader over it takes none")
            init = _first(init)
            if isinstance(leader, ConvexProgram):
                levels, reading = MutualAnswers(leader, follower), MappingReading
                solver = Anderson() if solver is None else solver
            else:
                levels, reading = Anticipation(leader, follower), ObjectiveReading
                solver = LBFGS(finish=None) if solver is None else solver
                gradient = FirstOrder() if gradient is None else gradient
        super().__init__(levels, init, solver, gradient, on_failure)
        self.reading = reading

    def forward(self, *inputs: Any, init: Any = None, warm_start: WarmStart | None = None) -> tuple[Any, Any]:
        """Solve for these inputs; ``init`` starts this one call elsewhere, ``warm_start`` where its last call ended."""
        if self.reading is BilevelReading:
            both: tuple[Any, Any] = super().forward(*inputs, init=init, warm_start=warm_start)
            return both
        x = super().forward(*inputs, init=None if init is None else _first(init), warm_start=warm_start)
        answer: Callable[..., Any] = self.get_submodule(self.word).answer  # type: ignore[assignment]  # both have one
        return x, answer(x, *inputs)


def _first(init: Any) -> Any:
    if not (isinstance(init, (tuple, list)) and len(init) == 2):
        raise InputError("init must be a pair (x0, None): the follower's answer is found from x")
    return init[0]
