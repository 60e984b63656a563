"""What runs left, as curves, shares and pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigrad.errors import RunError
from bigrad.rlhf import comparison

from .. import tiny
from . import fabricated

HISTORY: list[dict[str, Any]] = [
    {"step": 10, "episode_return": -8.0},
    {"step": 20, "episode_return": -6.0},
    {"step": 20, "labels": 4, "loss": 1.0},
    {"step": 30, "episode_return": -5.0},
    {"step": 40, "episode_return": -3.0},
    {"step": 40, "labels": 10, "loss": 1.0},
    {"step": 60, "labels": 10, "loss": 1.0},
    {"step": 80, "episode_return": 0.0},
]
TASK = comparison.Task(tiny.POINT, "perfect", 10)


def rows(*histories: list[dict[str, Any]]) -> list[comparison.Outcome]:
    planned = fabricated.runs(["drlhf"], seeds=range(len(histories)))
    return [
        fabricated.with_history(fabricated.finished(run, 0.0), history)
        for run, history in zip(planned, histories, strict=True)
    ]


def test_against_steps_by_hand() -> None:
    grid, curves = comparison.against_steps(rows(HISTORY, HISTORY[1:]), points=8)
    assert grid.tolist() == [20, 30, 40, 50, 60, 70, 80]  # at step 10 the second run has had no episode
    assert curves.tolist() == [[-6, -5, -3, -3, -3, -3, 0]] * 2
    _, coarse = comparison.against_steps(rows([{"step": s, "episode_return": s} for s in range(1, 81)]), points=2)
    assert coarse.tolist() == [[38.5, 78.5]]  # a window is a twentieth of the run: four steps


def test_against_labels_by_hand() -> None:
    labels, curves = comparison.against_labels(rows(HISTORY))
    assert labels.tolist() == [4, 10]
    assert curves.tolist() == [[-4.0, 0.0]]  # the episodes at 30 and 40; the one at 80
    other = [{**row, "labels": 6} if row.get("labels") == 4 else row for row in HISTORY]
    assert comparison.against_labels(rows(HISTORY, other))[0].tolist() == [10]
    assert comparison.against_labels(rows([]))[1].shape == (1, 0)


def test_the_area_under_the_curve_weighs_episodes_with_their_steps() -> None:
    (row,) = rows(HISTORY)
    assert row.training_return == pytest.approx((10 * (-8 - 6 - 5 - 3) + 40 * 0) / 80)
    assert rows([])[0].training_return is None


def test_pairs_share_a_seed() -> None:
    planned = fabricated.runs(["sobirl", "drlhf"], seeds=range(4))
    found = fabricated.outcomes(planned, sobirl=[1, 2, 3, 4], drlhf=[5, 6, 7])
    found.replace(comparison.Outcome(planned[2], None, (), "lost"))  # sobirl's second
    assert planned[2].settings.seed == 1
    pairs = found.pairs("sobirl", "drlhf", TASK)
    assert [[row.number("true_return") for row in pair] for pair in pairs] == [[1, 5], [3, 7]]
    assert [row.run.settings.seed for row in found.of("sobirl", TASK)] == [0, 2, 3]
    assert [found.rows[place].status for place in (0, 2, 7)] == ["finished", "failed", "open"]


def test_the_arm_that_sees_the_true_reward_is_in_every_task_and_is_the_ceiling_where_none_is_shipped() -> None:
    planned = fabricated.runs(["drlhf", "sac"], labels=(10, 20))
    found = fabricated.outcomes(planned, drlhf=[-6.0, -4.0], sac=[-3.0, -1.0])
    assert [task.labels for task in found.tasks] == [10, 20]
    assert [len(found.of("sac", task)) for task in found.tasks] == [2, 2]
    scale = found.scale(tiny.POINT)
    assert scale is not None
    assert (scale.random_return, scale.ceiling_return) == (-10.0, -2.0)
    assert [found.share(row) for row in found.of("drlhf", found.tasks[1])] == [0.5, 0.75]
    alone = fabricated.outcomes(fabricated.runs(["drlhf"]), drlhf=[-6.0])
    assert alone.scale(tiny.POINT) is None
    assert fabricated.outcomes(fabricated.runs(["sac"]), sac=[-11.0]).scale(tiny.POINT) is None


def test_a_shipped_ceiling_comes_first() -> None:
    found = fabricated.outcomes(fabricated.runs(["sac"], env="Pendulum-v1"), sac=[-1.0])
    scale = found.scale("Pendulum-v1")
    assert scale is not None
    assert scale.ceiling_return != -1.0


def test_an_outcome_is_read_from_its_folder(tmp_path: Path) -> None:
    (run,) = fabricated.runs(["drlhf"], seeds=(0,), out=tmp_path)
    assert comparison.Outcome.read(run).status == "open"
    assert comparison.Outcome.read(run, "lost").error == "lost"
    run.folder.mkdir(parents=True)
    (run.folder / "history.json").write_text(json.dumps(HISTORY))
    (run.folder / "result.json").write_text(json.dumps({"true_return": -3}))
    found = comparison.Outcome.read(run, "its picture could not be drawn")
    assert (found.status, found.number("true_return"), found.error) == ("finished", -3.0, None)
    np.testing.assert_array_equal(found.history, HISTORY)
    for content in ("{}", "[]", '{"true_return": null}', "no json"):
        (run.folder / "result.json").write_text(content)
        with pytest.raises(RunError, match=r"result\.json"):
            comparison.Outcome.read(run)
