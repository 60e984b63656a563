"""How labels are spread over the rounds of a run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

LABEL_SCHEDULES: dict[str, Callable[[int, int, float], float]] = {
    "constant": lambda step, total, place: 1.0,
    "decay": lambda step, total, place: max(1, total - step) / total,
    "increase": lambda step, total, place: total / (total - step + 1),
    "hyperbolic": lambda step, total, place: 1 / (1 + place),
}


def cumulative_weights(name: str, steps: list[int], total: int) -> list[float]:
    """In what proportion labels have been given once each of some rounds is over.

    At step t of T a round weighs 1 (``"constant"``), (T - t) / T (``"decay"``), T / (T - t + 1) (``"increase"``) or
    1 / (1 + k) with k from 0 in the first round to 1 in the last (``"hyperbolic"``).

    Args:
        name: one of ``LABEL_SCHEDULES``.
        steps: the step t of each round.
        total: the steps T of the run.

    Source: B-Pref: Benchmarking Preference-Based Reinforcement Learning (Lee, Smith, Dragan, Abbeel, 2021); imitation:
    Clean Imitation Learning Implementations (Gleave et al., 2022).

    Example:
        >>> cumulative_weights("decay", [25, 50, 75], 100)
        [0.75, 1.25, 1.5]
    """
    places = [number / max(1, len(steps) - 1) for number in range(len(steps))]
    weight = LABEL_SCHEDULES[name]
    return list(accumulate(weight(step, total, place) for step, place in zip(steps, places, strict=True)))
