"""Worker processes for solvers that run in one core each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from ..errors import SolveError

CHUNKS = 4  # for each worker: few enough to send, enough to share slow problems out


class Pool:
    """Processes that start at the first call, and end with :meth:`close`, with the pool, or with the program.

    They are spawned and not forked, so that no thread of torch's is cut off in them. A copy of the pool, or a process
    that was forked with it, starts processes of its own.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor: ProcessPoolExecutor | None = None
        self._owner = os.getpid()

    def map(self, function: Callable[[Any], Any], inputs: Sequence[Any]) -> Iterator[Any]:
        """What ``function`` makes of each of the inputs, in their order.

        Raises:
            SolveError: a process has died.
        """
        if self._executor is None or self._owner != os.getpid():
            self._executor, self._owner = ProcessPoolExecutor(self.workers, get_context("spawn")), os.getpid()
        chunk = -(-len(inputs) // (CHUNKS * self.workers))
        try:
            yield from self._executor.map(function, inputs, chunksize=chunk)
        except BrokenProcessPool as error:
            self.close()
            raise SolveError(
                "a worker process has died, or could not start: define the function in a module that a fresh process "
                'can import, start the script\'s work under `if __name__ == "__main__":`, and look for its own message '
                "above; workers=0 solves in this process"
            ) from error

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        executor, self._executor = self._executor, None
        if executor is not None and self._owner == os.getpid():
            executor.shutdown()

    def __reduce__(self) -> tuple[type[Pool], tuple[int]]:
        return type(self), (self.workers,)
