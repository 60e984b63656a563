"""``bigrad rlhf`` from the first option to the last sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from bigrad.cli import main
from bigrad.rlhf import (
    AFTER_END,
    AGENTS,
    LABEL_SCHEDULES,
    METHODS,
    SELECTIONS,
    UNSERVED,
    PreferenceTrainer,
    SyntheticTeacher,
)

from . import tiny
from .environments import Point
from .test_policy_film import LIT

STEPS, LABELS = 1_012, 12
RUN = ["rlhf", "--env", tiny.POINT, "--steps", str(STEPS), "--labels", str(LABELS), "--segment", "5"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The command sets the number of threads for its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def refusal(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """What is said of a mistake: one paragraph, and exit code 2."""
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("bigrad: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.filterwarnings("ignore:this run of sobirl had no response")
def test_a_run_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a run"
    argv = [*RUN, "--out", str(folder), "--seed", "3", "--beta", "inf", "--temperature", "0.2"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    out = " ".join(printed.out.split())
    assert "No film of the policy: Tiny/Point-v0 renders no pictures" in printed.err
    result = json.loads((folder / "result.json").read_text())
    assert "sobirl reached a true return of" in out
    assert f"{folder}: result.json, curves.png, policy.safetensors, reward_model.safetensors, tensorboard" in out
    assert "steps/s" in out
    assert all((folder / name.strip(",")).exists() for name in out.split("a run: ")[1].split())
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    facts = {"env": tiny.POINT, "method": "sobirl", "seed": 3, "steps": STEPS, "labels": LABELS, "episodes": 100}
    assert result.items() >= facts.items()
    assert result["command"] == f"bigrad {' '.join(argv)}".replace(str(folder), f"'{folder}'")
    run = PreferenceTrainer.load(folder)
    assert (run.settings.segment, run.settings.temperature) == (5, 0.2)
    assert repr(run.teacher) == "SyntheticTeacher(beta=inf, seed=None)"


@pytest.mark.filterwarnings("ignore:this run of sobirl had no response")
@pytest.mark.usefixtures("unpainted")
def test_a_run_leaves_a_film_of_its_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    argv = [*RUN, "--env", LIT, "--out", str(folder), "--no-progress"]
    assert main(argv) == 0
    assert f"{folder}: policy.webp, result.json" in capsys.readouterr().out
    assert (folder / "policy.webp").read_bytes().startswith(b"RIFF")


@pytest.mark.usefixtures("unpainted")
def test_ctrl_c_says_how_to_go_on_and_resume_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = Point.step, iter(range(STEPS - 5))

    def interrupted(self: Point, action: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return step(self, action)

    folder = tmp_path / "a run"
    monkeypatch.setattr(Point, "step", interrupted)
    assert main([*RUN, "--method", "drlhf", "--out", str(folder), "--no-progress"]) == 130
    monkeypatch.undo()
    printed = capsys.readouterr()
    assert printed.err == f"\nStopped. Continue with: bigrad rlhf --resume '{folder}'\n"
    assert printed.out == ""
    assert not (folder / "result.json").exists()
    assert main(["rlhf", "--resume", str(folder), "--no-progress"]) == 0
    assert "drlhf reached a true return of" in capsys.readouterr().out
    result = json.loads((folder / "result.json").read_text())
    assert (result["steps"], result["labels"], result["method"]) == (STEPS, LABELS, "drlhf")


def test_without_out_each_run_gets_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Point, "step", lambda self, action: (_ for _ in ()).throw(KeyboardInterrupt))
    assert [main([*RUN, "--method", "sac"]) for _ in range(2)] == [130, 130]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "Tiny-Point-v0-sac-seed0",
        "Tiny-Point-v0-sac-seed0-2",
    }


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--env", "Tiny/Piont-v0"], "the nearest names are Tiny/Point-v0"),
        (["--env", "Tiny/Organ-v0"], "which are not served"),
        (["--env", "Tiny/NeedsMuJoCo-v0"], 'pip install "bigrad[rl]"'),
        (["--labels", "1"], "labels is 1"),
        (["--steps", "1000"], "steps is 1000, warm_up 1000"),
        (["--discount", "1"], "discount is 1.0"),
        (["--beta", "0"], "beta is 0.0"),
        (["--device", "abacus"], "device is 'abacus'"),
        (["--segment", "11", "--no-progress"], "choose a smaller segment"),
    ],
)
def test_a_mistake_is_explained(
    options: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in refusal(capsys, [*RUN, "--out", str(tmp_path / "run"), *options])


def test_a_folder_that_holds_a_run_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume" in refusal(capsys, [*RUN, "--out", str(folder)])
    assert PreferenceTrainer.load(folder).settings.steps == tiny.STEPS


@pytest.mark.parametrize("content", [None, "{}", '{"model_type": "bert"}', "no json"])
def test_resuming_a_foreign_folder_is_refused(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    assert str(tmp_path / "config.yaml") in refusal(capsys, ["rlhf", "--resume", str(tmp_path)])


@pytest.mark.parametrize("package", ["tyro", "stable_baselines3"])
def test_without_the_extras_the_command_names_the_pip_line(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("bigrad.rlhf", "bigrad.cli.rlhf"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"tyro": "cli", "stable_baselines3": "rl"}[package]
    assert f"{package} is needed for" in (said := refusal(capsys, RUN))
    assert f'pip install "bigrad[{extra}]"' in said


@pytest.mark.parametrize("wrong", [["--colour", "red"], ["--steps", "many"], ["--method", "ppo"]])
def test_an_unknown_option_ends_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["rlhf", *wrong])
    assert ending.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_help_tells_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["rlhf", "--help"])
    assert ending.value.code == 0
    out = capsys.readouterr().out
    promised = ("env", "method", "steps", "labels", "seed", "out", "resume")
    options = {field.name for field in fields(sys.modules["bigrad.cli.rlhf"].Options)}
    assert options >= set(promised)
    for name in options:
        assert f"--{name.replace('_', '-')}" in out
    assert all(method in out for method in ("sobirl", "drlhf", "sac"))


def test_the_choices_are_the_library_s_own() -> None:
    hints = get_type_hints(sys.modules["bigrad.cli.rlhf"].Options)
    known = {
        "method": {*METHODS, *UNSERVED},
        "agent": AGENTS,
        "teacher": SyntheticTeacher.KINDS,
        "selection": SELECTIONS,
    }
    known |= {"label_schedule": LABEL_SCHEDULES, "after_end": AFTER_END}
    assert {name: set(get_args(hints[name])) for name in known} == {name: set(names) for name, names in known.items()}
