"""Tiny gymnasium environments: a point on a line that wants to be at the origin, sound and broken in several ways."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

LENGTH = 10


class Point(gymnasium.Env[Any, Any]):
    """Observes position and velocity, pushes with a force in [-2, 2]; the reward is less the square of the position.

    Args:
        fence: an episode ends beyond this distance.
        lifetime: or after this many steps, by itself.
        reward: given at every step instead.
        broken_at: the step of this object's life whose reward or observation is NaN.
        broken: which of the two, or "start" for the first observation of every episode.
        dtype: of observations.
    """

    broken_now: ClassVar[bool] = False  # every reward is NaN

    def __init__(
        self,
        fence: float = float("inf"),
        reward: float | None = None,
        broken_at: int = -1,
        broken: str = "reward",
        dtype: type = np.float32,
        lifetime: int = 1_000_000,
    ) -> None:
        self.lifetime, self.since = lifetime, 0
        self.fence, self.reward, self.broken_at, self.broken, self.dtype = fence, reward, broken_at, broken, dtype
        self.observation_space: spaces.Space[Any] = spaces.Box(-10, 10, (2,), dtype)
        self.action_space: spaces.Space[Any] = spaces.Box(-2, 2, (1,), np.float32)
        self.state, self.age = np.zeros(2), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.since = self.np_random.uniform(-1, 1, 2), 0
        return self.see() * (np.nan if self.broken == "start" else 1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.age, self.since = self.age + 1, self.since + 1
        position, velocity = self.state
        velocity = np.clip(0.9 * velocity + 0.2 * float(np.sum(action)), -3, 3)
        self.state = np.array([np.clip(position + 0.2 * velocity, -9, 9), velocity])
        reward = -float(self.state[0] ** 2) if self.reward is None else self.reward
        seen = self.see()
        if self.age == self.broken_at:
            reward, seen = (float("nan"), seen) if self.broken == "reward" else (reward, seen * np.nan)
        ended = bool(abs(self.state[0]) > self.fence) or self.since >= self.lifetime
        return seen, float("nan") if self.broken_now else reward, ended, False, {}

    def see(self) -> Any:
        return self.state.astype(self.dtype)


class Image(Point):
    """Is seen as a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Named(Point):
    """Is seen as a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict({"state": spaces.Box(-10, 10, (2,), np.float32)})


class Buttons(Point):
    """Is pushed by one of three buttons."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Discrete(3)

    def step(self, action: Any) -> Any:
        """Left, not at all, right."""
        return super().step(np.full(1, int(action) - 1, np.float32))


class Organ(Point):
    """Is pushed by several buttons at once."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.MultiDiscrete([3, 2])


class Unbounded(Point):
    """Is pushed as hard as one likes."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Plane(Point):
    """Is pushed by a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-1, 2, (2, 2), np.float32)


class NeedsPackage(Point):
    """Cannot be made here."""

    def __init__(self, package: str) -> None:
        extra = package.lower()
        raise gymnasium.error.DependencyNotInstalled(
            f"{package} is not installed, run `pip install gymnasium[{extra}]`"
        )


def register() -> None:
    """Make the environments known as Tiny/NAME-v0."""
    variants: dict[str, tuple[type[Point], dict[str, Any]]] = {
        "Point": (Point, {}),
        "Fenced": (Point, {"fence": 1.0}),
        "Short": (Point, {"lifetime": 4}),
        "Constant": (Point, {"reward": 1.0}),
        "NaNReward": (Point, {"broken_at": 45}),
        "NaNLastReward": (Point, {"broken_at": 50}),
        "NaNObservation": (Point, {"broken_at": 45, "broken": "observation"}),
        "NaNLastObservation": (Point, {"broken_at": 50, "broken": "observation"}),
        "NaNStart": (Point, {"broken": "start"}),
        "Double": (Point, {"dtype": np.float64}),
        "Image": (Image, {}),
        "Named": (Named, {}),
        "Buttons": (Buttons, {}),
        "Organ": (Organ, {}),
        "Unbounded": (Unbounded, {}),
        "Plane": (Plane, {}),
        "NeedsMuJoCo": (NeedsPackage, {"package": "MuJoCo"}),
        "NeedsBox2D": (NeedsPackage, {"package": "Box2D"}),
    }
    for name, (kind, settings) in variants.items():
        gymnasium.register(f"Tiny/{name}-v0", kind, max_episode_steps=LENGTH, kwargs=settings, disable_env_checker=True)
