"""The soft Bellman fixed point and its derivatives, for a transition that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate, OnFailure, check_on_failure
from ..equation import Problem
from ..errors import InputError, UnsupportedError
from ..gradients import GradientRule, Implicit, Record, WarmStart
from ..solvers import Solver
from .decision_process import Transition, check_numbers, decision_process
from .policy_iteration import PolicyIteration
from .soft_bellman_equation import SoftBellmanEquation


class SoftSolution(NamedTuple):
    """The optimum of an entropy-regularised Markov decision process.

    Attributes:
        policy: action probabilities ``(*batch, S, A)``.
        value: soft values ``(*batch, S)``.
        q_value: soft action values ``(*batch, S, A)``, minus infinity where there is no action.
    """

    policy: Tensor
    value: Tensor
    q_value: Tensor


def soft_bellman(
    reward: Tensor,
    transition: Transition,
    discount: float | Tensor,
    temperature: float | Tensor,
    *,
    solver: Solver | None = None,
    gradient: GradientRule | None = None,
    on_failure: OnFailure = "raise",
    init: Tensor | None = None,
    warm_start: WarmStart | None = None,
) -> SoftSolution:
    """The soft-optimal policy and values, differentiable in every tensor given; see :func:`solve_soft_bellman`."""
    given = (reward, transition, discount, temperature, gradient, on_failure)
    return solve_soft_bellman(*given, solver=solver, init=init, warm_start=warm_start)[0]


def solve_soft_bellman(
    reward: Tensor,
    transition: Transition,
    discount: float | Tensor,
    temperature: float | Tensor,
    gradient: GradientRule | None = None,
    on_failure: OnFailure = "raise",
    *,
    solver: Solver | None = None,
    init: Tensor | None = None,
    warm_start: WarmStart | None = None,
) -> tuple[SoftSolution, Certificate | None]:
    r"""Solve :math:`V_s = \tau \log \sum_a \exp\big((r_{sa} + \gamma \sum_{t} P_{sat} V_t) / \tau\big)`.

    The backward pass is one solve with :math:`(I - \gamma P^\pi)^\top` and one vector-Jacobian product through whatever
    made the reward. The solution is itself a root, so second derivatives are right too.

    Args:
        reward: ``(*batch, S, A)``; minus infinity where a state does not have the action, which then has probability
            zero and no gradient.
        transition: probabilities of the next state, ``(*batch, S, A, S)``, or one sparse CSR matrix ``(S * A, S)``, or
            a :class:`SparseTransition`. Each row sums to one, or is all zero where the episode ends.
        discount: ``0 <= discount < 1``, a number or a tensor ``(*batch)``.
        temperature: weight of the entropy, positive, a number or a tensor ``(*batch)``.
        gradient: how to differentiate; default ``Implicit()``, which takes over the solver's factor up to 512 states
            and uses ``linear.GMRES()`` above.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"`` when the fixed point is not reached.
        solver: :class:`PolicyIteration` by default, or :class:`ValueIteration`, or any solver of roots.
        init: values ``(*batch, S)`` where the search starts; zero by default.
        warm_start: where the last solve with it ended is where this one starts; takes the place of ``init`` then.

    Returns:
        the solution, and the certificate (``None`` under ``torch.func``).

    Raises:
        InputError: wrong shapes, dtypes or devices, a row that is no distribution, a sparse row with one state twice, a
            state without an action, a number out of range.
        SolveError: the fixed point was not reached and ``on_failure="raise"``.
        UnsupportedError: a CSR tensor under ``torch.func``, or a second derivative in its values (a
            :class:`SparseTransition` has both).

    Source: Bilevel Reinforcement Learning via the Development of Hyper-gradient without Lower-Level Convexity
    (Yang, Gao, Yuan, 2025).
    """
    equation, inputs, start = decision_process(reward, transition, discount, temperature)
    record = Record(check_on_failure(on_failure), warm=warm_start)
    rule = Implicit() if gradient is None else gradient
    if not isinstance(rule, GradientRule):
        raise InputError(f"gradient is {rule!r}; wanted one of bigrad.gradients, such as gradients.Implicit()")
    method = PolicyIteration() if solver is None else solver
    if not isinstance(method, Solver):
        raise InputError(f"solver is {solver!r}; wanted one such as mdp.PolicyIteration()")
    start = _begin(start, init, warm_start)
    value = rule.attach(equation, _Checked(method), start, inputs, record)
    if warm_start is not None:
        warm_start.solution = value.detach()
    # Apart from the solve: the policy is a function of the value, and the derivatives go through both.
    policy = equation.policy(value, *inputs)
    q_value = equation.action_values(value, *inputs[:3])
    return SoftSolution(policy, value, q_value), None if calculus.transforming() else record.certificate


@dataclass(frozen=True)
class _Checked:
    """A solve that looks at the numbers first."""

    solver: Solver

    @property
    def steps(self) -> Solver:
        """The solver, for a rule that replays its steps."""
        return self.solver

    def __call__(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        if isinstance(problem, SoftBellmanEquation):
            reward, transition, discount, temperature = inputs
            inputs = (reward, problem.shared(transition), discount, temperature)
            check_numbers(problem, *inputs)
        value, certificate = self.solver.solve(problem, start, inputs)
        certificate.what = "soft Bellman"
        return value, certificate


def _begin(start: Tensor, init: Tensor | None, warm: WarmStart | None) -> Tensor:
    """Where the search starts."""
    if warm is not None:
        if calculus.transforming():
            raise UnsupportedError("a warm start remembers plain numbers: leave it out under a torch.func transform")
        if warm.solution is not None:
            init = warm.solution
    if init is None:
        return start
    if not isinstance(init, Tensor) or init.dtype != start.dtype or init.device != start.device:
        raise InputError(f"the start is {init!r}; wanted a tensor of the reward's dtype and on its device")
    try:
        wide = init.detach().expand(start.shape)
    except RuntimeError as error:
        raise InputError(
            f"the start has shape {tuple(init.shape)}; wanted that of the value, {tuple(start.shape)}"
        ) from error
    return torch.where(wide.isfinite().all(-1, keepdim=True), wide, start)  # a failed solve leaves what is no start
