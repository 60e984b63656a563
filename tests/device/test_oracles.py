"""Oracles on a device: torch solves there, or the costs make the way to main memory and back."""

from __future__ import annotations

import pytest
import torch

from bigrad import UnsupportedError
from bigrad.combinatorial import (
    Assignment,
    Knapsack,
    MixedInteger,
    Oracle,
    Ranking,
    ShortestPath,
    SpanningTree,
    TopK,
    Tour,
    oracle,
)

from .solutions import numbers

DIAMOND = [(0, 1), (0, 2), (1, 3), (2, 3), (1, 2)]
ORACLES: dict[str, tuple[Oracle, tuple[int, ...]]] = {
    "path": (ShortestPath(), (4, 5)),
    "graph": (ShortestPath.graph(DIAMOND, 0, 3), (5,)),
    "graph with circles": (ShortestPath.graph(DIAMOND, 0, 3, directed=False), (5,)),
    "assignment": (Assignment(), (3, 3)),
    "knapsack": (Knapsack([2, 3, 4, 5], 7), (4,)),
    "top k": (TopK(2), (5,)),
    "ranking": (Ranking(), (5,)),
    "tree": (SpanningTree(DIAMOND), (5,)),
    "tour": (Tour(), (5, 5)),
    "mixed integer": (MixedInteger([[1.0, 2.0, 3.0]], upper=4.0, maximise=True), (3,)),
    "own, NumPy": (oracle(lambda cost: cost.max() - cost, event_dims=1), (4,)),
    "own, torch": (oracle(lambda cost: cost.amax() - cost, event_dims=1, numpy=False), (4,)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("solver", "event"), ORACLES.values(), ids=ORACLES)
def test_a_device_gives_the_same_points(
    solver: Oracle, event: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    cost = numbers(6, *event).abs().to(dtype)
    cost[0] = cost[0].mul(2).round()  # ties, and plateaus
    y = solver(cost.to(device))
    assert (y.device.type, y.dtype) == (device.type, dtype)
    assert torch.equal(y.cpu(), solver(cost))


def test_compiled_code_wants_main_memory(device: torch.device) -> None:
    with pytest.raises(UnsupportedError, match="with compiled=None torch solves there"):
        ShortestPath(compiled=True)(torch.ones(2, 2, device=device))
