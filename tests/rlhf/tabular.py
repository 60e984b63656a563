"""A process with a table in a replay buffer, its soft-optimal agent, and the exact derivatives of what is estimated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bigrad.layers import SoftBellman
from bigrad.rlhf import RelabelledReplayBuffer, ResponseSettings, RewardEnsemble, SoftDQN, segment_losses

from .test_soft_dqn import ACTIONS, DISCOUNT, NEXT, STATES, TEMPERATURE, agent

STEPS, LENGTH = 50, 2  # of an episode and of a segment
SETTINGS = ResponseSettings(segment=LENGTH, opponents=16, transitions=2000, ridge=1e-9)
ONE_HOT = torch.nn.functional.one_hot(torch.tensor(NEXT), STATES).double()
PLACES = [(s, a) for s in range(STATES) for a in range(ACTIONS)]
SEEN, DONE = torch.eye(STATES)[[s for s, _ in PLACES]], torch.eye(ACTIONS)[[a for _, a in PLACES]]


def model(seed: int = 0) -> RewardEnsemble:
    """A reward of some size, of states and actions."""
    reward = RewardEnsemble(STATES, ACTIONS, 2, 8, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        reward.weights[0].mul_(3)
        reward.weights[-1].mul_(6)
    return reward


def table(reward: RewardEnsemble) -> Tensor:
    """The reward ``(S, A)``."""
    return reward(SEEN, DONE).double().reshape(STATES, ACTIONS)


def follower(reward: Tensor) -> Tensor:
    """The soft-optimal policy ``(S, A)``, differentiable."""
    return SoftBellman(ONE_HOT, discount=DISCOUNT, temperature=TEMPERATURE)(reward).policy


def answering(reward: Tensor) -> SoftDQN:
    """An agent whose values are the solution for this reward, to rounding."""
    solved = SoftBellman(ONE_HOT, discount=DISCOUNT, temperature=TEMPERATURE)(reward.detach())
    found = agent(replay_buffer_class=RelabelledReplayBuffer, buffer_size=100_000)
    with torch.no_grad():
        found.q_net.q_net[0].weight.copy_(solved.q_value.T)
        found.q_net.q_net[0].bias.zero_()
    return found


def act(actor: SoftDQN, episodes: int, seed: int = 0) -> list[np.ndarray]:
    """Fill the buffer with whole episodes of the agent's policy, and return their places."""
    random = np.random.default_rng(seed)
    chance = actor.probabilities(torch.eye(STATES)).double().numpy().cumsum(-1)
    state = random.integers(STATES, size=episodes)
    states, actions = np.zeros((2, episodes, STEPS + 1), dtype=int)
    for step in range(STEPS):
        action = (random.random((episodes, 1)) > chance[state]).sum(-1).clip(max=ACTIONS - 1)
        states[:, step], actions[:, step] = state, action
        state = NEXT[state, action]
    states[:, STEPS] = state
    buffer, count = actor.replay_buffer, episodes * STEPS
    assert isinstance(buffer, RelabelledReplayBuffer)
    one_hot = np.eye(STATES, dtype=np.float32)
    buffer.observations[:count, 0] = one_hot[states[:, :-1].ravel()]
    buffer.next_observations[:count, 0] = one_hot[states[:, 1:].ravel()]
    buffer.actions[:count, 0, 0] = actions[:, :-1].ravel()
    buffer.dones[STEPS - 1 : count : STEPS] = buffer.timeouts[STEPS - 1 : count : STEPS] = 1
    buffer.pos = count
    return list(np.arange(count).reshape(episodes, STEPS))


def flat(value: Tensor, reward: RewardEnsemble) -> Tensor:
    """The gradient of ``value`` in the reward's parameters."""
    parts = torch.autograd.grad(value, list(reward.parameters()), materialize_grads=True)
    return torch.cat([part.flatten().double() for part in parts])


def losses(reward: RewardEnsemble, buffer: RelabelledReplayBuffer, seed: int) -> Tensor:
    """The loss of every segment of two steps ``(S, A, A)`` against the opponents that ``seed`` draws."""
    starts = buffer.segment_starts(LENGTH)
    drawn = np.random.default_rng(seed).choice(starts, SETTINGS.opponents, False)
    rows = [(s, a, int(NEXT[s, a]), b) for s, a in PLACES for b in range(ACTIONS)]
    states = torch.eye(STATES)[[[s, t] for s, _, t, _ in rows]]
    actions = torch.eye(ACTIONS)[[[a, b] for _, a, _, b in rows]]
    found = segment_losses(reward, (states, actions), buffer.steps(buffer.segment(drawn, LENGTH)))
    return found.double().reshape(STATES, ACTIONS, ACTIONS)


def mean_loss(policy: Tensor, loss: Tensor) -> Tensor:
    """Of the segments of an episode that begins anywhere."""
    now, total = torch.full((STATES,), 1 / STATES, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _ in range(STEPS - LENGTH + 1):
        both = now[:, None] * policy
        total = total + (both[:, :, None] * policy[torch.tensor(NEXT)] * loss).sum()
        now = torch.einsum("sa,sat->t", both, ONE_HOT)
    return total / (STEPS - LENGTH + 1)


def value(policy: Tensor, reward: Tensor, start: Tensor) -> Tensor:
    """The discounted reward of the policy, begun as often in each state as ``start`` ``(S,)`` says."""
    moves = torch.einsum("sa,sat->st", policy, ONE_HOT)
    gain = (policy * reward).sum(-1)
    return torch.linalg.solve(torch.eye(STATES, dtype=torch.float64) - DISCOUNT * moves, gain) @ start


def mean(parts: Sequence[Tensor]) -> Tensor:
    """Over the first dimension."""
    return torch.stack(list(parts)).mean(0)
