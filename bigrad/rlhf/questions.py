"""Asking the teacher: which pairs, what is answered, and how much of it the reward model knew beforehand."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError, RunError
from .calibration import contradictions, expected_calibration_error, reliability
from .people import LabelQueue, People
from .preferences import Pairs
from .selection import CANDIDATES, disagreement, select
from .teacher import StepTeacher, SyntheticTeacher, checked_labels
from .upper_level import accuracy, draw_places, pairs_at, preference_logits, preference_loss, true_accuracy

if TYPE_CHECKING:
    from .trainer import PreferenceTrainer

ALARM_LABELS = 25  # fewer tell nothing about a reward model


def ask(trainer: PreferenceTrainer, recent: int, fitted: bool) -> dict[str, Any]:
    """Draw pairs, have them labelled and store the labels; what is to be written down about them.

    Args:
        trainer: whose teacher is asked.
        recent: steps since the last round: one segment of each pair is of these.
        fitted: whether the reward model has learnt from labels yet.

    Raises:
        InputError: there is no segment to show, or the teacher answers something else than labels.
        RunError: the teacher is not there, or the labels cannot be stored.
    """
    chosen = trainer.settings
    people = trainer.teacher if isinstance(trainer.teacher, People) else None
    # What people have answered since the last round; the model has not been fitted to it yet.
    news = held_out(trainer, *_answered(people.of(trainer.store)), fitted) if people else {}
    wanted = chosen.labels_by(trainer.rounds_done) - trainer.store.asked
    if wanted <= 0:
        return news
    selection = chosen.selection if fitted else "uniform"  # a model that knows nothing cannot choose
    drawn = wanted if selection == "uniform" else CANDIDATES * wanted
    reach = people.reach if people else None
    places = draw_places(trainer.buffer, drawn, recent, chosen.segment, trainer.random, reach)
    if places is None and people:
        return news  # a run that was resumed has no pictures yet
    if places is None:
        raise InputError(
            f"no episode of {chosen.env} has lasted {chosen.segment} steps yet: choose a smaller segment or a "
            "longer warm_up"
        )
    if drawn > wanted:
        candidates, known = pairs_at(trainer.buffer, places), trainer.store.load()[0]
        places = places[select(selection, trainer.reward_model, candidates, known, wanted).numpy()]
    pairs = pairs_at(trainer.buffer, places)
    if people:
        people.ask(trainer.store, trainer.buffer, places, pairs, trainer.agent.num_timesteps)
        return news
    label = _answers(trainer, places, pairs)
    trainer.store.add(pairs, label, trainer.agent.num_timesteps)
    tie_rate = float((pairs.returns[:, 0] == pairs.returns[:, 1]).mean())
    row = {"tie_rate": tie_rate, "skip_rate": float(np.isnan(label).mean())}
    if trainer.rounds_done == 0:
        warn_of_ties(tie_rate, label, chosen.env)
    return row | held_out(trainer, pairs, label, fitted)


def held_out(trainer: PreferenceTrainer, pairs: Pairs, label: np.ndarray, fitted: bool) -> dict[str, Any]:
    """What the reward model makes of labels that it was not fitted to yet.

    ``fresh_loss`` and ``fresh_accuracy`` (over ``fresh_decided`` labels) of its beliefs, ``disagreement`` of its
    members, and how well calibrated it is: ``reliability`` and ``calibration_error``.
    """
    decided = ~np.isnan(label)
    if not fitted or not decided.any():
        return {"fresh_loss": None, "fresh_accuracy": None}
    with torch.no_grad():
        logits = preference_logits(trainer.reward_model, pairs)[:, torch.as_tensor(decided)]
        answer = torch.as_tensor(label[decided], dtype=logits.dtype, device=logits.device)
        belief = torch.sigmoid(logits)
        loss = preference_loss(logits, answer).mean()
    table = reliability(belief.mean(0).double().cpu().numpy(), label[decided])
    return {
        "fresh_loss": float(loss),
        "fresh_accuracy": accuracy(trainer.reward_model, pairs, label),
        "fresh_decided": int((label[decided] != 0.5).sum()),
        "disagreement": float(disagreement(belief).mean()),
        "reliability": table.tolist(),
        "calibration_error": expected_calibration_error(table),
    }


def watch(trainer: PreferenceTrainer, pairs: Pairs, label: np.ndarray, row: dict[str, Any]) -> None:
    """Write down, and warn, where the learnt reward and what it should be part ways.

    ``foreseen`` is the share of the last ``ALARM_LABELS`` labels or more that the reward model got right before it was
    fitted to them. ``true_accuracy`` compares learnt and true returns of pairs that nobody labelled, for a
    :class:`SyntheticTeacher` only: what a person likes is not the environment's reward. ``contradictions`` counts the
    pairs that were preferred both ways. Where one of the shares is a coin's, or a tenth of the labels contradict each
    other, ``alarm`` says so.

    Args:
        trainer: whose reward model has been fitted.
        pairs: all pairs it was fitted to.
        label: their labels ``(pairs,)``.
        row: of this round; the history holds the earlier ones.
    """
    chosen, alarms = trainer.settings, []
    row["foreseen"] = _foreseen([*trainer.history, row])
    if row["foreseen"] is not None and row["foreseen"] <= 0.5:
        alarms.append(f"it foresaw {100 * row['foreseen']:.0f} % of the last labels")
    row["true_accuracy"] = None
    if isinstance(trainer.teacher, SyntheticTeacher):
        # A generator of its own: what is only looked at must not change the run.
        random, buffer = np.random.default_rng([chosen.seed, trainer.rounds_done]), trainer.buffer
        row["true_accuracy"] = true_accuracy(
            trainer.reward_model, buffer, buffer.count // 4 + 1, chosen.segment, random
        )
        if row["true_accuracy"] is not None and row["true_accuracy"] < 0.5 and len(label) >= ALARM_LABELS:
            alarms.append(f"it ranks {100 * row['true_accuracy']:.0f} % of unlabelled pairs as the true return does")
    row["contradictions"] = contradictions(pairs, label)
    if row["contradictions"] > len(label) / 10 and len(label) >= ALARM_LABELS:
        alarms.append(f"{row['contradictions']} pairs were preferred both ways")
    row["alarm"] = "; ".join(alarms) or None
    if alarms:
        warnings.warn(
            f"step {row['step']}: the learnt reward is not to be trusted: {row['alarm']}. The policy may be where no "
            "label reaches, or labels contradict each other (all are kept): ask for more of them",
            UserWarning,
            stacklevel=2,
        )


def _foreseen(history: list[dict[str, Any]]) -> float | None:
    right, decided = 0.0, 0
    for row in reversed(history):
        if row.get("fresh_accuracy") is not None:
            right += row["fresh_decided"] * row["fresh_accuracy"]
            decided += row["fresh_decided"]
        if decided >= ALARM_LABELS:
            return right / decided
    return None


def warn_of_ties(tie_rate: float, label: np.ndarray, env: str) -> None:
    """Say so where preferences cannot carry information."""
    decided = label[~np.isnan(label)]
    equal = float((decided == 0.5).mean()) if len(decided) else 0.0
    if tie_rate > 0.5:
        found = (
            f"{100 * tie_rate:.0f} % of the queries on {env} are ties: a reward that hardly varies (1 for every "
            "step) cannot be learnt from preferences; choose another environment or longer segments"
        )
    elif equal > 0.5:
        found = (
            f"{100 * equal:.0f} % of the labels on {env} call both segments equal, which says little about the reward: "
            "choose longer segments, or a teacher who tells more of them apart"
        )
    else:
        return
    warnings.warn(found, UserWarning, stacklevel=2)


def nothing_to_fit(trainer: PreferenceTrainer) -> None:
    """Say that every question was skipped so far.

    Raises:
        InputError: there are no labels left to ask for.
    """
    asked, budget = trainer.store.count, trainer.settings.labels
    if trainer.store.waiting:
        return  # people take their time
    found = f"the teacher has skipped all {asked} of {budget} queries on {trainer.settings.env}"
    if asked >= budget:
        raise InputError(
            f"{found}: there is nothing to learn a reward from. Choose a teacher who answers, longer segments or more "
            "labels"
        )
    warnings.warn(f"{found}: until it answers one, the policy has no reward", UserWarning, stacklevel=2)


def warn_of_no_response(trainer: PreferenceTrainer) -> None:
    """Say so where the policy's answer to the reward could not be estimated in any round of a run."""
    chosen, later = trainer.settings, [row for row in trainer.history if row.get("upper_steps")][1:]
    if not trainer.method.answers or not later or any(row["ratio"] is not None for row in later):
        return
    warnings.warn(
        f"this run of {chosen.method} had no response term: within {chosen.on_policy_steps} steps before each round "
        f"no episode of {chosen.env} was whole and held a segment of {chosen.segment} steps. Choose more "
        "on_policy_steps or shorter segments",
        UserWarning,
        stacklevel=2,
    )


def _answered(queue: LabelQueue) -> tuple[Pairs, np.ndarray]:
    pairs, label = queue.collect()
    return pairs, label.double().numpy()


def _answers(trainer: PreferenceTrainer, places: np.ndarray, pairs: Pairs) -> np.ndarray:
    teacher = trainer.teacher
    assert not isinstance(teacher, People)
    if teacher is None:
        raise RunError(
            "this run was labelled by a teacher that is not saved with it: PreferenceTrainer.load(folder, "
            "teacher=...) brings it back"
        )
    if isinstance(teacher, StepTeacher):
        scale = trainer.buffer.return_scale(trainer.settings.segment)
        given = teacher.label_steps(trainer.buffer.true_rewards(places), scale)
    else:
        given = teacher.label(pairs.returns[:, 0], pairs.returns[:, 1])
    return checked_labels(given, len(places))
