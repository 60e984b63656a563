"""What a run reached."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .ceilings import Ceiling, ceiling_of
from .evaluation import true_returns
from .upper_level import true_accuracy

if TYPE_CHECKING:
    from .trainer import PreferenceTrainer

_PACKAGES = ("bigrad", "torch", "gymnasium", "stable_baselines3", "numpy", "mujoco")


@dataclass(frozen=True)
class Result:
    """The record that a run leaves as ``result.json``.

    Attributes:
        env, method, seed, steps, labels: the run.
        true_return: mean true return of the evaluation's episodes, with deviation ``true_return_std``.
        random_return, ceiling_return: the scale's ends, ``None`` where no ceiling was measured.
        share: how far ``true_return`` is on the way from random to the ceiling.
        preference_accuracy: share of the policy's last pairs that the reward model ranks as their true returns do.
        fresh_accuracy: the same over all labels, each before the reward model was fitted to it.
        response_ratio: norm of the response term, as it was used, over that of the direct term, median of upper steps.
        response_ratio_estimated: the same before the response term was limited.
        response_share: share of the upper steps that had a response term.
        response_agreement: cosine between the response terms of two halves of the episodes, median over rounds.
        response_approximate: whether something learnt enters the response term.
        response_age: updates between the policy that drew the response's episodes and the one that is differentiated.
        expected_loss, fresh_loss: mean loss of pairs before any fit, as the ensemble expects it and as labels show it.
        calibration_error: mean distance between believed and found shares of preferences, before each fit.
        disagreement: mean deviation between the members' beliefs, before each fit.
        tie_rate: share of the queries whose two true returns are equal.
        skip_rate: share of the queries that were not answered.
        alarms: rounds in which learnt and true reward, or labels, seemed to part ways.
        episodes: of the evaluation.
        wall_seconds: of learning and evaluation.
        versions, hardware, command: what made it.
    """

    env: str
    method: str
    seed: int
    steps: int
    labels: int
    true_return: float
    true_return_std: float
    random_return: float | None
    ceiling_return: float | None
    share: float | None
    preference_accuracy: float | None
    fresh_accuracy: float | None
    response_ratio: float | None
    response_ratio_estimated: float | None
    response_share: float
    response_agreement: float | None
    response_approximate: bool
    response_age: int
    expected_loss: float | None
    fresh_loss: float | None
    calibration_error: float | None
    disagreement: float | None
    tie_rate: float | None
    skip_rate: float | None
    alarms: int
    episodes: int
    wall_seconds: float
    versions: dict[str, str]
    hardware: str
    command: str

    @classmethod
    def of(cls, trainer: PreferenceTrainer, evaluation: np.ndarray, command: str) -> Result:
        """Of a run that is over, from the true returns of its evaluation."""
        chosen = trainer.settings
        scale = ceiling_of(chosen.env)
        if scale is None:
            random_return = float(true_returns(chosen.env, None, chosen.episodes).mean())
        else:
            random_return = scale.random_return
        rounds = [row for row in trainer.history if "loss" in row]
        upper = sum(row["upper_steps"] for row in rounds)
        answered = [row for row in rounds if row["ratio"] is not None]

        def over(name: str, statistic: Any) -> float | None:
            values = [row[name] for row in rounds if row.get(name) is not None]
            return float(statistic(values)) if values else None

        final = float(evaluation.mean())
        if not chosen.learns_reward and scale is None:
            scale = None if final <= random_return else Ceiling(random_return, final)
        return cls(
            env=chosen.env,
            method=chosen.method,
            seed=chosen.seed,
            steps=trainer.agent.num_timesteps,
            labels=trainer.store.count,
            true_return=final,
            true_return_std=float(evaluation.std()),
            random_return=random_return,
            ceiling_return=None if scale is None else scale.ceiling_return,
            share=None if scale is None else scale.share(final),
            preference_accuracy=_preference_accuracy(trainer),
            fresh_accuracy=over("fresh_accuracy", np.mean),
            response_ratio=_median_of_steps(answered, "ratio"),
            response_ratio_estimated=_median_of_steps(answered, "estimated_ratio"),
            response_share=sum(row["upper_steps"] for row in answered) / upper if upper else 0.0,
            response_agreement=over("agreement", np.median),
            response_approximate=bool(answered),
            response_age=max((row["response_age"] for row in answered), default=0),
            expected_loss=over("expected_loss", np.mean),
            fresh_loss=over("fresh_loss", np.mean),
            calibration_error=over("calibration_error", np.mean),
            disagreement=over("disagreement", np.mean),
            tie_rate=over("tie_rate", np.mean),
            skip_rate=over("skip_rate", np.mean),
            alarms=sum(bool(row.get("alarm")) for row in rounds),
            episodes=chosen.episodes,
            wall_seconds=trainer.seconds,
            versions=versions(),
            hardware=hardware(),
            command=command,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain numbers and strings."""
        return asdict(self)

    def sentence(self) -> str:
        """What a user wants to know."""
        reached = f"{self.method} reached a true return of {self.true_return:.1f} on {self.env}"
        if self.share is None:
            return (
                f"{reached} with {self.labels} labels. No ceiling was measured for it: "
                f"bigrad rlhf --env {self.env} with --method sac (softdqn for discrete actions) measures one."
            )
        return (
            f"{reached} with {self.labels} labels: {100 * self.share:.0f} % of the way from random "
            f"({self.random_return:.1f}) to the true-reward ceiling ({self.ceiling_return:.1f})."
        )

    def rows(self) -> list[tuple[str, str]]:
        """What the table in the terminal shows."""

        def shown(value: float | None, form: str = ".3g") -> str:
            return "-" if value is None else format(value, form)

        return [
            ("environment", self.env),
            ("method", self.method),
            ("steps / labels", f"{self.steps} / {self.labels}"),
            ("true return", f"{self.true_return:.1f} +- {self.true_return_std:.1f} ({self.episodes} episodes)"),
            ("random / ceiling", f"{shown(self.random_return, '.1f')} / {shown(self.ceiling_return, '.1f')}"),
            ("share of the way", shown(self.share)),
            ("preference accuracy", f"{shown(self.preference_accuracy)} (before the fit {shown(self.fresh_accuracy)})"),
            ("response / direct", f"{shown(self.response_ratio)} on {100 * self.response_share:.0f} % of upper steps"),
            ("ties / skips among queries", f"{shown(self.tie_rate)} / {shown(self.skip_rate)}"),
            ("calibration error / alarms", f"{shown(self.calibration_error)} / {self.alarms}"),
            ("wall seconds", f"{self.wall_seconds:.0f}"),
        ]


def versions() -> dict[str, str]:
    """Of python and of the packages that decide what a run does."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """The processor and how many of its cores this process may use."""
    import os

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def _preference_accuracy(trainer: PreferenceTrainer) -> float | None:
    """On pairs of the policy's last steps that no one has labelled."""
    if not trainer.settings.learns_reward:
        return None
    random = np.random.default_rng(trainer.settings.seed)
    return true_accuracy(trainer.reward_model, trainer.buffer, 1000, trainer.settings.segment, random)


def _median_of_steps(rounds: list[dict[str, Any]], name: str) -> float | None:
    """The median over upper steps, each round's median counted once a step."""
    ratios = [np.full(row["upper_steps"], row[name]) for row in rounds]
    return float(np.median(np.concatenate(ratios))) if ratios else None
