"""Processes: so many at a time, each failing alone, none left behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bigrad.errors import RunError
from bigrad.rlhf import comparison

from . import fabricated

MEET = """
import pathlib, sys, time
place = pathlib.Path(sys.argv[1])
(place / "here").touch()
for _ in range(2000):
    if len(list(place.parent.glob("*/here"))) >= 2:
        sys.exit(0)
    time.sleep(0.01)
sys.exit("nobody came")
"""
FOLLOW = """
import pathlib, sys
place = pathlib.Path(sys.argv[1])
(place / "here").touch()
sys.stdin.read()
(place / "saved").touch()
"""
STUBBORN = """
import pathlib, sys, time
(pathlib.Path(sys.argv[1]) / "here").touch()
time.sleep(1000)
"""
CRASH = """
import os, sys
if sys.argv[1].endswith("1"):
    sys.exit(f"lost\\n\\nits mind in {sys.argv[1]}/x")
if sys.argv[1].endswith("2"):
    os.kill(os.getpid(), 9)
"""


def script(text: str) -> Callable[[comparison.Run], Sequence[str]]:
    return lambda run: (sys.executable, "-I", "-S", "-c", text, str(run.folder))


def do(runs: Sequence[comparison.Run], text: str, processes: int = 2) -> tuple[dict[int, int], int]:
    """Exit codes by seed, and how many ran at once at most."""
    codes, most = dict[int, int](), 0

    def watched(working: Sequence[comparison.Run]) -> None:
        nonlocal most
        most = max(most, len(working))

    def ended(run: comparison.Run, code: int) -> None:
        codes[run.settings.seed] = code

    comparison.work(runs, processes, ended, watched, comparison.environment(1), script(text))
    return codes, most


@pytest.fixture
def four(tmp_path: Path) -> list[comparison.Run]:
    return fabricated.runs(["drlhf"], seeds=range(4), out=tmp_path)


def test_as_many_run_at_once_as_asked_for(four: list[comparison.Run]) -> None:
    codes, most = do(four, MEET)  # alone, the first would wait for the second in vain
    assert codes == dict.fromkeys(range(4), 0)
    assert most <= 2
    assert do(four, "pass", processes=1)[1] <= 1


def test_a_crash_is_its_own(four: list[comparison.Run]) -> None:
    codes, _ = do(four, CRASH)
    assert codes == {0: 0, 1: 1, 2: -9, 3: 0}
    assert comparison.failure(four[1], 1) == "its mind in Tiny-Point-v0/drlhf-10-perfect/seed1/x"
    assert comparison.failure(four[2], -9) == "killed by SIGKILL (often too little memory)"
    assert comparison.failure(four[3], 3) == "exit code 3"


@pytest.mark.parametrize(("text", "saved"), [(FOLLOW, True), (STUBBORN, False)], ids=["follows", "stubborn"])
def test_whatever_ends_the_loop_ends_the_workers(text: str, saved: bool, four: list[comparison.Run]) -> None:
    def watched(working: Sequence[comparison.Run]) -> None:
        if all((run.folder / "here").exists() for run in working):
            raise KeyboardInterrupt

    arguments = (comparison.environment(1), script(text))
    with pytest.raises(KeyboardInterrupt):
        comparison.work(four, 2, lambda run, code: None, watched, *arguments, grace=20 if saved else 0)
    assert [(run.folder / "saved").exists() for run in four] == [saved, saved, False, False]


def test_a_worker_finds_the_modules_of_its_parent_and_one_thread(
    four: list[comparison.Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "only_here.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = comparison.environment(3)
    assert str(tmp_path) in found["PYTHONPATH"]
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("3", "3")
    assert comparison.workers_on("somewhere")(four[0])[-2:] == (str(four[0].folder), "somewhere")


def test_a_folder_is_one_process_s(tmp_path: Path) -> None:
    with (
        comparison.held(tmp_path / "out"),
        pytest.raises(RunError, match="another process's"),
        comparison.held(tmp_path / "out"),
    ):
        pass
    with comparison.held(tmp_path / "out"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"), comparison.held(tmp_path / "file"):
        pass
