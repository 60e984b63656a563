"""What an unrolled solve keeps: the bytes that autograd holds for backward, and their peak during it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from bigrad.gradients import GradientRule, OneStep, Unrolled
from bigrad.layers import ArgMin
from bigrad.solvers import GradientDescent

from ..layers.cases import D, vector

SIZE = 500


class Ledger:
    """Counts the bytes of saved tensors that are alive, each storage once."""

    def __init__(self) -> None:
        self.holders: Counter[int] = Counter()
        self.bytes = self.peak = 0

    def pack(self, tensor: Tensor) -> Held:
        return Held(self, tensor)

    def watch(self) -> torch.autograd.graph.saved_tensors_hooks:
        return torch.autograd.graph.saved_tensors_hooks(self.pack, lambda held: held.tensor)


class Held:
    def __init__(self, ledger: Ledger, tensor: Tensor) -> None:
        self.ledger, self.tensor = ledger, tensor
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        ledger.holders[self.key] += 1
        if ledger.holders[self.key] == 1:
            ledger.bytes += self.size
            ledger.peak = max(ledger.peak, ledger.bytes)

    def __del__(self) -> None:
        self.ledger.holders[self.key] -= 1
        if self.ledger.holders[self.key] == 0:
            self.ledger.bytes -= self.size


def vectors_kept(rule: GradientRule, steps: int) -> tuple[float, float]:
    """After the solve and at the peak of its backward pass, in multiples of ``y``."""
    layer = ArgMin(
        lambda y, x: ((y - x.sin()) ** 2 + 0.1 * y**4).sum(),
        torch.zeros(SIZE, dtype=D),
        solver=GradientDescent(0.01, rtol=0.0, atol=0.0, max_steps=steps),
        gradient=rule,
        on_failure="ignore",
    )
    x = vector(SIZE).requires_grad_()
    ledger = Ledger()
    with ledger.watch():
        y = layer(x)
        kept = ledger.bytes
        ledger.peak = 0
        torch.autograd.grad(y.sum(), x)
    return kept / (8 * SIZE), ledger.peak / (8 * SIZE)


@pytest.mark.parametrize("rule", [Unrolled(last=10), OneStep()], ids=repr)
def test_a_truncated_path_is_kept_in_the_same_memory_from_20_to_1000_steps(rule: GradientRule) -> None:
    few, many = vectors_kept(rule, 20), vectors_kept(rule, 1000)
    assert many == pytest.approx(few)
    assert many[1] < 100


def test_a_whole_path_is_kept_in_the_square_root_of_its_steps() -> None:
    kept = {steps: vectors_kept(Unrolled(), steps) for steps in (25, 100, 400)}
    for steps, (after, peak) in kept.items():
        assert after < 2 * steps**0.5 + 6
        assert peak < 20 * steps**0.5 + 20
    assert kept[400][1] < 2.4 * kept[100][1]
