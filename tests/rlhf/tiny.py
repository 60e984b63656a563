"""Runs that take half a second."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigrad.rlhf import PreferenceTrainer, SyntheticTeacher

POINT = "Tiny/Point-v0"
LABELS, STEPS, UPDATES = 20, 80, 60
ROUNDS = [20, 40, 60]  # when they are due
SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "warm_up": 20,
    "rounds": 2,
    "label_until": 0.75,
    "on_policy_steps": 20,
    "segment": 5,
    "first_upper_steps": 5,
    "upper_steps": 3,
    "units": 16,
    "width": 8,
    "batch": 16,
    "episodes": 4,
    "transitions": 64,
    "opponents": 16,
    "draws": 2,
    "labels": LABELS,
}


def trainer(env: str = POINT, **changes: Any) -> PreferenceTrainer:
    return PreferenceTrainer(env, **{**SETTINGS, **changes})


def parameters(run: PreferenceTrainer) -> torch.Tensor:
    """Everything that is learnt."""
    networks = (run.agent.policy, run.reward_model)
    return torch.cat([tensor.detach().flatten() for network in networks for tensor in network.parameters()])


def updates(run: PreferenceTrainer) -> int:
    """How often the policy was updated."""
    network = getattr(run.agent, "actor", run.agent.policy)
    return int(network.optimizer.state_dict()["state"][0]["step"])


def rounds(run: PreferenceTrainer) -> list[dict[str, Any]]:
    return [row for row in run.history if "loss" in row]


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def observations() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)


class Stops(SyntheticTeacher):
    """Ctrl-C is pressed when it is asked for the ``at``-th time."""

    def __init__(self, at: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__()
        self.countdown: Iterator[int] = iter(range(at - 1))
        self.error = error

    def label(self, left_return: np.ndarray, right_return: np.ndarray) -> np.ndarray:
        if next(self.countdown, None) is None:
            raise self.error
        return super().label(left_return, right_return)
