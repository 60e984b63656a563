"""Which runs a comparison consists of, where they are, and whose folders it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from bigrad.errors import InputError, RunError
from bigrad.rlhf import comparison

from .. import tiny
from . import fabricated

DAMAGED = '{"format": "bigrad comparison 1", "settings": {"env": 3}, "teacher": {}}'
arm, teacher = comparison.Variant.arm, comparison.Variant.teacher


def test_a_method_is_an_arm_and_so_is_a_form_of_it() -> None:
    assert arm("drlhf") == comparison.Variant("drlhf", {"method": "drlhf"})
    assert arm("sobirl:units=8").settings == {"units": 8, "method": "sobirl"}
    form = arm("near:method=sobirl,response_limit=1,segment=7")
    assert form == comparison.Variant("near", {"method": "sobirl", "response_limit": 1.0, "segment": 7})
    assert [type(value) for value in form.settings.values()] == [str, float, int]


def test_teachers_have_names_and_can_be_made() -> None:
    assert teacher("perfect").settings == {"beta": inf}
    assert teacher("noisy").settings == {"beta": 0.05}
    assert teacher("dim:beta=0.5").settings == {"beta": 0.5}
    assert teacher("mistake:mistake=0.3").settings == {"beta": inf, "mistake": 0.3}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda: arm("ppo"), "'ppo' names no method; wanted one of sobirl, drlhf"),
        (lambda: arm("a:segmnt=5"), "'segmnt', which is none of its settings; near it: segment"),
        (lambda: arm("a:method=drlhf,seed=5"), "'seed'"),
        (lambda: arm("a:method=drlhf,segment"), r"'segment' in .* has no value; wanted segment=\.\.\."),
        (lambda: arm("a:method=drlhf,segment=5.5"), "segment is '5.5'; wanted a value like 25"),
        (lambda: arm("../a:method=drlhf"), "begins with no name"),
        (lambda: teacher("kind"), "'kind' names no teacher; wanted one of perfect"),
        (lambda: teacher("a:beta=0"), "beta is 0.0"),
        (lambda: teacher("a:bpref_compat=maybe"), "bpref_compat is 'maybe'; wanted true or false"),
        (lambda: fabricated.runs([]), "arms are missing"),
        (lambda: fabricated.runs(["drlhf", "drlhf:segment=4"]), "arms are drlhf, drlhf; wanted .* none twice"),
        (lambda: fabricated.runs(["drlhf"], seeds=()), "seeds are missing"),
        (lambda: fabricated.runs(["drlhf"], labels=(10, 10)), "labels are 10, 10"),
        (lambda: fabricated.runs(["drlhf"], labels=(1,)), "labels is 1"),
        (lambda: fabricated.runs(["drlhf"], env="Tiny/Piont-v0"), "Tiny/Point-v0"),
    ],
)
def test_a_mistake_is_explained_before_anything_runs(wrong: Callable[[], object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        wrong()


def test_every_combination_is_a_run_and_a_seed_is_finished_before_the_next() -> None:
    arms, teachers = ["drlhf", "near:method=sobirl,response_limit=0.1", "sac"], ["perfect", "noisy"]
    planned = fabricated.runs(arms, teachers=teachers, labels=(10, 20), seeds=(3, 4))
    assert [run.settings.seed for run in planned] == [3] * 9 + [4] * 9
    assert len({run.folder for run in planned}) == 18
    labelled = [run for run in planned if run.arm != "sac"]
    combinations = {(run.arm, run.task.teacher, run.task.labels, run.settings.seed) for run in labelled}
    assert len(combinations) == 2 * 2 * 2 * 2
    assert all(run.settings.labels == run.task.labels for run in labelled)
    assert {run.settings.response_limit for run in planned if run.arm == "near"} == {0.1}
    assert {run.teacher["beta"] for run in labelled if run.task.teacher == "noisy"} == {0.05}


def test_the_true_reward_is_learnt_once_a_seed_whatever_the_labels() -> None:
    one, two = (fabricated.runs(["sac"], labels=labels) for labels in ((10,), (30, 20)))
    assert one == two
    assert [run.name for run in one] == ["Tiny-Point-v0/sac/seed0", "Tiny-Point-v0/sac/seed1"]
    assert one[0].task == comparison.Task(tiny.POINT, None, None)


def test_a_folder_is_kept_for_the_run_that_it_was_made_for(tmp_path: Path) -> None:
    (run,) = fabricated.runs(["drlhf"], seeds=(0,), out=tmp_path)
    run.prepare("first")
    for same in fabricated.runs(["sobirl", "drlhf"], labels=(10, 20), teachers=["perfect", "noisy"], out=tmp_path):
        same.prepare("second")
    assert json.loads((run.folder / "run.json").read_text())["command"] == "first"
    others: list[tuple[dict[str, Any], str]] = [
        ({"units": 17}, r"units=16 \(wanted 17\): choose another --out"),
        ({"teachers": ["perfect:beta=0.5"]}, r"teacher=\{'beta': inf\} \(wanted"),
    ]
    for changes, reason in others:
        (other,) = fabricated.runs(["drlhf"], seeds=(0,), out=tmp_path, **changes)
        with pytest.raises(RunError, match=reason):
            other.prepare("third")


def test_a_setting_younger_than_the_run_had_its_default(tmp_path: Path) -> None:
    (run,) = fabricated.runs(["drlhf"], seeds=(0,), out=tmp_path)
    run.prepare("")
    path = run.folder / "run.json"
    content = json.loads(path.read_text())
    del content["settings"]["ridge"]
    path.write_text(json.dumps(content))
    run.prepare("")
    (other,) = fabricated.runs(["drlhf"], seeds=(0,), out=tmp_path, ridge=0.5)
    with pytest.raises(RunError, match=r"ridge=0.001 \(wanted 0.5\)"):
        other.prepare("")


def test_what_an_earlier_command_finished_is_found(tmp_path: Path) -> None:
    earlier = fabricated.runs(["sobirl", "sac"], teachers=["mistake:bpref_compat=true"], out=tmp_path)
    for run in earlier:
        run.prepare("earlier")
    now = fabricated.runs(["sobirl"], labels=(30,), out=tmp_path)
    assert comparison.others(tmp_path, now) == []
    for run in earlier:
        (run.folder / "result.json").touch()
    found = comparison.others(tmp_path, now)
    assert sorted(found, key=lambda run: run.name) == sorted(earlier, key=lambda run: run.name)
    assert comparison.others(tmp_path, earlier) == []


@pytest.mark.parametrize("content", ["{}", "no json", '{"format": "bigrad comparison 0"}', DAMAGED])
def test_a_foreign_folder_is_refused(content: str, tmp_path: Path) -> None:
    (run,) = fabricated.runs(["drlhf"], seeds=(0,), out=tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json"):
        run.prepare("")


def test_how_far_a_run_is(tmp_path: Path) -> None:
    (run,) = fabricated.runs(["drlhf"], seeds=(0,), out=tmp_path)
    assert (run.step, run.finished) == (0, False)
    run.folder.mkdir(parents=True)
    for text, step in (("17", 17), ("", 0)):
        (run.folder / "step.txt").write_text(text)
        assert run.step == step
    (run.folder / "result.json").write_text("{}")
    assert (run.step, run.finished) == (tiny.STEPS, True)


def test_without_a_choice_every_method_that_serves_the_actions_is_compared() -> None:
    ceilings = {("Pendulum-v1",): {"sac"}, ("bigrad/DiscretePendulum-v1",): {"softdqn"}}
    ceilings[("Pendulum-v1", "bigrad/DiscretePendulum-v1")] = set()
    for envs, served in ceilings.items():
        assert set(comparison.methods_for(envs)) == set(comparison.METHODS) - {"sac", "softdqn"} | served
