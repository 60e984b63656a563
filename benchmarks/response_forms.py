"""Bias and error of every form of the response term on tabular copies, at equal environment steps.

The copies have the trainer's set-up in small: episodes from the start distribution, every window of each episode is a
segment, the upper level's value is the mean expected preference loss of a segment against fixed opponents. Its exact
response gradient comes from SoftBellman. Two more tables, those of ``response_variance.py``, judge the sampled
hyper-gradients of tabular RLHF: variance against independent rollouts, and bias in standard errors.

    python benchmarks/response_forms.py
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import write_record
from response_variance import variances
from torch import Tensor

from bigrad.layers import SoftBellman, SoftResponse
from bigrad.mdp import Branches, LeastSquaresCritic, ResponseEstimator, Rollouts, Segments, Trace
from bigrad.problems import TabularMDP, chain_mdp, random_mdp

WINDOW, LENGTH = 3, 12


@dataclass
class Copy:
    """A tabular MDP, its optimal policy, and the upper level's value."""

    mdp: TabularMDP
    x: Tensor

    def __post_init__(self) -> None:
        mdp = self.mdp
        self.layer = SoftBellman(mdp.transition, discount=mdp.discount, temperature=mdp.temperature)
        self.policy = self.layer(mdp.reward(self.x)).policy
        self.states, self.actions = mdp.design.shape[:2]
        pairs = itertools.product(range(self.states), range(self.actions))
        every = torch.tensor(list(itertools.product(pairs, repeat=WINDOW)))
        self.segments = every[..., 0], every[..., 1]
        totals = mdp.reward(self.x)[self.segments].sum(-1)
        noise = torch.randn(len(totals), generator=torch.Generator().manual_seed(0), dtype=totals.dtype)
        opponents = totals[::7]
        logits = totals[:, None] - opponents[None]
        belief = torch.sigmoid(logits + 0.5 * noise[:, None])
        self.losses = (torch.nn.functional.softplus(logits) - belief * logits).mean(1)

    def loss_of(self, states: Tensor, actions: Tensor) -> Tensor:
        """The loss of each window of episodes ``(B, LENGTH)``: ``(B, windows)``."""
        code = (states * self.actions + actions).unfold(1, WINDOW, 1)
        base = self.states * self.actions
        return self.losses[(code * torch.tensor([base ** (WINDOW - 1 - k) for k in range(WINDOW)])).sum(-1)]

    def exact(self) -> Tensor:
        """The response gradient."""
        x = self.x.clone().requires_grad_()
        policy = self.layer(self.mdp.reward(x)).policy
        state = self.mdp.start
        states, actions = self.segments
        moves = self.mdp.transition[states[:, :-1], actions[:, :-1], states[:, 1:]].prod(-1)
        chance = policy[states, actions].prod(-1) * moves
        value = x.new_zeros(())
        windows = LENGTH - WINDOW + 1
        for _ in range(windows):
            value = value + (state[states[:, 0]] * chance) @ self.losses / windows
            state = torch.einsum("s,sa,sat->t", state, policy, self.mdp.transition)
        return torch.autograd.grad(value, x)[0]

    def walk(self, state: Tensor, steps: int, generator: torch.Generator, action: Tensor | None = None) -> Rollouts:
        """Rollouts from ``state`` of any shape, the first action given or drawn."""
        shape, flat = state.shape, state.reshape(-1)
        states, actions = [], []
        for _ in range(steps):
            drawn = torch.multinomial(self.policy[flat], 1, generator=generator)[:, 0]
            chosen = drawn if action is None else action.reshape(-1)
            action = None
            states.append(flat)
            actions.append(chosen)
            flat = torch.multinomial(self.mdp.transition[flat, chosen], 1, generator=generator)[:, 0]
        return Rollouts(torch.stack(states, -1).reshape(*shape, steps), torch.stack(actions, -1).reshape(*shape, steps))

    def episodes(self, count: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """States and actions ``(count, steps)`` from the start distribution."""
        walked = self.walk(torch.multinomial(self.mdp.start, count, True, generator=generator), steps, generator)
        return walked.observation, walked.action


class Reward(torch.nn.Module):
    """The copy's reward as a module."""

    def __init__(self, copy: Copy) -> None:
        super().__init__()
        self.mdp, self.x = copy.mdp, torch.nn.Parameter(copy.x.clone())

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.mdp.reward(self.x)[observation, action]


def weights(copy: Copy, states: Tensor, actions: Tensor) -> Tensor:
    """Every action answers for the windows that end with it or after it, less the mean loss."""
    loss = copy.loss_of(states, actions)
    excess = torch.zeros(states.shape, dtype=loss.dtype)
    excess[:, WINDOW - 1 :] = (loss - loss.mean()) / loss.shape[1]
    return excess.flip(1).cumsum(1).flip(1)


def learnt_advantage(copy: Copy, states: Tensor, actions: Tensor, weight: Tensor) -> Tensor:
    """A_U by regression: the mean weight after (step, state, action) less that after (step, state)."""
    step = torch.arange(states.shape[1]).expand_as(states)

    def mean(code: Tensor, size: int) -> Tensor:
        total = torch.zeros(size, dtype=weight.dtype).index_add(0, code.reshape(-1), weight.reshape(-1))
        one = torch.ones_like(weight).reshape(-1)
        count = torch.zeros(size, dtype=weight.dtype).index_add(0, code.reshape(-1), one)
        return (total / count.clamp_min(1))[code]

    by_state = step * copy.states + states
    by_action = by_state * copy.actions + actions
    size = states.shape[1] * copy.states
    return mean(by_action, size * copy.actions) - mean(by_state, size)


def critic(copy: Copy, features: Tensor, states: Tensor, actions: Tensor) -> LeastSquaresCritic:
    """Least squares on the episodes' own transitions."""
    expected = torch.einsum("sa,sad->sd", copy.policy, features)
    s, a, following = states[:, :-1].reshape(-1), actions[:, :-1].reshape(-1), states[:, 1:].reshape(-1)
    own = features[states, actions] - expected[states]
    return LeastSquaresCritic.fit(s, a, features[s, a], expected[following], own, copy.mdp.discount, ridge=1e-3)


def estimate(copy: Copy, form: str, budget: int, generator: torch.Generator) -> Tensor:
    """One estimate of the response gradient from at most ``budget`` environment steps."""
    horizon = 30
    per_episode = {
        "independent rollouts": LENGTH * (1 + 2 * horizon),
        "trace, learnt A_U": LENGTH + horizon,
        "trace, loss less its mean (wrong)": LENGTH + horizon,
    }.get(form, LENGTH)
    count = max(1, budget // per_episode)
    path = LENGTH + horizon if form.startswith("trace") else LENGTH
    states, actions = copy.episodes(count, path, generator)
    tail = Rollouts(states[:, LENGTH:], actions[:, LENGTH:])
    states, actions = states[:, :LENGTH], actions[:, :LENGTH]
    weight = weights(copy, states, actions)
    after_action = after_state = None
    estimator: ResponseEstimator
    if form.startswith("trace"):
        estimator = Trace()
        weight = learnt_advantage(copy, states, actions, weight) if form.endswith("A_U") else weight
    elif form == "one step (published)":
        after_state = one_each(copy.walk(states, 1, generator))
        estimator = Branches(horizon=1)
    elif form == "independent rollouts":
        after_action = one_each(copy.walk(states, horizon, generator, actions))
        after_state = one_each(copy.walk(states, horizon, generator))
        estimator = Branches()
    else:
        table = torch.eye(copy.states * copy.actions, dtype=copy.x.dtype).reshape(copy.states, copy.actions, -1)
        if form.endswith("half the features"):
            mix = torch.randn(
                table.shape[-1], table.shape[-1] // 2, generator=torch.Generator().manual_seed(1)
            ).double()
            table = table @ mix
        estimator = critic(copy, table, states, actions)
    log_prob = copy.policy.log()[states, actions]
    layer = SoftResponse(
        Reward(copy), temperature=copy.mdp.temperature, discount=copy.mdp.discount, estimator=estimator
    )
    logp = layer(Segments(states, actions, log_prob, after_action, after_state, tail))
    ((weight * logp).sum() / count).backward()
    return layer.reward_model.x.grad


def one_each(rollouts: Rollouts) -> Rollouts:
    """One rollout a step, as the layer wants it."""
    return Rollouts(rollouts.observation.unsqueeze(2), rollouts.action.unsqueeze(2))


FORMS = (
    "one step (published)",
    "independent rollouts",
    "trace, learnt A_U",
    "trace, loss less its mean (wrong)",
    "least-squares critic, full table",
    "least-squares critic, half the features",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/response_forms.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, make, discount in (("random", random_mdp, 0.9), ("chain", chain_mdp, 0.9), ("chain", chain_mdp, 0.98)):
        generator = torch.Generator().manual_seed(0)
        mdp = make(generator, states=5, discount=discount, temperature=0.3)
        copy = Copy(mdp, torch.randn(4, generator=generator, dtype=torch.float64))
        truth = copy.exact()
        for form, budget in itertools.product(FORMS, (480, 4800)):
            draws = torch.stack([estimate(copy, form, budget, generator) for _ in range(options.repeats)])
            size = truth.norm()
            deviation = draws.std(0).norm() / size
            row: dict[str, Any] = {
                "mdp": name,
                "discount": discount,
                "form": form,
                "environment_steps": budget,
                "relative_bias": float((draws.mean(0) - truth).norm() / size),
                "bias_standard_error": float(deviation / options.repeats**0.5),
                "relative_error_of_one_estimate": float((draws - truth).norm(dim=1).pow(2).mean().sqrt() / size),
                "mean_cosine": float(torch.nn.functional.cosine_similarity(draws, truth[None]).mean()),
            }
            rows.append(row)
            show(row)
    compared = []
    for row in variances(options.repeats // 2):
        compared.append(row)
        show(row)
    write_record(options.out, {"repeats": options.repeats, "rows": rows, "tables": {"variance": compared}})


def show(row: dict[str, Any]) -> None:
    """One row on the screen."""
    print({key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in row.items()}, flush=True)


if __name__ == "__main__":
    main()
