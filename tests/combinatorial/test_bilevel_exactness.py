"""Two-level gradients that are exact: those of the value, and of an interpolation of the loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad.combinatorial import BilevelBlackbox, Interdiction

from .games import GAMES, Costs, D, drawn, gradients, quietly, reached

every_game = pytest.mark.parametrize(("game", "event"), GAMES.values(), ids=GAMES)


@every_game
def test_a_tilt_of_lower_loss_lowers_it(game: Interdiction, event: tuple[int, ...]) -> None:
    """Against the gradient both points move to lower loss, which those of the exact signs need not do."""
    costs = drawn(game, event, problems=60)
    z, w, g_x, g_y = costs
    sense = -1.0 if game.follower_maximises else 1.0
    x, y = game(z, w)
    loss = (g_x * x + g_y * y).sum()
    lower, higher = (
        (g_x * point[0] + g_y * point[1]).sum() - loss
        for point in (
            game.search(z + sense * g_y, w, -sense * g_x),
            game.search(z + sense * g_y, w, 3 * sense * g_x),
        )
    )
    assert float(lower) < 0
    assert float(lower) < float(higher)


def directional(game: Interdiction, costs: Costs, step: float, way: tuple[Tensor, Tensor]) -> Tensor:
    """The derivative of ``(V(z + t g_y, w, t g_x) - V(z, w, 0)) / t`` by central differences ``(B,)``."""
    z, w, g_x, g_y = costs
    none, h = torch.zeros_like(z), 1e-6

    def value(z: Tensor, w: Tensor, a: Tensor) -> Tensor:
        return reached(z, w, a, *game.search(z, w, a)[:2])

    def interpolated(h: float) -> Tensor:
        moved = z + h * way[0], w + h * way[1]
        return (value(moved[0] + step * g_y, moved[1], step * g_x) - value(*moved, none)) / step

    return (interpolated(h) - interpolated(-h)) / (2 * h)


@every_game
@pytest.mark.parametrize("step", [0.3, 1.0])
@pytest.mark.parametrize("loss", ["of both points", "of the follower's"])
def test_the_exact_signs_differentiate_an_interpolation_of_the_loss(
    game: Interdiction, event: tuple[int, ...], step: float, loss: str
) -> None:
    costs = drawn(game, event)
    costs = (*costs[:2], costs[2] * (loss == "of both points"), costs[3])
    signed = -step if game.follower_maximises else step
    exact = gradients(quietly(game, BilevelBlackbox(step, exact=True)), costs)
    descent = gradients(quietly(game, BilevelBlackbox(step)), costs)
    worst = wrong = 0.0
    for seed in range(3):
        way = torch.randn(2, *costs[0].shape, generator=torch.Generator().manual_seed(seed), dtype=D)
        truth = directional(game, costs, signed, (way[0], way[1]))
        errors = [
            sum((part * to).flatten(1).sum(1) for part, to in zip(found, way, strict=True)) - truth
            for found in (exact, descent)
        ]
        worst, wrong = max(worst, float(errors[0].abs().max())), max(wrong, float(errors[1].abs().max()))
    assert worst < 1e-7
    if loss == "of both points":
        assert wrong > 1e-3  # the signs that train are the gradient of nothing


@every_game
def test_a_loss_of_the_leader_s_point_alone_wants_the_exact_signs(game: Interdiction, event: tuple[int, ...]) -> None:
    """Under the others its gradient in ``z`` is that of the negated loss."""
    z, w, g_x, g_y = drawn(game, event)
    none = torch.zeros_like(g_y)
    found = gradients(quietly(game, BilevelBlackbox(3.0)), (z, w, g_x, none))[0]
    negated = gradients(quietly(game, BilevelBlackbox(3.0, exact=True)), (z, w, -g_x, none))[0]
    torch.testing.assert_close(found, negated)
    assert float(found.abs().max()) > 0


@every_game
def test_the_value_has_the_points_as_its_derivative(game: Interdiction, event: tuple[int, ...]) -> None:
    z, w, _, _ = drawn(game, event)
    z.requires_grad_()
    w.requires_grad_()
    x, y = game(z, w)
    found = torch.autograd.grad(game.value(z, w, x, y).sum(), (z, w))
    torch.testing.assert_close(found, (y, x * y))
    h = 1e-6
    with torch.no_grad():
        ways = torch.randn(2, *z.shape, generator=torch.Generator().manual_seed(0), dtype=D)
        above, below = ((z + s * h * ways[0], w + s * h * ways[1]) for s in (1, -1))
        slope = (game.value(*above, *game(*above)) - game.value(*below, *game(*below))) / (2 * h)
        slopes = (found[0] * ways[0] + found[1] * ways[1]).flatten(1).sum(1)
    torch.testing.assert_close(slopes, slope, rtol=0, atol=1e-8)


def test_a_leader_s_regret_is_at_rest_where_its_choice_is_right() -> None:
    game, event = GAMES["path max_min"]
    z, w, _, _ = drawn(game, event)
    z.requires_grad_()
    best, answer = game(z, w)

    def regret(known: Tensor) -> Tensor:
        return game.value(z, w, best, answer) - game.value(z, w, known, game.follower(z + known * w))

    assert float(regret(best).detach().abs().max()) == 0
    known = best.flip(0)
    other = regret(known)
    assert bool((other >= -1e-12).all())
    assert float(other.detach().max()) > 1e-3
    (found,) = torch.autograd.grad(other.sum(), z)
    torch.testing.assert_close(found, answer - game.follower(z + known * w))
    before = float(other.detach().sum())
    with torch.no_grad():
        z -= 0.05 * found
        best, answer = game(z, w)
        assert float(regret(known).sum()) < before
