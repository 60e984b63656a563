"""The soft Bellman equation as a residual, for transitions that are written down in full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from ..equation import Problem

Self = TypeVar("Self", bound="SoftBellmanEquation")


@dataclass(frozen=True)
class SoftBellmanEquation(Problem):
    r"""``V - T V = 0`` in the value ``(*batch, S)``, of inputs (reward, transition, discount, temperature).

    .. math:: (T V)_s = \tau \log \sum_a \exp\big((r_{sa} + \gamma \sum_t P_{sat} V_t) / \tau\big)

    An action whose reward is minus infinity is not there.
    """

    batch_dims: int
    own_dims: ClassVar[int] = 3  # of the transition, beyond those of the batch
    companions = 4  # under nested vmaps, inputs without a dimension would be aligned with another one's

    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``V - T V``."""
        return y - inputs[3][..., None] * torch.logsumexp(self.scores(y, *inputs), -1)

    def backup(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``T V``."""
        return inputs[3][..., None] * torch.logsumexp(self.scores(y, *inputs), -1)

    def policy(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """The policy ``(*batch, S, A)`` that is soft-greedy in ``y``."""
        return torch.softmax(self.scores(y, *inputs), -1)

    def scores(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``Q / temperature`` ``(*batch, S, A)``, minus infinity where there is no action."""
        reward, transition, discount, temperature = inputs
        missing = reward == -torch.inf
        # The derivative in the temperature multiplies by Q, so infinity comes last.
        q_value = self.action_values(y, reward.masked_fill(missing, 0.0), transition, discount)
        return (q_value / temperature[..., None, None]).masked_fill(missing, -torch.inf)

    def action_values(self, y: Tensor, reward: Tensor, transition: Tensor, discount: Tensor) -> Tensor:
        """``r + discount * P V`` ``(*batch, S, A)``."""
        return reward + discount[..., None, None] * self.following(y, transition)

    def following(self, y: Tensor, transition: Tensor) -> Tensor:
        """``P V`` ``(*batch, S, A)``."""
        pairs = transition.flatten(-3, -2)
        if transition.shape[:-3].numel() == 1:  # one matrix for all: a single product
            flat = y @ pairs.reshape(pairs.shape[-2:]).mT
        else:
            flat = (pairs @ y.unsqueeze(-1)).squeeze(-1)
        return flat.reshape(*flat.shape[:-1], *transition.shape[-3:-1])

    def jacobian(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``I - discount * P^pi``."""
        matrix = self.moves(-inputs[2][..., None, None] * self.policy(y, *inputs), self.shared(inputs[1]))
        matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
        return matrix

    def moves(self, policy: Tensor, transition: Tensor) -> Tensor:
        """``P^pi`` ``(*batch, S, S)``."""
        if transition.shape[:-3].numel() == 1:
            return torch.einsum("...sa,sat->...st", policy, transition.reshape(transition.shape[-3:]))
        return (policy.unsqueeze(-2) @ transition).squeeze(-2)

    def linearised(self, y: Tensor, *inputs: Tensor, transposed: bool) -> Callable[[Tensor], Tensor]:
        """``u -> (I - discount * P^pi) u``, or with the transpose; outside any differentiation."""
        with torch.no_grad():
            step = self.steps(self.policy(y, *inputs), self.shared(inputs[1]), transposed)
        return lambda u: u - inputs[2][..., None] * step(u)

    def steps(self, policy: Tensor, transition: Tensor, transposed: bool) -> Callable[[Tensor], Tensor]:
        """``u -> P^pi u``, or with the transpose."""
        if transition.shape[:-3].numel() != 1 or policy.shape[:-2].numel() == 1:
            matrix = self.moves(policy, transition)
            matrix = matrix.mT if transposed else matrix
            return lambda u: (matrix @ u.unsqueeze(-1)).squeeze(-1)
        if not transposed:
            return lambda u: (policy * self.following(u, transition)).sum(-1)
        pairs = transition.reshape(-1, transition.shape[-1])
        return lambda u: (policy * u.unsqueeze(-1)).flatten(-2) @ pairs

    def shared(self, transition: Tensor) -> Tensor:
        """The transition with batch dimensions of size one where a batch has it expanded."""
        for dim in range(transition.ndim - self.own_dims):
            if transition.shape[dim] > 1 and transition.stride(dim) == 0:
                transition = transition.narrow(dim, 0, 1)
        return transition

    def row_sums(self, transition: Tensor) -> Tensor:
        """What the probabilities of each pair of state and action add up to."""
        return transition.sum(-1)

    def magnitude(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """The size ``(*batch)`` of the numbers that the residual is a difference of."""
        reward = inputs[0].masked_fill(inputs[0] == -torch.inf, 0.0)
        return y.abs().amax(-1) + reward.abs().amax((-1, -2))

    def vmapped(self: Self, in_dims: Sequence[int | None]) -> Self:
        """Every operation here broadcasts over leading batch dimensions already."""
        return replace(self, batch_dims=self.batch_dims + 1)
