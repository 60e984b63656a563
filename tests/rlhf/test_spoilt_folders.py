"""A folder that was spoilt, or is no run at all, is refused with a reason, and nothing in it is executed."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bigrad.errors import BigradError, InputError, RunError
from bigrad.rlhf import PreferenceTrainer, load_tree, save_tree

from .test_snapshot import Bomb


def change(name: str, edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = yaml.safe_load((folder / name).read_text())
        (folder / name).write_text(yaml.safe_dump(edit(content)))

    return spoil


def state(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = load_tree(folder / "checkpoint.safetensors")
        save_tree(folder / "checkpoint.safetensors", edit(content) or content)

    return spoil


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("in the way")


def cut(folder: Path) -> None:
    path = folder / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_labels(folder: Path) -> None:
    for path in folder.glob("labels.sqlite*"):
        path.unlink()


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, r"config\.yaml cannot be read: .*Is this the folder of a run"),
    "empty": (empty, "Is this the folder of a run"),
    "a file": (a_file, "Is this the folder of a run"),
    "foreign": (write("config.yaml", b'{"model_type": "bert"}'), "not of a run of this version of bigrad"),
    "config cut": (write("config.yaml", b'{"format": '), r"config\.yaml is damaged"),
    "config binary": (write("config.yaml", b"\xff\xfe\x00"), r"config\.yaml is damaged"),
    "config a list": (write("config.yaml", b"[]"), "not of a run of this version of bigrad"),
    "later format": (change("config.yaml", lambda c: c | {"format": "bigrad run 99"}), "bigrad run 1"),
    "no settings": (change("config.yaml", lambda c: {"format": c["format"]}), "settings are not those"),
    "odd teacher": (change("config.yaml", lambda c: c | {"teacher": {"beta": []}}), "does not fit"),
    "other settings": (
        change("config.yaml", lambda c: c | {"settings": c["settings"] | {"units": 17}}),
        r"checkpoint\.safetensors does not fit its configuration",
    ),
    "other environment": (
        change("config.yaml", lambda c: c | {"settings": c["settings"] | {"env": "Tiny/Plane-v0"}}),
        r"checkpoint\.safetensors does not fit its configuration",
    ),
    "no checkpoint": (lambda folder: (folder / "checkpoint.safetensors").unlink(), "does not exist"),
    "checkpoint cut": (cut, r"checkpoint\.safetensors is damaged"),
    "checkpoint text": (write("checkpoint.safetensors", b"none"), r"checkpoint\.safetensors is damaged"),
    "checkpoint a list": (state(lambda s: [1, 2]), "does not fit its configuration"),
    "no optimizer": (state(lambda s: s.pop("optimizer") and None), "does not fit its configuration"),
    "odd generator": (state(lambda s: s["random"].update({"global": {"torch": 3}})), "does not fit"),
    "odd history": (state(lambda s: s.update(history=3)), "does not fit"),
    "labels text": (write("labels.sqlite", b"no labels" * 500), r"labels\.sqlite is no store of preferences"),
    "labels lost": (lose_labels, r"labels\.sqlite holds 0 labels and the checkpoint was made with 20"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_folder_is_refused_with_a_reason(how: str, folder: Path) -> None:
    spoil, reason = SPOILT[how]
    if "labels" in how:
        for path in folder.glob("labels.sqlite-*"):
            path.unlink()
    spoil(folder)
    with pytest.raises(RunError, match=reason):
        PreferenceTrainer.load(folder)


def test_a_run_on_an_environment_that_is_gone_names_it(folder: Path) -> None:
    change("config.yaml", lambda c: c | {"settings": c["settings"] | {"env": "Tiny/Pont-v0"}})(folder)
    with pytest.raises(InputError, match="Tiny/Point-v0"):
        PreferenceTrainer.load(folder)


@pytest.mark.parametrize("name", ["config.yaml", "checkpoint.safetensors", "labels.sqlite"])
def test_nothing_in_a_folder_is_executed(name: str, folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("labels.sqlite-*"):
        path.unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "bomb")))
    with pytest.raises(BigradError):
        PreferenceTrainer.load(folder)
    assert not (tmp_path / "bomb").exists()


def test_a_history_that_people_read_is_not_needed(folder: Path, finished: tuple[PreferenceTrainer, Path]) -> None:
    assert json.loads((folder / "history.json").read_text()) == finished[0].history
    (folder / "history.json").write_text("spoilt")
    assert PreferenceTrainer.load(folder).history == finished[0].history


def test_a_configuration_in_json_is_still_read(folder: Path, finished: tuple[PreferenceTrainer, Path]) -> None:
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content["settings"]["reward_decay"] = 1e-5  # YAML would take JSON's 1e-05 for a word
    (folder / "config.yaml").unlink()
    (folder / "config.json").write_text(json.dumps(content, indent=2))
    run = PreferenceTrainer.load(folder)
    assert run.settings == replace(finished[0].settings, reward_decay=1e-5)
    run.save(folder)
    (folder / "config.json").unlink()
    assert PreferenceTrainer.load(folder).settings == run.settings
