"""Whether the reward model's beliefs are worth what they say, and whether labels agree with each other."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from .preferences import Pairs

BINS = 10


def reliability(probability: np.ndarray, label: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Counts, sums of beliefs and sums of labels in each of equally wide bins of belief, ``(bins, 3)``.

    Tables of different pairs may be added.

    Args:
        probability: belief ``(pairs,)`` that the right segment is preferred, in [0, 1].
        label: what was answered ``(pairs,)``, in [0, 1].
        bins: how many.
    """
    place = np.minimum((probability * bins).astype(int), bins - 1)
    columns = (np.ones_like(probability), probability, label)
    return np.stack([np.bincount(place, column, bins) for column in columns], 1)


def expected_calibration_error(table: np.ndarray) -> float | None:
    r"""How far beliefs are from frequencies: :math:`\sum_b |\sum_{i \in b} p_i - \sum_{i \in b} y_i| / n`.

    ``None`` without any pair.

    Args:
        table: of :func:`reliability`.

    Source: Obtaining Well Calibrated Probabilities Using Bayesian Binning (Naeini, Cooper, Hauskrecht, 2015).

    Example:
        >>> table = reliability(np.array([0.9, 0.9, 0.2]), np.array([1.0, 0.0, 0.0]))
        >>> round(expected_calibration_error(table), 3)
        0.333
    """
    count = table[:, 0].sum()
    return float(np.abs(table[:, 1] - table[:, 2]).sum() / count) if count else None


def contradictions(pairs: Pairs, label: np.ndarray) -> int:
    """How many pairs of segments were preferred both ways, whichever side they were shown on.

    Args:
        pairs: that were labelled.
        label: their labels ``(pairs,)``; 0.5 contradicts nothing.
    """
    if len(label) == 0:
        return 0
    parts = [part.flatten(0, 1).cpu().numpy() for part in (pairs.observation, pairs.action)]
    names = [
        blake2b(seen.tobytes() + done.tobytes(), digest_size=16).hexdigest() for seen, done in zip(*parts, strict=True)
    ]
    sides = np.unique(names, return_inverse=True)[1].reshape(len(label), 2)
    # Which of the two has the smaller name decides which way round a pair is meant.
    preferred = np.sign(label - 0.5) * np.sign(sides[:, 1] - sides[:, 0])
    _, same = np.unique(np.sort(sides, 1), axis=0, return_inverse=True)
    ways = [np.bincount(same.ravel(), preferred == way) > 0 for way in (-1, 1)]
    return int((ways[0] & ways[1]).sum())
