"""The command line teaches, dispatches and turns errors into one paragraph and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bigrad import cli
from bigrad.errors import InputError

Plant = Callable[[Callable[[list[str]], int]], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Add the command ``bigrad planted``."""

    def add(run: Callable[[list[str]], int]) -> None:
        monkeypatch.setitem(cli.COMMANDS, "planted", "for this test")
        monkeypatch.setitem(sys.modules, "bigrad.cli.planted", SimpleNamespace(run=run))

    return add


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bigrad 0.")


@pytest.mark.parametrize(("typed", "hint"), [("docter", "bigrad doctor"), ("rhlf", "bigrad rlhf"), ("zzz", "doctor")])
def test_an_unknown_command_names_the_nearest(typed: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([typed]) == 2
    err = capsys.readouterr().err
    assert repr(typed) in err
    assert hint in err


def test_arguments_and_exit_code_pass_through(plant: Plant) -> None:
    plant(len)
    assert cli.main(["planted", "a", "b", "c"]) == 3


def test_an_error_is_one_paragraph(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant(raising(InputError("the value is 3; wanted 4")))
    assert cli.main(["planted"]) == 2
    assert capsys.readouterr().err == "bigrad: the value is 3; wanted 4\n"


def test_a_missing_extra_gets_its_pip_line(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant(raising(ModuleNotFoundError("No module named 'stable_baselines3'", name="stable_baselines3.common")))
    assert cli.main(["planted"]) == 2
    assert 'pip install "bigrad[rl]"' in capsys.readouterr().err


def test_another_missing_module_is_a_bug_and_shows(plant: Plant) -> None:
    plant(raising(ModuleNotFoundError("No module named 'nowhere'", name="nowhere")))
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        cli.main(["planted"])


def test_ctrl_c_exits_with_130(plant: Plant) -> None:
    plant(raising(KeyboardInterrupt()))
    assert cli.main(["planted"]) == 130


def raising(error: BaseException) -> Callable[[list[str]], Any]:
    def run(argv: list[str]) -> None:
        raise error

    return run
