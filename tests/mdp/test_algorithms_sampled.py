"""Sampled hyper-gradients: right on average, their weights needed, their costs counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad.errors import InputError, UnsupportedError
from bigrad.mdp import (
    DRLHF,
    HPGD,
    PARL,
    Algorithm,
    Batch,
    Sampling,
    SegmentLoss,
    SoBiRL,
    StocSoBiRL,
    Weights,
    draw_batch,
    draw_paths,
    every_path,
    importance_weights,
    segment_gradient,
)
from bigrad.problems import ReferenceProblem, chain_mdp, incentive_problem, preference_problem, random_mdp

D = torch.float64
BATCHES, SAMPLES = 20, 1200  # 1e5 segments are in benchmarks/results/response_bias.json


def build(name: str) -> ReferenceProblem:
    generator = torch.Generator().manual_seed(3)
    if name == "preferences":
        start = torch.randn(4, generator=generator, dtype=D)
        return preference_problem(chain_mdp(generator, states=4, discount=0.6), steps=2, init=start)
    if name == "terminal":
        mdp = random_mdp(generator, states=3, discount=0.5, terminal=True)
        return preference_problem(mdp, steps=3, init=torch.randn(4, generator=generator, dtype=D))
    mdp = random_mdp(generator, states=4, discount=0.5)
    return incentive_problem(mdp, generator, moving=True, steps=3)


@pytest.fixture(params=["preferences", "terminal", "moving"], scope="module")
def problem(request: pytest.FixtureRequest) -> ReferenceProblem:
    return build(request.param)


def errors_away(draws: list[Tensor], truth: Tensor) -> float:
    """The largest distance of the mean from the truth, in standard errors of each number."""
    table = torch.stack(draws)
    error = table.std(0) / len(draws) ** 0.5
    return float(((table.mean(0) - truth).abs() / error).max())


def estimates(problem: ReferenceProblem, algorithm: Algorithm, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [algorithm(problem, problem.init, None, generator).gradient for _ in range(BATCHES)]


@pytest.mark.parametrize("kind", [SoBiRL, HPGD, DRLHF], ids=lambda kind: kind.__name__)
def test_samples_are_right_on_average(problem: ReferenceProblem, kind: type[SoBiRL]) -> None:
    found = estimates(problem, kind(Sampling(SAMPLES)))
    truth = kind()(problem, problem.init).gradient
    assert errors_away(found, truth) < 3
    assert float((torch.stack(found).mean(0) - truth).norm() / truth.norm()) < 0.3  # enough samples to mean something


def test_without_its_response_the_mean_is_elsewhere(problem: ReferenceProblem) -> None:
    truth = SoBiRL()(problem, problem.init).gradient
    assert errors_away(estimates(problem, DRLHF(Sampling(SAMPLES))), truth) > 6


def test_short_rollouts_are_biased_and_a_baseline_only_calms() -> None:
    problem = build("preferences")
    truth = SoBiRL()(problem, problem.init).gradient
    short = estimates(problem, SoBiRL(Sampling(SAMPLES, horizon=1)))
    assert errors_away(short, truth) > 6
    calm = torch.stack(estimates(problem, SoBiRL(Sampling(500)))).var(0).sum()
    raw = estimates(problem, SoBiRL(Sampling(500, baseline=False)))
    assert errors_away(raw, truth) < 4
    assert torch.stack(raw).var(0).sum() > 1.5 * calm


def test_sampled_parl_nears_the_exact_one_as_samples_grow() -> None:
    problem = build("preferences")
    truth = PARL()(problem, problem.init).gradient
    generator = torch.Generator().manual_seed(0)
    errors = [
        float((PARL(Sampling(samples))(problem, problem.init, None, generator).gradient - truth).norm() / truth.norm())
        for samples in (2_000, 100_000)
    ]
    assert errors[1] < 0.3
    assert errors[1] < errors[0]


def old_gradients(problem: ReferenceProblem, shift: float = 0.5, batches: int = BATCHES) -> dict[str, list[Tensor]]:
    """The gradient at the point before, on batches drawn at a point away from it, by which weights are used."""
    generator = torch.Generator().manual_seed(0)
    old, new = problem.init, problem.init + shift * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=D)
    (before, _), (now, _) = problem.follower(old), problem.follower(new)
    found: dict[str, list[Tensor]] = {"both": [], "segments": [], "rollouts": [], "none": []}
    for _ in range(batches):
        batch = draw_batch(problem, new, now.policy, Sampling(SAMPLES, meeting=False), generator)
        full = importance_weights(problem, batch, (old, before.policy), (new, now.policy))
        ones = [torch.ones_like(part) for part in full]
        weights = (full, Weights(full.tuples, *ones[1:]), Weights(ones[0], *full[1:]), None)
        for draws, weight in zip(found.values(), weights, strict=True):
            draws.append(segment_gradient(problem, old, before, batch, weights=weight)[1])
    return found


@pytest.mark.parametrize("name", ["preferences", "moving"])
def test_weights_on_both_make_the_old_gradient_right_and_less_leaves_a_bias(name: str) -> None:
    problem = build(name)
    truth = SoBiRL()(problem, problem.init).gradient
    found = old_gradients(problem, shift=1.0 if name == "preferences" else 0.5)
    assert errors_away(found.pop("both"), truth) < 3
    if name == "preferences":
        for weighting, draws in found.items():
            assert errors_away(draws, truth) > 5, weighting


def test_full_momentum_is_the_plain_estimate_and_less_of_it_has_less_variance() -> None:
    problem, x = build("preferences"), build("preferences").init
    plain, momentum = SoBiRL(Sampling(50, meeting=False)), StocSoBiRL(Sampling(50), momentum=1e9)
    first, second = (torch.Generator().manual_seed(1) for _ in range(2))
    memory = None
    for _ in range(3):
        answer = momentum(problem, x, memory, second)
        memory = answer.memory
        assert torch.equal(answer.gradient, plain(problem, x, None, first).gradient)
    truth = SoBiRL()(problem, x).gradient
    errors = []
    for algorithm in (StocSoBiRL(Sampling(50)), momentum):
        generator, memory, found = torch.Generator().manual_seed(0), None, []
        for _ in range(60):
            answer = algorithm(problem, x, memory, generator)
            memory = answer.memory
            found.append(answer.gradient)
        errors.append(float(torch.stack(found[30:]).sub(truth).square().sum(-1).mean()))
    assert errors[0] < 0.3 * errors[1]


def test_costs_are_counted() -> None:
    problem = build("preferences")
    generator = torch.Generator().manual_seed(0)
    sampling = Sampling(10, rollouts=3, horizon=4, meeting=False)
    # ten pairs of segments of two steps; from each step twice three rollouts of four
    assert SoBiRL(sampling)(problem, problem.init, None, generator).cost.samples == 10 * 2 * 2 * (1 + 2 * 3 * 4)
    assert DRLHF(sampling)(problem, problem.init, None, generator).cost.samples == 10 * 2 * 2
    assert HPGD(sampling)(problem, problem.init, None, generator).cost.samples == 10 * 2 * 3 * 4
    assert PARL(Sampling(500, horizon=4))(problem, problem.init, None, generator).cost.samples == 500 * (4 + 2 * 2)
    stochastic = StocSoBiRL(sampling)
    first = stochastic(problem, problem.init, None, generator)
    second = stochastic(problem, problem.init + 0.1, first.memory, generator)
    assert (first.cost.reward_gradients, second.cost.reward_gradients) == (1, 2)
    assert second.cost.samples == first.cost.samples == 10 * 2 * 2 * (1 + 2 * 3 * 4)


def test_enumerated_paths_have_the_chances_of_drawn_ones() -> None:
    mdp = random_mdp(torch.Generator().manual_seed(0), states=3, terminal=True)
    policy = torch.softmax(torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=D), -1)
    length = SegmentLoss(lambda x, segments: segments.alive.sum((1, 2)), steps=3)
    nothing = torch.zeros(1, dtype=D)
    one = SegmentLoss(lambda x, segments: torch.ones_like(segments.alive[:, 0, 0]), steps=3)
    assert torch.allclose(one.expected(nothing, policy, mdp.transition, mdp.start), torch.ones((), dtype=D))
    generator = torch.Generator().manual_seed(2)
    states = torch.multinomial(mdp.start, 100_000, replacement=True, generator=generator)
    drawn = draw_paths(policy, mdp.transition, states, 3, generator).alive.sum(-1)
    expected = length.expected(nothing, policy, mdp.transition, mdp.start)
    assert abs(float(drawn.mean() - expected)) < 3 * float(drawn.std()) / 100_000**0.5
    assert float(expected) < 2.99  # some do end early


def test_a_draw_never_takes_what_has_no_chance() -> None:
    policy = torch.tensor([[0.0, 1.0, 0.0], [0.3, 0.0, 0.7]], dtype=torch.float32)
    move = torch.tensor([0.0, 1.0]).expand(2, 3, 2)
    paths = draw_paths(policy, move, torch.zeros(50_000, dtype=torch.long), 3, torch.Generator().manual_seed(0))
    assert bool((policy[paths.states, paths.actions] > 0).all())
    assert bool((paths.following == 1).all())


def test_what_cannot_be_sampled_says_so() -> None:
    problem = build("preferences")
    with pytest.raises(InputError, match="generator is None"):
        SoBiRL(Sampling())(problem, problem.init)
    generator = torch.Generator().manual_seed(0)
    without = incentive_problem(random_mdp(generator), generator)
    with pytest.raises(InputError, match="no loss over segments"):
        SoBiRL(Sampling())(without, without.init, None, generator)
    solved, _ = problem.follower(problem.init)
    batch = Batch(draw_batch(problem, problem.init, solved.policy, Sampling(2), generator).segments)
    with pytest.raises(InputError, match="no rollouts"):
        segment_gradient(problem, problem.init, solved, batch)
    with pytest.raises(InputError, match="no rollouts"):
        importance_weights(problem, batch, (problem.init, solved.policy), (problem.init, solved.policy))
    with pytest.raises(InputError, match="the loss returned shape"):
        SegmentLoss(lambda x, segments: segments.alive, 2)(problem.init, batch.segments)
    with pytest.raises(UnsupportedError, match="shorten the segments"):
        every_path(random_mdp(generator).transition, torch.full((4,), 0.25, dtype=D), 12)
    with pytest.raises(InputError, match="segments 3"):
        SegmentLoss(lambda x, segments: x, 2, 3)
