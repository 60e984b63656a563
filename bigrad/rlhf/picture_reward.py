"""A reward model that looks at pictures: every member's filters in one grouped convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ..errors import InputError
from .agent import AT_ONCE
from .reward_model import RewardEnsemble

LAYERS = ((8, 4), (4, 2), (3, 1))  # side and stride of the filters: those of the agent's own network
SMALLEST = 36  # pixels of a side, below which these have nothing to look at


class PictureEnsemble(RewardEnsemble):
    """``members`` independent networks on a picture and an action: filters first, then a :class:`RewardEnsemble`.

    Bytes are divided by 255. Padding, steps whose action is NaN, counts 0 in :meth:`totals` whatever its picture is.

    Args:
        shape: of a picture, ``(channels, height, width)``.
        action_size: entries of an action.
        members, width, generator, heads: as for :class:`RewardEnsemble`.
        filters: of each layer.

    Raises:
        InputError: the picture is too small.

    Source of three layers of these sides: Human-level Control through Deep Reinforcement Learning (Mnih et al., 2015).

    Example:
        >>> model = PictureEnsemble((4, 84, 84), 6, heads=True)
        >>> pictures = torch.zeros(5, 4, 84, 84, dtype=torch.uint8)
        >>> model(pictures, torch.eye(6)[:5]).shape
        torch.Size([5])
    """

    def __init__(
        self,
        shape: Sequence[int],
        action_size: int,
        members: int = 3,
        width: int = 64,
        generator: torch.Generator | None = None,
        heads: bool = False,
        filters: int = 16,
    ) -> None:
        channels, *sides = shape
        if min(sides) < SMALLEST:
            raise InputError(f"a picture of {sides} pixels was given; wanted at least {SMALLEST} on each side")
        for side, stride in LAYERS:
            sides = [(size - side) // stride + 1 for size in sides]
        super().__init__(filters * math.prod(sides), action_size, members, width, generator, heads)
        self.shape = tuple(shape)
        self.filters, self.offsets = nn.ParameterList(), nn.ParameterList()
        for side, _ in LAYERS:
            bound = 1 / math.sqrt(channels * side**2)
            for group, size in ((self.filters, (channels, side, side)), (self.offsets, ())):
                drawn = torch.rand((members * filters, *size), generator=generator)
                group.append(nn.Parameter((2 * drawn - 1) * bound))
            channels = filters

    def _seen(self, observation: Tensor, action: Tensor) -> Tensor:
        lead = action.shape[:-1]
        if observation.shape != (*lead, *self.shape) or action.shape[-1] != self.sizes[1]:
            raise InputError(
                f"observation and action have shapes {tuple(observation.shape)} and {tuple(action.shape)}; wanted "
                f"(*, {', '.join(map(str, self.shape))}) and (*, {self.sizes[1]})"
            )
        pictures = observation.reshape(-1, *self.shape)
        return torch.cat([self._filtered(part) for part in pictures.split(AT_ONCE)], 1)

    def _filtered(self, pictures: Tensor) -> Tensor:
        """What the last filters find ``(members, N, found)``."""
        members = self.weights[0].shape[0]
        seen = pictures.to(self.mean.dtype) / 255
        for layer, (weight, offset) in enumerate(zip(self.filters, self.offsets, strict=True)):
            groups = members if layer else 1  # all look at the same picture
            found = torch.nn.functional.conv2d(seen, weight, offset, LAYERS[layer][1], groups=groups)
            seen = torch.nn.functional.leaky_relu(found)
        return seen.reshape(len(pictures), members, self.sizes[0]).transpose(0, 1)


def reward_ensemble(
    observations: spaces.Space[Any], actions: spaces.Space[Any], members: int, width: int, generator: torch.Generator
) -> RewardEnsemble:
    """The reward model for these spaces; pictures have their channels first."""
    if len(observations.shape or ()) != 3:
        return RewardEnsemble(spaces.flatdim(observations), spaces.flatdim(actions), members, width, generator)
    heads = isinstance(actions, spaces.Discrete)
    return PictureEnsemble(observations.shape or (), spaces.flatdim(actions), members, width, generator, heads)
