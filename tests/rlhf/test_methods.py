"""The switch: every method has its file, its place on the command line, and what it says where it cannot serve."""

from __future__ import annotations

from importlib import import_module
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

from bigrad import InputError, UnsupportedError
from bigrad.rlhf import METHODS, RESPONSES, UNSERVED, Settings

from . import tiny

RESPONDS = [
    {"method": "hpgd"},
    {"method": "pbrl"},
    *({"response": response, "horizon": horizon} for response in RESPONSES for horizon in (0, 1, 3)),
]


def test_every_method_is_known_everywhere() -> None:
    assert list(import_module(".methods", "bigrad.rlhf").KINDS) == list(METHODS)
    assert set(get_args(get_type_hints(import_module(".rlhf", "bigrad.cli").Options)["method"])) == set(METHODS) | set(
        UNSERVED
    )


def test_parl_says_why_not_and_what_instead() -> None:
    with pytest.raises(UnsupportedError, match=r"'parl' is not served.*Hessian.*choose sobirl.*bigrad\.mdp\.PARL"):
        tiny.trainer(method="parl")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "random-walk"}, "wanted one of sobirl, drlhf, pbrl, hpgd, sac, softdqn, random"),
        ({"response": "none"}, "response is 'none'; wanted one of critic, critics, trace"),
        ({"horizon": -1}, "horizon is -1"),
        ({"penalty": 0.0}, "penalty is 0.0; wanted a positive"),
        ({"response_from": -1}, "response_from is -1, and the last upper steps are due at 7460; wanted a step between"),
        ({"response_from": 7461}, "response_from is 7461, and the last upper steps are due at 7460"),
    ],
)
def test_what_is_no_method_or_number_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Settings(**changes)


@pytest.mark.parametrize("method", ["sobirl", "hpgd", "pbrl"])
def test_the_response_is_on_from_a_stated_step(method: str) -> None:
    off, late, on = (
        tiny.trainer(method=name, response_from=step)
        for name, step in (("drlhf", 0), (method, tiny.ROUNDS[1] + 1), (method, 0))
    )
    for run in (off, late, on):
        run.learn()
    assert [row["ratio"] is not None for row in tiny.rounds(late)] == [False, False, True]
    assert [row["ratio"] is not None for row in tiny.rounds(on)] == [False, True, True]
    if method != "pbrl":  # whose policy pays for the losses from the first
        before = [[row["loss"] for row in tiny.rounds(run)[:2]] for run in (off, late)]
        assert before[0] == before[1]
        returns = [[row for row in run.history if "loss" not in row and row["step"] <= 40] for run in (off, late)]
        assert returns[0] == returns[1] != []


@pytest.mark.parametrize(("env", "responds"), [(tiny.POINT, RESPONDS[0:5:4]), ("Tiny/Buttons-v0", RESPONDS)])
def test_every_response_is_on_and_its_own(env: str, responds: list[dict[str, Any]]) -> None:
    seen = []
    for changes in responds:
        run = tiny.trainer(env, **changes)
        result = run.learn()
        assert result.response_share > 0.5, changes
        assert result.response_ratio is not None
        assert 0 < result.response_ratio <= 0.5
        assert result.response_approximate
        assert result.response_age == 0
        assert (result.steps, result.labels) == (tiny.STEPS, tiny.LABELS)
        seen.append(tiny.rounds(run)[1]["estimated_ratio"])
    assert len(set(seen)) == len(responds)


@pytest.mark.parametrize("env", [tiny.POINT, "Tiny/Buttons-v0"])
def test_random_acts_evenly_and_learns_nothing(env: str) -> None:
    run = tiny.trainer(env, method="random", steps=600, labels=0)
    before = tiny.parameters(run)
    result = run.learn()
    assert (result.steps, result.labels, result.method) == (600, 0, "random")
    assert result.true_return == result.random_return
    torch.testing.assert_close(tiny.parameters(run), before, rtol=1e-5, atol=0)  # a target follows, and rounds
    assert run.agent.updates == 0
    action = run.buffer.actions[:600, 0, 0]
    counts = np.histogram(action, 4, (-1, 1))[0] if env == tiny.POINT else np.bincount(action, minlength=3)
    chance = 1 / len(counts)
    assert (np.abs(counts / 600 - chance) < 4 * np.sqrt(chance * (1 - chance) / 600)).all()
    changed = np.mean(action[1:] != action[:-1])
    assert changed > 0.5  # actions of the warm-up persist
