"""A run is on disk whatever happens: it is resumed without losing a label, and a spoilt folder says what is wrong."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bigrad.errors import RunError
from bigrad.rlhf import PreferenceTrainer, SyntheticTeacher, load_tree

from . import tiny
from .environments import Point
from .test_snapshot import same

pytestmark = pytest.mark.usefixtures("unpainted", "unsynced")


def test_a_folder_brings_everything_back(finished: tuple[PreferenceTrainer, Path]) -> None:
    run, again = finished[0], PreferenceTrainer.load(finished[1])
    seen = tiny.observations()
    assert (run.agent.predict(seen, deterministic=True)[0] == again.agent.predict(seen, deterministic=True)[0]).all()
    assert torch.equal(tiny.parameters(run), tiny.parameters(again))
    steps = run.buffer.steps(np.arange(tiny.STEPS))
    assert torch.equal(run.reward_model(*steps), again.reward_model(*steps))
    assert all(map(torch.equal, steps, again.buffer.steps(np.arange(tiny.STEPS))))
    assert again.settings == run.settings
    assert again.history == run.history
    assert again.store.count == tiny.LABELS
    assert repr(again) == repr(run)
    assert repr(again.teacher) == repr(run.teacher)


def test_a_saved_run_goes_on_as_if_it_had_not_been_saved(tmp_path: Path) -> None:
    run = tiny.trainer()
    run.save(tmp_path / "run")
    again = PreferenceTrainer.load(tmp_path / "run")
    for trainer in (run, again):
        trainer.learn()
    assert torch.equal(tiny.parameters(run), tiny.parameters(again))
    assert run.history == again.history


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiny.trainer(teacher=tiny.Stops(2)).learn(out=tmp_path / "run")
    run = PreferenceTrainer.load(tmp_path / "run")
    assert run.agent.owed > 0
    run.save(tmp_path / "again")
    first, second = (load_tree(tmp_path / name / "checkpoint.safetensors") for name in ("run", "again"))
    assert first["labels"] == 8
    assert same(first, second)


def test_rewards_that_the_model_gave_are_kept_to_the_last_bit(tmp_path: Path) -> None:
    run = tiny.trainer()
    run.learn(out=tmp_path / "run")
    assert 0 < np.isfinite(run.buffer.learnt).sum() < run.buffer.learnt.size
    assert PreferenceTrainer.load(tmp_path / "run").buffer.learnt.tobytes() == run.buffer.learnt.tobytes()


def test_an_episode_that_was_cut_short_ends_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, calls = Point.step, iter(range(45))
    monkeypatch.setattr(Point, "step", lambda *given: step(*given) if next(calls, None) is not None else ctrl_c())
    with pytest.raises(KeyboardInterrupt):
        tiny.trainer().learn(out=tmp_path / "run")
    monkeypatch.undo()
    run = PreferenceTrainer.load(tmp_path / "run")
    run.learn()
    starts = run.buffer.segment_starts(3)
    assert {42, 45} <= set(starts)
    assert not {43, 44} & set(starts)
    assert run.buffer.next_steps(np.array([44]))[1].tolist() == [1]  # nothing ended there by itself


def ctrl_c() -> Any:
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:this run of sobirl had no response")
def test_saving_again_adds_what_is_new(tmp_path: Path) -> None:
    run = tiny.trainer(teacher=tiny.Stops(2))
    with pytest.raises(KeyboardInterrupt):
        run.learn()
    run.save(tmp_path / "run")
    run.save(tmp_path / "run")
    assert PreferenceTrainer.load(tmp_path / "run").store.count == 8
    run.teacher = SyntheticTeacher()
    run.learn()
    run.save(tmp_path / "run")
    assert PreferenceTrainer.load(tmp_path / "run").store.count == tiny.LABELS
    other = tiny.trainer(seed=1, steps=30)
    other.learn()
    with pytest.raises(RunError, match="another run's labels: choose another folder"):
        other.save(tmp_path / "run")


def test_the_networks_are_there_for_others(finished: tuple[PreferenceTrainer, Path]) -> None:
    run, folder = finished
    for name, network in (("policy", run.agent.policy), ("reward_model", run.reward_model)):
        found = load_file(folder / f"{name}.safetensors")
        assert found.keys() == network.state_dict().keys()
        assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())
        json.loads((folder / f"{name}.json").read_text())


def test_no_file_of_a_run_is_a_pickle_or_half_written(finished: tuple[PreferenceTrainer, Path]) -> None:
    names = {path.name for path in finished[1].iterdir() if not path.name.startswith("labels.sqlite-")}
    assert names == {
        *("config.yaml", "checkpoint.safetensors", "labels.sqlite", "history.json", "result.json", "curves.png"),
        *("policy.safetensors", "policy.json", "reward_model.safetensors", "reward_model.json", "tensorboard"),
    }


# Where Ctrl-C is pressed: each spoils one method, from its n-th call on.
PLACES: dict[str, tuple[Callable[[PreferenceTrainer], Any], str, int]] = {
    "warming up": (lambda run: Point, "step", 10),
    "acting": (lambda run: Point, "step", 50),
    "updating": (lambda run: run.agent.actor, "action_log_prob", 15),
    "asking": (lambda run: run.teacher, "label", 2),
    "storing labels": (lambda run: run.store, "add", 2),
    "taking upper steps": (lambda run: run.optimizer, "step", 7),
    "ending a round": (lambda run: run.reward_model, "standardise", 2),
    "saving": (lambda run: run, "save", 3),
}


@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_leaves_a_run_that_is_completed_later(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny.trainer()
    owner, name, allowed = PLACES[place]
    plain, calls = getattr(owner(run), name), iter(range(allowed))

    def interrupted(*arguments: Any, **settings: Any) -> Any:
        if next(calls, None) is None:
            monkeypatch.undo()
            raise KeyboardInterrupt
        return plain(*arguments, **settings)

    folder = tmp_path / "run"
    if name != "add":
        monkeypatch.setattr(owner(run), name, interrupted)
    else:  # the store is the folder's from the start of learning on
        run.save(folder)
        run = PreferenceTrainer.load(folder)
        plain = run.store.add
        monkeypatch.setattr(run.store, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.learn(out=folder)
    assert not list(folder.glob(".*"))
    again = PreferenceTrainer.load(folder)
    assert 0 < again.agent.num_timesteps < tiny.STEPS
    assert again.agent.num_timesteps == run.agent.num_timesteps
    result = again.learn(out=folder)
    assert result.labels == tiny.LABELS
    assert result.steps == tiny.STEPS
    assert [row["labels"] for row in tiny.rounds(again)] == [8, 14, 20]
    assert again.agent.owed == 0
    assert (folder / "result.json").exists()


def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_killed_run_keeps_its_labels_and_repeats_its_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are stored, and the process dies before the next checkpoint."""
    run, folder = tiny.trainer(), tmp_path / "run"
    standardise, calls = run.reward_model.standardise, iter(range(1))

    def killed(*steps: torch.Tensor) -> None:
        if next(calls, None) is None:
            monkeypatch.setattr(os, "fsync", full)
            raise KeyboardInterrupt
        standardise(*steps)

    monkeypatch.setattr(run.reward_model, "standardise", killed)
    with pytest.raises(RunError, match="No space left") as failure:
        run.learn(out=folder)
    assert isinstance(failure.value.__context__.__context__, KeyboardInterrupt)  # type: ignore[union-attr]
    monkeypatch.undo()
    again = PreferenceTrainer.load(folder)
    assert again.agent.num_timesteps == 20
    assert again.store.count == 14
    kept = again.store.load()[1].tolist()
    assert again.learn(out=folder).labels == tiny.LABELS
    assert again.store.load()[1].tolist()[:14] == kept
    assert [row["labels"] for row in tiny.rounds(again)] == [8, 14, 20]


@pytest.mark.parametrize("call", [8, 9, 12])  # some files of the second checkpoint
def test_a_disk_that_fills_up_leaves_the_last_good_state(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = os.fsync, iter(range(call - 1))
    monkeypatch.setattr(os, "fsync", lambda file: full() if next(calls, None) is None else sync(file))
    with pytest.raises(RunError, match=r"could not be written .*No space left.*continue with --resume"):
        tiny.trainer(steps=40, label_until=1.0).learn(out=tmp_path / "run")
    monkeypatch.undo()
    assert not list((tmp_path / "run").glob(".*"))
    again = PreferenceTrainer.load(tmp_path / "run")
    assert again.agent.num_timesteps == (0 if call == 8 else 20)
    assert again.rounds_done == len(tiny.rounds(again)) == (0 if call == 8 else 1)
    assert again.learn(out=tmp_path / "run").labels == tiny.LABELS


def test_a_resumed_run_does_not_see_the_same_starts_again(tmp_path: Path) -> None:
    run = tiny.trainer(teacher=tiny.Stops(1))
    with pytest.raises(KeyboardInterrupt):
        run.learn(out=tmp_path / "run")
    again = PreferenceTrainer.load(tmp_path / "run")
    again.learn(out=tmp_path / "run")
    starts = again.buffer.observations[::10, 0]
    assert len(np.unique(starts, axis=0)) == len(starts) == 8


def test_a_finished_run_is_only_measured_again(folder: Path) -> None:
    before = json.loads((folder / "result.json").read_text())
    run = PreferenceTrainer.load(folder)
    result = run.learn(out=folder, command="the command").to_json()
    assert result | {"wall_seconds": 0} == before | {"wall_seconds": 0}


def test_a_folder_that_holds_a_run_is_not_overwritten(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.glob("*.*") if "sqlite" not in path.name}
    stopped = tiny.trainer(teacher=tiny.Stops(2))
    with pytest.raises(KeyboardInterrupt):
        stopped.learn()
    for run in (tiny.trainer(), tiny.trainer(method="sac"), stopped):
        with pytest.raises(RunError, match=r"holds a run already: continue it with .*--resume"):
            run.learn(out=folder)
    assert {path: path.read_bytes() for path in before} == before
    assert PreferenceTrainer.load(folder).store.count == tiny.LABELS


class Own:
    """A teacher of the user's own, who may not be there."""

    def __init__(self, there: bool) -> None:
        self.there = there

    def label(self, left_return: np.ndarray, right_return: np.ndarray) -> np.ndarray:
        if not self.there:
            raise KeyboardInterrupt
        return (right_return > left_return).astype(float)


def test_a_teacher_of_ones_own_is_brought_along_and_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        tiny.trainer(teacher=Own(False)).learn(out=folder)
    alone = PreferenceTrainer.load(folder)
    assert alone.agent.predict(tiny.observations())[0].shape == (50, 1)
    with pytest.raises(RunError, match=r"PreferenceTrainer\.load\(folder, teacher=\.\.\.\)"):
        alone.learn(out=folder)
    assert PreferenceTrainer.load(folder, teacher=Own(True)).learn(out=folder).labels == tiny.LABELS


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"file/run cannot be made"):
        tiny.trainer().learn(out=tmp_path / "file" / "run")
