"""What many runs say together, and how sure that is: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError

FEWEST = 5  # runs a task below which no interval is claimed
REPEATS = 10_000
_TAILS = (2.5, 97.5)  # percent
_CHUNK = 2_000_000  # numbers drawn at once

Scores = Sequence[np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval, which is ``None`` where there were too few runs to claim one."""

    value: float
    low: float | None = None
    high: float | None = None

    def shown(self, form: str = ".1f") -> str:
        """As text."""
        if self.low is None or self.high is None:
            return format(self.value, form)
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


def aggregate(scores: Scores, repeats: int = REPEATS, seed: int = 0) -> Estimate:
    r"""The interquartile mean: :math:`\frac{1}{n - 2k} \sum_{i=k+1}^{n-k} s_{(i)}` with :math:`k = [n/4]`.

    All runs of all tasks are taken together. The interval is the percentile interval of the stratified bootstrap: each
    task's runs are drawn anew among themselves.

    Args:
        scores: for each task the scores of its runs, each ``(runs,)``.
        repeats: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: a task without runs, or a score that is not finite.

    Source: Deep Reinforcement Learning at the Edge of the Statistical Precipice (Agarwal et al., 2021).

    Example:
        >>> aggregate([np.array([1.0, 2.0, 3.0, 10.0])]).value
        2.5
    """
    tasks = _checked(scores)
    value = float(_interquartile_mean(np.concatenate(tasks)))
    if min(map(len, tasks)) < FEWEST:
        return Estimate(value)
    sizes = [len(task) for task in tasks]
    drawn = [_drawn(tasks, places) for places in _places(sizes, repeats, seed)]
    return _estimate(value, np.concatenate(drawn))


def difference(left: Scores, right: Scores, repeats: int = REPEATS, seed: int = 0) -> Estimate:
    """How much larger the interquartile mean of ``left`` is than that of ``right``, for runs in pairs.

    Runs at one place are a pair: they share a seed. The bootstrap draws pairs, which takes out of the interval what the
    seed does to both.

    Args:
        left, right: for each task the scores of its runs, each ``(runs,)``, pairs at the same place.
        repeats: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: runs without a partner, a task without runs, or a score that is not finite.

    Example:
        >>> shifted = [np.arange(8.0) + 2.0]
        >>> difference(shifted, [np.arange(8.0)])
        Estimate(value=2.0, low=2.0, high=2.0)
    """
    ours, theirs = _checked(left), _checked(right)
    sizes = [len(task) for task in ours]
    if sizes != [len(task) for task in theirs]:
        raise InputError(f"runs a task are {sizes} and {[len(task) for task in theirs]}; wanted pairs")
    value = float(_interquartile_mean(np.concatenate(ours)) - _interquartile_mean(np.concatenate(theirs)))
    if min(sizes) < FEWEST:
        return Estimate(value)
    drawn = [_drawn(ours, places) - _drawn(theirs, places) for places in _places(sizes, repeats, seed)]
    return _estimate(value, np.concatenate(drawn))


def improvement(left: Scores, right: Scores, repeats: int = REPEATS, seed: int = 0) -> Estimate:
    r"""The probability that a run of ``left`` is better than one of ``right``, mean over tasks.

    In a task with n and m runs it is Mann and Whitney's :math:`U / (n m)`: the share of all n times m meetings that are
    won, ties half. The interval is that of the stratified bootstrap, both sides drawn on their own.

    Args:
        left, right: for each task the scores of its runs, each ``(runs,)``; as many tasks.
        repeats: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: different numbers of tasks, a task without runs, or a score that is not finite.

    Source: Deep Reinforcement Learning at the Edge of the Statistical Precipice (Agarwal et al., 2021).

    Example:
        >>> improvement([np.array([1.0, 3.0])], [np.array([1.0, 2.0])]).value
        0.625
    """
    ours, theirs = _checked(left), _checked(right)
    if len(ours) != len(theirs):
        raise InputError(f"the two sides have {len(ours)} and {len(theirs)} tasks; wanted the same tasks")
    won = [
        (mine[:, None] > yours).astype(float) + 0.5 * (mine[:, None] == yours)
        for mine, yours in zip(ours, theirs, strict=True)
    ]
    value = float(np.mean([task.mean() for task in won]))
    if min(map(len, (*ours, *theirs))) < FEWEST:
        return Estimate(value)
    generator = np.random.default_rng(seed)
    drawn = np.zeros(repeats)
    for task in won:
        mine, yours = (_shares(size, repeats, generator) for size in task.shape)
        drawn += (mine @ task * yours).sum(-1) / len(won)
    return _estimate(value, drawn)


def band(curves: np.ndarray, repeats: int = REPEATS, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of curves, and the pointwise 95 % interval from drawing whole curves anew.

    Args:
        curves: ``(runs, points)``.
        repeats: of the bootstrap.
        seed: of the bootstrap; with the same seed, paired curves of two calls are drawn in pairs.

    Returns:
        Mean, lower and upper end, each ``(points,)``.

    Example:
        >>> mean, low, high = band(np.array([[1.0, 2.0]] * 5))
        >>> mean, high - low
        (array([1., 2.]), array([0., 0.]))
    """
    means = _shares(len(curves), repeats, np.random.default_rng(seed)) @ curves
    low, high = np.percentile(means, _TAILS, axis=0)
    return curves.mean(0), low, high


def _checked(scores: Scores) -> list[np.ndarray]:
    tasks = [np.asarray(task, dtype=np.float64) for task in scores]
    if not tasks or not all(task.ndim == 1 and len(task) for task in tasks):
        raise InputError(f"the scores have shapes {[task.shape for task in tasks]}; wanted (runs,) for every task")
    if not all(np.isfinite(task).all() for task in tasks):
        raise InputError("a score is NaN or infinite: leave out the run that it belongs to, and say so")
    return tasks


def _places(sizes: Sequence[int], repeats: int, seed: int) -> Iterator[list[np.ndarray]]:
    """For each task which of its runs are drawn, ``(some repeats, runs)``."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // sum(sizes))
    for begin in range(0, repeats, chunk):
        count = min(chunk, repeats - begin)
        yield [generator.integers(size, size=(count, size)) for size in sizes]


def _drawn(tasks: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> np.ndarray:
    """The interquartile means of samples, ``(some repeats,)``."""
    return _interquartile_mean(np.concatenate([task[place] for task, place in zip(tasks, places, strict=True)], 1))


def _interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Over the last dimension."""
    cut = scores.shape[-1] // 4
    return np.asarray(np.sort(scores, -1)[..., cut : scores.shape[-1] - cut].mean(-1))


def _shares(size: int, repeats: int, generator: np.random.Generator) -> np.ndarray:
    """How large a share of a sample drawn anew each of ``size`` runs is: ``(repeats, size)``."""
    return generator.multinomial(size, np.full(size, 1 / size), size=repeats) / size


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.percentile(drawn, _TAILS)
    return Estimate(value, float(low), float(high))
