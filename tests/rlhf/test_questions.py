"""What is asked and what becomes of the answers: choices, skips, ties, contradictions and the alarm."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigrad.errors import InputError
from bigrad.rlhf import PreferenceTrainer, ReturnScale, SyntheticTeacher, expected_calibration_error, select

from . import tiny

pytestmark = pytest.mark.usefixtures("unpainted", "unsynced")


class Steps:
    """A teacher of the user's own who looks at every step, and skips what it is told to."""

    def __init__(self, skips: list[bool] | None = None) -> None:
        self.seen: list[tuple[np.ndarray, ReturnScale]] = []
        self.skips = skips
        self.rewards: list[np.ndarray] = []

    def label(self, left_return: np.ndarray, right_return: np.ndarray) -> np.ndarray:
        raise AssertionError("asked for labels of returns")

    def label_steps(self, rewards: np.ndarray, scale: ReturnScale) -> np.ndarray:
        self.seen.append((rewards, scale))
        if self.skips is not None and self.skips[len(self.seen) - 1]:
            return np.full(len(rewards), np.nan)
        return (rewards[:, 1, -1] > rewards[:, 0, -1]).astype(float)


def test_a_teacher_may_look_at_every_step() -> None:
    teacher = Steps()
    run = tiny.trainer(teacher=teacher)
    run.learn()
    pairs, label = run.store.load()
    rewards = np.concatenate([shown for shown, _ in teacher.seen])
    assert rewards.shape == (tiny.LABELS, 2, 5)
    np.testing.assert_allclose(rewards.sum(-1), pairs.returns, rtol=1e-6)
    assert label.tolist() == (rewards[:, 1, -1] > rewards[:, 0, -1]).astype(float).tolist()
    assert all(scale.mean < 0 < scale.spread for _, scale in teacher.seen)
    # What such a teacher likes need not be the environment's reward, and is not measured by it.
    assert all(row["true_accuracy"] is None for row in tiny.rounds(run))


def test_skips_are_spent_and_not_learnt_from() -> None:
    teacher = SyntheticTeacher.named("perfect", skip=1.0)
    run = tiny.trainer(teacher=teacher, labels=24)
    result = run.learn()
    pairs, label = run.store.load()
    assert run.store.count == result.labels == 24
    assert 12 < len(label) < 24
    assert torch.isfinite(label).all()
    skipped = sum(count * row["skip_rate"] for row, count in zip(tiny.rounds(run), (10, 7, 7), strict=True))
    assert skipped == pytest.approx(24 - len(label))
    assert any(row["skip_rate"] for row in tiny.rounds(run)[1:])
    for row in tiny.rounds(run)[1:]:
        right = row["fresh_decided"] * row["fresh_accuracy"]
        assert right == pytest.approx(round(right))  # the accuracy is a share of those that were decided
    assert label.tolist() == (pairs.returns[:, 1] > pairs.returns[:, 0]).astype(float).tolist()


def test_a_teacher_who_always_skips_ends_the_run_with_a_reason_and_loses_nothing(tmp_path: Path) -> None:
    run = tiny.trainer(teacher=Steps([True] * 3))
    with (
        pytest.warns(
            UserWarning, match=r"the teacher has skipped all (8|14) of 20 queries on Tiny/Point-v0: until"
        ) as seen,
        pytest.raises(
            InputError, match=r"skipped all 20 of 20 queries on Tiny/Point-v0: .*Choose a teacher who answers"
        ),
    ):
        run.learn(out=tmp_path / "run")
    assert len(seen) == 2
    samples = run.buffer.sample(20)
    assert (samples.rewards == 0).all()  # not the true reward, and not that of a model nobody taught
    again = PreferenceTrainer.load(tmp_path / "run", teacher=Steps())
    assert again.store.count == 20
    assert len(again.store.load()[1]) == 0
    assert again.agent.num_timesteps == 60
    assert (again.buffer.sample(20).rewards == 0).all()


def test_learning_begins_with_the_first_answer() -> None:
    run = tiny.trainer(teacher=Steps([True, False, False]))
    with pytest.warns(UserWarning, match="skipped all 8 of 20"):
        run.learn()
    rows = tiny.rounds(run)
    assert [row["upper_steps"] for row in rows] == [0, 5, 3]
    assert [row["loss"] is None for row in rows] == [True, False, False]
    assert [row["ratio"] is None for row in rows] == [True, True, False]
    assert [row["fresh_accuracy"] is None for row in rows] == [True, True, False]
    assert torch.isfinite(tiny.parameters(run)).all()
    assert len(run.store.load()[1]) == 12
    assert float(run.buffer.sample(50).rewards.std()) > 0.1


def test_labels_that_are_mostly_equal_warn() -> None:
    teacher = SyntheticTeacher.named("equal", equal=5.0)
    with pytest.warns(UserWarning, match=r"100 % of the labels on Tiny/Point-v0 call both segments equal") as seen:
        result = tiny.trainer(teacher=teacher).learn()
    assert len(seen) == 1
    assert result.fresh_accuracy is None


def test_choosing_pairs_begins_once_the_model_has_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []

    def watched(name: str, reward: Any, candidates: Any, labelled: Any, count: int) -> Any:
        asked.append((len(candidates.returns), len(labelled.returns), count))
        return select(name, reward, candidates, labelled, count)

    monkeypatch.setattr("bigrad.rlhf.questions.select", watched)
    run = tiny.trainer(selection="k-centre-disagreement")
    assert run.learn().labels == tiny.LABELS
    assert asked == [(60, 8, 6), (60, 14, 6)]


class Watched(SyntheticTeacher):
    """Keeps the reward model as it was when it was asked."""

    def __init__(self, beta: float) -> None:
        super().__init__(beta)
        self.models: list[Any] = []
        self.run: Any = None

    def label_steps(self, rewards: np.ndarray, scale: ReturnScale) -> np.ndarray:
        self.models.append(copy.deepcopy(self.run.reward_model))
        return super().label_steps(rewards, scale)


def test_what_is_written_down_about_fresh_labels_is_what_the_model_believed() -> None:
    teacher = Watched(math.inf)
    run = teacher.run = tiny.trainer(teacher=teacher)
    run.learn()
    pairs, label = run.store.load()
    row, fresh = tiny.rounds(run)[2], range(14, 20)
    spread, beliefs = [], []
    for place in fresh:
        totals = [teacher.models[2].raw(pairs.observation[place, s], pairs.action[place, s]).sum(-1) for s in (0, 1)]
        chances = torch.sigmoid(totals[1] - totals[0]).detach().double().numpy()
        spread.append(np.std(chances))
        beliefs.append(chances.mean())
    assert row["disagreement"] == pytest.approx(np.mean(spread), rel=1e-4)
    table = np.array(row["reliability"])
    for bin_ in range(10):
        inside = [place for place in range(6) if bin_ <= 10 * beliefs[place] < bin_ + 1]
        expected = [len(inside), sum(beliefs[i] for i in inside), sum(float(label[14 + i]) for i in inside)]
        np.testing.assert_allclose(table[bin_], expected, rtol=1e-5)
    assert row["calibration_error"] == expected_calibration_error(table)


def test_looking_at_the_model_changes_nothing(
    finished: tuple[PreferenceTrainer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigrad.rlhf.loop.watch", lambda *given: None)
    run = tiny.trainer()
    run.learn()
    assert torch.equal(tiny.parameters(run), tiny.parameters(finished[0]))


class Turncoat(SyntheticTeacher):
    """Prefers less from some question on."""

    def __init__(self, after: int) -> None:
        super().__init__(math.inf)
        self.left = after

    def label(self, left_return: np.ndarray, right_return: np.ndarray) -> np.ndarray:
        self.left -= 1
        label = super().label(left_return, right_return)
        return label if self.left >= 0 else 1 - label


QUICK: dict[str, Any] = tiny.SETTINGS | {
    "method": "drlhf",
    "warm_up": 200,
    "steps": 240,
    "rounds": 1,
    "labels": 100,
    "first_share": 0.7,
    "label_until": 0.95,
    "upper_until": 0.95,
    "first_upper_steps": 150,
    "reward_step": 1e-2,
}


def learnt(teacher: SyntheticTeacher, **changes: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the rounds, and what was warned of."""
    run = tiny.trainer(teacher=teacher, **(QUICK | changes))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run.learn()
    return tiny.rounds(run), [str(warning.message) for warning in seen]


def test_an_honest_teacher_raises_no_alarm() -> None:
    rows, seen = learnt(SyntheticTeacher(math.inf))
    assert seen == []
    assert [row["alarm"] for row in rows] == [None, None]
    assert all(row["true_accuracy"] > 0.7 for row in rows)
    assert rows[1]["foreseen"] == rows[1]["fresh_accuracy"] > 0.6
    assert rows[1]["contradictions"] < 5


def test_a_teacher_who_prefers_less_raises_the_alarm() -> None:
    rows, seen = learnt(Turncoat(0))
    assert rows[0]["true_accuracy"] < 0.3
    assert "unlabelled pairs as the true return does" in rows[0]["alarm"]
    assert any("step 200: the learnt reward is not to be trusted" in message for message in seen)


def test_a_teacher_who_changes_its_mind_raises_the_alarm() -> None:
    rows, seen = learnt(Turncoat(1))
    assert rows[0]["alarm"] is None
    assert rows[1]["foreseen"] < 0.4
    assert "of the last labels" in rows[1]["alarm"]
    assert any("step 230: the learnt reward is not to be trusted" in message for message in seen)


def test_a_few_labels_raise_no_alarm() -> None:
    rows, seen = learnt(Turncoat(0), labels=20)
    assert rows[0]["true_accuracy"] < 0.5
    assert rows[1]["foreseen"] is None
    assert [row["alarm"] for row in rows] == [None, None]
    assert seen == []


def test_pairs_that_are_preferred_both_ways_are_counted_and_kept() -> None:
    rows, seen = learnt(SyntheticTeacher(1e-9), labels=500, first_share=1.0, first_upper_steps=5, warm_up=20, steps=60)
    assert rows[0]["contradictions"] > 50
    assert "pairs were preferred both ways" in rows[0]["alarm"]
    assert any("pairs were preferred both ways" in message for message in seen)
    assert rows[0]["labels"] == 500


def test_a_teacher_with_every_trait_comes_back_from_its_folder(tmp_path: Path) -> None:
    teacher = SyntheticTeacher(2.0, discount=0.9, mistake=0.1, equal=0.1, skip=0.1)
    run = tiny.trainer(teacher=teacher)
    run.save(tmp_path / "run")
    again = PreferenceTrainer.load(tmp_path / "run")
    for trainer in (run, again):
        trainer.learn()
    assert torch.equal(tiny.parameters(run), tiny.parameters(again))
    assert repr(again.teacher) == repr(teacher)
