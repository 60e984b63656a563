"""Contract design: wages that depend on output, for an agent whose effort nobody sees."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mdp import LeaderReturn
from .planning import best_return
from .reference import ReferenceProblem


def contract_design(
    levels: int = 8,
    efforts: int = 4,
    effort_cost: float = 0.15,
    discount: float = 0.9,
    temperature: float = 0.1,
    dtype: torch.dtype = torch.float64,
) -> ReferenceProblem:
    r"""At output s the follower earns :math:`\log(1 + w_s) - c a` and the leader :math:`s - w_s`.

    Wages are :math:`w = softplus(x)`. The state is the output, 0 to ``levels - 1`` in units of which the top one is
    worth 1. Effort a of ``efforts`` moves it up one level with a chance that grows with a, and down with a fixed one.
    Without wages the agent rests. The leader minimises less its discounted profit. No contract does better than
    ``bound``, the profit of an agent who works for nothing.

    Source of the idea: Moral Hazard and Observability (Holmstrom, 1979).

    Example:
        >>> problem = contract_design()
        >>> problem.bound < float(problem.objective(problem.init))
        True
    """
    transition = torch.zeros(levels, efforts, levels, dtype=dtype)
    for state in range(levels):
        for effort in range(efforts):
            rise, fall = 0.8 * effort / max(1, efforts - 1), 0.15
            transition[state, effort, min(state + 1, levels - 1)] += rise
            transition[state, effort, max(state - 1, 0)] += fall
            transition[state, effort, state] += 1 - rise - fall
    output = torch.linspace(0, 1, levels, dtype=dtype)
    pain = effort_cost * torch.arange(efforts, dtype=dtype)
    start = torch.zeros(levels, dtype=dtype)
    start[0] = 1

    def table(values: Tensor) -> Tensor:
        return values[:, None].expand(-1, efforts)

    def wages(x: Tensor) -> Tensor:
        return torch.nn.functional.softplus(x)

    returns = LeaderReturn(lambda x: table(wages(x) - output), discount)
    return ReferenceProblem(
        reward=lambda x: table((1 + wages(x)).log()) - pain,
        transition=transition,
        start=start,
        discount=discount,
        temperature=temperature,
        leader=lambda x, policy: returns.expected(x, policy, transition, start),
        returns=returns,
        name="contract design",
        bound=-best_return(table(output), transition, start, discount),
        init=torch.full((levels,), -3.0, dtype=dtype),
    )
