"""Hyper-gradients from sampled segments, and from rollouts of each of their steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..calculus import gradients_of
from ..errors import InputError
from .bilevel_mdp import BilevelMDP, acting
from .paths import Paths, categorical, draw_paths, draw_until_they_meet
from .response import Branches, soft_response
from .segment_loss import SegmentLoss
from .segments import Rollouts, Segments
from .soft_bellman import SoftSolution


@dataclass(frozen=True)
class Sampling:
    """How much is drawn for one hyper-gradient.

    Args:
        samples: tuples of segments (for HPGD: places) in a batch, at least 2.
        rollouts: after each action and after each state of a segment.
        horizon: steps of a rollout; ``None`` is as many as leave a thousandth of the discount. What is cut off is a
            bias of at most ``discount ** horizon / (1 - discount)`` reward gradients.
        baseline: whether the mean loss of the other tuples is taken off each loss: the same mean, less variance.
        meeting: whether the two rollouts of a place end where they meet: the same mean, less variance, fewer steps.
            ``False`` draws each to its horizon, as importance weights need it.
    """

    samples: int = 100
    rollouts: int = 1
    horizon: int | None = None
    baseline: bool = True
    meeting: bool = True

    def __post_init__(self) -> None:
        least = {"samples": 2, "rollouts": 1, "horizon": 1}
        for name, smallest in least.items():
            given = getattr(self, name)
            if given is not None and given < smallest:
                raise InputError(f"{name} is {given}; wanted at least {smallest}")

    def horizon_at(self, discount: float) -> int:
        """The number of steps of a rollout."""
        if self.horizon is not None:
            return self.horizon
        return 1 if discount == 0 else 1 + math.ceil(math.log(1e-3) / math.log(discount))


class Batch(NamedTuple):
    """Segments ``(M, I, H)`` and, where they are wanted, rollouts ``(M, I, H, K, T)``, all drawn by one policy.

    Attributes:
        segments, after_action, after_state: what was drawn.
        meeting: whether the rollouts of a place end where they meet.
    """

    segments: Paths
    after_action: Paths | None = None
    after_state: Paths | None = None
    meeting: bool = False

    @property
    def steps(self) -> int:
        """Environment steps; rollouts after a segment's end are not real and do not count."""
        alive = self.segments.alive[..., None, None]
        rollouts = [part for part in (self.after_action, self.after_state) if part is not None]
        return self.segments.steps + sum(int((part.alive * alive).sum()) for part in rollouts)


class Weights(NamedTuple):
    """Importance weights that turn a batch into one of another policy (and transition).

    Attributes:
        tuples: of each tuple of segments ``(M,)``.
        after_action, after_state: of each step of the rollouts ``(M, I, H, K, T)``.
    """

    tuples: Tensor
    after_action: Tensor
    after_state: Tensor


def segment_loss(problem: BilevelMDP) -> SegmentLoss:
    """The problem's loss, or an error that says what is missing."""
    if problem.loss is None:
        raise InputError(
            "this problem has no loss over segments: give BilevelMDP its loss, or use the exact form (sampling=None)"
        )
    return problem.loss


def required(generator: torch.Generator | None, x: Tensor) -> torch.Generator:
    """The generator, or an error where none was given, or one that cannot draw where ``x`` is."""
    if generator is None:
        raise InputError("generator is None; a sampled hyper-gradient needs a torch.Generator on the problem's device")
    if generator.device.type != x.device.type:
        raise InputError(f"generator is on {generator.device} and x on {x.device}: draw with torch.Generator(x.device)")
    return generator


def draw_rollouts(
    problem: BilevelMDP,
    x: Tensor,
    policy: Tensor,
    states: Tensor,
    actions: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    discount: float | None = None,
) -> tuple[Paths, Paths]:
    """Rollouts ``(*lead, K, T)`` after each state and action ``(*lead,)``, and after each state.

    They last as long as ``discount`` asks for, by default the follower's.
    """
    transition = problem.transition_at(x).detach()
    horizon = sampling.horizon_at(problem.discount if discount is None else discount)
    lead = (*states.shape, sampling.rollouts)
    places, chosen = (part.unsqueeze(-1).expand(lead) for part in (states, actions))
    if sampling.meeting:
        return draw_until_they_meet(policy, transition, places, chosen, horizon, generator)
    after_action = draw_paths(policy, transition, places, horizon, generator, chosen)
    return after_action, draw_paths(policy, transition, places, horizon, generator)


def draw_segments(
    problem: BilevelMDP, x: Tensor, policy: Tensor, sampling: Sampling, generator: torch.Generator
) -> Batch:
    """Tuples of segments from the first states on."""
    loss = segment_loss(problem)
    first = problem.start.cumsum(-1).expand(sampling.samples, loss.segments, -1)
    states = categorical(first, generator)
    return Batch(draw_paths(policy, problem.transition_at(x).detach(), states, loss.steps, generator))


def draw_batch(problem: BilevelMDP, x: Tensor, policy: Tensor, sampling: Sampling, generator: torch.Generator) -> Batch:
    """Tuples of segments, and rollouts of each of their steps that are independent of all else."""
    segments = draw_segments(problem, x, policy, sampling, generator).segments
    places = (segments.states, segments.actions)
    return Batch(segments, *draw_rollouts(problem, x, policy, *places, sampling, generator), sampling.meeting)


def segment_gradient(
    problem: BilevelMDP,
    x: Tensor,
    solved: SoftSolution,
    batch: Batch,
    *,
    weights: Weights | None = None,
    baseline: bool = True,
    respond: bool = True,
) -> tuple[Tensor, Tensor]:
    r"""The mean loss of a batch, and the estimate of its hyper-gradient at ``x``.

    .. math:: \frac1M \sum_m W_m \nabla l_m
              + \frac1{M \tau} \sum_m W_m (l_m - b_m) \sum_{i, h} \widehat{\nabla (Q - V)}(s_h^i, a_h^i)

    Args:
        solved: the follower's answer at ``x``.
        weights: for a batch that another policy has drawn; ``None`` counts everything once.
        baseline: whether ``b_m`` is the mean of the other losses, or 0.
        respond: whether the policy's response is there; that of a transition that depends on x always is.
    """
    loss, segments = segment_loss(problem), batch.segments
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        losses = loss(x, segments)
        count = len(losses)
        tuples = losses.new_ones(count) if weights is None else weights.tuples
        total = (tuples * losses).mean()
        plain = losses.detach()
        others = (plain.sum() - plain) / (count - 1) if baseline else torch.zeros_like(plain)
        score = losses.new_zeros(count)
        if respond:
            score = score + (_log_policy(problem, x, solved, batch, weights) * segments.alive).sum((-1, -2))
        if problem.moving:
            score = score + log_moves(problem.transition_at(x), segments)[..., :-1].sum((-1, -2))
        surrogate = total + (tuples * (plain - others) * score).mean()
    gradient = gradients_of(surrogate, [x])[0] if surrogate.requires_grad else torch.zeros_like(x)
    return total.detach(), gradient


def _log_policy(problem: BilevelMDP, x: Tensor, solved: SoftSolution, batch: Batch, weights: Weights | None) -> Tensor:
    """``log pi(a | s)`` ``(M, I, H)``, differentiated through the rollouts."""
    table = acting(problem.action_value(x, solved.value))
    segments = batch.segments
    shape = segments.states.shape
    rollouts = []
    for name in ("after_action", "after_state"):
        paths = getattr(batch, name)
        if paths is None:
            raise InputError("the batch has no rollouts: draw it with draw_batch, or take respond=False")
        weight = paths.alive if weights is None else paths.alive * getattr(weights, name)
        rollouts.append(Rollouts(*(part.flatten(0, 1) for part in (paths.states, paths.actions, weight))))
    states, actions = segments.states.flatten(0, 1), segments.actions.flatten(0, 1)
    after_action, after_state = rollouts
    pieces = Segments(states, actions, solved.policy.log()[states, actions], after_action, after_state)
    return soft_response(
        lambda state, action: table[state, action],
        pieces,
        temperature=problem.temperature,
        discount=problem.discount,
        estimator=Branches(),
    ).reshape(shape)


def log_moves(transition: Tensor, paths: Paths) -> Tensor:
    """``log P(s' | s, a)`` of each step's move ``(*lead, H)``, 0 where it ended the episode."""
    found = transition[paths.states, paths.actions, paths.following]
    return torch.where(paths.moved > 0, found, 1.0).log()
