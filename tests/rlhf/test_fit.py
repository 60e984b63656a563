"""What a round does with labels and response: every pair its own label, the response fresh now and then, shortened."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrad.rlhf import Pairs, PreferenceTrainer, RewardEnsemble, upper_step

from . import tiny

loop = import_module(".loop", "bigrad.rlhf")


def watched(patch: pytest.MonkeyPatch, name: str) -> list[tuple[tuple[Any, ...], Any, Tensor]]:
    """The arguments and results of a function of the loop, and its model before, from now on."""
    plain, seen = getattr(loop, name), list[tuple[tuple[Any, ...], Any, Tensor]]()

    def spy(*given: Any) -> Any:
        model = next(part for part in given if isinstance(part, torch.nn.Module))
        before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        found = plain(*given)
        seen.append((given, found, before))
        return found

    patch.setattr(loop, name, spy)
    return seen


def bytes_of(pairs: Pairs, place: int) -> bytes:
    return b"".join(part[place].numpy().tobytes() for part in (pairs.observation, pairs.action))


def test_a_step_is_on_a_batch_of_pairs_with_their_own_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watched(monkeypatch, "upper_step")
    run = tiny.trainer(method="drlhf", upper_batch=4, upper_steps=5)
    run.learn()
    pairs, label = run.store.load()
    given = {(bytes_of(pairs, place), float(label[place])) for place in range(len(label))}
    assert len(set(label.tolist())) > 1
    steps = [(arguments[2], arguments[3]) for arguments, _, _ in seen]
    assert {len(some) for _, some in steps} <= {3, 4}
    for batch, some in steps:
        assert {(bytes_of(batch, place), float(some[place])) for place in range(len(some))} <= given
    shown = {bytes_of(batch, place) for batch, some in steps for place in range(len(some))}
    assert shown == {name for name, _ in given}


@pytest.mark.parametrize(("every", "times"), [(1, 5), (2, 3), (10, 1)])
def test_the_response_is_taken_anew_at_the_model_as_it_then_is(
    every: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients, steps = watched(monkeypatch, "response_gradient"), watched(monkeypatch, "upper_step")
    tiny.trainer(upper_steps=5, response_every=every).learn()
    taken = [before for arguments, _, before in gradients if arguments[0]]
    assert taken
    assert len(taken) % times == 0
    rounds = [taken[k : k + times] for k in range(0, len(taken), times)]
    stepped = [before for arguments, _, before in steps if arguments[4]]
    for number, models in enumerate(rounds):
        wanted = stepped[5 * number : 5 * number + 5 : every]
        assert all(torch.equal(*both) for both in zip(models, wanted, strict=True))
        assert len({tuple(model.tolist()) for model in models}) == times


def test_a_response_is_shortened_by_its_share_of_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "signal_share", lambda *_: 0.25)

    def first(shrink: bool) -> tuple[PreferenceTrainer, list[Tensor]]:
        with monkeypatch.context() as patch:
            seen = watched(patch, "response_gradient")
            run = tiny.trainer("Tiny/Buttons-v0", response_shrink=shrink, on_policy_steps=40, steps=160)
            run.learn()
        return run, next(found for arguments, found, _ in seen if len(arguments[0]) == 2)

    (run, whole), (_, part) = first(False), first(True)
    assert any(row.get("signal_share") == 0.25 for row in run.history)
    assert any(float(tensor.norm()) > 0 for tensor in whole)
    torch.testing.assert_close(part, [0.25 * tensor for tensor in whole])


def test_upper_steps_and_responses_flush_denormals_and_leave_them_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def flushes() -> bool:
        return bool((torch.tensor([1e-30]) * 1e-10 == 0).item())

    upper, seen = import_module(".upper_level", "bigrad.rlhf"), list[bool]()
    plain = upper.gradients_of
    monkeypatch.setattr(upper, "gradients_of", lambda *given: (seen.append(flushes()), plain(*given))[1])
    reward = RewardEnsemble(3, 1)
    pairs = Pairs(torch.ones(2, 2, 5, 3), torch.zeros(2, 2, 5, 1), np.zeros((2, 2)))
    upper_step(reward, torch.optim.SGD(reward.parameters(), lr=0.1), pairs, torch.ones(2), [], 1.0)
    upper.response_gradient([lambda: reward.weights[0].sum()], reward, 1.0)
    assert seen == [True, True]
    assert not flushes()
