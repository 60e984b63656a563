"""Rollouts that end where they meet: the same mean, less variance, fewer steps, and no importance weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad.errors import InputError
from bigrad.mdp import (
    Batch,
    BilevelMDP,
    Sampling,
    SegmentLoss,
    SoBiRL,
    draw_batch,
    draw_until_they_meet,
    importance_weights,
    segment_gradient,
)
from bigrad.problems import chain_mdp, preference_problem, random_mdp

from .test_algorithms_sampled import D, errors_away


@pytest.mark.parametrize("terminal", [False, True])
def test_two_paths_are_followed_while_they_are_apart_and_no_longer(terminal: bool) -> None:
    mdp = random_mdp(torch.Generator().manual_seed(0), states=3, terminal=terminal)
    generator = torch.Generator().manual_seed(1)
    policy = torch.softmax(torch.randn(3, 2, generator=generator, dtype=D), -1)
    states, actions = (torch.randint(size, (4000, 2), generator=generator) for size in (3, 2))
    one, other = draw_until_they_meet(policy, mdp.transition, states, actions, 30, generator)
    begun = one.alive[..., 0] > 0
    assert torch.equal(begun, other.alive[..., 0] > 0)
    assert torch.equal(one.states[..., 0][begun], states[begun])
    assert torch.equal(other.states[..., 0][begun], states[begun])
    assert torch.equal(one.actions[..., 0][begun], actions[begun])
    assert bool((other.actions[..., 0][begun] != actions[begun]).all())
    same = (one.following == other.following) & (one.moved == other.moved)
    for path in (one, other):
        # a path goes on exactly where its step led somewhere and the two are not together
        assert torch.equal(path.alive[..., 1:] > 0, ((path.moved > 0) & ~same)[..., :-1])
        assert torch.equal(path.states[..., 1:], torch.where(path.alive[..., 1:] > 0, path.following[..., :-1], 0))
    alone = ((one.alive > 0) != (other.alive > 0)).any()
    assert bool(alone) == terminal  # one whose partner has ended goes on
    assert terminal or one.alive.shape[-1] < 30  # all have met before


def test_the_second_path_takes_its_first_action_from_the_policy() -> None:
    stay = torch.eye(3, dtype=D)[:, None].expand(3, 3, 3)
    policy = torch.tensor([0.5, 0.2, 0.3], dtype=D).expand(3, 3)
    nothing = torch.zeros(90_000, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    one, other = draw_until_they_meet(policy, stay, nothing, nothing, 5, generator)
    assert one.alive.shape == (90_000, 1)  # in one place, they have met after a step
    shares = torch.bincount(other.actions[other.alive > 0], minlength=3) / 90_000
    assert torch.allclose(shares, torch.tensor([0.0, 0.2, 0.3]), atol=0.005)


def test_it_has_the_mean_of_independent_rollouts_for_less() -> None:
    generator = torch.Generator().manual_seed(3)
    mdp = chain_mdp(generator, states=4, discount=0.7)
    problem = preference_problem(mdp, steps=2, init=torch.randn(4, generator=generator, dtype=D))
    truth = SoBiRL()(problem, problem.init).gradient
    spread, steps = [], []
    for meeting, samples in ((True, 200), (False, 30)):
        algorithm = SoBiRL(Sampling(samples, meeting=meeting))
        answers = [algorithm(problem, problem.init, None, generator) for _ in range(50)]
        draws = [answer.gradient for answer in answers]
        assert errors_away(draws, truth) < 3
        spread.append(float(torch.stack(draws).var(0).sum()))
        steps.append(sum(answer.cost.samples for answer in answers) / 50)
    # the variance of a mean falls as one over the steps spent on it
    assert spread[0] * steps[0] < 0.5 * spread[1] * steps[1]


def test_where_there_is_no_choice_no_rollout_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    mdp = random_mdp(generator, actions=1)
    problem = preference_problem(mdp, steps=2)
    assert SoBiRL(Sampling(10))(problem, problem.init, None, generator).cost.samples == 10 * 2 * 2


def test_importance_weights_refuse_it_since_it_would_bias_them() -> None:
    stay, start, table = torch.ones(1, 2, 1, dtype=D), torch.ones(1, dtype=D), torch.tensor([[1.0, 0.0]], dtype=D)
    loss = SegmentLoss(lambda x, segments: segments.look_up(table)[:, 0, 0], steps=1)
    problem = BilevelMDP(lambda x: x, stay, start, 0.5, 1.0, lambda x, policy: policy[0, 0], loss)
    old, new = torch.zeros(1, 2, dtype=D), torch.tensor([[1.0, -1.0]], dtype=D)
    (before, _), (now, _) = problem.follower(old), problem.follower(new)
    points, generator = ((old, before.policy), (new, now.policy)), torch.Generator().manual_seed(0)

    def draw(meeting: bool) -> Tensor:
        batch = draw_batch(problem, new, now.policy, Sampling(200, meeting=meeting), generator)
        if meeting:
            with pytest.raises(InputError, match="meeting=False"):
                importance_weights(problem, batch, *points)
        unguarded = Batch(*batch[:3])
        weights = importance_weights(problem, unguarded, *points)
        return segment_gradient(problem, old, before, unguarded, weights=weights)[1]

    truth = SoBiRL()(problem, old).gradient
    assert errors_away([draw(meeting=False) for _ in range(50)], truth) < 3
    assert errors_away([draw(meeting=True) for _ in range(50)], truth) > 5
