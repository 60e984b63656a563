"""stable-baselines3's callbacks and logger go with a preference run as they do with any agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.logger import Logger, make_output_format

from bigrad.rlhf import PreferenceTrainer, SoftActorCritic

from . import tiny

pytestmark = pytest.mark.usefixtures("unpainted", "unsynced")


class Watches(BaseCallback):
    """Counts what it is called for, and stops at a step."""

    def __init__(self, last: int = -1) -> None:
        super().__init__()
        self.last, self.began, self.ended, self.steps = last, 0, 0, list[int]()

    def _on_training_start(self) -> None:
        self.began += 1

    def _on_step(self) -> bool:
        assert self.locals["rewards"].shape == (1,)
        self.steps.append(self.num_timesteps)
        return self.num_timesteps != self.last

    def _on_training_end(self) -> None:
        self.ended += 1


def test_a_callback_is_called_at_every_step_and_changes_nothing(finished: tuple[PreferenceTrainer, Path]) -> None:
    run, watching, seen = tiny.trainer(), Watches(), list[int]()

    def function(local: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.append(local["self"].num_timesteps)
        return True

    run.learn(callback=[watching, function])
    assert watching.steps == seen == list(range(1, tiny.STEPS + 1))
    assert watching.began == watching.ended == 1
    assert torch.equal(tiny.parameters(finished[0]), tiny.parameters(run))


def test_a_callback_alone_and_as_a_function(finished: tuple[PreferenceTrainer, Path]) -> None:
    seen = list[int]()
    run = tiny.trainer()
    run.learn(callback=lambda local, _: seen.append(local["self"].num_timesteps) is None)
    assert len(seen) == tiny.STEPS
    assert torch.equal(tiny.parameters(finished[0]), tiny.parameters(run))


@pytest.mark.parametrize("last", [5, 33, 52, tiny.STEPS])
def test_who_returns_false_ends_the_run_and_it_goes_on_as_if_nothing_had_been(
    last: int, finished: tuple[PreferenceTrainer, Path], tmp_path: Path
) -> None:
    run, watching = tiny.trainer(), Watches(last)
    result = run.learn(callback=watching, out=tmp_path / "run")
    assert result.steps == run.agent.num_timesteps == watching.steps[-1] == last
    assert run.buffer.count == last
    assert watching.ended == 1
    again = PreferenceTrainer.load(tmp_path / "run")
    assert again.learn().steps == tiny.STEPS
    assert torch.equal(tiny.parameters(finished[0]), tiny.parameters(again))


def test_their_own_callbacks_serve(tmp_path: Path) -> None:
    run = tiny.trainer()
    watching = EvalCallback(
        gymnasium.make(tiny.POINT), n_eval_episodes=2, eval_freq=20, log_path=str(tmp_path), verbose=0, warn=False
    )
    run.learn(callback=[watching, StopTrainingOnMaxEpisodes(5)])
    episodes = [row for row in run.history if "episode_return" in row]
    assert len(episodes) == 5
    assert run.agent.num_timesteps < tiny.STEPS
    with np.load(tmp_path / "evaluations.npz") as found:
        assert found["timesteps"].tolist() == list(range(20, run.agent.num_timesteps + 1, 20))
        assert np.isfinite(found["results"]).all()


def test_an_agents_own_logger_stays(tmp_path: Path) -> None:
    run = tiny.trainer()
    logger = Logger(str(tmp_path), [make_output_format("csv", str(tmp_path))])
    run.agent.set_logger(logger)
    run.learn(out=tmp_path / "run")
    assert run.agent.logger is logger
    assert "preference/loss" in (tmp_path / "progress.csv").read_text()
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_each_folder_has_its_own_curves(tmp_path: Path) -> None:
    run = tiny.trainer()
    run.learn(callback=Watches(40), out=tmp_path / "run")
    PreferenceTrainer.load(tmp_path / "run").learn(out=tmp_path / "run")
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 2


def test_an_agent_is_saved_and_loaded_as_any_other(tmp_path: Path) -> None:
    agent, seen = tiny.trainer(temperature=0.3).agent, tiny.observations()
    agent.save(tmp_path / "agent.zip")
    again = SoftActorCritic.load(tmp_path / "agent.zip")
    assert again.temperature == agent.temperature == 0.3
    assert (again.predict(seen, deterministic=True)[0] == agent.predict(seen, deterministic=True)[0]).all()
