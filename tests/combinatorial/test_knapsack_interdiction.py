"""Knapsack interdiction against brute force, and against value-function cuts by a MILP solver."""

from __future__ import annotations

import random

import pytest
import torch

from bigrad import InputError, SolveWarning, UnsupportedError
from bigrad.combinatorial import solve_knapsack_interdiction
from bigrad.errors import NotConverged

MODULE = "bigrad.combinatorial.knapsack_interdiction"
Instance = tuple[list[int], list[int], list[int], int, int]


def small(seed: int) -> Instance:
    """Up to 8 items, of sizes and capacities of all kinds."""
    draw = random.Random(seed)
    items, largest, least = draw.randint(1, 8), draw.randint(1, 30), draw.randint(0, 1)
    p, b, a = ([draw.randint(least, largest) for _ in range(items)] for _ in range(3))
    return p, b, a, draw.randint(0, sum(b) + 2), draw.randint(0, sum(a) + 2)


def hard(items: int, family: int, seed: int) -> Instance:
    """The standard hard family, at a capacity of ``family`` elevenths of all weights."""
    draw = random.Random(f"{items} {family} {seed}")
    p, b, a = ([draw.randint(1, 100) for _ in range(items)] for _ in range(3))
    C = family * sum(b) // 11
    return p, b, a, C, draw.randint(max(C - 10, 0), C + 10)


def brute_force(p: list[int], b: list[int], a: list[int], C: int, A: int) -> int:
    """All packings against all sets."""
    every = torch.arange(2 ** len(p))[:, None] >> torch.arange(len(p)) & 1
    packings, sets = every[every @ torch.tensor(b) <= C], every[every @ torch.tensor(a) <= A]
    left = (sets @ packings.T) == 0
    return int(torch.where(left, packings @ torch.tensor(p), -1).max(1).values.min())


def by_cuts(p: list[int], b: list[int], a: list[int], C: int, A: int) -> int:
    """The least ``v`` with ``v >= sum p y (1 - x)`` for the packings found so far, again and again."""
    np, optimize = pytest.importorskip("numpy"), pytest.importorskip("scipy.optimize")
    n, rows, limits = len(p), [], []
    worth = np.array(p, float)
    while True:
        constraints = [optimize.LinearConstraint(np.append(a, 0.0)[None], ub=A)]
        if rows:
            constraints.append(optimize.LinearConstraint(np.array(rows), ub=np.array(limits)))
        bounds = optimize.Bounds(np.zeros(n + 1), np.append(np.ones(n), np.inf))
        leader = optimize.milp(
            np.append(np.zeros(n), 1.0), constraints=constraints, bounds=bounds, integrality=np.append(np.ones(n), 0)
        )
        x = leader.x[:n].round()
        kept = optimize.milp(
            -worth * (1 - x),
            constraints=[optimize.LinearConstraint(np.array(b, float)[None], ub=C)],
            bounds=optimize.Bounds(0, 1),
            integrality=np.ones(n),
        )
        y = kept.x.round() * (1 - x)
        if worth @ y <= leader.x[n] + 1e-6:
            return round(worth @ y)
        rows.append(np.append(-worth * y, -1.0))
        limits.append(-(worth @ y))


def assert_answer(instance: Instance, value: int, x: torch.Tensor, y: torch.Tensor) -> None:
    p, b, a, C, A = instance
    assert (x.dtype, y.dtype, len(x), len(y)) == (torch.int64, torch.int64, len(p), len(p))
    assert int((x * y).sum()) == 0
    assert set(x.tolist() + y.tolist()) <= {0, 1}
    assert int(torch.tensor(a) @ x) <= A
    assert int(torch.tensor(b) @ y) <= C
    assert int(torch.tensor(p) @ y) == value


@pytest.mark.parametrize("table", [2**28, 60])
def test_brute_force_finds_the_same(table: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the whole table, and with one so small that most weights in it are rounded."""
    monkeypatch.setattr(f"{MODULE}.TABLE", table)
    for seed in range(300):
        instance = small(seed)
        value, x, y = solve_knapsack_interdiction(*instance)
        assert_answer(instance, value, x, y)
        assert value == brute_force(*instance), instance


def test_a_bound_that_is_too_high_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    row = "bigrad.combinatorial.knapsack_bounds.KnapsackBounds.row"
    bounds = pytest.importorskip("bigrad.combinatorial.knapsack_bounds").KnapsackBounds.row
    monkeypatch.setattr(row, lambda self, item, left: bounds(self, item, left) + 9 * (left % 2))
    solved = [solve_knapsack_interdiction(*small(seed), on_failure="ignore")[0] for seed in range(200)]
    assert solved != [brute_force(*small(seed)) for seed in range(200)]


@pytest.mark.parametrize("seed", range(5))
def test_value_function_cuts_find_the_same(seed: int) -> None:
    instance = hard(12, 2 + seed, seed)
    value, x, y = solve_knapsack_interdiction(*instance)
    assert_answer(instance, value, x, y)
    assert value == by_cuts(*instance)


@pytest.mark.parametrize("family", [1, 5, 8])
def test_hard_instances_are_proven(family: int) -> None:
    instance = hard(35, family, 0)
    value, x, y = solve_knapsack_interdiction(*instance, max_steps=5000)
    assert_answer(instance, value, x, y)


def test_large_weights_need_no_large_table() -> None:
    p, b, a, C, A = hard(15, 4, 1)
    value, *_ = solve_knapsack_interdiction(p, b, a, C, A)
    scaled, *_ = solve_knapsack_interdiction(
        p, [999 * weight for weight in b], [999 * weight for weight in a], 999 * C, 999 * A
    )
    assert scaled == value


def test_a_stopped_search_names_its_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = hard(25, 5, 0)
    best, *_ = solve_knapsack_interdiction(*instance)
    monkeypatch.setattr(f"{MODULE}.TABLE", 1000)  # bounds so weak that there is something to search
    with pytest.raises(
        NotConverged, match=r"the value found and the proven bound is \d+, wanted 0, after 30"
    ) as stopped:
        solve_knapsack_interdiction(*instance, max_steps=30)
    gap = float(stopped.value.certificate.gap)
    value, x, y = solve_knapsack_interdiction(*instance, max_steps=30, on_failure="ignore")
    assert_answer(instance, value, x, y)
    assert value - gap <= best <= value
    assert gap > 0
    with pytest.warns(SolveWarning, match="gap"):
        solve_knapsack_interdiction(*instance, seconds=0.0, on_failure="warn")
    assert solve_knapsack_interdiction(*instance)[0] == best


def test_a_search_that_ends_by_itself_has_no_gap() -> None:
    assert solve_knapsack_interdiction([1, 1], [1, 1], [1, 1], 2, 1, max_steps=3)[0] == 1


def test_what_a_leader_and_a_follower_without_means_do() -> None:
    assert solve_knapsack_interdiction([], [], [], 0, 0)[0] == 0
    value, x, y = solve_knapsack_interdiction([3, 5], [2, 2], [1, 1], 2, 0)
    assert (value, x.tolist(), y.tolist()) == (5, [0, 0], [0, 1])
    value, x, _ = solve_knapsack_interdiction([3, 5], [2, 2], [0, 1], 9, 1)
    assert (value, x.tolist()) == (0, [1, 1])
    assert solve_knapsack_interdiction([3, 5], [0, 9], [1, 1], 0, 0)[0] == 3


def test_tensors_and_arrays_are_taken_as_lists_are() -> None:
    instance = small(3)
    lists, tensors = instance[:3], tuple(torch.tensor(part) for part in instance[:3])
    truth = solve_knapsack_interdiction(*instance)[0]
    assert solve_knapsack_interdiction(*tensors, *instance[3:])[0] == truth
    arrays = tuple(pytest.importorskip("numpy").array(part) for part in lists)
    assert solve_knapsack_interdiction(*arrays, *instance[3:])[0] == truth


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"profit": [1.5, 2.0]}, "profit is torch.float32"),
        ({"profit": [1, -2]}, "least profit is -2"),
        ({"weight": [[1, 2]]}, r"weight has shape \(1, 2\)"),
        ({"leader_weight": [1]}, "2 profits, 2 weights and 1 leader_weights"),
        ({"capacity": -1}, "least capacity is -1"),
        ({"leader_capacity": 2.5}, "leader_capacity is torch.float32"),
        ({"max_steps": -1}, "max_steps is -1"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"on_failure": "panic"}, "on_failure is 'panic'"),
    ],
)
def test_input_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    sound = {"profit": [1, 2], "weight": [1, 2], "leader_weight": [1, 2], "capacity": 2, "leader_capacity": 1}
    with pytest.raises(InputError, match=message):
        solve_knapsack_interdiction(**(sound | change))  # type: ignore[arg-type]


def test_a_capacity_beyond_all_tables_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="the capacity is 20000000; at most 4194304"):
        solve_knapsack_interdiction([1, 1], [10**7, 10**7], [1, 1], 10**8, 1)
