"""Several environments side by side: their steps are told apart, and a run on them is one that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from bigrad.errors import InputError
from bigrad.rlhf import People, PreferenceTrainer, RelabelledReplayBuffer, SyntheticTeacher

from . import tiny
from .environments import Point
from .test_resume import assert_the_same, step_on

pytestmark = pytest.mark.usefixtures("unsynced", "unpainted")

ENVS = 3


class Records:
    """A buffer of several environments, and a plain list of what each of them was told."""

    def __init__(self, rows: int, steps: int, seed: int) -> None:
        box = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.buffer = RelabelledReplayBuffer(rows * ENVS, box, spaces.Box(-1, 1, (1,), np.float32), "cpu", ENVS)
        random = np.random.default_rng(seed)
        self.done = random.random((steps, ENVS)) < 0.2
        self.cut = self.done & (random.random((steps, ENVS)) < 0.5)
        self.reward = random.normal(size=(steps, ENVS)).astype(np.float32)
        for t in range(steps):
            here = self.name(t, np.arange(ENVS))[:, None].astype(np.float32)
            infos: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(cut)} for cut in self.cut[t]]
            self.buffer.add(here, here + 1000, np.tanh(here), self.reward[t], self.done[t], infos)
        self.steps, self.oldest = steps, max(0, steps - rows)

    @staticmethod
    def name(t: Any, env: Any) -> Any:
        """A step's observation."""
        return 10 * t + env

    def names(self, places: np.ndarray) -> list[int]:
        return self.buffer.steps(places)[0][..., 0].long().tolist()


CASES = [(mode, rows, steps) for mode in ("zero", "absorb", "exclude") for rows, steps in ((30, 23), (30, 30), (9, 40))]


@pytest.mark.parametrize(("mode", "rows", "steps"), CASES)
def test_segments_are_those_of_a_search_in_each(mode: str, rows: int, steps: int) -> None:
    record, length = Records(rows, steps, rows), 4
    record.buffer.after_end = mode
    expected = []
    for t in range(record.oldest, steps):  # oldest first, the environments side by side
        for env in range(ENVS):
            held = [t]
            while len(held) < length and not record.done[held[-1], env] and held[-1] + 1 < steps:
                held.append(held[-1] + 1)
            ended = record.done[held[-1], env] and not record.cut[held[-1], env]
            if len(held) == length or (ended and mode != "exclude"):
                expected.append((env, held))
    starts = record.buffer.segment_starts(length)
    assert record.names(starts) == [record.name(held[0], env) for env, held in expected]
    places = record.buffer.segment(starts, length)
    for row, (env, held) in zip(places, expected, strict=True):
        missing = length - len(held)
        kept = held + [held[-1]] * missing if mode == "absorb" else held
        assert record.names(row[: len(kept)]) == [record.name(t, env) for t in kept]
        assert (row[len(kept) :] == -1).all()
        total = sum(record.reward[t, env] for t in kept)
        assert record.buffer.true_rewards(row).sum() == pytest.approx(total, abs=1e-5)
        assert record.buffer.ages(row[:1]).item() == steps - 1 - held[0]


@pytest.mark.parametrize(("rows", "steps"), [(30, 23), (30, 30), (9, 40)])
@pytest.mark.parametrize("recent", [3, 21, 1000])
def test_episodes_are_those_of_a_search_in_each(rows: int, steps: int, recent: int) -> None:
    record = Records(rows, steps, rows)
    expected = []
    for env in range(ENVS):
        first = 0
        for end in np.flatnonzero(record.done[:, env]):
            begins = first > record.oldest or (first == 0 and steps < rows)
            if begins and first >= steps - recent // ENVS:
                expected.append((end, [record.name(t, env) for t in range(first, end + 1)]))
            first = int(end) + 1
    found = [record.names(places) for places in record.buffer.recent_episodes(recent)]
    assert found == [names for _, names in sorted(expected, key=lambda episode: episode[0])]


def test_what_follows_belongs_to_the_same_environment() -> None:
    record = Records(9, 40, 0)
    places = np.arange(record.buffer.count)
    assert len(places) == 27
    following, goes_on = record.buffer.next_steps(places)
    assert (following[:, 0].long() - 1000).tolist() == record.names(places)
    times, envs = np.divmod(np.array(record.names(places)), 10)
    assert goes_on.tolist() == (~record.done[times, envs] | record.cut[times, envs]).astype(float).tolist()
    samples = record.buffer.sample(50)
    assert torch.equal(samples.next_observations, samples.observations + 1000)
    numbers = samples.observations[:, 0].long().numpy()
    assert (samples.rewards[:, 0].numpy() == record.reward[numbers // 10, numbers % 10]).all()


SETTINGS: dict[str, Any] = {"envs": 4, "on_policy_steps": 40, "episodes": 2}


def test_a_run_is_what_each_environment_tells() -> None:
    run = tiny.trainer("Tiny/Fenced-v0", **SETTINGS)
    assert run.learn().steps == tiny.STEPS
    buffer = run.buffer
    assert buffer.rewards.shape == (20, 4)
    told: list[tuple[int, float]] = []
    for env in range(4):
        total = 0.0
        for t in range(20):
            total += float(buffer.rewards[t, env])
            if buffer.dones[t, env]:
                told.append((4 * (t + 1), total))
                total = 0.0
    rows = [(row["step"], row["episode_return"]) for row in run.history if "episode_return" in row]
    assert [step for step, _ in sorted(rows)] == [step for step, _ in sorted(told)]
    assert sorted(total for _, total in rows) == pytest.approx(sorted(total for _, total in told))
    assert [row["labels"] for row in tiny.rounds(run)] == [8, 14, 20]
    assert run.agent.updates == tiny.UPDATES


def test_updates_come_as_often_as_asked() -> None:
    run = tiny.trainer(envs=2, update_every=4, episodes=2)
    run.learn()
    assert run.agent.updates == 2 * len(range(24, tiny.STEPS + 1, 8))


@pytest.mark.parametrize("share", [0.2, 0.66])
def test_stopped_by_ctrl_c_and_resumed(share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = tiny.trainer(**SETTINGS)
    straight.learn(out=tmp_path / "straight", command="the command")
    with monkeypatch.context() as patch:
        step_on(patch, int(share * tiny.STEPS) - 2)  # the second of four
        with pytest.raises(KeyboardInterrupt):
            tiny.trainer(**SETTINGS).learn(out=tmp_path / "stopped", command="the command")
    resumed = PreferenceTrainer.load(tmp_path / "stopped")
    assert resumed.agent.num_timesteps == int(share * tiny.STEPS) // 4 * 4
    resumed.learn(out=tmp_path / "stopped", command="the command")
    assert_the_same(straight, resumed)


def test_people_and_processes_do_not_go_together() -> None:
    with pytest.raises(InputError, match="env_processes is true, and what people compare is filmed"):
        tiny.trainer("Pendulum-v1", teacher=People(), env_processes=True)


def test_clips_show_the_environment_of_their_steps() -> None:
    people = People()
    run = tiny.trainer("Pendulum-v1", teacher=people, envs=2, episodes=1, segment=3, steps=40)
    run.agent.learn(12)
    shown: list[tuple[int, list[int]]] = []
    for number, film in enumerate(people.films):
        film.clip = lambda ages, number=number: shown.append((number, list(ages))) or b""  # type: ignore[method-assign]
    places = np.array([[[0, 2, 4], [1, 3, 5]], [[7, 9, 11], [6, 8, -1]]])
    pairs = run.store.load()[0]
    with pytest.raises(ValueError, match="zip"):
        people.ask(run.store, run.buffer, places, pairs, 12)
    assert shown == [(0, [5, 4, 3]), (1, [5, 4, 3]), (1, [2, 1, 0]), (0, [2, 1, -1])]


def test_an_environment_that_raises_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny.trainer(envs=2, method="drlhf")
    plain, calls = Point.step, iter(range(45))
    monkeypatch.setattr(Point, "step", lambda *given: plain(*given) if next(calls, None) is not None else 1 // 0)
    with pytest.raises(InputError, match=r"raised ZeroDivisionError in a step .*mend it, and resume the run"):
        run.learn(out=tmp_path / "run")
    monkeypatch.undo()
    again = PreferenceTrainer.load(tmp_path / "run")
    assert again.agent.num_timesteps == 44
    assert again.store.count == 14
    assert again.learn(out=tmp_path / "run").labels == tiny.LABELS
    assert again.buffer.dones[21].tolist() == again.buffer.timeouts[21].tolist() == [1, 1]


def test_processes_of_their_own_give_the_same_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))  # the processes import the environment
    name, runs = "tests.rlhf.registered:Tiny/Raises-v0", []
    for processes in (False, True):
        run = tiny.trainer(name, method="drlhf", env_processes=processes)
        with pytest.raises(InputError, match=r"raised .*in a step .*mend it, and resume the run"):
            run.learn(out=tmp_path / str(processes))
        assert run.agent.env is not None
        run.agent.env.close()
        assert run.store.count == 8
        assert run.agent.num_timesteps == 22
        runs.append(run)
    assert torch.equal(*(tiny.parameters(run) for run in runs))
    assert runs[0].history == runs[1].history
    assert "ZeroDivisionError" in capfd.readouterr().err  # the process has told


def test_signs_are_learnt_from_and_true_returns_written_down() -> None:
    run = tiny.trainer(envs=2, signed_rewards=True, episodes=2, teacher=SyntheticTeacher(beta=1.0))
    with pytest.warns(UserWarning, match="are ties"):
        result = run.learn()
    assert set(np.unique(run.buffer.rewards)) <= {-1.0, 0.0}
    told = [row["episode_return"] for row in run.history if "episode_return" in row]
    assert any(total != round(total) for total in told)
    assert result.true_return != round(result.true_return)
