"""The outer loop: any optimizer, the same run from the same seed, and incentives that cannot act."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bigrad.errors import Diverged, InputError
from bigrad.mdp import HPGD, PARL, PBRL, MSoBiRL, Sampling, SoBiRL, StocSoBiRL, check_incentive, descend
from bigrad.problems import ReferenceProblem, preference_problem, random_mdp, synthetic_problem

D = torch.float64


@pytest.fixture
def problem() -> ReferenceProblem:
    return synthetic_problem(torch.Generator().manual_seed(0), states=4, actions=2, parameters=5)


def sgd(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad])
def test_any_optimizer_goes_down(problem: ReferenceProblem, kind: type[torch.optim.SGD]) -> None:
    run = descend(problem, SoBiRL(), problem.init, steps=30, optimizer=lambda parameters: kind(parameters, lr=0.02))
    assert run.history.value[-1] < run.history.value[0]
    assert run.cost.linear_solves == run.cost.reward_gradients == 30
    assert run.history.linear_solves == list(range(1, 31))


def test_it_does_what_a_loop_by_hand_does(problem: ReferenceProblem) -> None:
    run = descend(problem, SoBiRL(), problem.init, steps=5, optimizer=sgd)
    x = problem.init.clone()
    for step in range(5):
        free = x.clone().requires_grad_()
        value = problem.objective(free)
        assert run.history.value[step] == pytest.approx(float(value.detach()), rel=1e-12)
        x = x - 0.02 * torch.autograd.grad(value, free)[0]
    assert torch.allclose(run.x, x, rtol=1e-10)


@pytest.mark.parametrize("algorithm", [SoBiRL(Sampling(20)), StocSoBiRL(Sampling(20))], ids=lambda a: type(a).__name__)
def test_a_seed_is_a_run(problem: ReferenceProblem, algorithm: SoBiRL) -> None:
    def run(seed: int) -> Tensor:
        return descend(
            problem, algorithm, problem.init, steps=5, optimizer=sgd, generator=torch.Generator().manual_seed(seed)
        ).x

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_a_run_is_followed_and_judged(problem: ReferenceProblem) -> None:
    seen = []
    start = problem.init.clone()
    run = descend(
        problem,
        MSoBiRL(sweeps=1),
        problem.init,
        steps=11,
        optimizer=sgd,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: (1 + k) ** (-1 / 3)),
        progress=lambda step, answer: seen.append((step, float(answer.value))),
        judge_every=5,
    )
    assert seen == list(enumerate(run.history.value))
    assert run.history.judged == [0, 5, 10]
    assert run.history.true_value[0] == pytest.approx(float(problem.objective(start)))
    assert run.history.true_squared_gradient[0] != run.history.squared_gradient[0]
    assert run.cost.linear_solves == 0  # the judge costs the algorithm nothing
    assert torch.equal(problem.init, start)


@pytest.mark.parametrize(
    "reward",
    [
        lambda x: torch.ones(4, 2, dtype=D),
        lambda x: torch.ones(4, 2, dtype=D) + 0 * x.sum(),
        lambda x: x.sum() + torch.ones(4, 2, dtype=D),
        lambda x: torch.relu(-x.square().sum() - 1) + torch.ones(4, 2, dtype=D),
    ],
    ids=["none", "zero", "one for all", "dead"],
)
def test_an_incentive_that_cannot_act_says_so(problem: ReferenceProblem, reward: object) -> None:
    powerless = replace(problem, reward=reward)
    with pytest.raises(InputError, match="cannot act"):
        descend(powerless, SoBiRL(), problem.init, steps=1, optimizer=sgd)


def test_an_optimum_where_the_reward_is_flat_is_no_such_case(problem: ReferenceProblem) -> None:
    assert problem.minimiser is not None
    check_incentive(problem, problem.minimiser)
    assert float(SoBiRL()(problem, problem.minimiser).gradient.norm()) == 0


def test_an_algorithm_alone_names_a_reward_without_x(problem: ReferenceProblem) -> None:
    powerless, draws = replace(problem, reward=lambda x: torch.ones(4, 2, dtype=D)), Sampling(20)
    exact = (SoBiRL(), MSoBiRL(), HPGD(), PARL(), PBRL(), PBRL(form="bellman"))
    for algorithm in (*exact, SoBiRL(draws), StocSoBiRL(draws), HPGD(draws), PARL(Sampling(500))):
        with pytest.raises(InputError, match="cannot act"):
            algorithm(powerless, problem.init, None, torch.Generator().manual_seed(0))


def test_a_run_that_explodes_stops() -> None:
    problem = preference_problem(random_mdp(torch.Generator().manual_seed(0)), steps=1)
    with pytest.raises(Diverged, match="take a smaller lr"):
        descend(
            replace(problem, leader=lambda x, policy: policy.square().sum() + (x**4).sum()),
            SoBiRL(),
            torch.ones(4, dtype=D),
            steps=60,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e3),
        )


def test_bad_calls(problem: ReferenceProblem) -> None:
    with pytest.raises(InputError, match="steps is 0"):
        descend(problem, SoBiRL(), problem.init, steps=0, optimizer=sgd)
    with pytest.raises(InputError, match="the leader returned"):
        SoBiRL()(replace(problem, leader=lambda x, policy: policy), problem.init)
    with pytest.raises(InputError, match="discount is 1"):
        replace(problem, discount=1.0)
