"""Every reference problem: its gradient against finite differences, what is known of its answer, and its picture."""

from __future__ import annotations

import sys
from itertools import product

import pytest
import torch
from matplotlib.figure import Figure

from bigrad.errors import InputError, MissingPackage
from bigrad.mdp import DRLHF, MSoBiRL, SoBiRL, descend, policy_value
from bigrad.problems import (
    ReferenceProblem,
    apprenticeship,
    best_return,
    chain_mdp,
    contract_design,
    four_rooms,
    grid_world,
    incentive_problem,
    preference_problem,
    random_mdp,
    reward_shaping,
    robot_navigation,
    stackelberg_game,
    synthetic_problem,
)

D = torch.float64


def build(name: str) -> ReferenceProblem:
    generator = torch.Generator().manual_seed(0)
    if name == "synthetic":
        return synthetic_problem(generator)
    if name == "preferences":
        return preference_problem(chain_mdp(generator), truth=torch.ones(4, dtype=D), steps=2)
    if name == "incentives":
        return incentive_problem(random_mdp(generator), generator, moving=True)
    if name == "game":
        return stackelberg_game(generator)
    makers = {"contract": contract_design, "four rooms": four_rooms, "shaping": reward_shaping}
    return (makers | {"apprenticeship": apprenticeship, "robot": robot_navigation})[name]()


NAMES = (
    "synthetic",
    "preferences",
    "incentives",
    "four rooms",
    "shaping",
    "apprenticeship",
    "contract",
    "game",
    "robot",
)


@pytest.fixture(params=NAMES)
def problem(request: pytest.FixtureRequest) -> ReferenceProblem:
    return build(request.param)


def test_the_gradient_is_that_of_finite_differences(problem: ReferenceProblem) -> None:
    generator = torch.Generator().manual_seed(1)
    x = problem.init + 0.1 * torch.randn(problem.init.shape, generator=generator, dtype=D)
    gradient = SoBiRL()(problem, x).gradient
    way = gradient / gradient.norm() + torch.randn(x.shape, generator=generator, dtype=D) / x.numel() ** 0.5
    step = 1e-4 * problem.temperature * way
    slope = (problem.objective(x + step) - problem.objective(x - step)) / (2e-4 * problem.temperature)
    assert abs(float(slope - (gradient * way).sum())) < 1e-6 * float(gradient.norm())


def test_the_optimum_is_one(problem: ReferenceProblem) -> None:
    if problem.optimum is None or problem.minimiser is None:
        assert problem.name not in {"synthetic problem", "apprenticeship"}
        return
    assert abs(float(problem.objective(problem.minimiser)) - problem.optimum) < 1e-12
    assert float(SoBiRL()(problem, problem.minimiser).gradient.norm()) < 1e-10
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        other = problem.minimiser + torch.randn(problem.init.shape, generator=generator, dtype=D)
        assert float(problem.objective(other)) > problem.optimum


def test_every_problem_has_a_picture(problem: ReferenceProblem) -> None:
    policy = problem.follower(problem.init)[0].policy
    figure = problem.render(policy, problem.reward(problem.init).detach())
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == problem.name
    drawn = [axes.get_title() for axes in figure.axes]
    assert any("policy" in title for title in drawn)
    assert any("reward" in title for title in drawn)
    with pytest.raises(InputError, match="wanted both"):
        problem.render(policy[1:], policy)


def test_a_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    problem = build("incentives")
    policy = problem.follower(problem.init)[0].policy
    with pytest.raises(MissingPackage, match="matplotlib"):
        problem.render(policy, policy)


def test_m_sobirl_finds_the_known_optimum() -> None:
    """Ten seeds are in benchmarks/results/synthetic_rates.json."""
    problem = synthetic_problem(torch.Generator().manual_seed(0))
    run = descend(problem, MSoBiRL(), problem.init, steps=1600, optimizer=lambda p: torch.optim.SGD(p, lr=8e-3))
    assert run.history.value[0] > 10
    assert max(abs(value - 1.0) for value in run.history.value[1000:]) < 1e-3
    assert abs(run.history.value[-1] - 1.0) < 1e-8
    assert run.cost.linear_solves == 0


def test_learnt_preferences_reach_the_teacher() -> None:
    """Where the reward can be the true one, the least Bradley-Terry loss for a pair is the entropy of its label."""
    truth = torch.tensor([0.5, -0.3, 0.2, 0.4], dtype=D)
    problem = preference_problem(chain_mdp(torch.Generator().manual_seed(0), states=3), truth=truth, steps=2)
    assert float(direct_norm(problem, truth)) < 1e-12
    assert float(problem.objective(truth)) < float(problem.objective(problem.init))


def direct_norm(problem: ReferenceProblem, x: torch.Tensor) -> torch.Tensor:
    policy = problem.follower(x)[0].policy
    return problem.partials(x, policy)[1].norm()


def test_shaping_helps_and_stays_below_its_bound() -> None:
    problem = reward_shaping()
    run = descend(problem, SoBiRL(), problem.init, steps=40, optimizer=lambda p: torch.optim.Adam(p, lr=0.2))
    assert run.history.value[-1] < 3 * run.history.value[0] < 0
    assert problem.bound is not None
    assert problem.bound < run.history.value[-1]


@pytest.mark.parametrize("name", ["contract", "game", "robot"])
def test_leaders_gain_and_stay_above_their_bounds(name: str) -> None:
    problem = build(name)
    run = descend(problem, SoBiRL(), problem.init, steps=60, optimizer=lambda p: torch.optim.Adam(p, lr=0.1))
    assert problem.bound is not None
    assert problem.bound < run.history.value[-1] < run.history.value[0] - 0.2
    if name == "game":
        return  # its landscape has several minima, and a wrong gradient may find the better one
    blind = descend(problem, DRLHF(), problem.init, steps=60, optimizer=lambda p: torch.optim.Adam(p, lr=0.1))
    assert run.history.value[-1] < blind.history.value[-1] - 0.1  # it expects no answer


def test_the_bound_is_the_best_of_all_deterministic_policies() -> None:
    mdp = random_mdp(torch.Generator().manual_seed(0), states=3, terminal=True)
    reward = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=D)
    best = max(
        float(mdp.start @ policy_value(torch.eye(2, dtype=D)[list(choice)], reward, mdp.transition, 0.9)[0])
        for choice in product(range(2), repeat=3)
    )
    assert best_return(reward, mdp.transition, mdp.start, 0.9) == pytest.approx(best, rel=1e-10)


def test_a_potential_shapes_nothing() -> None:
    """The rewards of a potential leave the policy alone, so the hyper-gradient is orthogonal to them."""
    problem = build("incentives")
    solved, _ = problem.follower(problem.init)
    potential = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=D)
    transition = problem.transition_at(problem.init).detach()
    shift = problem.discount * transition @ potential - potential[:, None]
    table = ReferenceProblem(
        reward=lambda x: x,
        transition=transition,
        start=problem.start,
        discount=problem.discount,
        temperature=problem.temperature,
        leader=lambda x, policy: policy.square().sum(),
        name="table",
        init=problem.reward(problem.init).detach(),
    )
    gradient = SoBiRL()(table, table.init).gradient
    assert abs(float((gradient * shift).sum())) < 1e-12 * float(gradient.norm() * shift.norm())
    assert float(gradient.norm()) > 1e-3
    assert solved.policy.shape == table.init.shape


def test_grids() -> None:
    grid = grid_world(("   ", " # "), fail=0.3)
    assert grid.transition.shape == (5, 4, 5)
    assert torch.allclose(grid.transition.sum(-1), torch.ones(5, 4, dtype=D))
    assert grid.transition[1, 0].tolist() == pytest.approx([0.1, 0.8, 0.1, 0.0, 0.0])  # up and down stay
    with pytest.raises(InputError, match="is a wall"):
        grid.state(1, 1)
    with pytest.raises(InputError, match="fail is 1"):
        grid_world((" ",), fail=1.0)
    assert len(four_rooms().start) == 104
