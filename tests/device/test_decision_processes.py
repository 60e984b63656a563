"""Every algorithm for decision processes on a device, with dense and sparse transitions, against the CPU."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

import bigrad.mdp
from bigrad import InputError
from bigrad.mdp import (
    DRLHF,
    HPGD,
    PARL,
    PBRL,
    Algorithm,
    HyperGradient,
    MSoBiRL,
    Sampling,
    SoBiRL,
    SparseTransition,
    StocSoBiRL,
    descend,
    soft_bellman,
)
from bigrad.problems import ReferenceProblem, TabularMDP, chain_mdp, incentive_problem, preference_problem

from .memory import NAME
from .solutions import D, numbers

DRAWS = Sampling(10)
EXACT = (SoBiRL(), HPGD(), HPGD(decomposable=True), PARL(), PBRL(), PBRL(form="bellman"), DRLHF(), MSoBiRL())
SAMPLED = (SoBiRL(DRAWS), HPGD(DRAWS), HPGD(DRAWS, True), DRLHF(DRAWS), StocSoBiRL(DRAWS), PARL(Sampling(300)))
X = torch.ones(4, dtype=D)


def world(place: torch.device) -> TabularMDP:
    mdp = chain_mdp(torch.Generator().manual_seed(3), states=4, discount=0.7)
    return replace(mdp, transition=mdp.transition.to(place), start=mdp.start.to(place), design=mdp.design.to(place))


def problem(algorithm: Algorithm, place: torch.device) -> ReferenceProblem:
    mdp = world(place)
    if getattr(algorithm, "decomposable", False):
        return incentive_problem(mdp, torch.Generator().manual_seed(3), leader_discount=0.5)
    return preference_problem(mdp, steps=2, init=X.to(place))


def name(algorithm: Algorithm) -> str:
    return f"{algorithm}".replace("Sampling", "")


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("algorithm", [*EXACT, *SAMPLED], ids=name)
def test_an_algorithm_stays_on_its_device(algorithm: Algorithm, sparse: bool, device: torch.device) -> None:
    answers: list[HyperGradient] = []
    for place in (torch.device("cpu"), device):
        made = problem(algorithm, place)
        made = replace(made, transition=entries(made.transition)) if sparse else made
        answers.append(algorithm(made, X.to(place), None, torch.Generator(place).manual_seed(0)))
        assert answers[-1].gradient.device == X.to(place).device
    here, there = (answer.gradient.cpu() for answer in answers)
    assert bool(there.isfinite().all())
    if algorithm in EXACT or device.type == NAME:  # which draws what the CPU draws
        torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-11)


def entries(transition: Tensor) -> SparseTransition:
    """All of it, zeros too: more entries than a matrix of one row for each state has places."""
    states, actions, _ = transition.shape
    crow = torch.arange(states * actions + 1, device=transition.device) * states
    return SparseTransition(
        crow, torch.arange(states, device=transition.device).repeat(states * actions), transition.flatten()
    )


@pytest.mark.parametrize("states", [3, 200])
def test_sparse_transitions_stay_on_their_device(states: int, device: torch.device) -> None:
    crow = torch.arange(2 * states + 1) * 2
    here = torch.arange(states).repeat_interleave(2)
    col = torch.stack([(here + 1) % states, (here + 2) % states], -1).flatten()
    chance = numbers(2 * states).abs() / 2
    values = torch.stack([chance, 1 - chance], -1).flatten()
    found = []
    for place in (torch.device("cpu"), device):
        reward, free = (part.to(place).requires_grad_() for part in (numbers(2, states, 2), values))
        solved = soft_bellman(reward, SparseTransition(crow.to(place), col.to(place), free), 0.9, 0.5)
        slopes = torch.autograd.grad((solved.policy * numbers(2, states, 2).to(place)).sum(), (reward, free))
        assert all(part.device == reward.device for part in (*solved, *slopes))
        found.append([part.detach().cpu() for part in (*solved, *slopes)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_a_descent_stays_on_its_device(device: torch.device) -> None:
    ends = [
        descend(
            preference_problem(world(place), steps=2, init=X.to(place)),
            SoBiRL(),
            X.to(place),
            steps=3,
            optimizer=partial(torch.optim.SGD, lr=0.1),
        ).x
        for place in (torch.device("cpu"), device)
    ]
    assert ends[1].device == device
    torch.testing.assert_close(ends[0], ends[1].cpu(), rtol=1e-9, atol=1e-11)


def test_a_generator_of_another_device_is_refused(device: torch.device) -> None:
    made = preference_problem(world(device), steps=2, init=X.to(device))
    for algorithm in SAMPLED:
        if not getattr(algorithm, "decomposable", False):
            with pytest.raises(InputError, match="generator is on cpu"):
                algorithm(made, X.to(device), None, torch.Generator())


def test_every_algorithm_is_covered() -> None:
    known = {getattr(bigrad.mdp, name) for name in bigrad.mdp.__all__}
    algorithms = {it for it in known if isinstance(it, type) and issubclass(it, Algorithm) and it is not Algorithm}
    assert algorithms == {type(algorithm) for algorithm in (*EXACT, *SAMPLED)}
