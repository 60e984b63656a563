"""A continuous level and a combinatorial one: the layers compose, and what does not compose says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad import UnsupportedError
from bigrad.combinatorial import (
    BilevelBlackbox,
    Blackbox,
    Interdiction,
    ShortestPath,
    StraightThrough,
    TollSetting,
    TopK,
)
from bigrad.gradients import FirstOrder, GradientRule, Implicit
from bigrad.layers import ArgMin, Bilevel, BilevelCombinatorial, Combinatorial, FixedPoint

D = torch.float64
STEP = 3.0


def vector(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


A, B = vector(6, 6, seed=1), vector(6, 6, seed=2)
QUADRATIC = torch.eye(6, dtype=D) + 0.1 * A @ A.T


def design(x: Tensor, z: Tensor) -> Tensor:
    """A leader's cost of a design ``x``."""
    return 0.5 * ((x @ QUADRATIC) * x).sum(-1) - (x * z).sum(-1)


def test_a_continuous_leader_over_a_combinatorial_follower() -> None:
    """``delta_c`` of the follower's cost ``c(x, w)``, then ``(dc/dx)' delta_c`` beside ``g_x``, then the adjoint."""
    leader, follower = ArgMin(design, torch.zeros(6, dtype=D)), Combinatorial(TopK(2, maximise=False), Blackbox(STEP))
    z, w = vector(6, seed=3).requires_grad_(), vector(6, seed=4).requires_grad_()
    g_x, g_y = vector(6, seed=5), vector(6, seed=6)
    x = leader(z)
    y = follower(w + B @ x.tanh())
    found = torch.autograd.grad((g_x * x).sum() + (g_y * y).sum(), (z, w))
    x, y = x.detach(), y.detach()
    c = w.detach() + B @ x.tanh()
    delta_c = (TopK(2, maximise=False)(c + STEP * g_y) - y) / STEP
    slope = B * (1 - x.tanh() ** 2)
    adjoint = torch.linalg.solve(QUADRATIC, g_x + slope.T @ delta_c)
    torch.testing.assert_close(found, (adjoint, delta_c))
    assert float(delta_c.abs().max()) > 0


def test_a_combinatorial_leader_over_a_continuous_follower() -> None:
    """The follower's adjoint ``v`` first, ``g_x - (d_xy g) v``, then the leader's estimate."""

    def effort(y: Tensor, x: Tensor, w: Tensor) -> Tensor:
        return 0.5 * ((y @ QUADRATIC) * y).sum(-1) - (y * (B @ x + w)).sum(-1)

    leader, follower = Combinatorial(TopK(2), Blackbox(STEP)), ArgMin(effort, torch.zeros(6, dtype=D))
    z, w = vector(6, seed=3).requires_grad_(), vector(6, seed=4).requires_grad_()
    g_x, g_y = vector(6, seed=5), 5 * vector(6, seed=6)
    x = leader(z)
    y = follower(x, w)
    found = torch.autograd.grad((g_x * x).sum() + (g_y * y).sum(), (z, w))
    v = torch.linalg.solve(QUADRATIC, g_y)
    total = g_x + B.T @ v
    delta = (TopK(2)(z.detach()) - TopK(2)(z.detach() - STEP * total)) / STEP
    torch.testing.assert_close(found, (delta, v))
    alone = (TopK(2)(z.detach()) - TopK(2)(z.detach() - STEP * g_x)) / STEP
    assert not torch.allclose(delta, alone)  # the follower's answer forgotten
    assert float(delta.abs().max()) > 0


def coupled(x: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """A leader who answers the follower's answer to ``x``; the follower's is passed through, ``dy/dc = -1``."""
    return z + C @ PASSED(w + 0.3 * B @ x)


C, PASSED = 0.2 * vector(6, 6, seed=7), Combinatorial(TopK(2, maximise=False), StraightThrough())


def test_levels_that_answer_each_other_have_the_whole_series() -> None:
    """A fixed point of both answers sums ``(I - dx/dy dy/dx)^-1``, of which one round is the first term."""
    z, w, g = vector(6, seed=3).requires_grad_(), vector(6, seed=4).requires_grad_(), vector(6, seed=5)
    x = FixedPoint(coupled, torch.zeros(6, dtype=D))(z, w)
    found = torch.autograd.grad((g * x).sum(), (z, w))
    series = torch.linalg.solve((torch.eye(6, dtype=D) + 0.3 * C @ B).T, g)
    torch.testing.assert_close(found, (series, -C.T @ series))
    once = torch.autograd.grad((g * coupled(x.detach(), z, w)).sum(), (z, w))
    assert float((once[0] - found[0]).norm()) > 0.1 * float(found[0].norm())


@pytest.mark.parametrize("gradient", [Implicit(), FirstOrder()])
def test_a_continuous_leader_that_foresees_the_follower_needs_a_derivative_that_there_is_not(
    gradient: GradientRule,
) -> None:
    """Its objective is piecewise smooth only, and the estimate has no derivative: refused, not invented."""
    z, prices, x0 = vector(6, seed=3).requires_grad_(), torch.arange(6, dtype=D), torch.zeros(6, dtype=D)
    layer = ArgMin(lambda x, z: design(x, z) + (PASSED(B @ x) * prices).sum(-1), x0, gradient=gradient)
    with pytest.raises(UnsupportedError, match="first derivatives in reverse mode only"):
        layer(z).sum().backward()
    follower = lambda y, x, z: ((y - PASSED(B @ x)) ** 2).sum(-1)  # noqa: E731  # a name for a one-liner
    both = Bilevel(lambda x, y, z: design(x, z) + (y * prices).sum(-1), follower, (x0, x0))
    with pytest.raises(UnsupportedError, match="first derivatives in reverse mode only"):
        both(z)


def test_a_game_inside_a_continuous_model() -> None:
    """Costs from an argmin, into an interdiction, into an argmin: the vector-Jacobian products multiply."""
    game = Interdiction(ShortestPath(), 1, "max_min")
    layer = BilevelCombinatorial(game, StraightThrough())
    smooth = ArgMin(lambda u, v: ((u - v) ** 2).sum() + (u**2).sum(), torch.zeros(3, 3, dtype=D))
    v = (3 + vector(3, 3, seed=0)).abs().requires_grad_()
    w = torch.ones(3, 3, dtype=D)
    x, y = layer(smooth(v), w)
    g = vector(3, 3, seed=1)
    (found,) = torch.autograd.grad((smooth(y + x) * g).sum(), v)
    torch.testing.assert_close(found, -g / 4)


EDGES = [(0, 1), (1, 3), (0, 2), (2, 3), (1, 2), (0, 3)]


def toll_costs() -> tuple[Tensor, Tensor]:
    """Tolls on the cheap roads, one of them with a limit."""
    z = torch.tensor([[1.0, 1.1, 2.3, 2.2, 0.4, 9.0], [1.2, 1.3, 2.9, 3.2, 0.7, 7.0]], dtype=D)
    return z, torch.tensor([torch.inf, 0.5, 0.0, 0.0, torch.inf, 0.0], dtype=D)


def test_tolls_have_their_exact_derivative() -> None:
    game = TollSetting(ShortestPath.graph(EDGES, 0, 3))
    layer = BilevelCombinatorial(game, StraightThrough())
    z, w = toll_costs()
    z.requires_grad_()
    w.requires_grad_()
    x, y = layer(z, w)
    torch.testing.assert_close((x.detach(), y.detach()), game(z, w), rtol=0, atol=1e-15)
    collected = (x * y.detach()).sum()
    by_z, by_w = torch.autograd.grad(collected, (z, w), retain_graph=True)
    h = 1e-6
    for place in range(6):
        way = torch.zeros_like(z)
        way[0, place] = h
        above, below = ((lambda x, y: (x * y).sum())(*game(z + s * way, w)) for s in (1, -1))
        assert float(by_z[0, place]) == pytest.approx(float(above - below) / (2 * h), abs=1e-8)
    above, below = ((lambda x, y: (x * y).sum())(*game(z, w + s * h * torch.eye(6, dtype=D)[1])) for s in (1, -1))
    assert float(by_w[1]) == pytest.approx(float(above - below) / (2 * h), abs=1e-8)
    assert bool(by_w.isfinite().all())
    # A toll is a difference of prices: it rises with its rivals' costs, and falls with those of its own path.
    assert float(by_z.min()) < 0 < float(by_z.max())


def test_the_path_under_tolls_has_the_estimator_s_derivative_through_them() -> None:
    """``delta_c`` at ``c = z + x(z)``, and its share through the tolls."""
    game = TollSetting(ShortestPath.graph(EDGES, 0, 3))
    layer = BilevelCombinatorial(game, StraightThrough())
    z, w = toll_costs()
    z.requires_grad_()
    x, y = layer(z, w)
    g = vector(2, 6, seed=1)
    (found,) = torch.autograd.grad((g * y).sum(), z, retain_graph=True)
    (through,) = torch.autograd.grad((-g * x).sum(), z)
    torch.testing.assert_close(found, -g + through)


def test_what_tolls_do_not_have_is_refused() -> None:
    game = TollSetting(ShortestPath.graph(EDGES, 0, 3))
    z, w = toll_costs()
    with pytest.raises(UnsupportedError, match="an objective that both levels share"):
        BilevelCombinatorial(game, BilevelBlackbox(1.0))(z, w)
    with pytest.raises(UnsupportedError, match=r"tolls have no derivative under torch\.func"):
        torch.func.grad(lambda z: BilevelCombinatorial(game, Blackbox(1.0))(z, w)[0].sum())(z)
