"""PARL: the follower is a stationary point of its return in the logits, differentiated through that point's Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..calculus import gradient, gradients_of, jacobian
from ..errors import InputError, UnsupportedError
from ..linear import Direct, Operator
from .algorithm import Algorithm, Cost, HyperGradient
from .bilevel_mdp import BilevelMDP, acting
from .paths import Paths, categorical, draw_paths
from .policy_value import policy_value
from .sampling import Sampling, draw_segments, log_moves, required, segment_gradient, segment_loss

_MOST_LOGITS = 4096


@dataclass(frozen=True)
class PARL(Algorithm):
    r""":math:`\nabla \phi = \nabla_x f - \nabla^2_{x\theta} V [\nabla^2_{\theta\theta} V]^+ \nabla_\theta f`.

    V is the follower's return, and :math:`\theta` are the logits of a softmax policy. They may shift by a number for
    each state, so the Hessian is singular there: the pseudo-inverse is taken on the other directions. It holds both of
    the score function's terms, :math:`E[\sum_h \gamma^h r_h (\nabla^2 L_h + \nabla L_h \nabla L_h^\top)]` with
    :math:`L_h = \sum_{j \le h} \log \pi`.
    Exactly, it is SoBiRL's vector at the price of a solve with the actions too, whose conditioning explodes as the
    temperature falls. Every state must be reachable, and there may be at most 4,096 pairs of state and action.

    Args:
        sampling: ``samples`` is the number of paths for the Hessian, ``horizon`` steps each, and of tuples of segments;
            the inverse of a sampled matrix is biased. ``None`` is exact.
        damping: ridge added to the negative Hessian, a bias of its own.

    Source: PARL: A Unified Framework for Policy Alignment in Reinforcement Learning from Human Feedback (Chakraborty,
    Bedi, Koppel, Manocha, Wang, Wang, Huang, Wang, 2024); DiCE: The Infinitely Differentiable Monte-Carlo Estimator
    (Foerster, Farquhar, Al-Shedivat, Rocktaeschel, Xing, Whiteson, 2018).
    """

    sampling: Sampling | None = None
    damping: float = 0.0

    def __post_init__(self) -> None:
        if not self.damping >= 0:
            raise InputError(f"damping is {self.damping}; it must be >= 0")

    def __call__(
        self, problem: BilevelMDP, x: Tensor, memory: Any = None, generator: torch.Generator | None = None
    ) -> HyperGradient:
        """Exact, or from paths and segments drawn."""
        x = x.detach()
        solved, certificate = problem.follower(x)
        policy, sweeps = solved.policy, int(certificate.steps)
        if policy.numel() > _MOST_LOGITS:
            raise UnsupportedError(
                f"the Hessian of {policy.numel()} logits is too large to be written down; wanted at most "
                f"{_MOST_LOGITS}: take SoBiRL(), whose vector is the same"
            )
        logits = torch.log_softmax(solved.q_value / problem.temperature, -1)
        if self.sampling is None:
            paths, cost = None, Cost(0, 1, 1, sweeps)
            number, direct, slope = problem.partials(x, policy)
            pulled = policy * (slope - (policy * slope).sum(-1, keepdim=True))
        else:
            paths = _paths(problem, x, policy, self.sampling, required(generator, x))
            batch = draw_segments(problem, x, policy, self.sampling, required(generator, x))
            number, direct = segment_gradient(problem, x, solved, batch, respond=False)
            pulled = _score(problem, x, logits, batch.segments, self.sampling.baseline)
            cost = Cost(paths.steps + batch.steps, 1, 1, sweeps)

        def follower_return(flat: Tensor, point: Tensor) -> Tensor:
            return _return(problem, flat.reshape(logits.shape), point, paths)

        flat = logits.flatten()
        hessian = jacobian(lambda free: gradient(follower_return, free, x), flat)
        answer, certificate.adjoint = self._solve(hessian, pulled, logits > -torch.inf)
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            acting(problem.action_value(point, solved.value))
            mixed = (gradient(follower_return, flat, point) * answer).sum()
        response = gradients_of(mixed, [point])[0]
        return HyperGradient(number, direct + response, certificate, cost)

    def _solve(self, hessian: Tensor, slope: Tensor, present: Tensor) -> tuple[Tensor, Any]:
        """``-[H]^+ g``, on the directions that move the policy."""
        basis = torch.block_diag(*(_directions(row).to(slope) for row in present))
        inner = -basis.T @ hessian @ basis
        inner = (inner + inner.T) / 2
        answer, certificate = Direct(self.damping).solve(
            Operator(lambda u: u @ inner, symmetric=True, dense=inner), basis.T @ slope.flatten()
        )
        certificate.what = "Hessian of the return in the logits"
        certificate.enforce("raise")
        moved: Tensor = basis @ answer
        return moved, certificate


def _directions(present: Tensor) -> Tensor:
    """Orthonormal changes ``(A, n - 1)`` of a state's logits that move its policy, n being the actions it has."""
    count = int(present.sum())
    across: Tensor = torch.linalg.qr(torch.cat([torch.ones(count, 1), torch.eye(count)[:, 1:]], 1).double())[0]
    return torch.eye(len(present), dtype=across.dtype)[:, present.cpu()] @ across[:, 1:]


def _return(problem: BilevelMDP, logits: Tensor, x: Tensor, paths: Paths | None) -> Tensor:
    """The follower's return with entropy: exact, or an estimate whose derivatives of every order are unbiased."""
    log_policy = torch.log_softmax(logits, -1)
    reward, transition = problem.reward(x), problem.transition_at(x)
    if paths is None:
        settings = (reward, transition, problem.discount, problem.temperature)
        return problem.start @ policy_value(log_policy.exp(), *settings)[0]
    score = paths.look_up(log_policy).cumsum(-1)
    if problem.moving:
        moves = log_moves(transition, paths).cumsum(-1)
        score = score + torch.cat([torch.zeros_like(moves[..., :1]), moves[..., :-1]], -1)
    gain = paths.look_up(reward - problem.temperature * log_policy)
    powers = problem.discount ** torch.arange(gain.shape[-1], device=gain.device, dtype=gain.dtype)
    return ((score - score.detach()).exp() * gain @ powers).mean()


def _paths(problem: BilevelMDP, x: Tensor, policy: Tensor, sampling: Sampling, generator: torch.Generator) -> Paths:
    states = categorical(problem.start.cumsum(-1).expand(sampling.samples, -1), generator)
    horizon = sampling.horizon_at(problem.discount)
    return draw_paths(policy, problem.transition_at(x).detach(), states, horizon, generator)


def _score(problem: BilevelMDP, x: Tensor, logits: Tensor, segments: Paths, baseline: bool) -> Tensor:
    """The score-function estimate ``(S, A)`` of the leader's slope in the logits."""
    losses = segment_loss(problem)(x, segments).detach()
    others = (losses.sum() - losses) / (len(losses) - 1) if baseline else torch.zeros_like(losses)

    def total(free: Tensor) -> Tensor:
        return ((losses - others) * segments.look_up(torch.log_softmax(free, -1)).sum((-1, -2))).mean()

    return gradient(total, logits).detach()
