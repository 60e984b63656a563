"""HPGD: the hyper-gradient as a mean over places, each with the change of its advantage and the leader's slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..calculus import gradients_of
from ..certificate import Certificate
from ..errors import InputError
from .algorithm import Algorithm, Cost, HyperGradient
from .bilevel_mdp import BilevelMDP, acting
from .leader_return import LeaderReturn
from .paths import Paths, categorical, draw_paths
from .policy_value import evaluation_matrix, policy_value
from .response import Branches, soft_response
from .sampling import Batch, Sampling, draw_rollouts, log_moves, required
from .segments import Rollouts, Segments
from .soft_bellman import SoftSolution


@dataclass(frozen=True)
class HPGD(Algorithm):
    r"""Sample places s from :math:`\nu` and actions a from the policy, and roll out from each twice.

    .. math:: \nabla \phi = \nabla_x f + E_{s \sim \nu, a \sim \pi^*} \Big[ \frac{1}{\tau \nu(s)}
              \partial_x A^{\pi^*}(s, a) \, \frac{\partial f}{\partial \pi(a | s)} \Big]

    :math:`\partial_x A = \partial_x Q - \partial_x V` comes from two rollouts, and :math:`\nu` is uniform. The leader's
    slope is known. Exactly, it is SoBiRL's vector; ``sampling=None`` takes the mean over all places, and the change of
    the advantages through an evaluation of the fixed policy.

    Where the leader's number is a return along the follower's path, nothing of it need be known:

    .. math:: \nabla \phi = E \sum_t \gamma_L^t \Big[ \partial_x \bar c(s_t, a_t)
              + \gamma_L \, \partial_x \log P_x(s_{t+1} | s_t, a_t) \bar V(s_{t+1})
              + \tfrac{1}{\tau} \partial_x A(s_t, a_t) \bar A(s_t, a_t) \Big]

    Args:
        sampling: ``samples`` is the number of places, or of paths; ``None`` is exact.
        decomposable: whether the second form is taken, which the problem's ``returns`` make possible. At each step of a
            path, one pair of rollouts tells of the follower's advantage and another one of the leader's.

    Source: Contextual Bilevel Reinforcement Learning for Incentive Alignment (Thoma, Pasztor, Krause, Ramponi, Hu,
    2024).
    """

    sampling: Sampling | None = None
    decomposable: bool = False

    def __call__(
        self, problem: BilevelMDP, x: Tensor, memory: Any = None, generator: torch.Generator | None = None
    ) -> HyperGradient:
        """Exact, or the estimate from places drawn."""
        x = x.detach()
        solved, certificate = problem.follower(x)
        if self.decomposable:
            return self._along_paths(problem, x, solved, certificate, generator)
        value, direct, slope = problem.partials(x, solved.policy)
        slope = slope - (solved.policy * slope).sum(-1, keepdim=True)  # moves nothing, and is less to average away
        sweeps = int(certificate.steps)
        if self.sampling is None:
            gradient = direct + _over_all_places(problem, x, solved, slope)
            return HyperGradient(value, gradient, certificate, Cost(0, 1, 2, sweeps))
        response, steps = _over_drawn_places(problem, x, solved, slope, self.sampling, required(generator, x))
        return HyperGradient(value, direct + response, certificate, Cost(steps, 1, 0, sweeps))

    def _along_paths(
        self,
        problem: BilevelMDP,
        x: Tensor,
        solved: SoftSolution,
        certificate: Certificate,
        generator: torch.Generator | None,
    ) -> HyperGradient:
        if problem.returns is None:
            raise InputError(
                "this problem has no returns: give BilevelMDP its LeaderReturn, or take HPGD(decomposable=False)"
            )
        sweeps = int(certificate.steps)
        if self.sampling is None:
            value, gradient = _over_all_visits(problem, problem.returns, x, solved)
            return HyperGradient(value, gradient, certificate, Cost(0, 1, 4, sweeps))
        value, gradient, steps = _over_drawn_paths(
            problem, problem.returns, x, solved, self.sampling, required(generator, x)
        )
        return HyperGradient(value, gradient, certificate, Cost(steps, 1, 0, sweeps))


def _over_all_places(problem: BilevelMDP, x: Tensor, solved: SoftSolution, slope: Tensor) -> Tensor:
    transition = problem.transition_at(x).detach()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        incentive = acting(problem.action_value(x, solved.value))
        value, q_value = policy_value(solved.policy, incentive, transition, problem.discount)
        total = (solved.policy * slope * (q_value - value[:, None])).sum() / problem.temperature
    return gradients_of(total, [x])[0]


def _over_drawn_places(
    problem: BilevelMDP, x: Tensor, solved: SoftSolution, slope: Tensor, sampling: Sampling, generator: torch.Generator
) -> tuple[Tensor, int]:
    count = len(solved.policy)
    states = torch.randint(count, (sampling.samples, 1), generator=generator, device=x.device)
    actions = categorical(solved.policy.cumsum(-1)[states], generator)
    rollouts = draw_rollouts(problem, x, solved.policy, states, actions, sampling, generator)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        changed = _log_policy(problem, x, solved, states, actions, rollouts)
        total = count * (slope[states, actions] * changed).mean()
    return gradients_of(total, [x])[0], sum(paths.steps for paths in rollouts)


def _log_policy(
    problem: BilevelMDP,
    x: Tensor,
    solved: SoftSolution,
    states: Tensor,
    actions: Tensor,
    rollouts: tuple[Paths, Paths],
) -> Tensor:
    """``log pi(a | s)`` at places ``(M, H)``, differentiated through their rollouts."""
    table = acting(problem.action_value(x, solved.value))
    after_action, after_state = (Rollouts(paths.states, paths.actions, paths.alive) for paths in rollouts)
    return soft_response(
        lambda state, action: table[state, action],
        Segments(states, actions, solved.policy.log()[states, actions], after_action, after_state),
        temperature=problem.temperature,
        discount=problem.discount,
        estimator=Branches(),
    )


def _over_all_visits(
    problem: BilevelMDP, returns: LeaderReturn, x: Tensor, solved: SoftSolution
) -> tuple[Tensor, Tensor]:
    """The leader's number and its hyper-gradient, with all visits and both advantages exact."""
    policy, transition, cost = solved.policy, problem.transition_at(x).detach(), returns.cost(x).detach()
    value, q_value = policy_value(policy, cost, transition, returns.discount)
    visits = torch.linalg.solve(evaluation_matrix(policy, transition, returns.discount).T, problem.start)
    response = _over_all_places(problem, x, solved, visits[:, None] * (q_value - value[:, None]))
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        following = problem.transition_at(x) @ value
        step = returns.cost(x) + returns.discount * following
        total = (visits[:, None] * policy * step).sum()
        if returns.rest is not None:
            total = total + returns.rest(x)
    direct = gradients_of(total, [x])[0] if total.requires_grad else torch.zeros_like(x)
    return returns.expected(x.detach(), policy, transition, problem.start), direct + response


def _over_drawn_paths(
    problem: BilevelMDP,
    returns: LeaderReturn,
    x: Tensor,
    solved: SoftSolution,
    sampling: Sampling,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, int]:
    """The same from paths: one pair of rollouts at each step for either advantage, independent of all else."""
    transition, discount = problem.transition_at(x).detach(), returns.discount
    first = categorical(problem.start.cumsum(-1).expand(sampling.samples, -1), generator)
    paths = draw_paths(solved.policy, transition, first, sampling.horizon_at(discount), generator)
    places, settings = (paths.states, paths.actions), (sampling, generator)
    own = draw_rollouts(problem, x, solved.policy, *places, *settings)
    other = draw_rollouts(problem, x, solved.policy, *places, *settings, discount=discount)
    cost = returns.cost(x).detach()
    after_action, after_state = (part.discounted(cost, discount).mean(-1) for part in other)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        gains = paths.look_up(returns.cost(x))
        powers = discount ** torch.arange(gains.shape[-1], device=x.device, dtype=gains.dtype)
        value = (gains @ powers).mean()
        if returns.rest is not None:
            value = value + returns.rest(x)
        changed = _log_policy(problem, x, solved, *places, own)
        total = value + ((after_action - after_state) * changed * paths.alive @ powers).mean()
        if problem.moving:
            rest = (gains.detach() * powers).flip(-1).cumsum(-1).flip(-1)  # from each step on, discounted to the start
            ahead = torch.cat([rest[:, 1:], torch.zeros_like(rest[:, :1])], -1)
            total = total + (ahead * log_moves(problem.transition_at(x), paths)).sum(-1).mean()
    steps = Batch(paths, *own).steps + Batch(paths, *other).steps - paths.steps
    return value.detach(), gradients_of(total, [x])[0], steps
