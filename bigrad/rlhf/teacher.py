"""Who compares two segments."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch

from ..errors import InputError


class Teacher(Protocol):
    """Compares pairs of segments by what they show."""

    def label(self, left_return: np.ndarray, right_return: np.ndarray) -> np.ndarray:
        """1 where the right segment is preferred, 0 where the left one, 0.5 where neither; ``(pairs,)``."""
        ...


class SyntheticTeacher:
    r"""A teacher that follows Bradley and Terry on the true return: :math:`P(right) = \sigma(\beta (R_r - R_l))`.

    Args:
        beta: how sharply it sees differences of return; ``inf`` never errs. Exact ties are labelled 0.5.
        seed: of its choices; ``None`` takes the trainer's.

    Source: Rank Analysis of Incomplete Block Designs (Bradley, Terry, 1952).

    Example:
        >>> import numpy as np
        >>> SyntheticTeacher(beta=float("inf")).label(np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 3.0]))
        array([1. , 0. , 0.5])
    """

    def __init__(self, beta: float = 1.0, seed: int | None = None) -> None:
        if not beta > 0:
            raise InputError(f"beta is {beta}; wanted a positive number (a teacher at 0 labels at random)")
        self.beta, self.seed = beta, seed
        self.generator = torch.Generator().manual_seed(0 if seed is None else seed)

    def label(self, left_return: np.ndarray, right_return: np.ndarray) -> np.ndarray:
        """Labels for pairs of true returns, each ``(pairs,)``."""
        difference = np.asarray(right_return, dtype=np.float64) - np.asarray(left_return, dtype=np.float64)
        if not np.isfinite(difference).all():
            raise InputError("a true return is NaN or infinite: the environment returned a reward that no one can rank")
        draws = torch.rand(difference.shape, generator=self.generator, dtype=torch.float64).numpy()
        if math.isinf(self.beta):
            chosen = difference > 0
        else:
            chosen = draws < 1 / (1 + np.exp(-np.clip(self.beta * difference, -500, 500)))
        return np.where(difference == 0, 0.5, chosen.astype(np.float64))

    def __repr__(self) -> str:
        return f"SyntheticTeacher(beta={self.beta}, seed={self.seed})"
