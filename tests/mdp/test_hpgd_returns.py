"""HPGD where the leader's number is a return: the exact forms are one, and samples are right on average."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bigrad.errors import InputError
from bigrad.mdp import HPGD, LeaderReturn, Sampling, SoBiRL
from bigrad.problems import (
    ReferenceProblem,
    contract_design,
    four_rooms,
    incentive_problem,
    random_mdp,
    reward_shaping,
    robot_navigation,
    stackelberg_game,
)

from .test_algorithms_sampled import errors_away


def build(moving: bool, terminal: bool, actions: int = 2) -> ReferenceProblem:
    generator = torch.Generator().manual_seed(3)
    mdp = random_mdp(generator, actions=actions, discount=0.7, terminal=terminal)
    return incentive_problem(mdp, generator, leader_discount=0.5, moving=moving)


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
def test_the_two_exact_forms_are_one(moving: bool, terminal: bool) -> None:
    problem = build(moving, terminal)
    found, general = HPGD(decomposable=True)(problem, problem.init), HPGD()(problem, problem.init)
    assert torch.allclose(found.gradient, general.gradient, rtol=1e-10)
    assert torch.allclose(found.gradient, SoBiRL()(problem, problem.init).gradient, rtol=1e-10)
    assert torch.allclose(found.value, general.value, rtol=1e-12)
    assert found.cost.samples == 0


@pytest.mark.parametrize(
    "make",
    [
        four_rooms,
        reward_shaping,
        robot_navigation,
        contract_design,
        lambda: stackelberg_game(torch.Generator().manual_seed(0)),
    ],
)
def test_so_they_are_on_every_problem_with_a_leader_on_the_way(make: object) -> None:
    problem = make()  # type: ignore[operator]
    found = HPGD(decomposable=True)(problem, problem.init).gradient
    truth = SoBiRL()(problem, problem.init).gradient
    assert float((found - truth).norm()) < 1e-10 * float(truth.norm())


def draws(problem: ReferenceProblem, algorithm: HPGD, count: int = 20) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [algorithm(problem, problem.init, None, generator).gradient for _ in range(count)]


@pytest.mark.parametrize(("moving", "terminal"), [(False, False), (True, True)])
def test_samples_are_right_on_average(moving: bool, terminal: bool) -> None:
    problem = build(moving, terminal)
    exact = HPGD(decomposable=True)(problem, problem.init)
    found = draws(problem, HPGD(Sampling(300), decomposable=True))
    assert errors_away(found, exact.gradient) < 3
    assert float((torch.stack(found).mean(0) - exact.gradient).norm() / exact.gradient.norm()) < 0.2
    generator = torch.Generator().manual_seed(1)
    values = [HPGD(Sampling(100), True)(problem, problem.init, None, generator).value.reshape(1) for _ in range(20)]
    assert errors_away(values, exact.value) < 3


def test_the_leaders_own_discount_is_needed() -> None:
    """The known wrong variant: the follower's discount at both levels."""
    problem = build(moving=False, terminal=False)
    assert problem.returns is not None
    truth = SoBiRL()(problem, problem.init).gradient
    wrong = replace(problem, returns=replace(problem.returns, discount=problem.discount))
    assert errors_away(draws(wrong, HPGD(Sampling(300), decomposable=True)), truth) > 6
    assert float((HPGD(decomposable=True)(wrong, wrong.init).gradient - truth).norm() / truth.norm()) > 0.1


def test_the_moves_have_a_part_where_they_depend_on_x() -> None:
    """The known wrong variant: an incentive that moves the transition, seen through the rewards alone."""
    problem = build(moving=True, terminal=False)
    truth = SoBiRL()(problem, problem.init).gradient
    still = replace(problem, transition=problem.transition_at(problem.init).detach())
    assert errors_away(draws(still, HPGD(Sampling(600), decomposable=True)), truth) > 5


def test_its_steps_are_counted() -> None:
    problem, generator = build(moving=False, terminal=False), torch.Generator().manual_seed(0)
    answer = HPGD(Sampling(5, rollouts=2, horizon=3, meeting=False), decomposable=True)(
        problem, problem.init, None, generator
    )
    # five paths of three steps; from each step two pairs, twice, of rollouts of three
    assert answer.cost.samples == 5 * 3 * (1 + 2 * 2 * 2 * 3)


def test_what_is_missing_is_named() -> None:
    problem = build(moving=False, terminal=False)
    with pytest.raises(InputError, match="no returns"):
        HPGD(decomposable=True)(replace(problem, returns=None), problem.init)
    with pytest.raises(InputError, match="generator is None"):
        HPGD(Sampling(), decomposable=True)(problem, problem.init)
    with pytest.raises(InputError, match="leader's discount is 1"):
        LeaderReturn(lambda x: x, 1.0)
