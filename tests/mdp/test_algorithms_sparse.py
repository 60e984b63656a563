"""Every algorithm takes sparse transitions and missing actions; what is too large says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bigrad.errors import InputError, UnsupportedError
from bigrad.mdp import (
    DRLHF,
    HPGD,
    PARL,
    PBRL,
    Algorithm,
    BilevelMDP,
    MSoBiRL,
    Sampling,
    SoBiRL,
    SparseTransition,
    StocSoBiRL,
    Tracked,
    dense_transition,
    descend,
)
from bigrad.problems import ReferenceProblem, chain_mdp, incentive_problem, preference_problem, random_mdp

with warnings.catch_warnings():  # torch says once that its CSR tensors are in beta
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()

D = torch.float64
DRAWS = Sampling(10)
EXACT = (SoBiRL(), HPGD(), PARL(), PBRL(), PBRL(form="bellman"), DRLHF(), MSoBiRL())
SAMPLED = (SoBiRL(DRAWS), HPGD(DRAWS), DRLHF(DRAWS), StocSoBiRL(DRAWS), PARL(Sampling(300)))


def relative(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def torch_csr(dense: Tensor) -> Tensor:
    return dense.flatten(0, 1).to_sparse_csr()


def own(dense: Tensor) -> SparseTransition:
    return SparseTransition.of(torch_csr(dense))


def name(algorithm: Algorithm) -> str:
    sampled = ", sampled" if getattr(algorithm, "sampling", None) else ""
    return f"{type(algorithm).__name__} {getattr(algorithm, 'form', '')}{sampled}"


@pytest.mark.parametrize("sparse", [torch_csr, own])
@pytest.mark.parametrize("algorithm", [*EXACT, *SAMPLED], ids=name)
def test_a_sparse_transition_changes_no_answer(algorithm: Algorithm, sparse: Callable[[Tensor], Tensor]) -> None:
    mdp = chain_mdp(torch.Generator().manual_seed(3), states=4, discount=0.7)
    problem = preference_problem(mdp, steps=2, init=torch.ones(4, dtype=D))
    thin = replace(problem, transition=sparse(mdp.transition))
    answers = [each_with_seed(algorithm, each) for each in (problem, thin)]
    assert relative(answers[1], answers[0]) < 1e-10


def each_with_seed(algorithm: Algorithm, problem: BilevelMDP) -> Tensor:
    x = torch.ones(4, dtype=D)
    return algorithm(problem, x, None, torch.Generator().manual_seed(0)).gradient


def moving_problem() -> tuple[ReferenceProblem, Callable[[Tensor], SparseTransition]]:
    generator = torch.Generator().manual_seed(3)
    problem = incentive_problem(random_mdp(generator, discount=0.7), generator, leader_discount=0.5, moving=True)
    pattern = own(torch.ones(4, 2, 4, dtype=D))

    def thin(x: Tensor) -> SparseTransition:
        return SparseTransition(pattern.crow, pattern.col, problem.transition_at(x).flatten())

    return problem, thin


@pytest.mark.parametrize("algorithm", [*EXACT, HPGD(decomposable=True), HPGD(DRAWS, True), HPGD(DRAWS)], ids=name)
def test_nor_does_one_that_depends_on_x(algorithm: Algorithm) -> None:
    problem, thin = moving_problem()
    answers = [
        algorithm(each, problem.init, None, torch.Generator().manual_seed(0)).gradient
        for each in (problem, replace(problem, transition=thin))
    ]
    assert relative(answers[1], answers[0]) < 1e-10
    if isinstance(algorithm, DRLHF):
        return  # it sees the leader's own derivative alone
    frozen = replace(problem, transition=thin(problem.init.detach()))
    still = algorithm(frozen, problem.init, None, torch.Generator().manual_seed(0)).gradient
    assert relative(still, answers[0]) > 1e-3  # the values' own derivative is there


def test_a_run_is_the_same() -> None:
    problem, thin = moving_problem()
    ends = [
        descend(each, SoBiRL(), problem.init, steps=3, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)).x
        for each in (problem, replace(problem, transition=thin))
    ]
    assert torch.allclose(*ends, rtol=1e-12)


def ring(states: int) -> BilevelMDP:
    """Forward or back on a circle; the leader wishes the walker forward at state 0 only."""
    here = torch.arange(states)
    col = torch.stack([(here + 1) % states, (here - 1) % states], -1).flatten()
    transition = SparseTransition(torch.arange(2 * states + 1), col, torch.ones(2 * states, dtype=D))
    start = torch.full((states,), 1 / states, dtype=D)
    place = torch.linspace(0, 6, states, dtype=D)
    reward = lambda x: torch.stack([(x[0] * place).sin(), (x[1] * place).cos()], -1)  # noqa: E731
    return BilevelMDP(reward, transition, start, 0.8, 0.5, lambda x, policy: -policy[0, 0].log())


def test_a_long_one_stays_sparse_for_sobirl_and_the_others_say_so() -> None:
    problem, x = ring(9_000), torch.tensor([0.7, 1.3], dtype=D)
    answer = SoBiRL()(problem, x)
    step = 1e-5 * torch.tensor([1.0, -0.5], dtype=D)
    slope = (problem.objective(x + step) - problem.objective(x - step)) / 2e-5
    assert float(answer.gradient @ step / 1e-5) == pytest.approx(float(slope), rel=1e-6)
    assert answer.certificate.adjoint_residual is not None
    assert float(answer.certificate.adjoint_residual) < 1e-8
    for algorithm in (HPGD(), PBRL(), MSoBiRL(), HPGD(DRAWS)):
        with pytest.raises(UnsupportedError, match="162000000 numbers"):
            algorithm(problem, x, None, torch.Generator())


def test_parl_refuses_a_hessian_that_is_too_large() -> None:
    with pytest.raises(UnsupportedError, match=r"6000 logits.*4096"):
        PARL()(ring(3000), torch.tensor([0.7, 1.3], dtype=D))


def test_rows_that_do_not_fit_say_so() -> None:
    with pytest.raises(InputError, match="8 rows and start 3 states"):
        dense_transition(own(torch.ones(4, 2, 4, dtype=D) / 4), 3)


@pytest.fixture(scope="module")
def masked() -> tuple[ReferenceProblem, Tensor]:
    """A problem of whose actions two are missing, and its gradient by finite differences."""
    generator = torch.Generator().manual_seed(3)
    full = incentive_problem(random_mdp(generator, actions=3, discount=0.7), generator, leader_discount=0.5)
    missing = torch.zeros(4, 3, dtype=D)
    missing[1, 2] = missing[3, 0] = -torch.inf
    problem = replace(full, reward=lambda x: full.reward(x) + missing)
    steps = 1e-5 * torch.eye(4, dtype=D)
    x = problem.init
    slopes = torch.stack([(problem.objective(x + h) - problem.objective(x - h)) / 2e-5 for h in steps])
    return problem, slopes


@pytest.mark.parametrize(
    ("algorithm", "error"),
    [
        (SoBiRL(), 1e-8),
        (HPGD(), 1e-8),
        (HPGD(decomposable=True), 1e-8),
        (PARL(), 1e-8),
        (PBRL(1e5, steps=60), 1e-4),
        (PBRL(1e5, "bellman", steps=60), 1e-4),
        (PBRL(1e5, steps=60, step_size=1.0), 1e-4),
    ],
    ids=lambda given: name(given) if isinstance(given, Algorithm) else "",
)
def test_missing_actions_are_no_trouble(
    masked: tuple[ReferenceProblem, Tensor], algorithm: Algorithm, error: float
) -> None:
    problem, truth = masked
    assert relative(algorithm(problem, problem.init).gradient, truth) < error


def test_nor_for_the_single_loop_nor_for_samples(masked: tuple[ReferenceProblem, Tensor]) -> None:
    problem, truth = masked
    solved, _ = problem.follower(problem.init)
    memory = Tracked(solved.value, torch.zeros(4, dtype=D))
    for _ in range(300):
        answer = MSoBiRL(adjoint_step=0.5)(problem, problem.init, memory)
        memory = answer.memory
    assert relative(answer.gradient, truth) < 1e-3
    generator = torch.Generator().manual_seed(0)
    for algorithm in (HPGD(Sampling(5000)), HPGD(Sampling(5000), True)):
        assert relative(algorithm(problem, problem.init, None, generator).gradient, truth) < 0.4
    both = preference_problem(random_mdp(torch.Generator().manual_seed(3), actions=3), steps=2, init=problem.init)
    half = replace(both, reward=lambda x: torch.where(problem.reward(x) > -torch.inf, both.reward(x), -torch.inf))
    truth = SoBiRL()(half, half.init).gradient
    for kind in (SoBiRL, StocSoBiRL, PARL):
        found = kind(Sampling(5000, horizon=20))(half, half.init, None, generator).gradient
        assert relative(found, truth) < 0.4
