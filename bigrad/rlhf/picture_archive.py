"""The pictures of a run on disk: written once, however often the run is saved."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ..errors import RunError
from .snapshot import write_atomically

ROWS = 1_000  # of the buffer, in a file
NAME = "pictures"


class PictureArchive:
    """A folder of compressed files, each of so many rows of the buffer, counted since the run began.

    Rows never change once they are there, so that a file that is full is not written again, and a checkpoint finds its
    rows also where more were written after it.

    Args:
        folder: of the run.
        rows: of the buffer in a file.

    Attributes:
        full: how many of the first files are known to hold this run's rows, and all of them.
    """

    def __init__(self, folder: Path, rows: int = ROWS) -> None:
        self.folder, self.rows, self.full = folder, rows, 0

    def write(self, observations: np.ndarray, size: int, total: int) -> None:
        """Write what is not there yet.

        Args:
            observations: the buffer's ``(capacity, envs, *observation)``.
            size: how many rows it holds.
            total: how many it was ever given.

        Raises:
            RunError: a file cannot be written.
        """
        for number in range(max(self.full, (total - size) // self.rows), -(-total // self.rows)):
            rows = np.arange(number * self.rows, min(total, (number + 1) * self.rows)) % len(observations)
            write_atomically(self._path(number), zlib.compress(observations[rows].tobytes(), 1))
        self.full = total // self.rows

    def read(self, observations: np.ndarray, size: int, total: int) -> None:
        """Put into the buffer what :meth:`write` took.

        Raises:
            RunError: a file is missing or damaged.
        """
        for number in range((total - size) // self.rows, -(-total // self.rows)):
            path, first = self._path(number), number * self.rows
            count = min(total, first + self.rows) - first
            shape = (count, *observations.shape[1:])
            try:
                found = zlib.decompressobj().decompress(path.read_bytes(), int(np.prod(shape)))  # and never more
                pictures = np.frombuffer(found, np.uint8).reshape(shape)
            except (OSError, ValueError, zlib.error) as error:
                raise RunError(f"{path} is missing or damaged ({error}): restore it or start anew") from error
            alive = np.arange(max(first, total - size), first + count)
            observations[alive % len(observations)] = pictures[alive - first]
        self.full = total // self.rows

    def forget(self, first: int) -> None:
        """Delete the files of rows before the ``first``."""
        for path in (self.folder / NAME).glob("*.zlib"):
            if path.stem.isdigit() and (int(path.stem) + 1) * self.rows <= first:
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / NAME / f"{number:06d}.zlib"
