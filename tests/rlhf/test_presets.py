"""Presets are settings that fit this version, and an Atari game runs from one to the last sentence."""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from bigrad.cli import main
from bigrad.errors import InputError, MissingPackage
from bigrad.rlhf import PreferenceTrainer, Settings, preset_names, read_preset

from . import tiny

pytestmark = pytest.mark.usefixtures("unsynced", "unpainted")

ATARI = "ALE/BeamRider-v5"


@pytest.mark.parametrize("name", preset_names())
def test_a_shipped_preset_makes_a_run_and_says_what_it_reaches(name: str) -> None:
    chosen = Settings(**read_preset(name))
    assert chosen.learns_reward
    assert chosen.schedule()
    head = resources.files("bigrad.rlhf").joinpath("presets", f"{name}.yaml").read_text().split("env:")[0]
    assert all(line.startswith("# ") for line in head.splitlines())
    assert "Not run" in head or "benchmarks/results" in head


def written(folder: Path, **changes: object) -> str:
    """A preset of one's own."""
    path = folder / "own.yaml"
    path.write_text("\n".join(f"{name}: {value}" for name, value in ({**tiny.SETTINGS, **changes}).items()))
    return str(path)


def test_a_preset_is_followed_and_options_override_it(tmp_path: Path) -> None:
    file = written(tmp_path, env=tiny.POINT, temperature=0.3, labels=14)
    folder = tmp_path / "run"
    assert main(["rlhf", "--preset", file, "--labels", "12", "--no-progress", "--out", str(folder)]) == 0
    chosen = PreferenceTrainer.load(folder).settings
    assert chosen == Settings(**{**tiny.SETTINGS, "env": tiny.POINT, "temperature": 0.3, "labels": 12})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("labels: [1", "own.yaml is no YAML"),
        ("- 3", "own.yaml holds list; wanted settings, one a line"),
        ("colour: red", "own.yaml: .*colour.*Settings lists the names"),
        ("labels: many", "own.yaml: labels is 'many'; wanted a whole number"),
        ("lr: 3e-4", "own.yaml: lr is '3e-4'; wanted a number"),
        ("!!python/object/apply:os.abort []", "own.yaml is no YAML"),
    ],
)
def test_a_preset_that_is_none_says_so(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(InputError, match=reason):
        read_preset(str(tmp_path / "own.yaml"))


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no preset 'cheetah'; wanted one of beamrider, discrete-"):
        read_preset("cheetah")


def test_without_ale_py_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(
        MissingPackage, match=r'ale_py is needed for the environment ALE/.*pip install "bigrad\[atari\]"'
    ):
        tiny.trainer(ATARI)


@pytest.mark.filterwarnings("ignore:.*are ties")
def test_an_atari_game_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ale_py = pytest.importorskip("ale_py", reason="Atari games need the extra atari")
    pytest.importorskip("cv2", reason="Atari games need the extra atari")
    gymnasium.register_envs(ale_py)
    usual = gymnasium.spec(ATARI).kwargs
    # The same game in episodes of 80 of the agent's steps: 4 frames each, and up to 30 before the first.
    gymnasium.register("ALE/BriefRider-v5", "ale_py.env:AtariEnv", kwargs={**usual, "max_num_frames_per_episode": 350})
    small = {"steps": 300, "warm_up": 100, "rounds": 2, "labels": 6, "on_policy_steps": 100, "update_every": 5}
    file = written(
        tmp_path, **small, env="ALE/BriefRider-v5", episodes=2, first_upper_steps=2, members=2, upper_steps=1
    )
    folder = tmp_path / "run"
    assert main(["rlhf", f"--preset={file}", "--signed-rewards", "--no-progress", "--out", str(folder)]) == 0
    assert "sobirl reached a true return of" in " ".join(capsys.readouterr().out.split())
    run = PreferenceTrainer.load(folder)
    assert run.buffer.observations.shape == (300, 1, 4, 84, 84)
    assert run.buffer.observations[:300].any()
    assert set(np.unique(run.buffer.rewards)) <= {0.0, 1.0}
    result = json.loads((folder / "result.json").read_text())
    assert result["labels"] == 6
    assert result["true_return"] % 44 == 0  # what BeamRider gives for a hit
    told = [row["episode_return"] for row in run.history if "episode_return" in row]
    assert all(total % 44 == 0 for total in told)
    assert len(told) >= 3
