"""Which pairs of segments to ask about, out of many candidates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .preferences import Pairs
from .reward_model import RewardEnsemble
from .upper_level import preference_logits

CANDIDATES = 10  # drawn for each pair that is asked about


def disagreement(probability: Tensor) -> Tensor:
    """Deviation over members of the probability ``(members, pairs)`` that the right segment is preferred."""
    return probability.std(0, correction=0)


def entropy(probability: Tensor) -> Tensor:
    """Mean over members of the entropy of their belief ``(members, pairs)``, in nats."""
    both = torch.stack([probability, 1 - probability])
    return -torch.xlogy(both, both).sum(0).mean(0)


_SCORES: dict[str, Callable[[Tensor], Tensor]] = {"disagreement": disagreement, "entropy": entropy}
SELECTIONS = ("uniform", "disagreement", "entropy", "k-centre", "k-centre-disagreement", "k-centre-entropy")


def select(name: str, reward: RewardEnsemble, candidates: Pairs, labelled: Pairs, count: int) -> Tensor:
    """Places ``(count,)`` of the candidates to ask about.

    Args:
        name: ``"uniform"``: the first ones. ``"disagreement"``, ``"entropy"``: the highest scores.
            ``"k-centre"``: farthest first in the observations of both segments, from the labelled pairs and from those
            chosen so far. ``"k-centre-..."``: k-centre among the better half by that score.
        reward: whose members have beliefs.
        candidates: pairs drawn at random, at least ``count``.
        labelled: pairs that have a label.
        count: how many to choose.

    Source: B-Pref: Benchmarking Preference-Based Reinforcement Learning (Lee, Smith, Dragan, Abbeel, 2021).
    """
    spread_out = name.startswith("k-centre")
    score = name.removeprefix("k-centre").removeprefix("-")
    places = torch.arange(len(candidates.returns))
    if score in _SCORES:
        with torch.no_grad():
            belief = torch.sigmoid(preference_logits(reward, candidates))
        places = _SCORES[score](belief).argsort(descending=True, stable=True).cpu()
    if not spread_out:
        return places[:count]
    if score:
        places = places[: max(count, len(places) // 2)]
    points, known = (pairs.observation.flatten(1).float().cpu() for pairs in (candidates, labelled))
    return places[farthest_first(points[places], known, count)]


def farthest_first(points: Tensor, known: Tensor, count: int) -> Tensor:
    """Places ``(count,)`` of points, each the farthest from those that are known and chosen before it.

    Args:
        points: ``(n, d)``.
        known: ``(m, d)``; if there are none, the first point is the first choice.
        count: how many to choose, at most n.

    Source: Clustering to Minimize the Maximum Intercluster Distance (Gonzalez, 1985).

    Example:
        >>> farthest_first(torch.tensor([[0.0], [1.0], [5.0], [9.0]]), torch.tensor([[8.0]]), 3)
        tensor([0, 2, 1])
    """
    distance = torch.cdist(points, known).amin(1) if len(known) else torch.full((len(points),), torch.inf)
    chosen: list[Tensor] = []
    for _ in range(count):  # each choice depends on those before it
        place = distance.argmax()
        chosen.append(place)
        distance = torch.minimum(distance, (points - points[place]).norm(dim=1))
        distance[place] = -1.0  # a point is chosen once, also where others are the same
    return torch.stack(chosen)
