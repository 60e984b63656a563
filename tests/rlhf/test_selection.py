"""Which pairs are asked about: scores and farthest-first choices against plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrad.rlhf import SELECTIONS, Pairs, RewardEnsemble, farthest_first, select

MEMBERS, STEPS = 3, 4


def model() -> RewardEnsemble:
    reward = RewardEnsemble(2, 1, MEMBERS, 8, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for part in (*reward.weights, *reward.biases):
            part.mul_(4)  # beliefs far from a half, members that differ
    return reward


def pairs(count: int, seed: int = 0) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    observation, action = (torch.randn(count, 2, STEPS, size, generator=generator) for size in (2, 1))
    return Pairs(observation, action, np.zeros((count, 2)))


def beliefs(reward: RewardEnsemble, shown: Pairs) -> list[list[float]]:
    """Each member's chance that right is preferred, pair after pair."""
    table = []
    for observation, action in zip(shown.observation, shown.action, strict=True):
        left, right = (reward.raw(observation[side], action[side]).sum(-1).tolist() for side in (0, 1))
        table.append([1 / (1 + math.exp(a - b)) for a, b in zip(left, right, strict=True)])
    return table


def scores(kind: str, reward: RewardEnsemble, shown: Pairs) -> np.ndarray:
    if kind == "disagreement":
        return np.array([np.std(chances) for chances in beliefs(reward, shown)])
    return np.array(
        [
            np.mean([-sum(q * math.log(q) for q in (p, 1 - p) if q > 0) for p in chances])
            for chances in beliefs(reward, shown)
        ]
    )


def greedy(points: np.ndarray, known: np.ndarray, count: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(count):
        centres = [*known, *points[chosen]]
        left = [place for place in range(len(points)) if place not in chosen]
        if not centres:
            chosen.append(0)
            continue
        chosen.append(max(left, key=lambda place: min(np.linalg.norm(points[place] - c) for c in centres)))
    return chosen


def flat(shown: Pairs) -> np.ndarray:
    return shown.observation.flatten(1).double().numpy()


@pytest.mark.parametrize("kind", ["disagreement", "entropy"])
def test_the_highest_scores_are_chosen(kind: str) -> None:
    reward, shown = model(), pairs(60)
    score = scores(kind, reward, shown)
    chosen = select(kind, reward, shown, pairs(0), 6).numpy()
    assert list(chosen) == list(np.argsort(-score)[:6])
    assert score[chosen].min() > np.delete(score, chosen).max()


def test_disagreement_and_entropy_are_not_the_same() -> None:
    reward, shown = model(), pairs(60)
    chosen = [set(select(kind, reward, shown, pairs(0), 6).tolist()) for kind in ("disagreement", "entropy")]
    assert chosen[0] != chosen[1]


def test_uniform_takes_the_first_ones() -> None:
    assert select("uniform", model(), pairs(60), pairs(0), 6).tolist() == list(range(6))


@pytest.mark.parametrize("known", [0, 1, 7])
def test_k_centre_is_farthest_first_in_the_states(known: int) -> None:
    shown, labelled = pairs(40), pairs(known, seed=1)
    expected = greedy(flat(shown), flat(labelled), 6)
    assert select("k-centre", model(), shown, labelled, 6).tolist() == expected
    acted = Pairs(shown.observation, 100 * shown.action, shown.returns)
    assert select("k-centre", model(), acted, labelled, 6).tolist() == expected


@pytest.mark.parametrize("kind", ["disagreement", "entropy"])
def test_mixtures_are_k_centre_among_the_better_half(kind: str) -> None:
    reward, shown, labelled = model(), pairs(40), pairs(5, seed=1)
    half = np.argsort(-scores(kind, reward, shown))[:20]
    expected = half[greedy(flat(shown)[half], flat(labelled), 6)]
    assert select(f"k-centre-{kind}", reward, shown, labelled, 6).tolist() == expected.tolist()
    assert set(expected) != set(greedy(flat(shown), flat(labelled), 6))
    assert set(expected) != set(half[:6])


@pytest.mark.parametrize("name", SELECTIONS)
def test_no_pair_is_chosen_twice_and_padding_is_served(name: str) -> None:
    shown = pairs(20)
    same = Pairs(shown.observation[:1].repeat(20, 1, 1, 1), shown.action[:1].repeat(20, 1, 1, 1), shown.returns)
    assert sorted(select(name, model(), same, shown, 20).tolist()) == list(range(20))
    shown.observation[:, 1, 2:], shown.action[:, 1, 2:] = 0.0, torch.nan
    chosen = select(name, model(), shown, pairs(3), 5).tolist()
    assert len(set(chosen)) == 5


def test_farthest_first_covers_within_twice_the_best_radius() -> None:
    """Gonzalez' bound, with the best centres found by trying all."""
    points = torch.randn(12, 2, generator=torch.Generator().manual_seed(3))
    distance = torch.cdist(points, points)

    def radius(centres: Tensor) -> float:
        return float(distance[:, centres].amin(1).max())

    best = min(radius(torch.tensor(centres)) for centres in itertools.combinations(range(12), 3))
    assert best <= radius(farthest_first(points, torch.zeros(0, 2), 3)) <= 2 * best
