"""Paths through a known Markov decision process: drawn, or written down one and all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UnsupportedError

_MOST_PATHS = 2_000_000


@dataclass(frozen=True)
class Paths:
    """Steps of many paths; a step after an episode's end is a copy of place 0 that ``alive`` marks as none.

    Attributes:
        states: ``(*lead, H)``.
        actions: ``(*lead, H)``.
        alive: 1 where the step was taken, 0 after the end, ``(*lead, H)``.
        following: the state that each step led to, 0 where it ended the episode, ``(*lead, H)``.
        moved: 1 where a step was taken and led to a state, ``(*lead, H)``.
    """

    states: Tensor
    actions: Tensor
    alive: Tensor
    following: Tensor
    moved: Tensor

    def reshape(self, *shape: int) -> Paths:
        """Other leading dimensions."""
        steps = self.states.shape[-1]
        parts = (self.states, self.actions, self.alive, self.following, self.moved)
        return Paths(*(part.reshape(*shape, steps) for part in parts))

    def pairs(self) -> Paths:
        """Each of the paths ``(N,)`` with each: lead ``(N * N, 2)``."""
        count = len(self.states)
        first = torch.arange(count * count, device=self.states.device) // max(1, count)
        both = torch.stack([first, torch.arange(count * count, device=self.states.device) % max(1, count)], -1)
        return Paths(*(p[both] for p in (self.states, self.actions, self.alive, self.following, self.moved)))

    def look_up(self, table: Tensor) -> Tensor:
        """The entries ``(*lead, H)`` of a table ``(S, A)``, zero after the end."""
        return torch.where(self.alive > 0, table[self.states, self.actions], 0.0)

    def discounted(self, table: Tensor, discount: float) -> Tensor:
        """Sums ``(*lead,)`` of a table's entries along the paths, ``discount ** t`` each."""
        entries = self.look_up(table)
        powers = discount ** torch.arange(entries.shape[-1], device=entries.device, dtype=entries.dtype)
        return entries @ powers

    @property
    def steps(self) -> int:
        """How many steps were taken in all."""
        return int(self.alive.sum())


def categorical(cumulative: Tensor, generator: torch.Generator) -> Tensor:
    """One draw from each row of cumulative probabilities ``(*lead, n)``; a row that sums to zero gives ``n``."""
    chance = torch.rand(cumulative.shape[:-1], generator=generator, dtype=cumulative.dtype, device=cumulative.device)
    # The last positive entry takes what rounding leaves, and no entry of probability zero is ever drawn.
    cumulative = cumulative.contiguous()
    total = cumulative[..., -1:]
    drawn = torch.searchsorted(cumulative, (chance.unsqueeze(-1) * total).contiguous(), right=True).squeeze(-1)
    last = torch.searchsorted(cumulative, total.contiguous()).squeeze(-1)
    return torch.where(total.squeeze(-1) > 0, drawn.minimum(last), cumulative.shape[-1])


def draw_paths(
    policy: Tensor,
    transition: Tensor,
    states: Tensor,
    steps: int,
    generator: torch.Generator,
    actions: Tensor | None = None,
) -> Paths:
    """Follow a policy from each of ``states`` ``(*lead,)``; ``actions`` are the first ones, where they are given."""
    act, move = policy.cumsum(-1), transition.cumsum(-1)
    alive = torch.ones(states.shape, dtype=policy.dtype, device=policy.device)
    rows = []
    for step in range(steps):
        action = actions if step == 0 and actions is not None else categorical(act[states], generator)
        drawn = categorical(move[states, action], generator)
        moved = alive * (drawn < policy.shape[0])
        following = torch.where(moved > 0, drawn, 0)
        rows.append((states, torch.where(alive > 0, action, 0), alive, following, moved))
        states, alive = following, moved
    return Paths(*(torch.stack(part, -1) for part in zip(*rows, strict=True)))


def draw_until_they_meet(
    policy: Tensor, transition: Tensor, states: Tensor, actions: Tensor, steps: int, generator: torch.Generator
) -> tuple[Paths, Paths]:
    """Two independent paths from each place ``(*lead,)``, the first with the given action, while they are apart.

    Both end where they take the same first action, and as soon as they are in one state at one time: what would follow
    has the same law for both, so the difference of their sums keeps its mean. It loses most of its variance and of its
    price: paths meet long before a discount near 1 has died out.
    """
    act, move = policy.cumsum(-1), transition.cumsum(-1)
    count, size = states.numel(), (2, *states.shape)
    pairs, place = torch.arange(count, device=states.device), states.reshape(-1).expand(2, -1)
    alive = torch.ones(place.shape, dtype=policy.dtype, device=policy.device)
    rows = []
    for step in range(steps):
        action = categorical(act[place], generator)
        if step == 0:
            action = torch.stack([actions.reshape(-1), action[1]])
            apart = action[0] != action[1]
            pairs, place, action, alive = pairs[apart], place[:, apart], action[:, apart], alive[:, apart]
        elif not len(pairs):
            break
        drawn = categorical(move[place, action], generator)
        moved = alive * (drawn < policy.shape[0])
        following = torch.where(moved > 0, drawn, 0)
        taken = (place, torch.where(alive > 0, action, 0), alive, following, moved)
        rows.append([part.new_zeros(2, count).index_copy(1, pairs, part).reshape(size) for part in taken])
        apart = (following[0] != following[1]) | (moved[0] != moved[1])
        pairs, place, alive = pairs[apart], following[:, apart], moved[:, apart]
    parts = [torch.stack(part, -1) for part in zip(*rows, strict=True)]
    first, second = (Paths(*(part[which] for part in parts)) for which in range(2))
    return first, second


def every_path(transition: Tensor, start: Tensor, steps: int) -> Paths:
    """All paths of ``steps`` steps that have a chance, those that end early included; the last step leads nowhere.

    Raises:
        UnsupportedError: there are millions of them.
    """
    choices = transition.shape[1]
    ends = transition.sum(-1) == 0
    states = start.nonzero().squeeze(-1)
    alive = torch.ones_like(states, dtype=transition.dtype)
    rows: list[tuple[Tensor, ...]] = []
    for step in range(steps):
        going = alive > 0
        pick = torch.where(going, choices, 1)
        parent = torch.arange(len(states), device=states.device).repeat_interleave(pick)
        action = torch.arange(len(parent), device=states.device) - (pick.cumsum(0) - pick)[parent]
        state, here = states[parent], alive[parent]
        ended = (here == 0) | ends[state, action] | (step == steps - 1)
        possible = torch.where(ended[:, None], False, transition[state, action] > 0)
        possible[:, 0] |= ended  # one row for the end
        child, following = possible.nonzero(as_tuple=True)
        if len(child) > _MOST_PATHS:
            raise UnsupportedError(
                f"more than {_MOST_PATHS} paths of {steps} steps have a chance: shorten the segments, or sample them"
            )
        moved = here[child] * ~ended[child]
        rows = [tuple(part[parent][child] for part in row) for row in rows]
        rows.append((state[child], action[child], here[child], following, moved))
        states, alive = following, moved
    return Paths(*(torch.stack(part, -1) for part in zip(*rows, strict=True)))


def chance(paths: Paths, policy: Tensor, transition: Tensor, start: Tensor) -> Tensor:
    """The probability ``(*lead,)`` of each path of :func:`every_path`, differentiable in policy and transition."""
    chosen = torch.where(paths.alive > 0, policy[paths.states, paths.actions], 1.0)
    moves = torch.where(paths.moved > 0, transition[paths.states, paths.actions, paths.following], 1.0)
    return start[paths.states[..., 0]] * chosen.prod(-1) * moves.prod(-1)
