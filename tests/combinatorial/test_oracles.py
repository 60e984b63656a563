"""What every oracle keeps to, whatever it solves."""

from __future__ import annotations

import copy
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad import InputError, MissingPackage, UnsupportedError
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

from .feasible import D, draw

DIAMOND = [(0, 1), (0, 2), (1, 3), (2, 3), (1, 2)]
PAIRS = list(itertools.combinations(range(4), 2))


def least(cost: Tensor) -> Tensor:
    """A user's solver."""
    return (cost == cost.min()).to(cost.dtype)


ORACLES: dict[str, tuple[Oracle, tuple[int, ...]]] = {
    "path, 8 neighbours": (ShortestPath(), (4, 5)),
    "path, 4 neighbours": (ShortestPath(4), (5, 3)),
    "path, in torch": (ShortestPath(compiled=False), (4, 5)),
    "graph": (ShortestPath.graph(DIAMOND, 0, 3), (5,)),
    "graph, in torch": (ShortestPath.graph(DIAMOND, 0, 3, compiled=False), (5,)),
    "graph, undirected": (ShortestPath.graph(DIAMOND, 0, 3, directed=False), (5,)),
    "graph, undirected, in torch": (ShortestPath.graph(DIAMOND, 0, 3, directed=False, compiled=False), (5,)),
    "assignment": (Assignment(), (3, 3)),
    "knapsack": (Knapsack([2, 3, 4, 5], 7), (4,)),
    "knapsack, in torch": (Knapsack([2, 3, 4, 5], 7, compiled=False), (4,)),
    "top k": (TopK(2), (5,)),
    "ranking": (Ranking(), (5,)),
    "tree": (SpanningTree(PAIRS), (6,)),
    "tree, in torch": (SpanningTree(PAIRS, compiled=False), (6,)),
    "tour": (Tour(), (5, 5)),
    "tour, in torch": (Tour(compiled=False), (5, 5)),
    "tour, directed": (Tour(directed=True), (4, 4)),
    "mixed integer": (MixedInteger([[1.0, 2.0, 3.0]], upper=4.0, maximise=True), (3,)),
    "own": (oracle(least, event_dims=2, numpy=False), (3, 2)),
}
every = pytest.mark.parametrize(("solver", "event"), ORACLES.values(), ids=ORACLES)


def costs(solver: Oracle, *shape: int, dtype: torch.dtype = D) -> Tensor:
    cost = draw(*shape, dtype=dtype)
    return cost.abs() if solver.nonnegative else cost


@every
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_a_batch_is_a_loop_over_its_problems(solver: Oracle, event: tuple[int, ...], dtype: torch.dtype) -> None:
    cost = costs(solver, 2, 3, *event, dtype=dtype)
    y = solver(cost)
    assert (y.dtype, y.shape, y.device) == (cost.dtype, cost.shape, cost.device)
    for i, j in itertools.product(range(2), range(3)):
        assert torch.equal(solver(cost[i, j]), y[i, j])
    assert not all(torch.equal(y[0, 0], other) for other in y.flatten(0, 1)), "the batch shows nothing"
    assert solver(cost[:0]).shape == (0, 3, *event)
    assert solver(cost[:, :0]).shape == (2, 0, *event)


@every
def test_a_cost_is_left_alone_and_gets_no_derivative(solver: Oracle, event: tuple[int, ...]) -> None:
    cost = costs(solver, 3, *event)
    kept, free = cost.clone(), cost.clone().requires_grad_()
    y = solver(free)
    assert not y.requires_grad
    assert torch.equal(free.detach(), kept)
    y.zero_()  # a solution has memory of its own
    assert torch.equal(free.detach(), kept)
    assert torch.equal(solver(cost), solver(kept))


@every
def test_the_layout_of_a_cost_does_not_matter(solver: Oracle, event: tuple[int, ...]) -> None:
    cost = costs(solver, 3, *event)
    y = solver(cost)
    last = cost.movedim(0, -1).contiguous().movedim(-1, 0)
    sparse = torch.stack([cost, cost], -1)[..., 0]
    for same in (last, sparse):
        assert not same.is_contiguous()
        assert torch.equal(solver(same), y)
    single = solver(cost[:1].expand(3, *event))
    assert torch.equal(single, y[:1].expand_as(single))


@every
def test_copies_solve_the_same(solver: Oracle, event: tuple[int, ...]) -> None:
    cost = costs(solver, 3, *event)
    for other in (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))):
        assert torch.equal(other(cost), solver(cost))
        assert repr(other) == repr(solver)
        assert (other.event_dims, other.maximise, other.nonnegative) == (
            solver.event_dims,
            solver.maximise,
            solver.nonnegative,
        )


@every
def test_the_value_is_the_inner_product(solver: Oracle, event: tuple[int, ...]) -> None:
    cost = costs(solver, 2, 3, *event)
    y = solver(cost)
    pairs = zip(cost.flatten(0, 1), y.flatten(0, 1), strict=True)
    truth = torch.stack([torch.dot(one.flatten(), point.flatten()) for one, point in pairs])
    torch.testing.assert_close(solver.value(cost, y), truth.reshape(2, 3))
    assert solver.value(cost[0, 0], y[0, 0]).shape == ()


@every
def test_the_sense_is_the_declared_one(solver: Oracle, event: tuple[int, ...]) -> None:
    """No solution of another problem is better for this one."""
    cost = costs(solver, 8, *event)
    y = solver(cost)
    values = (cost.unsqueeze(1) * y.unsqueeze(0)).flatten(2).sum(-1)
    own = solver.value(cost, y).unsqueeze(1)
    assert bool((values <= own + 1e-9).all() if solver.maximise else (values >= own - 1e-9).all())


@every
def test_costs_that_are_none_are_refused(solver: Oracle, event: tuple[int, ...]) -> None:
    good = costs(solver, 2, *event)
    for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.complex64):
        with pytest.raises(InputError, match=f"the cost is {dtype}; wanted a tensor of float32 or float64"):
            solver(good.to(dtype))
    with pytest.raises(InputError, match="the cost is list"):
        solver(good.tolist())  # type: ignore[arg-type]
    for bad in (torch.nan, torch.inf, -torch.inf):
        broken = good.clone()
        broken[(1,) * good.ndim] = bad
        with pytest.raises(InputError, match="1 costs are infinite or NaN; wanted finite ones"):
            solver(broken)
    with pytest.raises(InputError, match=r"add up to more than torch\.float32 holds; divide them by the largest"):
        solver(torch.full((2, *event), 2e38))
    with pytest.raises(InputError, match=f"with {len(event)} dimensions beyond the batch"):
        solver(good.new_ones(()) if len(event) == 1 else good.new_ones(3))


COMPILED: dict[str, tuple[Callable[[bool | None], Oracle], tuple[int, ...]]] = {
    "path": (lambda compiled: ShortestPath(compiled=compiled), (4, 5)),
    "graph": (lambda compiled: ShortestPath.graph(DIAMOND, 0, 3, compiled=compiled), (5,)),
    "circles": (lambda compiled: ShortestPath.graph(DIAMOND, 0, 3, directed=False, compiled=compiled), (5,)),
    "knapsack": (lambda compiled: Knapsack([2, 3, 4, 5], 7, compiled=compiled), (4,)),
    "tree": (lambda compiled: SpanningTree(PAIRS, compiled=compiled), (6,)),
    "tour": (lambda compiled: Tour(compiled=compiled), (5, 5)),
}


@pytest.mark.parametrize("name", COMPILED)
def test_torch_takes_over_where_nothing_is_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, event = COMPILED[name]
    cost = draw(3, *event, kind="positive")
    truth = make(True)(cost)
    assert torch.equal(make(None)(cost), truth)
    monkeypatch.setattr("bigrad.compiled.installed", lambda package: False)
    assert torch.equal(make(None)(cost), truth)
    assert torch.equal(make(False)(cost), truth)
    with pytest.raises(MissingPackage, match=r'compiled=True .*: pip install "bigrad\[combinatorial\]"'):
        make(True)(cost)


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_code_wants_main_memory(name: str) -> None:
    make, event = COMPILED[name]
    with pytest.raises(UnsupportedError, match="compiled=True: the cost is on meta"):
        make(True).solve(torch.ones(1, *event, device="meta"))


def test_the_door_opens_without_what_is_optional() -> None:
    """Neither SciPy nor numba is imported before a solve wants it."""
    code = (
        "import sys, bigrad.combinatorial; "
        "print(sorted({'numba', 'scipy', 'ortools', 'pandas'} & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_kernels_run_where_no_cache_can_be_written() -> None:
    code = """
import numba, torch
njit = numba.njit
def read_only(*functions, **options):
    if options.get("cache"):
        raise RuntimeError("cannot cache function: no locator available")
    return njit(*functions, **options)
numba.njit = read_only
from bigrad.combinatorial import Knapsack
print(Knapsack([1, 2], 2, compiled=True)(torch.tensor([1.0, 3.0])).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[0.0, 1.0]\n", done.stderr
