"""Tiny environments that are seen: a bright square on a black ground that wants to be in the middle."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIDE, SPOT, LENGTH = 36, 6, 12
DOT, PUSHED, WALL = "Tiny/Dot-v0", "Tiny/PushedDot-v0", "Tiny/DotAtWall-v0"


class Dot(gymnasium.Env[Any, Any]):
    """Steps left, not at all, or right; the reward is less the distance to the middle, in steps.

    Args:
        first: whether the channels come first.
        pushed: whether actions are pushes in [-1, 1].
        wall: whether an episode ends at the edge.
    """

    def __init__(self, first: bool = False, pushed: bool = False, wall: bool = False) -> None:
        self.first, self.pushed, self.wall = first, pushed, wall
        shape = (2, SIDE, SIDE + 4) if first else (SIDE, SIDE + 4, 2)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        actions: Any = spaces.Box(-1, 1, (1,), np.float32) if pushed else spaces.Discrete(3)
        self.action_space = actions
        self.place = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = float(self.np_random.integers(-3, 4))
        return self.see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place += float(np.sum(action)) if self.pushed else int(action) - 1
        ended = self.wall and abs(self.place) > 4
        self.place = float(np.clip(self.place, -4, 4))
        return self.see(), -10 * abs(self.place), ended, False, {}

    def see(self) -> np.ndarray:
        """The square in the first channel, and a quarter as bright in the second."""
        left = SIDE // 2 - SPOT // 2 + round(3 * self.place)
        picture = np.zeros((SIDE, SIDE + 4), np.uint8)
        picture[15 : 15 + SPOT, left : left + SPOT] = 200
        return np.stack([picture, picture // 4], 0 if self.first else -1)


class Odd(Dot):
    """Is seen in a way that is not served."""

    def __init__(self, shape: tuple[int, ...], dtype: str, high: float) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, high, shape, np.dtype(dtype).type)


def register() -> None:
    """Make the environments known."""
    odd = {
        "Small": ((35, 80, 3), "uint8", 255),
        "Flat": ((84, 84), "uint8", 255),
        "Float": ((84, 84, 3), "float32", 1.0),
        "Dim": ((84, 84, 3), "uint8", 200),
    }
    made: dict[str, tuple[type[Dot], dict[str, Any]]] = {
        DOT: (Dot, {}),
        PUSHED: (Dot, {"first": True, "pushed": True}),
        WALL: (Dot, {"first": True, "wall": True}),
    }
    made |= {
        f"Tiny/{name}Picture-v0": (Odd, dict(zip(("shape", "dtype", "high"), o, strict=True)))
        for name, o in odd.items()
    }
    for name in made.keys() - gymnasium.registry.keys():
        kind, settings = made[name]
        gymnasium.register(name, kind, max_episode_steps=LENGTH, kwargs=settings, disable_env_checker=True)
