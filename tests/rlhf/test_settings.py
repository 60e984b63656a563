"""What a run is: every number is checked, the schedule gives every label in time, and JSON brings it back."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import pairwise
from typing import Any

import pytest

from bigrad.errors import InputError, RunError
from bigrad.rlhf import LABEL_SCHEDULES, METHODS, Settings, cumulative_weights

from . import tiny

COUNTS = [
    *("steps", "rounds", "segment", "members", "width", "batch", "units", "episodes", "draws", "opponents"),
    *("warm_up", "first_upper_steps", "upper_steps", "transitions", "on_policy_steps", "envs", "update_every"),
]
SHARES = ["first_share", "label_until", "upper_until"]
POSITIVE = ["temperature", "least_temperature", "lr", "reward_step"]
NOT_NEGATIVE = ["reward_decay", "ridge", "response_weight", "response_limit"]
REFUSED: list[tuple[str, Any]] = [
    *((name, value) for name in COUNTS for value in (0, -3)),
    *((name, value) for name in SHARES for value in (0.0, -0.5, 1.5, float("nan"))),
    *((name, value) for name in POSITIVE for value in (0.0, -1.0, float("inf"), float("nan"))),
    *((name, value) for name in NOT_NEGATIVE for value in (-1.0, float("inf"), float("nan"))),
    *(("discount", value) for value in (-0.1, 1.0, 1.5, float("nan"))),
    *(("labels", value) for value in (0, 1, -5)),
    *(("buffer", value) for value in (-1, 1, 24)),
    *(("seed", value) for value in (-1, 2**32)),
    *((name, "ppo") for name in ("method", "after_end", "selection", "label_schedule")),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_value_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} is {value!r}.*wanted"):
        Settings(**{name: value})


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_a_value_of_another_kind_is_named(name: str) -> None:
    default = getattr(Settings(), name)
    truth = isinstance(default, bool)
    other = 3 if isinstance(default, str) or truth else "3"
    for value in (None, [default], other, *([] if truth else [True]), *([1.5] * isinstance(default, int))):
        with pytest.raises(InputError, match=f"{name} is .*; wanted (a |True or False)"):
            Settings(**{name: value})


def test_a_float_may_be_given_as_an_integer() -> None:
    assert Settings(temperature=1, discount=0).schedule() == Settings().schedule()


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=", ".join(METHODS)):
        Settings(method="ppo")


@pytest.mark.parametrize("steps", [900, 1000, 1009])
def test_labels_need_steps_after_the_warm_up(steps: int) -> None:
    with pytest.raises(InputError, match=f"steps is {steps}, warm_up 1000 and rounds 10"):
        Settings(steps=steps)
    assert Settings(steps=steps, method="sac").schedule() == []


def test_sac_needs_no_labels() -> None:
    assert Settings(method="sac", labels=0).labels == 0


RUNS = [
    {},
    {"steps": 1_010},
    {"steps": 20_000},
    {"steps": 1_300, "labels": 7},
    {"labels": 2, "rounds": 30},
    {"labels": 3, "first_share": 1.0},
    {"labels": 1_000, "rounds": 1, "first_share": 0.01},
    {"warm_up": 7_900, "rounds": 3},
    {"label_until": 1.0, "upper_until": 1.0},
    {"label_until": 0.95, "upper_until": 0.1},
    *({"label_schedule": name, "labels": 37} for name in LABEL_SCHEDULES),
    {"label_schedule": "decay", "label_until": 1.0, "upper_until": 1.0, "steps": 1_010},
    tiny.SETTINGS,
]


@pytest.mark.parametrize("changes", RUNS)
def test_the_schedule_keeps_its_promises(changes: dict[str, Any]) -> None:
    settings = Settings(**changes)
    schedule = settings.schedule()
    assert schedule[0] == settings.warm_up
    assert all(early < late for early, late in pairwise(schedule))
    assert schedule[-1] <= settings.steps
    labelled = schedule[: settings.rounds + 1]
    assert len(labelled) == settings.rounds + 1
    # Where the warm-up takes most of that share, half of it of what is left; where nothing is, one step a round.
    left = max(settings.rounds, settings.label_until * (settings.steps - settings.warm_up) / 2)
    assert labelled[-1] <= max(settings.label_until * settings.steps, settings.warm_up + left)
    interval = labelled[1] - labelled[0]
    assert len(schedule) == len(labelled) or schedule[-1] <= settings.upper_until * settings.steps
    assert schedule[-1] + interval > int(settings.upper_until * settings.steps)


@pytest.mark.parametrize("steps", [1_100, 1_600, 2_000, 3_000, 8_000, 100_000])
def test_a_short_run_does_not_spend_itself_on_rounds(steps: int) -> None:
    """A schedule of one round a step was met on a run of 1,600 steps: it had 521 rounds."""
    assert len(Settings(steps=steps).schedule()) <= 40


@pytest.mark.parametrize("changes", RUNS)
def test_labels_grow_to_their_number(changes: dict[str, Any]) -> None:
    settings = Settings(**changes)
    given = [settings.labels_by(place) for place in range(len(settings.schedule()))]
    assert all(early <= late for early, late in pairwise(given))
    assert given[0] == max(2, round(settings.first_share * settings.labels))
    assert given[settings.rounds :] == [settings.labels] * (len(given) - settings.rounds)


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("constant", lambda t, k: 1),
        ("decay", lambda t, k: (1000 - t) / 1000),
        ("increase", lambda t, k: 1000 / (1000 - t + 1)),
        ("hyperbolic", lambda t, k: 1 / (1 + k / 4)),
    ],
)
def test_labels_are_spread_as_the_schedule_says(name: str, weight: Any) -> None:
    settings = Settings(steps=1000, warm_up=100, rounds=5, label_until=1.0, labels=10_000, label_schedule=name)
    steps = settings.schedule()[:6]
    assert steps == [100, 280, 460, 640, 820, 1000]
    weights = [max(weight(t, k), 1e-3) for k, t in enumerate(steps[1:])]
    given = [settings.labels_by(place) for place in range(6)]
    shares = [6000 * sum(weights[:k]) / sum(weights) for k in range(6)]
    assert given == pytest.approx([4000 + share for share in shares], abs=0.51)
    assert cumulative_weights(name, steps[1:], 1000)[-1] == pytest.approx(sum(weights))


def test_a_schedule_of_one_round_gives_it_everything() -> None:
    for name in LABEL_SCHEDULES:
        assert Settings(rounds=1, labels=30, label_schedule=name).labels_by(1) == 30


def test_by_default_the_response_is_on_for_the_last_half_of_the_upper_steps() -> None:
    settings = Settings()
    later = (len(settings.schedule()) - 1) * settings.upper_steps
    assert later >= settings.first_upper_steps


def test_json_brings_settings_back() -> None:
    settings = Settings(**tiny.SETTINGS, seed=3, method="drlhf")
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def without(name: str) -> dict[str, Any]:
    content = Settings().to_json()
    del content[name]
    return content


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "NoneType"),
        ([1, 2], "list"),
        ("settings", "str"),
        ({}, "batch"),
        (without("seed"), "seed"),
        (Settings().to_json() | {"colour": "red"}, "colour"),
        (Settings().to_json() | {"steps": "8000"}, "steps is '8000'; wanted a whole number"),
        (Settings().to_json() | {"steps": 8000.5}, "steps is 8000.5"),
        (Settings().to_json() | {"lr": None}, "lr is None; wanted a number"),
        (Settings().to_json() | {"env": 1}, "env is 1; wanted a string"),
        (Settings().to_json() | {"discount": 1.0}, "discount is 1.0"),
    ],
)
def test_json_of_something_else_is_refused(content: object, named: str) -> None:
    with pytest.raises(RunError, match=named):
        Settings.from_json(content)


def test_a_configuration_of_an_earlier_bigrad_had_the_defaults_and_took_steps_on_all_pairs() -> None:
    later = ("envs", "env_processes", "signed_rewards", "normalise", "learn_temperature", "update_every", "buffer")
    content = Settings(units=17, labels=150).to_json()
    for name in (*later, "least_temperature", "upper_batch", "response_every", "response_shrink"):
        content.pop(name)
    assert Settings.from_json(content) == Settings(units=17, labels=150, upper_batch=150, response_every=1)


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InputError, match=r"steps is 8002, envs 2 and update_every 4; wanted a multiple of 8 steps"):
        Settings(steps=8_002, envs=2, update_every=4)
    with pytest.raises(InputError, match=r"temperature is 0\.001; wanted at least 0\.01 to begin at"):
        Settings(learn_temperature=True, temperature=0.001)
    with pytest.raises(InputError, match="pbrl compares two policies of one temperature"):
        Settings(learn_temperature=True, method="pbrl")
    with pytest.raises(InputError, match=r"steps is 1040, warm_up 1000 and rounds 10"):
        Settings(steps=1_040, envs=8)
