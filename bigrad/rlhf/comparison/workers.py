"""Runs in processes of their own, so many at a time: a crash of one is its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .plan import Run

LOG = "log.txt"
_PAUSE = 0.2  # seconds between two looks at the workers
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

Command = Callable[[Run], Sequence[str]]


def workers_on(device: str) -> Command:
    """The command lines of runs whose networks live on ``device``."""
    return lambda run: (sys.executable, "-m", f"{__package__}", str(run.folder), device)


def work(
    runs: Iterable[Run],
    processes: int,
    ended: Callable[[Run, int], None],
    watched: Callable[[Sequence[Run]], None],
    environment: Mapping[str, str],
    command: Command,
    grace: float = 60.0,
) -> None:
    """Do runs, ``processes`` at a time; whatever ends this loop ends its workers, with everything on disk.

    Args:
        runs: in the order in which they are begun.
        processes: how many at a time.
        ended: told of each run that ended, and its exit code (less the signal that killed it).
        watched: told of the runs that are being done, several times a second.
        environment: of the workers.
        command: the command line of a run.
        grace: seconds in which a worker that is told to end puts everything on disk, before it is killed.
    """
    waiting, working = deque(runs), list[tuple[Run, subprocess.Popen[bytes]]]()
    try:
        while waiting or working:
            over = [(run, process) for run, process in working if process.poll() is not None]
            working = [(run, process) for run, process in working if process.returncode is None]
            while waiting and len(working) < processes:
                run = waiting.popleft()
                working.append((run, _start(command(run), run.folder, environment)))
            for run, process in over:  # with the next ones at work already: telling may take a while
                _stop([process], grace)
                ended(run, process.returncode)
            watched([run for run, _ in working])
            time.sleep(_PAUSE)
    finally:
        _stop([process for _, process in working], grace)


def environment(threads: int) -> dict[str, str]:
    """What a worker finds: the modules of this process, and its number of threads."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    own = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    return {**os.environ, **dict.fromkeys(_THREADS, str(threads)), **own}


def failure(run: Run, code: int) -> str:
    """Why a run ended without a result: the last line of its log, or the signal."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (often too little memory)" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    with suppress(OSError):
        log = (run.folder / LOG).read_text(errors="replace")[-5000:]
        lines = log.replace(str(run.folder), run.name).split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
    return f"exit code {code}"


def _start(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "wb") as log:
        # A session of its own: Ctrl-C in the terminal reaches this process, which then ends its workers.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=dict(environment), start_new_session=True
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]], grace: float) -> None:
    """End workers by closing their standard input; those that take too long are killed."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    deadline = time.monotonic() + grace
    try:
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.wait()
