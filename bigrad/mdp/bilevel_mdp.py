"""A leader who sets a reward or a transition, and a follower who answers with the soft-optimal policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from ..calculus import gradients_of
from ..certificate import Certificate
from ..errors import InputError
from .decision_process import Transition, decision_process
from .dense_transition import dense_transition
from .leader_return import LeaderReturn
from .response import check_temperature_and_discount
from .segment_loss import SegmentLoss
from .soft_bellman import SoftSolution, solve_soft_bellman

Leader = Callable[[Tensor, Tensor], Tensor]  # (x, policy (S, A)) -> the number to be minimised


@dataclass(frozen=True)
class BilevelMDP:
    r"""Minimise :math:`\phi(x) = f(x, \pi^*(x))`, with :math:`\pi^*(x)` soft-optimal for the MDP at x.

    Attributes:
        reward: ``x -> (S, A)``, minus infinity where a state does not have the action.
        transition: probabilities ``(S, A, S)``, or one sparse CSR matrix ``(S * A, S)`` or
            :class:`~bigrad.mdp.SparseTransition`, or ``x ->`` any of these; each row sums to one or is all zero. The
            exact SoBiRL keeps a sparse one sparse, the other algorithms write it out as long as it is small.
        start: distribution of the first state ``(S,)``.
        discount: ``0 <= discount < 1``.
        temperature: weight of the entropy, positive.
        leader: ``(x, policy) -> f``, a number, smooth in the unconstrained entries of the policy.
        loss: the same number as an expectation over segments, for the sampled methods; ``None`` where there is none.
        returns: the same number as a discounted sum along the follower's path; ``None`` where it is none.

    Example:
        >>> import torch
        >>> from bigrad.mdp import BilevelMDP, SoBiRL
        >>> stay = torch.eye(2)[:, None].expand(2, 2, 2)
        >>> problem = BilevelMDP(lambda x: x, stay, torch.tensor([1.0, 0.0]), 0.5, 1.0, lambda x, policy: policy[0, 0])
        >>> SoBiRL()(problem, torch.zeros(2, 2)).gradient
        tensor([[ 0.2500, -0.2500],
                [ 0.0000,  0.0000]])
    """

    reward: Callable[[Tensor], Tensor]
    transition: Transition | Callable[[Tensor], Transition]
    start: Tensor
    discount: float
    temperature: float
    leader: Leader
    loss: SegmentLoss | None = None
    returns: LeaderReturn | None = None

    def __post_init__(self) -> None:
        check_temperature_and_discount(self.temperature, self.discount)

    @property
    def moving(self) -> bool:
        """Whether the transition depends on ``x``."""
        return callable(self.transition)

    def given_at(self, x: Tensor) -> Transition:
        """The transition at ``x`` as it was given, dense or sparse."""
        return self.transition(x) if callable(self.transition) else self.transition

    def transition_at(self, x: Tensor) -> Tensor:
        """The transition ``(S, A, S)`` at ``x``, written out in full."""
        return dense_transition(self.transition(x), len(self.start)) if callable(self.transition) else self._fixed

    @cached_property
    def _fixed(self) -> Tensor:
        """A transition that is no function, written out once."""
        assert not callable(self.transition)
        return dense_transition(self.transition, len(self.start))

    def follower(self, x: Tensor) -> tuple[SoftSolution, Certificate]:
        """The soft-optimal answer to ``x``, detached, with its certificate."""
        with torch.no_grad():
            solved, certificate = solve_soft_bellman(self.reward(x), self.given_at(x), self.discount, self.temperature)
        assert certificate is not None  # only torch.func has none
        return solved, certificate

    def action_value(self, x: Tensor, value: Tensor) -> Tensor:
        """``r(x) + discount * P(x) V`` at a value held fixed; its derivative in ``x`` is the follower's incentive.

        It is zero where there is no action.
        """
        settings = (self.reward(x), self.given_at(x), self.discount, self.temperature)
        equation, inputs, _ = decision_process(*settings)
        q_value = equation.action_values(value.detach(), *inputs[:3])
        return q_value.masked_fill(q_value == -torch.inf, 0.0)

    def objective(self, x: Tensor) -> Tensor:
        """The leader's number at the follower's answer, differentiable through :func:`~bigrad.mdp.soft_bellman`."""
        solved = solve_soft_bellman(self.reward(x), self.given_at(x), self.discount, self.temperature)[0]
        return self.leader(x, solved.policy)

    def partials(self, x: Tensor, policy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The leader's number, its gradient in ``x`` and in the policy, each with the other held fixed."""
        with torch.enable_grad():
            x, policy = (part.detach().requires_grad_() for part in (x, policy))
            value = self.leader(x, policy)
        if not isinstance(value, Tensor) or value.ndim > 0:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"the leader returned {shape}; wanted one number, a tensor of shape ()")
        if not value.requires_grad:
            return value, torch.zeros_like(x), torch.zeros_like(policy)
        direct, slope = gradients_of(value, [x, policy])
        return value.detach(), direct, slope

    def pull_back(self, x: Tensor, value: Tensor, cotangent: Tensor) -> Tensor:
        """One vector-Jacobian product through :meth:`action_value`."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            q_value = acting(self.action_value(x, value))
        return gradients_of((q_value * cotangent).sum(), [x])[0]


def acting(incentive: Tensor) -> Tensor:
    """What the follower sees of ``x``, or an error where it sees nothing."""
    if not incentive.requires_grad:
        raise InputError(
            "neither reward(x) nor transition(x) depends on x: the incentive cannot act. "
            "Make one of them a differentiable function of x"
        )
    return incentive


def check_incentive(problem: BilevelMDP, x: Tensor) -> None:
    """Raise where no small change of ``x`` moves the follower, at ``x`` and at a point near it.

    Raises:
        InputError: the policy's derivative is zero, as for a reward that does not see ``x``, or a constant one.
    """
    generator = torch.Generator(x.device).manual_seed(0)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    for point in (x, x + 0.1 * (1 + x.abs()) * noise):
        solved, _ = problem.follower(point)
        weights = torch.randn(solved.policy.shape, generator=generator, dtype=x.dtype, device=x.device)
        probe = _with_leader(problem, partial(_weighted, weights))
        with torch.enable_grad():
            free = point.detach().requires_grad_()
            incentive, moved = (problem.action_value(free, solved.value) * weights).sum(), probe.objective(free)
        if not moved.requires_grad:
            continue
        scale = gradients_of(incentive, [free])[0].norm()
        if bool(gradients_of(moved, [free])[0].norm() > 1000 * torch.finfo(x.dtype).eps * scale):
            return
    raise InputError(
        "the reward's gradient in x is identically zero, or moves every policy's return alike: the incentive cannot "
        "act. Check that reward(x) depends on x, and differently for different actions or places"
    )


def _weighted(weights: Tensor, x: Tensor, policy: Tensor) -> Tensor:
    return (weights * policy).sum()


def _with_leader(problem: BilevelMDP, leader: Leader) -> BilevelMDP:
    parts = (problem.reward, problem.transition, problem.start, problem.discount, problem.temperature)
    return BilevelMDP(*parts, leader)
