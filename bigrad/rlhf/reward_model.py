"""A reward model: an ensemble of small networks, evaluated as one batched product."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import InputError


class RewardEnsemble(nn.Module):
    """``members`` independent networks on observation and action, two hidden layers each.

    ``forward`` is the reward that an agent sees: the members' mean, standardised. The sum of :meth:`raw` along a
    segment is the logit of preferences.

    Args:
        observation_size, action_size: numbers of entries of one observation and one action.
        members: how many networks.
        width: units of a hidden layer.
        generator: draws the initial weights.
        heads: for discrete actions: one output for each, and none of them is an input. The reward is linear in the
            action then, so that at the probabilities of a policy it is its mean over the policy, exactly.

    Example:
        >>> model = RewardEnsemble(3, 2, heads=True)
        >>> state, policy = torch.ones(3), torch.tensor([0.25, 0.75])
        >>> each = torch.stack([model.raw(state, action) for action in torch.eye(2)], -1)
        >>> torch.allclose(model.raw(state, policy), each @ policy)
        True
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        members: int = 3,
        width: int = 64,
        generator: torch.Generator | None = None,
        heads: bool = False,
    ) -> None:
        super().__init__()
        self.sizes, self.heads = (observation_size, action_size), heads
        inputs, outputs = (0, action_size) if heads else (action_size, 1)
        sizes = (observation_size + inputs, width, width, outputs)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inside, outside in pairwise(sizes):
            bound = 1 / math.sqrt(inside)
            for group, shape in ((self.weights, (members, inside, outside)), (self.biases, (members, 1, outside))):
                group.append(nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Standardised mean reward, of the leading shape of its arguments."""
        return (self.raw(observation, action).mean(0) - self.mean) / self.std

    def raw(self, observation: Tensor, action: Tensor) -> Tensor:
        """Each member's reward, ``(members, *leading shape)``."""
        out = torch.baddbmm(self.biases[-1], self._hidden(observation, action), self.weights[-1])
        if self.heads:
            out = (out * action.reshape(-1, action.shape[-1])).sum(-1, keepdim=True)
        return out.reshape(out.shape[0], *action.shape[:-1])

    def totals(self, observation: Tensor, action: Tensor) -> Tensor:
        """Each member's reward along segments ``(*, H)``: ``(members, *)``; steps whose action is NaN count 0."""
        padded = action.isnan().any(-1)
        reward = self.raw(observation, torch.where(padded.unsqueeze(-1), 0.0, action))
        return reward.masked_fill(padded, 0.0).sum(-1)

    def features(self, observation: Tensor, action: Tensor) -> Tensor:
        """What all members are linear in ``(*leading shape, d)``: their last hidden layers side by side.

        With heads these are at the action's own place, ``d = actions * (members * width + 1)``.
        """
        hidden = self._hidden(observation, action).movedim(0, 1).flatten(1)
        if self.heads:
            constant = torch.ones_like(hidden[:, :1])
            hidden = (action.reshape(-1, action.shape[-1], 1) * torch.cat([hidden, constant], 1)[:, None]).flatten(1)
        return hidden.reshape(*action.shape[:-1], hidden.shape[1])

    def _hidden(self, observation: Tensor, action: Tensor) -> Tensor:
        """The last hidden layers of all steps in one row, ``(members, N, width)``."""
        both = self._seen(observation, action)
        if not self.heads:
            beside = action.reshape(1, both.shape[1], action.shape[-1]).expand(len(both), -1, -1)
            both = torch.cat([both, beside], -1)
        hidden = both.expand(self.weights[0].shape[0], -1, -1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = torch.nn.functional.leaky_relu(torch.baddbmm(bias, hidden, weight), inplace=True)
        return hidden

    def _seen(self, observation: Tensor, action: Tensor) -> Tensor:
        """Observations as the first layer takes them, ``(members or 1, N, observation)``."""
        if (observation.shape[-1], action.shape[-1]) != self.sizes:
            raise InputError(
                f"observation and action have {observation.shape[-1]} and {action.shape[-1]} entries; "
                f"wanted {self.sizes}"
            )
        return observation.reshape(1, -1, observation.shape[-1])

    @torch.no_grad()
    def standardise(self, observation: Tensor, action: Tensor, centred: bool = True) -> None:
        """Set the scale so that these steps have rewards of mean 0 and deviation 1.

        Where a reward of 0 has a meaning (an episode that is over gets no more), it stays 0: if not ``centred``,
        nothing is subtracted, and the mean square becomes 1.
        """
        reward = self.raw(observation, action).mean(0)
        self.mean.copy_(reward.mean() if centred else torch.zeros_like(self.mean))
        self.std.copy_((reward.std() if centred else reward.square().mean().sqrt()).clamp_min(1e-6))

    @torch.no_grad()
    def silence(self) -> None:
        """Make the standardised reward 0 until :meth:`standardise` is called: nothing has been learnt yet."""
        self.std.fill_(math.inf)

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        members, _, width = self.weights[0].shape
        return f"observation_size={self.sizes[0]}, action_size={self.sizes[1]}, members={members}, width={width}"
