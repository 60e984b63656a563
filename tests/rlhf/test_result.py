"""What a user sees in the end: a sentence, a table, a bar while it runs, a picture; and the scale it is measured on."""

from __future__ import annotations

import json
import math
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import bigrad
from bigrad.errors import MissingPackage
from bigrad.rlhf import Ceiling, PreferenceTrainer, Result, ceiling_of, print_result

from . import tiny

CEILINGS: dict[str, Any] = json.loads((Path(bigrad.__file__).parent / "rlhf" / "ceilings.json").read_text())


@pytest.fixture
def result(finished: tuple[PreferenceTrainer, Path]) -> Result:
    assert finished[0].result is not None
    return finished[0].result


def test_share_is_how_far_it_is_from_random_to_the_ceiling() -> None:
    scale = Ceiling(random_return=-1200.0, ceiling_return=-200.0)
    assert [scale.share(value) for value in (-1200, -700, -200, -100)] == [0, 0.5, 1, 1.1]
    assert Ceiling(0.0, 10.0).share(-1.0) == pytest.approx(-0.1)


def test_a_ceiling_is_shipped_for_the_demo() -> None:
    scale = ceiling_of("Pendulum-v1")
    assert scale is not None
    assert -1400 < scale.random_return < -1000
    assert -180 < scale.ceiling_return < -110
    assert ceiling_of("Tiny/Point-v0") is None


@pytest.mark.parametrize("env", CEILINGS)
def test_every_ceiling_says_how_it_was_made(env: str) -> None:
    entry = CEILINGS[env]
    assert math.isfinite(entry["random_return"])
    assert entry["random_return"] < entry["ceiling_return"] < math.inf
    assert len(entry["seeds"]) == len(set(entry["seeds"])) == len(entry["returns"]) >= 5
    assert entry["ceiling_return"] == pytest.approx(sum(entry["returns"]) / len(entry["returns"]))
    assert entry["episodes"] >= 100
    assert entry["steps"] > 0
    assert env in entry["command"]
    assert {"python", "torch", "gymnasium", "stable_baselines3", "numpy"} <= entry["versions"].keys()
    assert ceiling_of(env) == Ceiling(entry["random_return"], entry["ceiling_return"])


def test_a_run_is_measured_on_the_shipped_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny.trainer("Pendulum-v1", method="sac", steps=40, episodes=2)
    found = run.learn()
    scale = ceiling_of("Pendulum-v1")
    assert scale is not None
    assert (found.random_return, found.ceiling_return) == (scale.random_return, scale.ceiling_return)
    assert found.share == scale.share(found.true_return)


def test_without_a_ceiling_sac_measures_one_and_others_have_no_share(result: Result) -> None:
    assert result.share is None
    assert result.ceiling_return is None
    found = tiny.trainer(method="sac").learn()
    assert found.true_return > found.random_return
    assert (found.ceiling_return, found.share) == (found.true_return, 1)


def test_the_true_return_is_that_of_whole_episodes_one_after_the_other() -> None:
    """They run side by side and end at different steps: what follows the end of one does not count."""
    run = tiny.trainer("Tiny/Fenced-v0", method="sac", steps=20, episodes=20)
    found, env = run.learn(), gymnasium.make("Tiny/Fenced-v0")
    returns, lengths = [], set()
    for place in range(run.settings.episodes):
        observation, _ = env.reset(seed=10_000 + place)
        total, steps, over = 0.0, 0, False
        while not over:
            observation, reward, ended, cut, _ = env.step(run.agent.predict(observation, deterministic=True)[0])
            total, steps, over = total + float(reward), steps + 1, ended or cut
        returns.append(total)
        lengths.add(steps)
    assert len(lengths) > 1
    assert found.true_return == pytest.approx(np.mean(returns), rel=1e-5)
    assert found.true_return_std == pytest.approx(np.std(returns), rel=1e-5)


def test_the_sentence_says_what_was_reached(result: Result) -> None:
    scaled = replace(
        result, env="Pendulum-v1", true_return=-250.0, random_return=-1200.0, ceiling_return=-200.0, share=0.95
    )
    assert scaled.sentence() == (
        "sobirl reached a true return of -250.0 on Pendulum-v1 with 20 labels: 95 % of the way from random (-1200.0) "
        "to the true-reward ceiling (-200.0)."
    )
    assert (
        "bigrad rlhf --env Tiny/Point-v0 with --method sac (softdqn for discrete actions) measures one"
        in result.sentence()
    )


def test_the_table_and_the_sentence_are_printed(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    print_result(result)
    shown = " ".join(capsys.readouterr().out.split())
    assert result.sentence() in shown
    for name, value in result.rows():
        assert name in shown
        assert value.split()[0] in shown
    assert "ties / skips among queries │ 0 / 0" in shown


@pytest.mark.usefixtures("unpainted")
def test_a_progress_bar_shows_how_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    tiny.trainer().learn(progress_bar=True)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{tiny.STEPS}/{tiny.STEPS}" in shown
    for word in (" steps/s", f"labels {tiny.LABELS}", "accuracy ", "true return -"):
        assert word in shown


@pytest.mark.parametrize("show", ["learn", "print_result"])
def test_without_rich_the_pip_line_is_named(show: str, result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny.trainer()
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(MissingPackage, match=r'rich is needed .*pip install "bigrad\[cli\]"'):
        run.learn(progress_bar=True) if show == "learn" else print_result(result)


def test_the_picture_is_a_png_of_a_sensible_size(finished: tuple[PreferenceTrainer, Path]) -> None:
    picture = (finished[1] / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert 800 <= width <= 2000
    assert 500 <= height <= 1500
    assert 20_000 < len(picture) < 500_000


def test_without_matplotlib_the_pip_line_is_named_and_the_result_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "result.json").unlink()
    (folder / "curves.png").unlink()
    run = PreferenceTrainer.load(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackage, match=r'matplotlib is needed for curves\.png .*pip install "bigrad\[plot\]"'):
        run.learn(out=folder)
    assert json.loads((folder / "result.json").read_text())["labels"] == tiny.LABELS
    assert not (folder / "curves.png").exists()
