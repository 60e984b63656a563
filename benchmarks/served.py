"""Peers that cannot live in this process: a server in an environment of its own, asked line by line.

A request and its answer are one JSON object a line; the data that both sides work on are arrays in a file, whose path
is the server's only argument. The server takes the time of its own work, so that the pipe costs nothing.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from harness import HERE, Row, Seconds
from peers import interpreter

Ask = Callable[..., Row]


class Remote(Seconds):
    """The seconds that another process measured, and what it found."""

    found: Any

    @classmethod
    def of(cls, answer: Row) -> Remote:
        """Read an answer of the server."""
        self = cls(answer["seconds"])
        self.found = answer["found"]
        return self


def found_of(result: Any) -> Any:
    """What a way has returned, wherever it ran."""
    return result.found if isinstance(result, Remote) else result


@contextmanager
def served(environment: str, script: str, arrays: Mapping[str, Any]) -> Iterator[Ask]:
    """A server as long as the block lasts: ``ask(**request)`` returns its answer.

    Raises (when it is asked):
        RuntimeError: the request failed there, or the server has ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})
        command = [interpreter(environment), "-W", "ignore", HERE / script, path]
        try:
            server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except FileNotFoundError:  # a row of the table, like any other failure of a peer
            yield refuse
            return
        with server:
            assert server.stdin is not None
            assert server.stdout is not None

            def ask(**request: Any) -> Row:
                try:
                    server.stdin.write(json.dumps(request) + "\n")
                    server.stdin.flush()
                    answer: Row = json.loads(server.stdout.readline())
                except (BrokenPipeError, json.JSONDecodeError):
                    raise RuntimeError(f"{script} ended with {server.wait()}") from None
                if "failure" in answer:
                    raise RuntimeError(answer["failure"])
                return answer

            yield ask
            if server.poll() is None:
                server.stdin.close()


def refuse(**request: Any) -> Row:
    """Stands for a server whose environment is missing."""
    raise RuntimeError(f"no environment for {request}: run python benchmarks/peers.py")
