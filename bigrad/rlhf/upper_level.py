"""The upper level: preferences, and the policy's answer to the reward, move the reward model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..calculus import gradients_of
from ..errors import Diverged
from .denormals import flushed_denormals
from .preferences import Pairs
from .replay import RelabelledReplayBuffer
from .reward_model import RewardEnsemble

Term = Callable[[], Tensor]

UNLABELLED = {False: 500, True: 100}  # pairs that tell how good the model is; fewer where they are pictures
AT_ONCE = 4096  # steps that are looked at together


def preference_logits(reward: RewardEnsemble, pairs: Pairs) -> Tensor:
    """How much more reward the right segment has, by each member: ``(members, pairs)``."""
    totals = reward.totals(pairs.observation, pairs.action)
    return totals[..., 1] - totals[..., 0]


def preference_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of labels in [0, 1], from logits; elementwise."""
    return torch.nn.functional.softplus(logits) - label * logits


def draw_places(
    buffer: RelabelledReplayBuffer,
    count: int,
    recent: int,
    length: int,
    random: np.random.Generator,
    reach: int | None = None,
) -> np.ndarray | None:
    """Places ``(count, 2, length)`` of pairs of segments, one of the last ``recent`` steps and one of all.

    There are none before the first segment is complete: ``None``. With ``reach``, all are of that many latest steps.
    """
    starts = buffer.segment_starts(length)
    if reach is not None:
        starts = starts[buffer.ages(starts) < reach]
    if len(starts) == 0:
        return None
    # Coin flips put the recent segment on either side: the side must not tell which one it is.
    sides = np.stack([random.choice(starts[-recent:], count), random.choice(starts, count)], 1)
    return buffer.segment(random.permuted(sides, axis=1), length)


def pairs_at(buffer: RelabelledReplayBuffer, places: np.ndarray) -> Pairs:
    """The pairs of segments at ``places``."""
    return Pairs(*buffer.steps(places), buffer.true_rewards(places).sum(-1))


def draw_pairs(
    buffer: RelabelledReplayBuffer, count: int, recent: int, length: int, random: np.random.Generator
) -> Pairs | None:
    """Pairs of one segment of the last ``recent`` steps and one of the whole buffer; ``None`` without any segment."""
    places = draw_places(buffer, count, recent, length, random)
    return None if places is None else pairs_at(buffer, places)


def accuracy(reward: RewardEnsemble, pairs: Pairs, label: np.ndarray) -> float | None:
    """Share of decided pairs that the model ranks as ``label`` does; ``None`` where all are ties or skipped."""
    with torch.no_grad():
        return _share_right(preference_logits(reward, pairs), label)


def true_accuracy(
    reward: RewardEnsemble, buffer: RelabelledReplayBuffer, recent: int, length: int, random: np.random.Generator
) -> float | None:
    """Share of pairs of the buffer that the model ranks as their true returns do; no label is spent.

    ``None`` without a segment, and where all are ties.
    """
    places = draw_places(buffer, UNLABELLED[buffer.pictures], recent, length, random)
    if places is None:
        return None
    returns = buffer.true_rewards(places).sum(-1)
    totals = totals_at(reward, buffer, places)
    return _share_right(totals[..., 1] - totals[..., 0], (1 + np.sign(returns[:, 1] - returns[:, 0])) / 2)


def _share_right(logits: Tensor, label: np.ndarray) -> float | None:
    decided = (label != 0.5) & ~np.isnan(label)
    if not decided.any():
        return None
    return float(((logits.mean(0).cpu().numpy() > 0) == (label > 0.5))[decided].mean())


@torch.no_grad()
def totals_at(reward: RewardEnsemble, buffer: RelabelledReplayBuffer, places: np.ndarray) -> Tensor:
    """Each member's reward along segments at ``places`` ``(*, H)``: ``(members, *)``; each step is looked at once."""
    steps, where = np.unique(places, return_inverse=True)
    parts = [reward.raw(*buffer.steps(some)) for some in np.array_split(steps, -(-len(steps) // AT_ONCE) or 1)]
    rewards = torch.cat(parts, -1)
    rewards[:, torch.as_tensor(steps < 0)] = 0  # padding
    return rewards[:, torch.as_tensor(where.reshape(places.shape))].sum(-1)


@dataclass(frozen=True)
class UpperStep:
    """What one step on the reward model did.

    Attributes:
        loss: mean preference loss before the step.
        ratio: norm of the response term, as it was used, over that of the direct one; 0 where there was no response.
        estimated: the same before the response term was limited.
    """

    loss: float
    ratio: float
    estimated: float


@flushed_denormals()
def upper_step(
    reward: RewardEnsemble,
    optimizer: torch.optim.Optimizer,
    pairs: Pairs,
    label: Tensor,
    response: Sequence[Tensor],
    limit: float,
) -> UpperStep:
    """One step on the mean preference loss plus the response term.

    The response holds near the current reward only, and says nothing of how far: without a limit it drives up the scale
    of the reward until the preferences are lost. Held below the direct term, it never raises the preference loss to
    first order.

    Args:
        reward: the model to move.
        optimizer: over its parameters.
        pairs: labelled pairs.
        label: their labels.
        response: the response term, a part for each parameter; empty for none.
        limit: the largest norm of the response term over that of the direct one.

    Raises:
        Diverged: the gradient is NaN or infinite; the model is left as it was.
    """
    parameters = list(reward.parameters())
    loss = preference_loss(preference_logits(reward, pairs), label).mean()
    gradient = gradients_of(loss, parameters)
    estimated = ratio = 0.0
    if response:
        estimated = float(norm(response) / norm(gradient).clamp_min(1e-12))
        ratio = min(estimated, limit)
        share = ratio / max(estimated, 1e-12)
        gradient = [a + share * b for a, b in zip(gradient, response, strict=True)]
    if not torch.isfinite(norm(gradient)):
        raise Diverged(
            f"the gradient of the preference loss ({float(loss.detach()):.3g}) is not finite: choose a smaller "
            "reward_step or response_weight"
        )
    for parameter, part in zip(parameters, gradient, strict=True):
        parameter.grad = part
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return UpperStep(float(loss.detach()), ratio, estimated)


@flushed_denormals()
def response_gradient(terms: Sequence[Term], reward: RewardEnsemble, weight: float) -> list[Tensor]:
    """The gradient of the mean of the terms times ``weight``, a part for each parameter; empty without terms.

    Terms are differentiated one by one: the graph of each may hold many pictures.
    """
    parameters = list(reward.parameters())
    parts = [gradients_of(weight / len(terms) * term(), parameters) for term in terms]
    return [torch.stack(part).sum(0) for part in zip(*parts, strict=True)]


def batches(count: int, size: int, steps: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """``steps`` batches of at most ``size`` of ``count`` numbers: all before any comes again, in a new order each time.

    Where all fit into one batch nothing is drawn.

    Example:
        >>> [batch.tolist() for batch in batches(3, 4, 2, np.random.default_rng(0))]
        [[0, 1, 2], [0, 1, 2]]
    """
    parts = math.ceil(count / size)
    order: list[np.ndarray] = []
    for _ in range(steps):
        if not order:
            order = np.array_split(np.arange(count) if parts == 1 else random.permutation(count), parts)
        yield order.pop()


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of many tensors taken as one."""
    total: Tensor = torch.stack([tensor.norm() for tensor in tensors]).norm()
    return total


def halves_of(terms: Sequence[Term], reward: RewardEnsemble) -> tuple[Tensor, Tensor] | None:
    """The gradients of two independent estimates, flat; ``None`` where there are not two."""
    if len(terms) != 2:
        return None
    left, right = (
        torch.cat([part.flatten() for part in gradients_of(term(), list(reward.parameters()))]) for term in terms
    )
    return left, right


def agreement(left: Tensor, right: Tensor) -> float:
    """Cosine between two independent estimates."""
    return float(torch.nn.functional.cosine_similarity(left, right, dim=0))


def signal_share(left: Tensor, right: Tensor) -> float:
    """How much of the mean of two independent estimates is signal, between 0 and 1.

    Their product estimates the squared norm of what both estimate, free of noise. Over that of their mean it is the
    factor that leaves the least mean squared error (Wiener's); 0 where they point apart.

    Example:
        >>> signal_share(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))
        1.0
        >>> signal_share(torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0]))
        0.0
    """
    mean = (left + right) / 2
    return min(1.0, max(0.0, float(left @ right)) / max(float(mean @ mean), 1e-30))
