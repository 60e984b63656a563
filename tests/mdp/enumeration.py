"""Every segment of a tabular MDP, its probability, and a preference loss over pairs of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from bigrad.layers import SoftBellman
from bigrad.mdp import Rollouts, Segments
from bigrad.problems import TabularMDP


@dataclass
class Enumeration:
    """All segments of ``steps`` steps: states and actions ``(B, H)``."""

    mdp: TabularMDP
    states: Tensor
    actions: Tensor

    @classmethod
    def of(cls, mdp: TabularMDP, steps: int) -> Enumeration:
        count, choices = mdp.design.shape[:2]
        pairs = list(itertools.product(range(count), range(choices)))
        every = torch.tensor(list(itertools.product(pairs, repeat=steps)))
        return cls(mdp, every[..., 0], every[..., 1])

    def policy(self, x: Tensor) -> Tensor:
        mdp = self.mdp
        return SoftBellman(mdp.transition, discount=mdp.discount, temperature=mdp.temperature)(mdp.reward(x)).policy

    def probability(self, policy: Tensor) -> Tensor:
        """Of each segment, ``(B,)``."""
        chosen = policy[self.states, self.actions].prod(-1)
        moves = self.mdp.transition[self.states[:, :-1], self.actions[:, :-1], self.states[:, 1:]].prod(-1)
        return self.mdp.start[self.states[:, 0]] * chosen * moves

    def losses(self, x: Tensor) -> Tensor:
        """Expected Bradley-Terry loss of each pair of segments under labels of a fixed true reward, ``(B, B)``."""
        totals = self.mdp.reward(x)[self.states, self.actions].sum(-1)
        truth = torch.sin(torch.arange(self.mdp.design[..., 0].numel(), dtype=x.dtype)).reshape(
            self.mdp.design.shape[:2]
        )
        true_totals = truth[self.states, self.actions].sum(-1)
        logits = totals[:, None] - totals[None]
        label = torch.sigmoid(true_totals[:, None] - true_totals[None])
        return torch.nn.functional.softplus(logits) - label * logits

    def objective(self, x: Tensor) -> Tensor:
        """The upper level's value, differentiable through the policy."""
        p = self.probability(self.policy(x))
        return p @ self.losses(x) @ p

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Direct gradient, response gradient by SoftBellman, and the loss weight of each segment ``(B,)``."""
        x = x.detach().requires_grad_()
        with torch.no_grad():
            p = self.probability(self.policy(x))
            losses = self.losses(x)
        (direct,) = torch.autograd.grad(p @ self.losses(x) @ p, x)
        q = self.probability(self.policy(x))
        (response,) = torch.autograd.grad(q @ losses @ q, x)
        return direct, response, p * ((losses + losses.T) @ p)

    def visits(self, policy: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Chances of each (s, a) at each t after an action ``(S, A, T, S, A)`` and after a state ``(S, T, S, A)``."""
        count, choices = policy.shape
        state = torch.eye(count, dtype=policy.dtype)
        after_state = []
        for _ in range(horizon):
            pairs = state[..., None] * policy
            after_state.append(pairs)
            state = torch.einsum("...sa,sat->...t", pairs, self.mdp.transition)
        by_state = torch.stack(after_state, 1)
        first = torch.eye(count * choices, dtype=policy.dtype).reshape(count, choices, count, choices)
        later = torch.einsum("sau,utxy->satxy", self.mdp.transition, by_state[:, : horizon - 1])
        return torch.cat([first[:, :, None], later], 2), by_state

    def segments(self, policy: Tensor, horizon: int) -> Segments:
        """The segments with rollouts in the form of visit chances: one 'rollout' for each (s, a), weighted."""
        count, choices = policy.shape
        by_action, by_state = self.visits(policy, horizon)
        grid_s, grid_a = (
            g.reshape(-1) for g in torch.meshgrid(torch.arange(count), torch.arange(choices), indexing="ij")
        )
        lead = (*self.states.shape, count * choices, horizon)
        rollouts = []
        for weight in (by_action[self.states, self.actions], by_state[self.states]):
            flat = weight.flatten(-2).mT * (count * choices)  # the estimate is a mean over rollouts
            observation, action = (g[None, None, :, None].expand(lead) for g in (grid_s, grid_a))
            rollouts.append(Rollouts(observation, action, flat))
        log_prob = policy.log()[self.states, self.actions]
        return Segments(self.states, self.actions, log_prob, *rollouts)


class TableReward(torch.nn.Module):
    """``tanh(design @ x)`` looked up by state and action."""

    def __init__(self, mdp: TabularMDP, x: Tensor) -> None:
        super().__init__()
        self.mdp, self.x = mdp, torch.nn.Parameter(x.clone())

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.mdp.reward(self.x)[observation, action]
