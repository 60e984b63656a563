"""SoftResponse on segments and paths that another policy has drawn: exact with importance weights, wrong without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad import InputError
from bigrad.layers import SoftResponse
from bigrad.mdp import Rollouts, Segments, Trace
from bigrad.problems import random_mdp

from .enumeration import Enumeration, TableReward
from .test_soft_response import D, Path, relative, response


def test_the_trace_of_another_policys_path_is_exact_with_its_ratios_and_wrong_without() -> None:
    path = Path()
    states, actions = path.everything.states, path.everything.actions
    other = torch.softmax(torch.randn(8, 2, generator=torch.Generator().manual_seed(4), dtype=D), -1)
    ratio = (path.policy / other)[states, actions]
    drawn = path.chance / ratio.prod(-1)  # the chances under the other policy
    assert abs(float(drawn.sum()) - 1) < 1e-12
    log_prob = path.policy.log()[states, actions][:, :2]

    def trace(cotangent: Tensor, within: Tensor | None, after: Tensor | None) -> float:
        tail = Rollouts(states[:, 2:], actions[:, 2:], after)
        segments = Segments(states[:, :2], actions[:, :2], log_prob, continuation=tail, ratio=within)
        layer = SoftResponse(TableReward(path.mdp, path.x), temperature=0.5, discount=0.95, estimator=Trace())
        (drawn[:, None] * cotangent * layer(segments)).sum().backward()
        return relative(layer.reward_model.x.grad, path.truth())

    within, after = ratio[:, :2], ratio[:, 2:].cumprod(1)
    weighted = path.advantage * within.cumprod(1)
    assert trace(weighted, within, after) < 1e-6
    assert trace(weighted, within, None) > 0.02  # rollouts unweighted
    assert trace(weighted, None, after) > 0.02  # the way to them unweighted
    assert trace(path.advantage, within, after) > 0.02  # the segments unweighted
    assert trace(path.advantage * within.prod(1, keepdim=True), within, after) > 0.02  # later actions counted twice


@pytest.mark.parametrize("terminal", [False, True])
def test_independent_rollouts_take_another_policys_segments(terminal: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    everything = Enumeration.of(random_mdp(generator, states=3, discount=0.6, terminal=terminal), 3)
    x = torch.randn(4, generator=generator, dtype=D)
    _, truth, weight = everything.split(x)
    policy = everything.policy(x).detach()
    other = torch.softmax(torch.randn(policy.shape, generator=torch.Generator().manual_seed(4), dtype=D), -1)
    ratio = (policy / other)[everything.states, everything.actions]
    share = everything.probability(other) / everything.probability(policy)  # of segments in the other's experience
    loss = torch.where(everything.probability(policy) > 0, weight * share, 0.0)
    assert relative(response(everything, x, loss * ratio.prod(1)), truth) < 1e-6
    assert relative(response(everything, x, loss), truth) > 0.02


def test_ratios_of_another_length() -> None:
    with pytest.raises(InputError, match="ratio has shape"):
        Segments(torch.zeros(2, 4, 3), torch.zeros(2, 4, 1), torch.zeros(2, 4), ratio=torch.ones(2, 3))
