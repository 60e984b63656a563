"""What an agent did, as moving pictures: recorded while it acts, cut into clips when they are asked for."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from typing import Any

import gymnasium
import imageio.v3 as imageio
import numpy as np

from ...errors import InputError, UnsupportedError


class Film(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps a picture of what every step led to, each compressed and only once; the oldest make room for new ones.

    Args:
        env: an environment made with ``render_mode="rgb_array"``.
        megabytes: what the pictures may take.
        side: the longer side of a picture in pixels, at most.
        seconds: what a clip lasts at least; shorter ones are slowed down, so that a person can follow.

    Raises:
        InputError: the environment was made for another way of rendering.
        UnsupportedError: it gives no pictures, or cannot on this machine.

    Example:
        >>> import gymnasium
        >>> film = Film(gymnasium.make("Pendulum-v1", render_mode="rgb_array"))
        >>> _ = film.reset(seed=0)
        >>> for _ in range(5):
        ...     _ = film.step(film.action_space.sample())
        >>> film.reach  # steps that there are pictures of
        5
        >>> film.clip(range(4, -1, -1))[:4]  # an animated WebP of the last five, oldest first
        b'RIFF'
    """

    def __init__(
        self, env: gymnasium.Env[Any, Any], megabytes: float = 256, side: int = 320, seconds: float = 2
    ) -> None:
        super().__init__(env)
        if env.render_mode != "rgb_array":
            raise InputError(
                f"render_mode is {env.render_mode!r}; clips need pictures: gymnasium.make(name, "
                'render_mode="rgb_array")'
            )
        self.limit, self.side, self.seconds = megabytes * 2**20, side, seconds
        self.bytes = 0
        self._pictures: deque[tuple[tuple[int, ...], bytes]] = deque()

    @property
    def reach(self) -> int:
        """How many of the latest steps there are pictures of."""
        return len(self._pictures)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and keep a picture of what it led to (before an episode's end is followed by the next one's start)."""
        after = self.env.step(action)
        picture = shrink(self._see(), self.side)
        self._pictures.append((picture.shape, zlib.compress(picture.tobytes(), 1)))
        self.bytes += len(self._pictures[-1][1])
        while self.bytes > self.limit and len(self._pictures) > 1:
            self.bytes -= len(self._pictures.popleft()[1])
        return after

    def clip(self, ages: Sequence[int] | np.ndarray) -> bytes:
        """An animated WebP of the steps that were taken ``ages`` steps ago (0: the latest), in the order given.

        After the end of an episode, where the age is negative, the last picture stays.

        Raises:
            InputError: there is no picture of one of them (any more).
        """
        if not len(ages) or ages[0] < 0 or max(ages) >= self.reach:
            raise InputError(
                f"a clip of steps {list(ages)} steps ago was asked for; wanted some of the latest {self.reach}, of "
                "which there are pictures: choose later steps, or a larger megabytes"
            )
        pictures: list[np.ndarray] = []
        for age in ages:
            shape, packed = self._pictures[-1 - int(age)] if age >= 0 else (None, b"")
            seen = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape) if shape else pictures[-1]
            pictures.append(seen)
        pace = 1 / float(self.env.metadata.get("render_fps") or 30)
        return animate(pictures, max(pace, self.seconds / len(pictures)))

    def clips(self, ages: np.ndarray) -> list[tuple[bytes, bytes]]:
        """The left and the right clip of each pair, from the ages ``(pairs, 2, H)`` of their steps."""
        return [(self.clip(left), self.clip(right)) for left, right in ages]

    def _see(self) -> np.ndarray:
        try:
            picture = self.env.render()
        except Exception as error:
            name = self.env.spec.id if self.env.spec else self.env
            raise UnsupportedError(
                f"{name} cannot be rendered on this machine ({error}): without a screen MUJOCO_GL=egl or osmesa helps "
                "MuJoCo; people need clips, and a SyntheticTeacher does not"
            ) from error
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
            raise UnsupportedError(
                f"{self.env} renders {getattr(picture, 'shape', type(picture).__name__)}; wanted a picture (height, "
                "width, 3) of bytes"
            )
        return picture


def shrink(picture: np.ndarray, side: int) -> np.ndarray:
    """Average blocks of pixels until the longer side has at most ``side``."""
    factor = -(-max(picture.shape[:2]) // side)
    height, width = (size // factor for size in picture.shape[:2])
    if factor == 1 or not height or not width:
        return picture
    total = np.zeros((height, width, 3), np.uint32)
    for row in range(factor):
        for column in range(factor):
            total += picture[row : height * factor : factor, column : width * factor : factor]
    small: np.ndarray = (total // factor**2).astype(np.uint8)
    return small


def animate(pictures: Sequence[np.ndarray], pace: float) -> bytes:
    """An animated WebP of equally large pictures ``(height, width, 3)``, ``pace`` seconds each, that never stops.

    The last one stays for half a second longer: it tells where the clip begins.
    """
    durations = [round(1000 * pace)] * len(pictures)
    durations[-1] += 500
    return imageio.imwrite(
        "<bytes>",
        np.stack(pictures),
        extension=".webp",
        plugin="pillow",
        duration=durations,
        loop=0,
        quality=80,
        method=0,
    )
