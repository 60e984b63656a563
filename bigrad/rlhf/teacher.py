"""Who compares two segments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import torch

from ..errors import InputError


class Teacher(Protocol):
    """Compares pairs of segments by what they show; one that is a :class:`StepTeacher` too is shown each step."""

    def label(self, left_return: np.ndarray, right_return: np.ndarray) -> np.ndarray:
        """1 where the right segment is preferred, 0 where the left one, 0.5 where neither; ``(pairs,)``.

        NaN where the question is skipped: it is spent, and nothing is learnt from it.
        """
        ...


@dataclass(frozen=True)
class ReturnScale:
    """How large true returns of segments have been of late; teachers measure their thresholds with it.

    Attributes:
        mean: the mean true reward of a step, times the steps of a segment, over the last ten whole episodes.
        spread: the deviation of the true returns of all segments of these episodes.
    """

    mean: float
    spread: float


@runtime_checkable
class StepTeacher(Protocol):
    """A teacher who is shown the true reward of every step."""

    def label_steps(self, rewards: np.ndarray, scale: ReturnScale) -> np.ndarray:
        """Labels as :meth:`Teacher.label` gives, from true rewards ``(pairs, 2, H)``."""
        ...


class SyntheticTeacher:
    r"""A teacher that follows Bradley and Terry on the true return, and is as human as one likes.

    .. math:: P(right) = \sigma(\beta (M_r - M_l)), \quad M = \sum_t \gamma^{H-1-t} r_t

    It answers in this order: a pair is skipped, or found equal, by the plain returns R; a choice is made by the
    myopic returns M; by mistake it is turned round; and equal pairs are labelled 0.5 whatever the choice was.

    The thresholds are shares of the returns' ``spread``, which is positive whatever the sign of the reward. B-Pref
    takes shares of their ``mean``, so that its teachers never skip and never find a pair equal where returns are
    negative. ``bpref_compat`` does as B-Pref does. (B-Pref's PEBBLE multiplies by the share twice after its first
    round: ``skip=0.01`` here is what 0.1 is there.)

    Args:
        beta: how sharply it sees differences of return; ``inf`` never errs. Exact ties are labelled 0.5.
        seed: of its choices; ``None`` takes the trainer's.
        discount: gamma, of each step against the one after it: a myopic teacher remembers the end best.
        mistake: how often a choice is turned round.
        equal: a pair is equal where the returns are less than this share of their spread apart.
        skip: a pair is skipped where neither return exceeds ``mean - (1 - skip) * spread``; 0 skips none.
        bpref_compat: skip where neither return exceeds ``skip * mean``, if that is positive; equal where they are
            less than ``equal * mean`` apart; exact ties are labelled 0 where beta is ``inf``, else drawn.

    Raises:
        InputError: a number is out of range.

    Source: Rank Analysis of Incomplete Block Designs (Bradley, Terry, 1952); B-Pref: Benchmarking Preference-Based
    Reinforcement Learning (Lee, Smith, Dragan, Abbeel, 2021).

    Example:
        >>> import numpy as np
        >>> SyntheticTeacher(beta=float("inf")).label(np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 3.0]))
        array([1. , 0. , 0.5])
        >>> rewards = np.array([[[0.0, 3.0], [4.0, 0.0]], [[0.0, 0.0], [0.0, 0.2]], [[-9.0, 0.0], [-9.0, -1.0]]])
        >>> teacher = SyntheticTeacher(beta=float("inf"), discount=0.5, equal=0.1, skip=0.1)
        >>> teacher.label_steps(rewards, ReturnScale(mean=0.0, spread=5.0))
        array([0. , 0.5, nan])
    """

    def __init__(
        self,
        beta: float = 1.0,
        seed: int | None = None,
        *,
        discount: float = 1.0,
        mistake: float = 0.0,
        equal: float = 0.0,
        skip: float = 0.0,
        bpref_compat: bool = False,
    ) -> None:
        if not beta > 0:
            raise InputError(f"beta is {beta}; wanted a positive number (a teacher at 0 labels at random)")
        if not 0 <= discount <= 1:
            raise InputError(f"discount is {discount}; wanted 0 <= discount <= 1 (1 weighs all steps alike)")
        if not 0 <= mistake <= 1:
            raise InputError(f"mistake is {mistake}; wanted a share between 0 and 1")
        for name, value in (("equal", equal), ("skip", skip)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} is {value}; wanted a finite share of the returns' spread, at least 0")
        self.beta, self.seed, self.discount, self.mistake = beta, seed, discount, mistake
        self.equal, self.skip, self.bpref_compat = equal, skip, bpref_compat
        self.generator = torch.Generator().manual_seed(0 if seed is None else seed)

    KINDS: ClassVar[dict[str, dict[str, float]]] = {
        "perfect": {"beta": math.inf},
        "boltzmann": {"beta": 1.0},
        "mistake": {"beta": math.inf, "mistake": 0.1},
        "skip": {"beta": math.inf, "skip": 0.1},
        "equal": {"beta": math.inf, "equal": 0.1},
        "myopic": {"beta": math.inf, "discount": 0.9},
    }

    @classmethod
    def named(cls, kind: str, seed: int | None = None, **changes: Any) -> Self:
        """One of B-Pref's six teachers, with its numbers.

        Args:
            kind: ``"perfect"``, ``"boltzmann"``, ``"mistake"``, ``"skip"``, ``"equal"`` or ``"myopic"``.
            seed: of its choices; ``None`` takes the trainer's.
            changes: any other argument of the class.

        Raises:
            InputError: there is no such teacher.

        Example:
            >>> SyntheticTeacher.named("mistake", beta=2.0)
            SyntheticTeacher(beta=2.0, seed=None, mistake=0.1)
        """
        if kind not in cls.KINDS:
            raise InputError(f"there is no teacher {kind!r}; wanted one of {', '.join(cls.KINDS)}")
        return cls(**{**cls.KINDS[kind], "seed": seed, **changes})

    def label(self, left_return: np.ndarray, right_return: np.ndarray) -> np.ndarray:
        """Choices by pairs of true returns, each ``(pairs,)``, without mistakes, equal or skipped pairs."""
        difference = np.asarray(right_return, dtype=np.float64) - np.asarray(left_return, dtype=np.float64)
        if not np.isfinite(difference).all():
            raise InputError("a true return is NaN or infinite: the environment returned a reward that no one can rank")
        draws = torch.rand(difference.shape, generator=self.generator, dtype=torch.float64).numpy()
        if math.isinf(self.beta):
            chosen = difference > 0
        else:
            chosen = draws < 1 / (1 + np.exp(-np.clip(self.beta * difference, -500, 500)))
        tie = 0.5 if not self.bpref_compat else chosen
        return np.where(difference == 0, tie, chosen.astype(np.float64))

    def label_steps(self, rewards: np.ndarray, scale: ReturnScale) -> np.ndarray:
        """Labels ``(pairs,)`` by true rewards ``(pairs, 2, H)``; NaN where a pair is skipped."""
        plain = rewards.sum(-1)
        weight = np.float64(self.discount) ** np.arange(rewards.shape[-1])[::-1]
        myopic = plain if self.discount == 1 else (rewards * weight).sum(-1)
        label = checked_labels(self.label(myopic[:, 0], myopic[:, 1]), len(rewards))
        if self.mistake:
            turned = torch.rand(label.shape, generator=self.generator, dtype=torch.float64).numpy() < self.mistake
            label = np.where(turned, 1 - label, label)
        size = scale.mean if self.bpref_compat else scale.spread
        label = np.where(np.abs(plain[:, 0] - plain[:, 1]) < self.equal * size, 0.5, label)
        least = self.skip * scale.mean if self.bpref_compat else scale.mean - (1 - self.skip) * scale.spread
        if self.skip and (least > 0 or not self.bpref_compat):
            label = np.where(plain.max(-1) <= least, np.nan, label)
        return label

    def to_json(self) -> dict[str, Any]:
        """As plain numbers and strings."""
        numbers = {name: getattr(self, name) for name in ("seed", "discount", "mistake", "equal", "skip")}
        return {"beta": str(self.beta), **numbers, "bpref_compat": self.bpref_compat}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """From what :meth:`to_json` gave, now or in a version that knew beta and the seed alone."""
        return cls(**{**content, "beta": float(content["beta"])})

    def __repr__(self) -> str:
        usual = {"discount": 1.0, "mistake": 0.0, "equal": 0.0, "skip": 0.0, "bpref_compat": False}
        odd = "".join(
            f", {name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value
        )
        return f"{type(self).__name__}(beta={self.beta}, seed={self.seed}{odd})"


def checked_labels(given: Any, pairs: int) -> np.ndarray:
    """What a teacher returned as an array ``(pairs,)``.

    Raises:
        InputError: it is not one number from 0 to 1, or NaN, for each pair.
    """
    try:
        label = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        label = np.zeros(0)
    if label.shape != (pairs,) or not (((label >= 0) & (label <= 1)) | np.isnan(label)).all():
        raise InputError(
            f"the teacher returned {given!r} for {pairs} pairs; wanted as many numbers from 0 to 1, NaN to skip a pair"
        )
    return label
