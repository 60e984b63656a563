"""The three forms of two-level gradients: their formulas and signs, the exactness theorem, and the wrong variants."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad import InputError, UnsupportedError
from bigrad.combinatorial import (
    IMLE,
    AdaptiveIMLE,
    BilevelBlackbox,
    BilevelEstimator,
    BilevelOracle,
    Blackbox,
    Estimator,
    FixedLevels,
    Identity,
    Interdiction,
    Normal,
    PerturbedOptimizer,
    RelativeStep,
    StraightThrough,
)
from bigrad.layers import BilevelCombinatorial

from .games import GAMES, D, drawn, gradients, quietly

every_game = pytest.mark.parametrize(("game", "event"), GAMES.values(), ids=GAMES)


def spread(delta_x: Tensor, delta_y: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of ``z`` and ``w`` for those of the linear costs."""
    return delta_y, x * delta_y + y * delta_x


@every_game
@pytest.mark.parametrize("step", [0.5, 2.0])
def test_other_level_fixed(game: Interdiction, event: tuple[int, ...], step: float) -> None:
    """``(y(c + t g) - y(c)) / t`` for a follower that minimises, ``(x(q) - x(q - t g)) / t`` for its leader."""
    costs = drawn(game, event)
    z, w, g_x, g_y = costs
    x, y = game(z, w)
    c, q, sense = z + x * w, w * y, -1.0 if game.follower_maximises else 1.0
    delta_y = sense / step * (game.follower.solve(c + sense * step * g_y) - game.follower.solve(c))
    delta_x = sense / step * (game.leader.solve(q) - game.leader.solve(q - sense * step * g_x))
    found = gradients(quietly(game, Blackbox(step)), costs)
    torch.testing.assert_close(found, spread(delta_x, delta_y, x, y))
    assert step < 1 or all(float(part.abs().sum()) > 0 for part in found)


@every_game
def test_the_leader_raises_its_best_cells(game: Interdiction, event: tuple[int, ...]) -> None:
    """Of the last mover's point, the fixed other one, and the costs."""
    z, w, _, _ = drawn(game, event)
    x, y = game(z, w)
    if game.leader_first:
        torch.testing.assert_close(game.follower.solve(z + x * w), y)
    else:
        torch.testing.assert_close(game.leader.solve(w * y), x)


@every_game
def test_pass_through(game: Interdiction, event: tuple[int, ...]) -> None:
    """``-g_y`` for a follower that minimises, ``+g_x`` for its leader; no level is solved in backward."""
    costs = drawn(game, event)
    z, w, g_x, g_y = costs
    x, y = game(z, w)
    sense = -1.0 if game.follower_maximises else 1.0
    layer = quietly(game, StraightThrough())
    torch.testing.assert_close(gradients(layer, costs), spread(sense * g_x, -sense * g_y, x, y))
    assert layer.certificate is not None
    assert layer.certificate.follower is not None
    assert (layer.certificate.calls, layer.certificate.follower.calls) == (1, 1)  # both of them in forward


@every_game
@pytest.mark.parametrize("step", [0.5, 1.0])
def test_bilevel_solver(game: Interdiction, event: tuple[int, ...], step: float) -> None:
    """``s(z + t g_y, w; a = -t g_x)`` where the follower minimises: both levels move to lower loss."""
    costs = drawn(game, event)
    z, w, g_x, g_y = costs
    x, y = game(z, w)
    sense = -1.0 if game.follower_maximises else 1.0
    moved_x, moved_y, _ = game.search(z + sense * step * g_y, w, -sense * step * g_x)
    truth = spread(sense / step * (x - moved_x), sense / step * (moved_y - y), x, y)
    found = gradients(quietly(game, BilevelBlackbox(step)), costs)
    torch.testing.assert_close(found, truth)
    plus_x, plus_y, _ = game.search(z + sense * step * g_y, w, sense * step * g_x)
    plants = {
        "the leader tilted as the follower is": spread(sense / step * (x - plus_x), sense / step * (plus_y - y), x, y),
        "the leader differenced as the follower is": spread(
            sense / step * (moved_x - x), sense / step * (moved_y - y), x, y
        ),
    }
    for name, plant in plants.items():
        assert not torch.allclose(plant[1], found[1]), name


@pytest.mark.parametrize("game", [GAMES["path max_min"][0], GAMES["path min_max"][0]])
def test_a_right_answer_gets_no_gradient(game: Interdiction) -> None:
    """Pass-through with a squared distance, blackbox with a Hamming distance; the other pairing does not rest."""
    z, w, _, _ = drawn(game, (3, 4))
    x, y = game(z, w)
    hamming = z, w, 1 - 2 * x, 1 - 2 * y
    square = z, w, x - x, y - y
    for part in gradients(quietly(game, StraightThrough()), square):
        assert float(part.abs().max()) == 0
    for step in (1.0, 50.0):
        for part in gradients(quietly(game, BilevelBlackbox(step)), hamming):
            assert float(part.abs().max()) == 0
    assert float(gradients(quietly(game, StraightThrough()), hamming)[0].abs().max()) == 1


def test_a_huge_step_is_a_pass_through_of_the_squared_distance() -> None:
    """With a Hamming distance to a path, the tilted follower takes that path."""
    game, event = GAMES["path max_min"]
    z, w, none, _ = drawn(game, event)
    none = torch.zeros_like(none)
    _, y = game(z, w)
    _, wanted = game(z.flip(0), w.flip(0))
    step = 1e4
    huge = gradients(quietly(game, BilevelBlackbox(step)), (z, w, none, 1 - 2 * wanted))[0]
    # A grid's costs must not fall below zero: as many as the tilt asks for are projected, and the path is the same.
    torch.testing.assert_close(huge, (wanted - y) / step)


def test_costs_through_a_matrix_take_the_gradient_through_it() -> None:
    """With ``z = A u``, the gradient in ``u`` is ``A'`` times that of the cost, whatever ``A`` is; a tilt of ``u`` by
    ``A' g`` is another one."""
    game, event = GAMES["path min_max"]
    _, w, _, g = drawn(game, event)
    g = g.reshape(20, -1)
    A = 1 + torch.rand(12, 12, generator=torch.Generator().manual_seed(3), dtype=D)
    u = torch.rand(20, 12, generator=torch.Generator().manual_seed(4), dtype=D).requires_grad_()
    layer = quietly(game, BilevelBlackbox(1.0))
    _, y = layer((u @ A.T).reshape(20, 3, 4), w)
    (found,) = torch.autograd.grad((y.reshape(20, -1) * g).sum(), u)
    _, moved, _ = game.search((u @ A.T + g).reshape(20, 3, 4).detach(), w)
    torch.testing.assert_close(found, (moved - y).reshape(20, -1).detach() @ A)
    _, tilted, _ = game.search(((u + g @ A) @ A.T).reshape(20, 3, 4).clamp_min(0).detach(), w)
    assert not torch.allclose(found, (tilted - y).reshape(20, -1).detach() @ A)


@pytest.mark.parametrize(
    "estimator",
    [
        Identity(),
        Blackbox(RelativeStep(0.2), two_sided=True),
        IMLE(step=2.0, samples=4, noise=Normal(0.1), generator=torch.Generator().manual_seed(0)),
        PerturbedOptimizer(samples=20, noise=Normal(0.5), generator=torch.Generator().manual_seed(0)),
        AdaptiveIMLE(ratio=0.5, noise=None),
        FixedLevels(StraightThrough(), Blackbox(2.0)),
        BilevelBlackbox(RelativeStep(0.2), two_sided=True),
        BilevelBlackbox(1.0, two_sided=True, exact=True),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
@every_game
def test_every_estimator_gives_the_game_s_points_and_a_gradient(
    game: Interdiction, event: tuple[int, ...], estimator: BilevelEstimator | Estimator
) -> None:
    costs = drawn(game, event)
    layer = quietly(game, estimator)
    torch.testing.assert_close(layer(*costs[:2]), game(*costs[:2]), rtol=0, atol=0)
    for part in gradients(layer, costs):
        assert part.isfinite().all()
        assert float(part.abs().max()) > 0


def test_a_level_alone_leaves_the_other_level_s_answer_out() -> None:
    """Where the leader reacts to the follower, one more solve of both tells something else than a solve of each."""
    game, event = GAMES["path max_min"]
    costs = drawn(game, event)
    alone, both = (gradients(quietly(game, estimator), costs)[0] for estimator in (Blackbox(1.0), BilevelBlackbox(1.0)))
    assert not torch.allclose(alone, both)


def test_an_adaptive_estimator_has_a_state_for_each_level() -> None:
    layer = quietly(GAMES["path max_min"][0], AdaptiveIMLE(ratio=0.5, noise=None))
    gradients(layer, drawn(*GAMES["path max_min"]))
    state = layer.state_dict()
    assert set(state) == {
        f"estimator.{level}.{name}" for level in ("leader", "follower") for name in ("ratio", "nonzeros")
    }


class Cooperative(BilevelOracle):
    """Two levels that both want ``<z, y> + <a, x>`` small; a user's own, with nothing but ``solve``."""

    leader_maximises = False

    def solve(self, z: Tensor, w: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
        n = z.shape[-1]
        a = torch.zeros_like(z) if a is None else a
        pairs = (z[:, None] + torch.diag_embed(w)).transpose(1, 2) + a[:, :, None]  # raised cell, chosen cell
        best = pairs.flatten(1).argmin(1)
        eye = torch.eye(n, dtype=z.dtype)
        return eye[best // n], eye[best % n]


@pytest.mark.parametrize("exact", [False, True])
def test_levels_that_cooperate_have_one_sign(exact: bool) -> None:
    game = Cooperative()
    draw = torch.Generator().manual_seed(0)
    z, w, g_x, g_y = torch.randn(4, 30, 5, generator=draw, dtype=D)
    x, y = game(z, w)
    moved_x, moved_y = game.solve(z + g_y, w, g_x)
    found = gradients(quietly(game, BilevelBlackbox(1.0, exact=exact)), (z, w, g_x, g_y))
    by_w = moved_x * moved_y - x * y if exact else x * (moved_y - y) + y * (moved_x - x)
    torch.testing.assert_close(found, (moved_y - y, by_w))


def test_an_oracle_without_solvers_of_its_levels_says_so() -> None:
    with pytest.raises(UnsupportedError, match="FixedLevels needs solvers of single levels"):
        BilevelCombinatorial(Cooperative(), Blackbox(1.0))(torch.ones(3), torch.ones(3))


@pytest.mark.parametrize("step", [0.0, -1.0, float("inf")])
def test_a_step_that_makes_no_sense_is_refused(step: float) -> None:
    with pytest.raises(InputError, match=f"BilevelBlackbox: step is {step}"):
        BilevelBlackbox(step)


def test_the_layer_s_default_is_a_single_level_estimator_on_each_level() -> None:
    make: Callable[..., BilevelCombinatorial] = BilevelCombinatorial
    assert isinstance(make(GAMES["path max_min"][0]).estimator, FixedLevels)
