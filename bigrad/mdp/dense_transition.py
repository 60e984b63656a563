"""A sparse transition written out in full, where it is small enough."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError, UnsupportedError
from .decision_process import Transition
from .sparse_transition import SparseTransition

_MOST_NUMBERS = 2**26


def dense_transition(transition: Transition, states: int) -> Tensor:
    """The probabilities ``(S, A, S)``, differentiable in those given.

    Args:
        transition: dense, or one sparse CSR matrix ``(S * A, S)``, or a :class:`SparseTransition`.
        states: their number S.

    Raises:
        InputError: a number of rows that is no multiple of ``states``.
        UnsupportedError: more than 67 million numbers.

    Example:
        >>> import torch
        >>> from bigrad.mdp import SparseTransition
        >>> loop = SparseTransition(torch.tensor([0, 1, 1]), torch.tensor([0]), torch.ones(1))
        >>> dense_transition(loop, 1)
        tensor([[[1.],
                 [0.]]])
    """
    if isinstance(transition, Tensor):
        if transition.layout == torch.strided:
            return transition
        transition = SparseTransition.of(transition)
    rows = len(transition.crow) - 1
    if rows % states:
        raise InputError(
            f"the sparse transition has {rows} rows and start {states} states; wanted as many rows for each state"
        )
    if rows * states > _MOST_NUMBERS:
        raise UnsupportedError(
            f"a transition of {rows} rows and {states} states has {rows * states} numbers when it is written in full, "
            f"which this algorithm asks for; wanted at most {_MOST_NUMBERS}: take the exact SoBiRL(), which keeps it "
            "sparse"
        )
    row = torch.arange(rows, device=transition.col.device).repeat_interleave(transition.crow.diff().long())
    empty = transition.values.new_zeros(rows, states)
    return empty.index_put((row, transition.col.long()), transition.values).reshape(states, -1, states)
