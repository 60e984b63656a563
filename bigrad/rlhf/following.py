"""What comes after each step of a buffer, kept once: mostly it is the observation that the next step begins with."""

from __future__ import annotations

from typing import Any

import numpy as np


class Following:
    """Stands for an array of next observations ``(rows, envs, *observation)`` that would repeat another one.

    Only what that other one does not hold is kept: the last observation of each episode, and what followed the newest
    row. Rows are written in turn, after the row of the observations itself and before the ends of its episodes.

    Args:
        observations: the array ``(rows, envs, *observation)`` that steps begin with.
        dones: ``(rows, envs)``, not 0 where an episode was over.
    """

    def __init__(self, observations: np.ndarray, dones: np.ndarray) -> None:
        self.observations, self.dones = observations, dones
        self.kept: dict[tuple[int, int], np.ndarray] = {}
        self.newest = -1

    @property
    def nbytes(self) -> int:
        """What is kept beside the observations."""
        return sum(part.nbytes for part in self.kept.values())

    def __setitem__(self, row: int, following: np.ndarray) -> None:
        before = (row - 1) % len(self.observations)
        for env, seen in enumerate(following):
            if not self.dones[before, env]:
                self.kept.pop((before, env), None)
            self.kept[row, env] = np.array(seen)
        self.newest = row

    def __getitem__(self, place: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        rows, envs = place
        found: np.ndarray = self.observations[(rows + 1) % len(self.observations), envs]  # a copy
        for where in zip(*np.nonzero((self.dones[rows, envs] > 0) | (rows == self.newest)), strict=True):
            found[where] = self.kept[int(rows[where]), int(envs[where])]
        return found

    def state(self) -> dict[str, Any]:
        """As arrays."""
        shape = (0, *self.observations.shape[2:])
        seen = np.stack(list(self.kept.values())) if self.kept else np.zeros(shape, self.observations.dtype)
        places = np.array(list(self.kept), dtype=np.int64).reshape(-1, 2)
        return {"places": places, "observations": seen, "newest": self.newest}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        places = state["places"].tolist()
        self.kept = {(row, env): seen for (row, env), seen in zip(places, state["observations"], strict=True)}
        self.newest = int(state["newest"])
