"""Tabular RLHF: learn a reward from comparisons of segments that the reward's own policy shows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..mdp import Paths, SegmentLoss
from .reference import ReferenceProblem
from .tabular import TabularMDP


def preference_problem(
    mdp: TabularMDP, truth: Tensor | None = None, steps: int = 3, init: Tensor | None = None
) -> ReferenceProblem:
    r"""Minimise the expected Bradley-Terry loss of pairs of segments, drawn by the policy of the learnt reward.

    :math:`l = - y \log \sigma(z) - (1 - y) \log \sigma(-z)` with :math:`z` the difference of the pair's learnt returns
    and :math:`y = \sigma` of the difference of its true ones, the expected label of a Bradley-Terry teacher.

    Args:
        mdp: its reward is the learnt one.
        truth: the parameters of the true reward; ``None`` is a true reward that no parameters reach.
        steps: of a segment.
        init: the parameters to start from; ``None`` is zero.
    """
    size = mdp.design.shape[-1]
    if truth is None:
        table = torch.sin(torch.arange(mdp.design[..., 0].numel(), dtype=mdp.design.dtype)).to(mdp.design)
        table = table.reshape(mdp.design.shape[:2])
    else:
        table = mdp.reward(truth.detach())

    def bradley_terry(x: Tensor, segments: Paths) -> Tensor:
        learnt, true = (segments.look_up(each).sum(-1) for each in (mdp.reward(x), table))
        logit = learnt[:, 0] - learnt[:, 1]
        label = torch.sigmoid(true[:, 0] - true[:, 1])
        return softplus(logit) - label * logit

    loss = SegmentLoss(bradley_terry, steps=steps, segments=2)
    return ReferenceProblem(
        reward=mdp.reward,
        transition=mdp.transition,
        start=mdp.start,
        discount=mdp.discount,
        temperature=mdp.temperature,
        leader=lambda x, policy: loss.expected(x, policy, mdp.transition, mdp.start),
        loss=loss,
        name="tabular RLHF",
        init=torch.zeros(size).to(mdp.design) if init is None else init,
    )
