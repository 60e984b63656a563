"""Variance and error of the sampled hyper-gradients of tabular RLHF, at equal environment steps.

The problems are random MDPs and chains with pairs of segments of three steps, a Bradley-Terry loss and expected labels.
All forms take the mean loss of the other pairs off each loss; they differ in how grad Q - grad V is estimated, and are
compared with independent rollouts of as many environment steps. ``response_forms.py`` runs and records this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import harness
import torch
from torch import Tensor

from bigrad.mdp import (
    Batch,
    LeastSquaresCritic,
    ResponseEstimator,
    Rollouts,
    Sampling,
    Segments,
    SoBiRL,
    Trace,
    draw_batch,
    draw_paths,
    segment_gradient,
    soft_response,
)
from bigrad.problems import ReferenceProblem, chain_mdp, preference_problem, random_mdp

STEPS, TUPLES, TARGET = 3, 20, 0.5
MDPS = (
    *(("random", *numbers) for numbers in ((0.5, 0.5), (0.9, 0.5), (0.99, 0.5), (0.99, 0.1))),
    *(("chain", *numbers) for numbers in ((0.5, 0.5), (0.9, 0.5), (0.99, 0.5), (0.99, 0.1))),
)
Drawn = tuple[Tensor, Tensor, int]  # the hyper-gradient, its response term alone, environment steps
Row = dict[str, Any]


def build(name: str, discount: float, temperature: float) -> ReferenceProblem:
    """Four states and two actions, or a chain of five; at a random point."""
    generator = torch.Generator().manual_seed(1)
    make = random_mdp if name == "random" else chain_mdp
    mdp = make(generator, discount=discount, temperature=temperature)
    return preference_problem(mdp, steps=STEPS, init=torch.randn(4, generator=generator, dtype=torch.float64))


def rollouts(meeting: bool) -> Callable[[ReferenceProblem, int, torch.Generator], Drawn]:
    """The library's own: two rollouts of each place, to the horizon or until they meet."""

    def draw(problem: ReferenceProblem, tuples: int, generator: torch.Generator) -> Drawn:
        x, solved = problem.init, problem.follower(problem.init)[0]
        batch = draw_batch(problem, x, solved.policy, Sampling(tuples, meeting=meeting), generator)
        _, gradient = segment_gradient(problem, x, solved, batch)
        _, direct = segment_gradient(problem, x, solved, batch, respond=False)
        return gradient, gradient - direct, batch.steps

    return draw


def learnt(form: str) -> Callable[[ReferenceProblem, int, torch.Generator], Drawn]:
    """The forms that learn something from the batch itself, which biases them by one over its size."""

    def draw(problem: ReferenceProblem, tuples: int, generator: torch.Generator) -> Drawn:
        x, solved = problem.init, problem.follower(problem.init)[0]
        assert isinstance(problem.transition, Tensor)
        assert problem.loss is not None
        horizon = Sampling().horizon_at(problem.discount) if form == "trace" else 0
        states = torch.multinomial(problem.start, 2 * tuples, True, generator=generator).reshape(tuples, 2)
        every = draw_paths(solved.policy, problem.transition, states, STEPS + horizon, generator)
        parts = (every.states, every.actions, every.alive, every.following, every.moved)
        paths = type(every)(*(part[..., :STEPS] for part in parts))
        _, direct = segment_gradient(problem, x, solved, Batch(paths), respond=False)
        losses = problem.loss(x, paths).detach()
        excess = (losses - losses.mean()) * tuples / (tuples - 1)
        weight = excess[:, None, None].expand(paths.states.shape)
        tail, estimator = None, None
        if form == "trace":
            weight = advantages(problem, paths.states, paths.actions, weight)
            tail = Rollouts(*(part[..., STEPS:].flatten(0, 1) for part in parts[:2]))
            estimator = Trace()
        else:
            estimator = critic(problem, solved.policy, paths.states, paths.actions, paths.following)
        states, actions = paths.states.flatten(0, 1), paths.actions.flatten(0, 1)
        pieces = Segments(states, actions, solved.policy.log()[states, actions], continuation=tail)
        response = pulled(problem, pieces, weight.flatten(0, 1), estimator) / tuples
        return direct + response, response, every.steps

    return draw


def pulled(problem: ReferenceProblem, pieces: Segments, weight: Tensor, estimator: ResponseEstimator) -> Tensor:
    """The derivative of the weighted log-probabilities."""
    x = problem.init.clone().requires_grad_()
    table, numbers = problem.reward(x), {"temperature": problem.temperature, "discount": problem.discount}
    logp = soft_response(lambda s, a: table[s, a], pieces, estimator=estimator, **numbers)
    return torch.autograd.grad((weight * logp).sum(), x)[0]


def advantages(problem: ReferenceProblem, states: Tensor, actions: Tensor, weight: Tensor) -> Tensor:
    """A_U by regression: the mean weight after (segment, step, state, action) less that without the action."""
    count, choices = problem.reward(problem.init).shape
    slot = torch.arange(2 * STEPS).reshape(2, STEPS).expand_as(states)

    def mean(code: Tensor, size: int) -> Tensor:
        total, hits = torch.zeros(2, size, dtype=weight.dtype)
        total.index_add_(0, code.flatten(), weight.flatten())
        hits.index_add_(0, code.flatten(), torch.ones_like(weight).flatten())
        return (total / hits.clamp_min(1))[code]

    place = slot * count + states
    size = 2 * STEPS * count
    return mean(place * choices + actions, size * choices) - mean(place, size)


def critic(
    problem: ReferenceProblem, policy: Tensor, states: Tensor, actions: Tensor, following: Tensor
) -> LeastSquaresCritic:
    """One feature for each state and action, solved on the segments' own transitions."""
    table = torch.eye(policy.numel(), dtype=policy.dtype).reshape(*policy.shape, -1)
    expected = torch.einsum("sa,sad->sd", policy, table)
    s, a, after = (part.flatten() for part in (states, actions, following))
    own = (table[states, actions] - expected[states]).flatten(0, 1)
    return LeastSquaresCritic.fit(s, a, table[s, a], expected[after], own, problem.discount, ridge=1e-6)


FORMS = {
    "independent rollouts": rollouts(False),
    "rollouts until they meet": rollouts(True),
    "trace, learnt A_U (biased)": learnt("trace"),
    "least-squares critic, full table (biased)": learnt("critic"),
}


def spread(draws: Tensor) -> Tensor:
    """The variance of one estimate, summed over its numbers."""
    return draws.var(0).sum()


def ratio(draws: Tensor, of: Tensor, measure: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """A ratio of two measures and, by bootstrap, its standard error."""
    generator = torch.Generator().manual_seed(0)
    picks = [torch.randint(len(part), (200, len(part)), generator=generator) for part in (draws, of)]
    again = [float(measure(draws[one]) / measure(of[two])) for one, two in zip(picks[0], picks[1], strict=True)]
    return float(measure(draws) / measure(of)), float(torch.tensor(again).std())


def variances(repeats: int) -> Iterator[Row]:
    """Every form on every MDP, against independent rollouts of as many steps."""
    for name, discount, temperature in MDPS:
        problem = build(name, discount, temperature)
        truth, generator = SoBiRL()(problem, problem.init).gradient, torch.Generator().manual_seed(0)
        size, budget, reference = truth.norm(), 0.0, (truth[None], truth[None])
        for form, draw in FORMS.items():
            pilot = 200
            tuples = TUPLES if not budget else max(2, round(budget / (draw(problem, pilot, generator)[2] / pilot)))
            found = [draw(problem, tuples, generator) for _ in range(repeats)]
            whole, response = (torch.stack([each[part] for each in found]) for part in (0, 1))
            steps = sum(each[2] for each in found) / repeats
            budget, reference = (budget, reference) if budget else (steps, (whole, response))

            def squared(draws: Tensor, truth: Tensor = truth) -> Tensor:
                return (draws - truth).square().sum(-1).mean()

            row: Row = {"mdp": name, "discount": discount, "temperature": temperature, "form": form}
            row |= {"pairs": tuples, "environment_steps": round(steps)}
            row["relative_bias"] = float((whole.mean(0) - truth).norm() / size)
            row["bias_standard_error"] = float((spread(whole) / repeats).sqrt() / size)
            row["relative_error_of_one_estimate"] = float(squared(whole).sqrt() / size)
            compared = (
                ("variance_ratio", ratio(whole, reference[0], spread)),
                ("variance_ratio_of_the_response_term", ratio(response, reference[1], spread)),
                ("squared_error_ratio", ratio(whole, reference[0], squared)),
            )
            for key, (value, error) in compared:
                row |= {key: value, f"{key}_standard_error": error}
            if form != "independent rollouts" and "biased" not in form:
                worst = max(value + 2 * error for _, (value, error) in compared)
                row |= {"target": f"all three ratios <= {TARGET}", "verdict": verdict(worst, TARGET)}
            yield row


def verdict(value: float, target: float) -> str:
    """In words; no number comes of too few draws, whose spread is none."""
    return harness.verdict(value, target) if math.isfinite(value) else "too few draws to tell"
