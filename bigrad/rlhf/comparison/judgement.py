"""The statistics of a comparison: each arm, and each arm against each other, task by task and over all tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .aggregates import FEWEST, Estimate, aggregate, difference, improvement
from .outcome import Outcome, Outcomes
from .plan import Task

MEASURES = (  # of a result, beside the return
    "preference_accuracy",
    "fresh_accuracy",
    "response_ratio",
    "response_agreement",
    "wall_seconds",
)


@dataclass(frozen=True)
class Standing:
    """One arm in one task, or over all.

    Attributes:
        arm: its name.
        seeds: of its finished runs.
        returns: their true returns.
        true_return, training_return, share: interquartile means of the evaluation after the run, of the episodes during
            the run, and of the share of the way from random to the ceiling.
        measures: interquartile means of further numbers of the results.
    """

    arm: str
    seeds: list[int]
    returns: list[float]
    true_return: Estimate | None
    training_return: Estimate | None
    share: Estimate | None
    measures: dict[str, Estimate | None]


@dataclass(frozen=True)
class Duel:
    """One arm against another.

    Attributes:
        left, right: their names.
        pairs: seeds that both have finished.
        difference: of the interquartile means of the true return (over all tasks: of the share), from pairs.
        improvement: the probability that a run of ``left`` is better than one of ``right``.
    """

    left: str
    right: str
    pairs: int
    difference: Estimate
    improvement: Estimate


@dataclass(frozen=True)
class Judgement:
    """What the runs say of one task, or of all (``task`` is ``None``)."""

    task: Task | None
    standings: list[Standing]
    duels: list[Duel]


def judge(outcomes: Outcomes) -> list[Judgement]:
    """Every task with a finished run; and all of them together, on the scale of shares, where there are several."""
    found = [_judge_task(outcomes, task) for task in outcomes.tasks]
    if len(outcomes.tasks) > 1:
        found.append(_judge_all(outcomes))
    return [judgement for judgement in found if judgement.standings]


def _judge_task(outcomes: Outcomes, task: Task) -> Judgement:
    standings = [_standing(outcomes, arm, outcomes.of(arm, task)) for arm in outcomes.arms]
    duels = []
    for left, right in combinations(outcomes.arms, 2):
        pairs = outcomes.pairs(left, right, task)
        if pairs:
            ours, theirs = ([np.array([_return(pair[side]) for pair in pairs])] for side in (0, 1))
            duels.append(Duel(left, right, len(pairs), difference(ours, theirs), improvement(ours, theirs)))
    return Judgement(task, [standing for standing in standings if standing.seeds], duels)


def _judge_all(outcomes: Outcomes) -> Judgement:
    standings, duels = [], []
    for arm in outcomes.arms:
        tasks = [outcomes.of(arm, task) for task in outcomes.own_tasks(arm)]
        if all(tasks) and any(outcomes.share(row) is not None for task in tasks for row in task):
            standings.append(_standing(outcomes, arm, *tasks, alone=False))
    complete = {standing.arm for standing in standings if standing.share is not None}
    for left, right in combinations(outcomes.arms, 2):
        # An arm without labels has the same runs in many tasks: they are no runs of their own.
        if {left, right} <= complete and set(outcomes.own_tasks(left)) == set(outcomes.own_tasks(right)):
            pairs = [outcomes.pairs(left, right, task) for task in outcomes.own_tasks(left)]
            if all(pairs):
                ours, theirs = (
                    [np.array([outcomes.share(pair[side]) for pair in task], dtype=np.float64) for task in pairs]
                    for side in (0, 1)
                )
                count = sum(map(len, pairs))
                duels.append(Duel(left, right, count, difference(ours, theirs), improvement(ours, theirs)))
    return Judgement(None, standings, duels)


def _standing(outcomes: Outcomes, arm: str, *tasks: Sequence[Outcome], alone: bool = True) -> Standing:
    """Of the runs of each task; returns are left out unless a task stands ``alone``, as each has a scale of its own."""

    def over(number: Callable[[Outcome], float | None]) -> Estimate | None:
        scores = [[value for row in task if (value := number(row)) is not None] for task in tasks]
        complete = all(scores) and all(np.isfinite(task).all() for task in scores)
        return aggregate([np.array(task) for task in scores]) if complete else None

    rows = [row for task in tasks for row in task]
    return Standing(
        arm,
        [row.run.settings.seed for row in rows],
        [_return(row) for row in rows],
        over(_return) if alone else None,
        over(lambda row: row.training_return) if alone else None,
        over(outcomes.share),
        {name: over(lambda row, name=name: row.number(name)) for name in MEASURES},  # type: ignore[misc]  # its default
    )


def _return(row: Outcome) -> float:
    value = row.number("true_return")
    assert value is not None
    return value


def few(standing: Standing) -> bool:
    """Whether there are too few runs to claim an interval, so that each is shown."""
    return standing.true_return is not None and len(standing.seeds) < FEWEST
