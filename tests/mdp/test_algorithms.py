"""Every algorithm against the exact hyper-gradient: equal, or wrong by what its theory says."""

from __future__ import annotations

import inspect
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from bigrad import mdp
from bigrad.errors import InputError, SolveError
from bigrad.mdp import DRLHF, HPGD, PARL, PBRL, BilevelMDP, MSoBiRL, SoBiRL, policy_value
from bigrad.problems import (
    ReferenceProblem,
    chain_mdp,
    incentive_problem,
    preference_problem,
    random_mdp,
    synthetic_problem,
)

D = torch.float64


def relative(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def exact(problem: BilevelMDP, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(problem.objective(x), x)[0]


def build(name: str) -> ReferenceProblem:
    generator = torch.Generator().manual_seed(5)
    if name == "synthetic":
        return synthetic_problem(generator, states=5, actions=3, parameters=6)
    if name == "preferences":
        start = torch.randn(4, generator=generator, dtype=D)
        return preference_problem(chain_mdp(generator, discount=0.6), steps=2, init=start)
    if name == "terminal":
        mdp = random_mdp(generator, states=3, discount=0.6, terminal=True)
        return preference_problem(mdp, steps=2, init=torch.randn(4, generator=generator, dtype=D))
    mdp = random_mdp(generator, states=5, actions=3, discount=0.9, temperature=0.35)
    return incentive_problem(mdp, generator, moving=name == "moving")


NAMES = ("synthetic", "preferences", "terminal", "incentives", "moving")


@pytest.fixture(params=NAMES)
def problem(request: pytest.FixtureRequest) -> ReferenceProblem:
    return build(request.param)


def test_the_exact_one_itself_agrees_with_finite_differences(problem: ReferenceProblem) -> None:
    x = problem.init
    steps = 1e-5 * torch.eye(len(x), dtype=D)
    slopes = torch.stack([(problem.objective(x + h) - problem.objective(x - h)) / 2e-5 for h in steps])
    assert relative(exact(problem, x), slopes) < 1e-6


@pytest.mark.parametrize("algorithm", [SoBiRL(), HPGD(), PARL()], ids=lambda a: type(a).__name__)
def test_three_algorithms_compute_one_vector(problem: ReferenceProblem, algorithm: mdp.Algorithm) -> None:
    answer = algorithm(problem, problem.init)
    assert relative(answer.gradient, exact(problem, problem.init)) < 1e-10
    assert torch.allclose(answer.value, problem.objective(problem.init), rtol=1e-12)
    assert not answer.certificate.failed
    assert answer.cost.samples == 0
    assert answer.cost.reward_gradients == 1
    assert answer.memory is None


def wrong_vectors(problem: ReferenceProblem) -> dict[str, Tensor]:
    """The formula ``direct + R^T [pi (g - E w)] / tau`` and the four mistakes that are known."""
    x, gamma, tau = problem.init, problem.discount, problem.temperature
    solved, _ = problem.follower(x)
    pi, transition = solved.policy, problem.transition_at(x)
    _, direct, slope = problem.partials(x, pi)
    moves = torch.einsum("sa,sat->st", pi, transition)
    eye = torch.eye(len(pi), dtype=D)
    weighted = pi * slope
    here, ahead = weighted.sum(-1), torch.einsum("sa,sat->t", weighted, transition)
    right = here - gamma * ahead

    def vector(adjoint: Tensor, scale: float = tau) -> Tensor:
        return direct + problem.pull_back(x, solved.value, pi * (slope - adjoint[:, None]) / scale)

    adjoint = torch.linalg.solve((eye - gamma * moves).T, right)
    return {
        "right": vector(adjoint),
        "no transpose": vector(torch.linalg.solve(eye - gamma * moves, right)),
        "no discount": vector(torch.linalg.pinv((eye - moves).T) @ right),
        "E for U": vector(torch.linalg.solve((eye - gamma * moves).T, here)),
        "no temperature": vector(adjoint, 1.0),
    }


@pytest.mark.parametrize("name", ["incentives", "moving"])
def test_the_known_mistakes_are_far_from_the_exact_vector(name: str) -> None:
    problem = build(name)
    vectors = wrong_vectors(problem)
    truth = exact(problem, problem.init)
    assert relative(vectors.pop("right"), truth) < 1e-10
    for mistake, vector in vectors.items():
        assert relative(vector, truth) > 0.1, mistake


def test_m_sobirl_tracks_its_way_to_the_exact_vector() -> None:
    problem = build("synthetic")
    truth, memory, errors = exact(problem, problem.init), None, []
    algorithm = MSoBiRL(sweeps=2)
    for _ in range(250):
        answer = algorithm(problem, problem.init, memory)
        memory = answer.memory
        errors.append(relative(answer.gradient, truth))
        assert answer.cost.linear_solves == 0
        assert answer.cost.sweeps == 2
        if len(errors) == 1:
            assert answer.certificate.failed
            assert answer.certificate.adjoint.failed
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-8
    assert not answer.certificate.failed


def test_m_sobirl_with_a_solved_adjoint_is_exact_where_the_transition_moves_too() -> None:
    problem = build("moving")
    solved, _ = problem.follower(problem.init)
    transition = problem.transition_at(problem.init)
    _, _, slope = problem.partials(problem.init, solved.policy)
    weighted = solved.policy * slope
    matrix = torch.eye(5, dtype=D) - problem.discount * torch.einsum("sa,sat->st", solved.policy, transition)
    right = weighted.sum(-1) - problem.discount * torch.einsum("sa,sat->t", weighted, transition)
    memory = mdp.Tracked(solved.value, torch.linalg.solve(matrix.T, right))
    answer = MSoBiRL()(problem, problem.init, memory)
    assert relative(answer.gradient, exact(problem, problem.init)) < 1e-9


@pytest.mark.parametrize("form", ["value", "bellman"])
def test_the_bias_of_a_penalty_falls_as_one_over_its_weight(problem: ReferenceProblem, form: str) -> None:
    truth = exact(problem, problem.init)
    weights = (300.0, 3000.0, 30000.0)
    errors = [relative(PBRL(weight, form, steps=60)(problem, problem.init).gradient, truth) for weight in weights]
    for larger, smaller in pairwise(errors):
        assert 7 < larger / smaller < 14
    assert errors[-1] < 2e-3


def test_both_penalties_are_divergences_of_the_policies() -> None:
    """Each penalty is a sum of KL divergences, with visits or with first states as weights."""
    problem = build("incentives")
    x, tau = problem.init, problem.temperature
    solved, _ = problem.follower(x)
    reward, transition = problem.reward(x), problem.transition_at(x)
    bent = torch.softmax(torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=D), -1)
    divergence = (bent * (bent / solved.policy).log()).sum(-1)
    value, _ = policy_value(bent, reward, transition, problem.discount, tau)
    matrix = torch.eye(5, dtype=D) - problem.discount * torch.einsum("sa,sat->st", bent, transition)
    visits = torch.linalg.solve(matrix.T, problem.start)
    assert torch.allclose(problem.start @ (solved.value - value), tau * visits @ divergence, rtol=1e-10)
    entropic = (solved.value - (bent * (solved.q_value - tau * bent.log())).sum(-1)) @ problem.start
    assert torch.allclose(entropic, tau * problem.start @ divergence, rtol=1e-10)


def test_a_penalty_through_a_critic_that_does_not_see_x_would_do_nothing() -> None:
    """The known wrong variant: a Q that is held fixed gives the direct term alone."""
    problem = build("incentives")
    _, direct, _ = problem.partials(problem.init, problem.follower(problem.init)[0].policy)
    found = PBRL(1000.0)(problem, problem.init).gradient
    assert relative(found, direct) > 0.5


def test_drlhf_is_the_direct_term(problem: ReferenceProblem) -> None:
    policy = problem.follower(problem.init)[0].policy
    x = problem.init.clone().requires_grad_()
    (direct,) = torch.autograd.grad(problem.leader(x, policy), x)
    answer = DRLHF()(problem, problem.init)
    assert torch.allclose(answer.gradient, direct, rtol=1e-12)
    assert relative(answer.gradient, exact(problem, problem.init)) > 0.05
    assert answer.cost.linear_solves == 0


def test_parl_is_biased_by_damping_and_wrong_without_the_outer_products() -> None:
    problem = build("preferences")
    x, truth = problem.init, exact(problem, problem.init)
    errors = [relative(PARL(damping=damping)(problem, x).gradient, truth) for damping in (1e-1, 1e-2, 1e-3)]
    assert errors[0] > errors[1] > errors[2] > 1e-5
    solved, _ = problem.follower(x)
    pi, transition = solved.policy, problem.transition_at(x)
    matrix = torch.eye(5, dtype=D) - problem.discount * torch.einsum("sa,sat->st", pi, transition)
    visits = torch.linalg.solve(matrix.T, problem.start)
    # Without them only E sum_j (sum_{h >= j} gamma^h r_h) d^2 log pi(a_j | s_j) is left, which is diagonal in states.
    blocks = [-visits[s] * solved.value[s] * (pi[s].diag() - torch.outer(pi[s], pi[s])) for s in range(5)]
    _, direct, slope = problem.partials(x, pi)
    pulled = pi * (slope - (pi * slope).sum(-1, keepdim=True))
    logits = pi.log().requires_grad_()
    free = x.clone().requires_grad_()
    value, _ = policy_value(logits.softmax(-1), problem.reward(free), transition, problem.discount, problem.temperature)
    (cross,) = torch.autograd.grad(problem.start @ value, logits, create_graph=True)
    answer = -torch.linalg.pinv(torch.block_diag(*blocks)) @ pulled.flatten()
    (response,) = torch.autograd.grad((cross.flatten() * answer).sum(), free)
    assert relative(direct + response, truth) > 0.3


def test_parl_says_so_where_a_state_is_out_of_reach() -> None:
    stay = torch.eye(2, dtype=D)[:, None].expand(2, 2, 2)
    start = torch.tensor([1.0, 0.0], dtype=D)
    problem = BilevelMDP(lambda x: x, stay, start, 0.5, 1.0, lambda x, policy: policy.square().sum())
    with pytest.raises(SolveError, match="Hessian of the return"):
        PARL()(problem, torch.randn(2, 2, dtype=D, generator=torch.Generator().manual_seed(0)))


def test_penalties_say_so_where_they_hold_nothing() -> None:
    stay = torch.eye(2, dtype=D)[:, None].expand(2, 2, 2)
    start = torch.tensor([1.0, 0.0], dtype=D)
    problem = BilevelMDP(lambda x: x, stay, start, 0.5, 1.0, lambda x, policy: policy.square().sum())
    for form in ("value", "bellman"):
        with pytest.raises(InputError, match="state 1 has"):
            PBRL(10.0, form)(problem, torch.zeros(2, 2, dtype=D))


def test_single_precision_stays() -> None:
    problem = synthetic_problem(
        torch.Generator().manual_seed(0), states=4, actions=3, parameters=5, dtype=torch.float32
    )
    for algorithm in (SoBiRL(), HPGD(), PARL(), PBRL(), DRLHF(), MSoBiRL()):
        answer = algorithm(problem, problem.init)
        assert answer.gradient.dtype == answer.value.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MSoBiRL(sweeps=0), "sweeps is 0"),
        (lambda: MSoBiRL(adjoint_step=-1.0), "adjoint_step is -1"),
        (lambda: PBRL(0.0), "penalty is 0"),
        (lambda: PBRL(1.0, "both"), "form is 'both'"),
        (lambda: PBRL(1.0, step_size=2.0), "step_size 2"),
        (lambda: PARL(damping=-1.0), "damping is -1"),
        (lambda: mdp.StocSoBiRL(momentum=0.0), "momentum is 0"),
        (lambda: mdp.Sampling(samples=1), "samples is 1"),
        (lambda: mdp.Sampling(horizon=0), "horizon is 0"),
    ],
)
def test_settings_out_of_range(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_every_algorithm_is_covered_here_or_among_the_samples() -> None:
    kinds = {kind for _, kind in inspect.getmembers(mdp, inspect.isclass) if issubclass(kind, mdp.Algorithm)}
    names = {kind.__name__ for kind in kinds} - {"Algorithm"}
    assert names == {"SoBiRL", "MSoBiRL", "StocSoBiRL", "HPGD", "PBRL", "PARL", "DRLHF"}
