"""Whole runs: what they reach, how their rounds go, and that the seed decides everything."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bigrad.errors import Diverged, InputError, RunError
from bigrad.rlhf import METHODS, PreferenceTrainer, SyntheticTeacher

from . import tiny

pytestmark = pytest.mark.usefixtures("unpainted", "unsynced")

NONE = type(None)
PROMISED: dict[str, type | tuple[type, ...]] = dict.fromkeys(("env", "method", "command"), str) | {
    "seed": int,
    "steps": int,
    "labels": int,
    "true_return": float,
    "random_return": float,
    "ceiling_return": (float, NONE),
    "share": (float, NONE),
    "preference_accuracy": (float, NONE),
    "response_ratio": (float, NONE),
    "wall_seconds": float,
    "versions": dict,
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_leaves_what_is_promised(method: str, tmp_path: Path) -> None:
    env = "Tiny/Buttons-v0" if method == "softdqn" else tiny.POINT
    run = tiny.trainer(env, method=method, seed=4)
    result = run.learn(out=tmp_path / "run", command="as typed")
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written == result.to_json()
    for name, kinds in PROMISED.items():
        assert isinstance(written[name], kinds), name
    facts = {"env": env, "method": method, "seed": 4, "steps": tiny.STEPS, "command": "as typed"}
    assert written.items() >= facts.items()
    assert written["labels"] == (tiny.LABELS if run.settings.learns_reward else 0)
    assert {"python", "torch", "gymnasium", "stable_baselines3", "numpy"} <= written["versions"].keys()
    assert (written["response_ratio"] is not None) == (method in ("sobirl", "pbrl", "hpgd"))
    assert (written["preference_accuracy"] is None) == (not run.settings.learns_reward)
    assert [row["step"] for row in tiny.rounds(run)] == (tiny.ROUNDS if run.settings.learns_reward else [])
    if method != "random":
        assert tiny.updates(run) == tiny.UPDATES
    assert torch.isfinite(tiny.parameters(run)).all()
    assert not list((tmp_path / "run").glob(".*"))


def test_the_same_seed_gives_the_same_run(finished: tuple[PreferenceTrainer, Path]) -> None:
    again, other = tiny.trainer(), tiny.trainer(seed=1)
    for run in (again, other):
        run.learn(command="the command")
    assert torch.equal(tiny.parameters(finished[0]), tiny.parameters(again))
    assert not torch.equal(tiny.parameters(finished[0]), tiny.parameters(other))
    results = [run.result.to_json() | {"wall_seconds": 0} for run in (finished[0], again, other) if run.result]
    assert results[0] == results[1] != results[2]
    assert finished[0].history == again.history


def test_what_else_draws_random_numbers_changes_nothing(finished: tuple[PreferenceTrainer, Path]) -> None:
    run = tiny.trainer()
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    run.learn()
    assert torch.equal(tiny.parameters(finished[0]), tiny.parameters(run))
    after = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    assert torch.equal(after[0], torch.rand(3))
    assert (after[1] == np.random.rand(3)).all()  # noqa: NPY002


def test_switching_the_response_off_changes_the_run(finished: tuple[PreferenceTrainer, Path]) -> None:
    off = tiny.trainer(response_weight=0.0)
    off.learn()
    first, second = (tiny.rounds(run)[1] for run in (finished[0], off))
    assert first["ratio"] > 0.01
    assert second["ratio"] == 0
    # The labels are the same until the reward model has moved: what differs is the response.
    assert first["fresh_loss"] == second["fresh_loss"]
    assert first["loss"] != second["loss"]
    assert not torch.equal(tiny.parameters(finished[0]), tiny.parameters(off))


def test_the_response_is_on_after_the_first_round(finished: tuple[PreferenceTrainer, Path]) -> None:
    run = finished[0]
    assert run.result is not None
    assert run.result.response_share >= 0.5
    assert [row["ratio"] is not None for row in tiny.rounds(run)] == [False, True, True]
    steps = [row["upper_steps"] for row in tiny.rounds(run)]
    assert run.result.response_share == pytest.approx(sum(steps[1:]) / sum(steps))
    ratios = [row["ratio"] for row in tiny.rounds(run)[1:]]
    assert run.result.response_ratio == pytest.approx(np.median(ratios))
    assert run.result.response_agreement == np.median([row["agreement"] for row in tiny.rounds(run)[1:]])


@pytest.mark.parametrize("method", ["sobirl", "drlhf"])
def test_the_policy_rests_before_a_round_and_makes_up_for_it(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny.trainer(method=method, on_policy_steps=15)
    plain, moved = run.agent.train, {}

    def train(gradient_steps: int, batch_size: int) -> None:
        before = tiny.parameters(run)
        plain(gradient_steps, batch_size)
        moved[run.agent.num_timesteps] = not torch.equal(before, tiny.parameters(run))

    monkeypatch.setattr(run.agent, "train", train)
    run.learn()
    resting = {*range(25, 40), *range(45, 60)} if method == "sobirl" else set()
    assert {step for step, has in moved.items() if not has} == resting
    assert tiny.updates(run) == tiny.UPDATES
    assert run.agent.owed == 0


def test_an_update_that_was_interrupted_is_still_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny.trainer()
    run.learn()
    run.agent.owed = 5
    monkeypatch.setattr(run.agent.actor, "action_log_prob", stop)
    with pytest.raises(KeyboardInterrupt):
        run.agent.train(1, 16)
    monkeypatch.undo()
    run.agent.train(1, 16)
    assert tiny.updates(run) == tiny.UPDATES + 6
    assert run.agent.owed == 0


def stop(*arguments: Any, **settings: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:this run of sobirl had no response")
@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 22},  # no room after the warm-up
        {"label_until": 1.0, "upper_until": 1.0},  # the last round is due with the last step
        {"steps": 87, "label_until": 0.9, "on_policy_steps": 500},  # episodes end before and after, not at the end
        {"rounds": 20},  # several rounds an episode
        {"labels": 2},
        {"labels": 3, "first_share": 1.0},
    ],
)
def test_every_round_and_label_finds_its_place(changes: dict[str, Any]) -> None:
    run = tiny.trainer(**changes)
    result = run.learn()
    assert result.labels == run.settings.labels
    assert len(tiny.rounds(run)) == len(run.settings.schedule())
    assert run.agent.owed == 0
    assert tiny.updates(run) == run.settings.steps - 20


class Witness(SyntheticTeacher):
    """Keeps the reward model as it was when labels were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.run: PreferenceTrainer | None = None

    def label(self, left_return: np.ndarray, right_return: np.ndarray) -> np.ndarray:
        assert self.run is not None
        self.seen.append((len(left_return), copy.deepcopy(self.run.reward_model)))
        return super().label(left_return, right_return)


def test_accuracy_is_that_of_the_model_before_it_was_fitted() -> None:
    teacher = Witness()
    run = teacher.run = tiny.trainer(teacher=teacher)
    run.learn()
    pairs, label = run.store.load()
    assert [count for count, _ in teacher.seen] == [8, 6, 6]
    last = slice(14, 20)
    right = []
    for observation, action, wanted in zip(pairs.observation[last], pairs.action[last], label[last], strict=True):
        left_sum, right_sum = teacher.seen[2][1].raw(observation, action).sum(-1).mean(0)
        right += [bool(right_sum > left_sum) == bool(wanted > 0.5)]
    assert tiny.rounds(run)[2]["fresh_accuracy"] == pytest.approx(np.mean(right))
    assert tiny.rounds(run)[0]["fresh_accuracy"] is None


def test_labels_are_the_teachers_and_returns_the_true_ones() -> None:
    run = tiny.trainer(teacher=SyntheticTeacher(float("inf")))
    run.learn()
    pairs, label = run.store.load()
    assert label.tolist() == (pairs.returns[:, 1] > pairs.returns[:, 0]).astype(float).tolist()
    # The reward of a step is less the square of the position that the next step sees.
    seen = -(pairs.observation[:, :, 1:, 0].numpy() ** 2).sum(-1)
    assert (pairs.returns <= seen + 1e-5).all()
    assert (pairs.returns < seen).any()


def test_the_agent_learns_from_the_models_reward_and_not_the_true_one() -> None:
    run = tiny.trainer(method="drlhf")
    run.learn()
    samples = run.buffer.sample(32)
    torch.testing.assert_close(samples.rewards[:, 0], run.reward_model(samples.observations, samples.actions).detach())
    every = run.reward_model(*run.buffer.steps(np.arange(60))).detach()
    assert abs(float(every.mean())) < 1e-4  # the last round came with step 60
    assert abs(float(every.std()) - 1) < 1e-4


@pytest.mark.parametrize("env", ["Fenced", "Double", "Plane"])
def test_other_environments_are_served(env: str) -> None:
    run = tiny.trainer(f"Tiny/{env}-v0")
    assert run.learn().labels == tiny.LABELS
    assert tiny.updates(run) == tiny.UPDATES


def test_a_run_that_never_has_a_whole_episode_in_time_has_no_response() -> None:
    run = tiny.trainer(on_policy_steps=5)
    with pytest.warns(UserWarning, match="had no response term: within 5 steps .* Choose more on_policy_steps"):
        result = run.learn()
    assert result.labels == tiny.LABELS
    assert result.response_ratio is None
    assert result.response_share == 0
    assert not result.response_approximate


def test_the_evaluation_is_reproducible(finished: tuple[PreferenceTrainer, Path]) -> None:
    run = PreferenceTrainer.load(finished[1])
    first, second = run.learn(), run.learn()
    assert finished[0].result is not None
    assert first.true_return == second.true_return == finished[0].result.true_return
    assert first.random_return == finished[0].result.random_return


def test_tensorboard_gets_every_curve_to_the_end(tmp_path: Path) -> None:
    tiny.trainer(steps=70).learn(out=tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = {"rollout/true_return", "preference/loss", "preference/labels", "preference/ratio", "train/critic_loss"}
    assert tags <= set(events.Tags()["scalars"])
    assert events.Scalars("preference/labels")[-1].value == tiny.LABELS
    assert events.Scalars("rollout/true_return")[-1].step == 70


def test_the_number_of_steps_may_be_given_to_learn() -> None:
    run, direct = tiny.trainer(), tiny.trainer(steps=70)
    for trainer, steps in ((run, 70), (direct, None)):
        trainer.learn(steps)
    assert run.settings == direct.settings
    assert run.agent.num_timesteps == 70
    assert len(tiny.rounds(run)) == len(run.settings.schedule())
    with pytest.raises(RunError, match="was started for 70 steps; start a new one for 200"):
        run.learn(200)


def test_a_reward_step_that_is_too_large_ends_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="choose a smaller reward_step"):
        tiny.trainer(reward_step=1e30).learn(out=tmp_path / "run")
    assert PreferenceTrainer.load(tmp_path / "run").store.count == 8


@pytest.mark.parametrize("labels", [0, 1])
def test_learning_from_preferences_needs_labels(labels: int) -> None:
    with pytest.raises(InputError, match=f"labels is {labels}"):
        tiny.trainer(labels=labels)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(InputError, match=r"colour.*Settings lists the names"):
        tiny.trainer(colour="red")


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(InputError, match="device is 'abacus'"):
        tiny.trainer(device="abacus")


def test_repr_says_how_far_it_is(finished: tuple[PreferenceTrainer, Path]) -> None:
    assert repr(finished[0]) == f"PreferenceTrainer({tiny.POINT!r}, method='sobirl', labels=20/20, steps=80/80, seed=0)"
