"""One process a folder, on every system and also after a kill: the lock of an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ...errors import RunError

_NAME = "lock.sqlite"


@contextmanager
def held(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Have ``folder`` for oneself; the system gives the lock back when the process ends, however it ends.

    Args:
        folder: made if missing.
        wait: seconds to wait for whoever has it.

    Raises:
        RunError: somebody else has it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / _NAME, timeout=wait, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise RunError(f"{folder} cannot be written ({error}): choose another folder") from error
    with closing(connection):
        try:
            connection.execute("begin exclusive")
        except sqlite3.Error as error:
            raise RunError(
                f"{folder} is another process's at the moment ({error}, waited {wait:g} s): let it end, or choose "
                "another folder"
            ) from error
        yield
