"""PBRL: the follower's optimality becomes a penalty on a policy that the leader would like to bend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..calculus import gradients_of
from ..errors import InputError
from .algorithm import Algorithm, Cost, HyperGradient
from .bilevel_mdp import BilevelMDP, acting
from .policy_value import evaluation_matrix, policy_value
from .soft_bellman import SoftSolution


class Bent(NamedTuple):
    """What PBRL carries on: the log-probabilities ``(S, A)`` of the leader's own policy."""

    log_policy: Tensor


@dataclass(frozen=True)
class PBRL(Algorithm):
    r"""Minimise :math:`f(x, y) + \lambda p(x, y)` over the policy y by mirror descent; its slope in x is the answer.

    The penalty is how far y is from the soft-optimal policy. Two forms:

    - ``"value"``: :math:`p = V^*(\rho) - V^y(\rho) = \tau \sum_s d^y_\rho(s) KL(y_s \| \pi^*_s)`,
      with :math:`d^y_\rho = (I - \gamma P^y)^{-\top} \rho`;
    - ``"bellman"``: :math:`p = \tau \sum_s \rho(s) KL(y_s \| \pi^*_s)`.

    Both are biased by :math:`O(1 / \lambda)`; the second weighs states less, by about :math:`1 - \gamma`, and wants a
    larger :math:`\lambda`. The leader's number that is returned is that of y. Each state must have a chance to be
    visited (value), or to be the first (Bellman).

    Args:
        penalty: the weight :math:`\lambda`.
        form: ``"value"`` or ``"bellman"``.
        steps: of mirror descent on y, at most, at each point.
        step_size: of mirror descent, relative to the step that is soft policy iteration; 1 where lambda is large.

    Source: Principled Penalty-based Methods for Bilevel Reinforcement Learning and RLHF (Shen, Yang, Chen, 2024).
    """

    penalty: float = 100.0
    form: Literal["value", "bellman"] = "value"
    steps: int = 20
    step_size: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.penalty < float("inf"):
            raise InputError(f"penalty is {self.penalty}; wanted a positive finite number")
        if self.form not in ("value", "bellman"):
            raise InputError(f'form is {self.form!r}; wanted "value" or "bellman"')
        if self.steps < 1 or not 0 < self.step_size <= 1:
            raise InputError(f"steps is {self.steps}, step_size {self.step_size}; wanted >= 1, and a step in (0, 1]")

    def __call__(
        self, problem: BilevelMDP, x: Tensor, memory: Any = None, generator: torch.Generator | None = None
    ) -> HyperGradient:
        """The slope of the penalised problem in x; ``memory`` is :class:`Bent`, the follower's policy at the first."""
        x = x.detach()
        solved, certificate = problem.follower(x)
        transition, reward = problem.transition_at(x).detach(), problem.reward(x).detach()
        log_policy = (
            torch.log_softmax(solved.q_value / problem.temperature, -1) if memory is None else memory.log_policy
        )
        missing, solves = reward == -torch.inf, 0
        for _ in range(self.steps):
            _, _, slope = problem.partials(x, log_policy.exp())
            weight, q_value = self._weight_and_q(problem, log_policy, reward, transition, solved)
            solves += 2 * (self.form == "value")
            target = (q_value - slope / (self.penalty * weight[:, None])) / problem.temperature
            mixed = (1 - self.step_size) * log_policy + self.step_size * target
            mixed = torch.log_softmax(mixed.masked_fill(missing, -torch.inf), -1)
            moved, size = (part.masked_fill(missing, 0.0).abs().amax() for part in (mixed - log_policy, mixed))
            log_policy = mixed
            if not bool(moved > 10 * torch.finfo(x.dtype).eps * (1 + size)):
                break
        number, direct, _ = problem.partials(x, log_policy.exp())
        gradient = direct + self.penalty * self._slope(problem, x, solved, log_policy.exp())
        solves += 2 * (1 + (self.form == "value"))  # the penalty's evaluations, each forward and backward
        cost = Cost(0, 1, solves, int(certificate.steps))
        return HyperGradient(number, gradient, certificate, cost, Bent(log_policy))

    def _weight_and_q(
        self, problem: BilevelMDP, log_policy: Tensor, reward: Tensor, transition: Tensor, solved: SoftSolution
    ) -> tuple[Tensor, Tensor]:
        """How much each state counts in the penalty ``(S,)``, and the action values that it compares with."""
        if self.form == "bellman":
            return _positive(problem.start, "start"), solved.q_value
        policy = log_policy.exp()
        _, q_value = policy_value(policy, reward, transition, problem.discount, problem.temperature)
        matrix = evaluation_matrix(policy, transition, problem.discount)
        return _positive(torch.linalg.solve(matrix.T, problem.start), "visits"), q_value

    def _slope(self, problem: BilevelMDP, x: Tensor, solved: SoftSolution, policy: Tensor) -> Tensor:
        """The derivative of the penalty in ``x``, both policies held fixed."""
        start, settings = problem.start, (problem.discount, problem.temperature)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            reward, transition = problem.reward(x), problem.transition_at(x)
            best, q_value = policy_value(solved.policy, reward, transition, *settings)
            if self.form == "value":
                penalty = start @ (best - policy_value(policy, reward, transition, *settings)[0])
            else:
                penalty = start @ ((solved.policy - policy) * q_value.masked_fill(q_value == -torch.inf, 0.0)).sum(-1)
        return gradients_of(acting(penalty), [x])[0]


def _positive(weight: Tensor, what: str) -> Tensor:
    if not bool((weight > 0).all()):
        state = int((weight <= 0).nonzero()[0, 0])
        form = 'the "bellman" form needs every state to be a first one: use "value", or' if what == "start" else ""
        raise InputError(
            f"state {state} has {what} weight 0, so no penalty holds the policy there; {form} change start"
        )
    return weight
