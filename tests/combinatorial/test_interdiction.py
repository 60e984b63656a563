"""Interdiction in both orders against brute force, another exact solver and a MILP."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad import InputError, UnsupportedError
from bigrad.combinatorial import (
    Interdiction,
    Knapsack,
    MixedInteger,
    Oracle,
    ShortestPath,
    TopK,
    Tour,
    oracle,
    solve_knapsack_interdiction,
)

from .games import D, affordable, grid_points, masks, max_min, min_max, reached, values


def costs(kind: str, problems: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """``z``, ``w`` and the tilt ``a`` ``(problems, n)``, such that no raised cost is below zero."""
    draw = torch.Generator().manual_seed(seed)
    z, w = torch.rand(2, problems, n, generator=draw, dtype=D)
    a = torch.zeros_like(z)
    if kind == "ties":
        z, w = (4 * z).round(), (3 * w).round()
    if "either sign" in kind:
        z, w = z + 0.5, w - 0.5
    if "tilted" in kind:
        a = 0.5 * torch.randn(problems, n, generator=draw, dtype=D)
    return z, w, a


KINDS = ["plain", "ties", "either sign", "tilted", "either sign, tilted"]
GRIDS = [(3, 3, 8, 2), (3, 3, 4, 1), (3, 4, 8, 1), (2, 4, 4, 8), (3, 3, 8, 0)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width", "connectivity", "budget"), GRIDS)
def test_paths_of_both_orders(kind: str, height: int, width: int, connectivity: int, budget: int) -> None:
    n = height * width
    z, w, a = costs(kind, 60, n)
    table = values(z, w, a, affordable(torch.ones(n), budget), grid_points(height, width, connectivity))
    wide = tuple(part.reshape(-1, height, width) for part in (z, w, a))
    for order, truth in (("max_min", max_min(table)), ("min_max", min_max(table))):
        game = Interdiction(ShortestPath(connectivity), budget, order)
        x, y, certificate = game.search(*wide)
        torch.testing.assert_close(reached(*wide, x, y), truth, rtol=0, atol=1e-12)
        assert bool((x.flatten(1).sum(1) <= budget).all())
        assert not bool(certificate.failed.any())


def test_the_orders_differ_and_the_first_mover_loses() -> None:
    z, w, a = costs("plain", 200, 9)
    table = values(z, w, a, affordable(torch.ones(9), 2), grid_points(3, 3, 8))
    gap = min_max(table) - max_min(table)
    assert bool((gap >= -1e-12).all())
    assert int((gap > 1e-6).sum()) > 20
    wide = tuple(part.reshape(-1, 3, 3) for part in (z, w, a))
    swapped = Interdiction(ShortestPath(), 2, "min_max").search(*wide)
    assert float((reached(*wide, *swapped[:2]) - max_min(table)).max()) > 1e-6  # one order is not the other's answer


def test_with_one_price_everywhere_the_first_path_does_not_feel_the_leader() -> None:
    z, _, _ = costs("plain", 20, 25)
    z = z.reshape(-1, 5, 5) + 1
    _, y = Interdiction(ShortestPath(4), 3, "min_max")(z, torch.full_like(z, 0.5))
    torch.testing.assert_close(y, ShortestPath(4)(z))


@pytest.mark.parametrize("prices", [None, [2, 1, 4, 3, 1, 2, 3]])
@pytest.mark.parametrize("kind", ["harm", "either sign", "removal", "tilted"])
def test_knapsacks_whose_follower_maximises(kind: str, prices: list[int] | None) -> None:
    z, w, a = costs("tilted" if kind == "tilted" else "plain", 60, 7)
    w = {"either sign": w - 0.5, "removal": -z}.get(kind, -w)
    weights, budget = torch.tensor([3, 5, 2, 7, 4, 4, 1]), 2 if prices is None else 5
    points = masks(7)[masks(7) @ weights.to(D) <= 12]
    table = values(z, w, a, affordable(torch.ones(7) if prices is None else torch.tensor(prices), budget), points)
    found = {"min_max": table.max(2).values.min(1).values, "max_min": table.min(1).values.max(1).values}
    for order in ("min_max",) if prices else ("min_max", "max_min"):
        x, y, _ = Interdiction(Knapsack(weights, 12), budget, order, prices=prices).search(z, w, a)
        torch.testing.assert_close(reached(z, w, a, x, y), found[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_knapsack_interdiction_by_the_two_solvers(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    profit, weight, price = torch.randint(1, 101, (3, 16), generator=draw)
    capacity, budget = int(weight.sum()) // 3, int(price.sum()) // 4
    value, _, _ = solve_knapsack_interdiction(profit, weight, price, capacity, budget)
    z = profit.to(D)
    x, y = Interdiction(Knapsack(weight, capacity), budget, "min_max", prices=price)(z, -z)
    assert float(((z - x * z) * y).sum()) == value


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("order", ["max_min", "min_max"])
def test_tours(directed: bool, order: str) -> None:
    n, budget = 4 if directed else 5, 2
    draw = torch.Generator().manual_seed(0)
    z, w = torch.rand(2, 30, n, n, generator=draw, dtype=D)
    tours = torch.unique(torch.stack([tour_matrix(rest, n, directed) for rest in permutations(n)]), dim=0)
    row, column = torch.triu_indices(n, n, 1) if not directed else (~torch.eye(n, dtype=torch.bool)).nonzero().T
    edges = torch.zeros(len(row), n, n, dtype=D)
    edges[torch.arange(len(row)), row, column] = 1
    edges = edges if directed else edges + edges.mT
    sets = affordable(torch.ones(len(row)), budget) @ edges.flatten(1)
    table = values(z.flatten(1), w.flatten(1), torch.zeros(30, n * n, dtype=D), sets, tours.flatten(1))
    x, y = Interdiction(Tour(directed=directed), budget, order)(z, w)
    torch.testing.assert_close(
        reached(z, w, torch.zeros_like(z), x, y), {"max_min": max_min, "min_max": min_max}[order](table)
    )
    assert int(x.flatten(1).sum(1).max()) == budget * (1 if directed else 2)
    assert directed or torch.equal(x, x.mT)


def permutations(n: int) -> Tensor:
    """All orders of the nodes after the first."""
    every = torch.cartesian_prod(*[torch.arange(1, n)] * (n - 1))
    return every[(every.sort(1).values == torch.arange(1, n)).all(1)]


def tour_matrix(rest: Tensor, n: int, directed: bool) -> Tensor:
    """The matrix of a tour."""
    nodes = [0, *rest.tolist(), 0]
    matrix = torch.zeros(n, n, dtype=D)
    matrix[nodes[:-1], nodes[1:]] = 1
    return matrix if directed else torch.maximum(matrix, matrix.mT)


def test_other_followers() -> None:
    z, w, a = costs("plain", 8, 6)
    chosen = masks(6)[masks(6).sum(1) == 3]
    table = values(z, w, a, affordable(torch.ones(6), 2), chosen)
    followers: list[Oracle] = [
        TopK(3, maximise=False),
        MixedInteger(torch.ones(1, 6), lower=3.0, upper=3.0),
        oracle(lambda cost: (cost.argsort().argsort() < 3).astype(float), event_dims=1),
    ]
    for follower in followers:
        for order, truth in (("max_min", max_min(table)), ("min_max", min_max(table))):
            x, y = Interdiction(follower, 2, order)(z, w)
            torch.testing.assert_close(reached(z, w, a, x, y), truth, rtol=0, atol=1e-12)


def test_points_that_are_no_masks_are_for_a_leader_who_is_first() -> None:
    amounts = oracle(lambda cost: 2.0 * (cost == cost.min()), event_dims=1)
    z, w = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([5.0, 1.0, 1.0])
    x, y = Interdiction(amounts, 1, "max_min")(z, w)
    assert (x.tolist(), y.tolist()) == ([1, 0, 0], [0, 2, 0])
    with pytest.raises(UnsupportedError, match="its points must be 0/1"):
        Interdiction(amounts, 1, "min_max")(z, w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", ["max_min", "min_max"])
def test_batches_and_dtypes(dtype: torch.dtype, order: str) -> None:
    game = Interdiction(ShortestPath(), 2, order)
    z, w = torch.randint(1, 9, (2, 2, 3, 4, 5), generator=torch.Generator().manual_seed(0)).to(dtype)
    x, y = game(z, w)
    assert (x.shape, y.shape, x.dtype, y.dtype) == (z.shape, z.shape, dtype, dtype)
    one_x, one_y = game(z[1, 2], w[1, 2])
    torch.testing.assert_close((x[1, 2], y[1, 2]), (one_x, one_y))
    shared = game(z, w[0, 0])
    torch.testing.assert_close(shared[0][0, 0], x[0, 0])
    empty = game(z[:0], w[:0])
    assert empty[0].shape == (0, 3, 4, 5)
    assert not x.requires_grad


def test_costs_outside_the_domain_are_refused_and_perturbed_ones_projected() -> None:
    game = Interdiction(ShortestPath(), 1)
    z = torch.ones(3, 3)
    with pytest.raises(InputError, match="least cost is -1"):
        game(z, -2 * z)
    with pytest.raises(InputError, match="least cost is -1"):
        game(-z, 2 * z)
    torch.testing.assert_close(game.project(z, -3 * z), 3 * z)
    torch.testing.assert_close(game.project(z - 2, 3 * z), 0 * z)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((TopK(1), -1), InputError, "budget is -1"),
        ((TopK(1), 1.5), InputError, "budget is 1.5"),
        ((TopK(1), 1, "leader"), InputError, "order is 'leader'"),
        ((None, 1), InputError, "the follower is None"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Interdiction(*arguments)


def test_prices_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="the follower moves first"):
        Interdiction(ShortestPath(), 1, "min_max", prices=torch.ones(3, 3, dtype=torch.int64))
    for prices in (torch.ones(3), torch.zeros(3, dtype=torch.int64), torch.ones(3, 3, dtype=torch.int64)):
        with pytest.raises(InputError, match="wanted integers > 0 with 1 dimensions"):
            Interdiction(TopK(1, maximise=False), 1, "max_min", prices=prices)
    with pytest.raises(InputError, match="prices \\(2,\\) for a problem of shape \\(3,\\)"):
        Interdiction(TopK(1, maximise=False), 1, "max_min", prices=[1, 1])(torch.ones(3), torch.ones(3))
    with pytest.raises(InputError, match="wanted a symmetric matrix"):
        Interdiction(Tour(), 1, "max_min", prices=torch.tensor([[1, 2], [3, 1]]))


@pytest.mark.parametrize("prices", [None, [1, 1, 1, 1]])
@pytest.mark.parametrize("maximise", [False, True])
def test_a_leader_alone_raises_no_cell_for_nothing(maximise: bool, prices: list[int] | None) -> None:
    """Also where the budget would pay for it."""
    worth = torch.tensor([[-1.0, 0.0, 3.0, 2.0], [-1.0, -2.0, 0.0, 0.5]])
    game = Interdiction(TopK(1, maximise), 3, "min_max" if maximise else "max_min", prices=prices)
    assert game.leader(-worth if maximise else worth).tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("z", "w", "message"),
    [
        (torch.ones(3, 3, dtype=torch.int64), torch.ones(3, 3), "z is torch.int64"),
        (torch.ones(3, 3), [1.0], "w is list"),
        (torch.ones(3, 3), torch.ones(3, 3, dtype=D), "bring them to one dtype"),
        (torch.ones(3, 3), torch.ones(3, 4), r"z has shape \(3, 3\) and w \(3, 4\)"),
        (torch.ones(3), torch.ones(3), "wanted"),
        (torch.ones(2, 3, 3), torch.ones(5, 3, 3), "batches that broadcast"),
        (torch.full((3, 3), torch.nan), torch.ones(3, 3), "9 entries of z are infinite or NaN"),
        (torch.ones(3, 3), torch.full((3, 3), torch.inf), "9 entries of w are infinite or NaN"),
    ],
)
def test_costs_that_do_not_fit_are_refused(z: Tensor, w: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Interdiction(ShortestPath(), 1)(z, w)


def test_a_shown_game_can_be_typed_again() -> None:
    game = Interdiction(TopK(2), 3, "max_min", max_steps=7)
    assert repr(game) == 'Interdiction(TopK(k=2, maximise=True), budget=3, order="max_min", max_steps=7)'
