"""``bigrad compare`` with real processes: failures, kills, and going on."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bigrad.cli import main
from bigrad.rlhf import Settings, comparison

from .. import tiny

ENV = "tests.rlhf.registered:Tiny/Mortal-v0"
FOLDER = "tests.rlhf.registered-Tiny-Mortal-v0"
ROOT = Path(__file__).parents[3]
EVALUATION = tiny.SETTINGS["episodes"] * 10


@pytest.fixture(autouse=True)
def mortal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the environment counts its steps; handlers and widths of this process stay as they are."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TINY_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    return tmp_path / "steps"


def command(out: Path, *more: str) -> list[str]:
    settings = {name: value for name, value in tiny.SETTINGS.items() if name != "labels"}
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return ["compare", "--env", ENV, "--labels", "20", "--seeds", "1", "--out", str(out), *options, *more]


def labels(folder: Path) -> list[Any]:
    with closing(sqlite3.connect(folder / "labels.sqlite")) as connection:
        return connection.execute("select * from preference order by id").fetchall()


@pytest.mark.usefixtures("unpainted")
def test_a_run_that_fails_and_one_that_is_killed_take_no_other_along_and_the_next_call_goes_on(
    tmp_path: Path, mortal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    folder = out / FOLDER / "drlhf-20-perfect" / "seed0"
    real = comparison.workers_on
    fails = (sys.executable, "-I", "-S", "-c", "import sys; sys.exit('bigrad: there is no such device')")
    monkeypatch.setattr(
        comparison, "workers_on", lambda device: lambda run: fails if run.arm == "odd" else real(device)(run)
    )
    monkeypatch.setenv("TINY_DEATH", "50")
    assert main(command(out, "--arms", "odd:method=drlhf", "drlhf", "--processes", "1")) == 1
    said = capsys.readouterr().out
    assert f"{FOLDER}/drlhf-20-perfect/seed0: failed, killed by SIGKILL" in said
    assert f"{FOLDER}/odd-20-perfect/seed0: failed, bigrad: there is no such device" in said
    assert "0/2 runs, 2 failed" in said
    assert json.loads((out / "summary.json").read_text())["runs"] == {"finished": 0, "failed": 2, "open": 0}
    assert [path.name for path in out.iterdir() if path.suffix == ".png"] == []
    before = labels(folder)
    assert 0 < len(before) < 20

    monkeypatch.delenv("TINY_DEATH")
    mortal.write_bytes(b"")
    argv = command(out, "--methods", "drlhf", "--record", str(tmp_path / "records"))
    assert main(argv) == 0
    assert f"{FOLDER}/drlhf-20-perfect/seed0: finished, true return" in capsys.readouterr().out
    assert mortal.stat().st_size <= tiny.STEPS - 40 + 2 * EVALUATION  # from the checkpoint at step 40 on; at random too
    after = labels(folder)
    assert (after[: len(before)], len(after)) == (before, 20)
    result = json.loads((folder / "result.json").read_text())
    assert (result["steps"], result["labels"]) == (tiny.STEPS, 20)
    assert result["command"].startswith("bigrad compare --env")
    (record,) = (tmp_path / "records").iterdir()
    assert json.loads(record.read_text()).items() >= result.items()
    assert (out / "curves.png").exists()

    monkeypatch.setattr(comparison, "workers_on", lambda device: lambda run: pytest.fail("run again"))
    assert main(argv) == 0
    assert "1 of 1 runs finished" in capsys.readouterr().out


@pytest.mark.usefixtures("unpainted")
def test_ctrl_c_leaves_everything_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so does the death of whoever started the workers: their standard input ends either way."""
    out = tmp_path / "an out"
    folder = out / FOLDER / "drlhf-20-perfect" / "seed0"
    argv = command(out, "--methods", "drlhf", "--steps", "30000", "--warm-up", "25")

    step = comparison.Run.step.fget

    def interrupted(run: comparison.Run) -> int:
        if run.finished or step(run) > 30:
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(comparison.Run, "step", property(interrupted))
    assert main(argv) == 130
    assert f"The same command goes on: bigrad compare --env {ENV}" in capsys.readouterr().err
    history = json.loads((folder / "history.json").read_text())
    assert not (folder / "result.json").exists()
    assert 30 <= history[-1]["step"] < 30_000
    assert (folder / "checkpoint.safetensors").exists()
    with comparison.held(folder):  # nobody works there any more
        pass


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["--methods", "ppo"], "'ppo' names no method"),
        (["--arms", "a:method=drlhf,colour=red"], "'colour', which is none of its settings"),
        (["--teachers", "kind"], "'kind' names no teacher"),
        (["--seeds", "0"], "wanted >= 1"),
        (["--processes", "-1"], "wanted >= 1"),
        (["--labels", "1"], "labels is 1"),
        (["--temperature", "0"], "temperature is 0.0"),
        (["--env", "Tiny/Piont-v0"], "Tiny/Point-v0"),
    ],
)
def test_a_mistake_is_explained_and_nothing_is_made(
    wrong: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path / "out", *wrong)) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_two_comparisons_in_one_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with comparison.held(tmp_path):
        assert main(command(tmp_path)) == 2
    assert "another process's" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["compare", "--help"])
    assert ending.value.code == 0
    said = capsys.readouterr().out
    apart = {"env", "method", "labels", "seed"}
    named = {entry.name for entry in fields(Settings)} - apart | {"methods", "arms", "teachers", "record", "processes"}
    assert all(f"--{name.replace('_', '-')}" in said for name in named)
    for word in ("For example", "Ctrl-C", "NAME:setting=value", "Weight decay", "noisy"):
        assert word.lower() in said.lower()
