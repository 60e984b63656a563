"""What a call of the two-level layer says about itself: counts, gaps, gradients of zero, infinite ones."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from bigrad import SolveWarning
from bigrad.combinatorial import BilevelBlackbox, Blackbox, Interdiction, ShortestPath
from bigrad.errors import NotConverged, Stalled
from bigrad.layers import BilevelCombinatorial

from .test_bilevel_combinatorial import costs, every_estimator, gradients, layer_of


def test_the_certificate_belongs_to_the_call() -> None:
    layer, (z, w) = layer_of(BilevelBlackbox(1.0)), costs(4, 3, 4)
    gradients(layer, z, w)
    certificate = layer.certificate
    assert certificate is not None
    assert (certificate.calls, certificate.solves) == (2, 8)
    assert certificate.gap.tolist() == [0.0] * 4
    assert certificate.proof is not None
    assert bool((certificate.proof.steps >= 1).all())
    assert certificate.zero_gradients is not None
    assert "8 solves in 2 calls" in repr(certificate)
    assert ", gap 0)" in repr(certificate)
    layer(z[0], w[0])
    assert layer.certificate is not certificate
    assert layer.certificate is not None
    assert layer.certificate.gap.shape == ()


def test_the_levels_alone_are_counted_apart() -> None:
    layer, (z, w) = layer_of(Blackbox(2.0)), costs(4, 3, 4)
    gradients(layer, z, w)
    assert layer.certificate is not None
    assert layer.certificate.solves == 4
    for level in (layer.certificate.leader, layer.certificate.follower):
        assert level is not None
        assert level.solves == 8  # where it is, and moved


@pytest.mark.parametrize("estimator", [Blackbox(2.0), BilevelBlackbox(1.0)])
def test_an_answer_without_proof(estimator: object) -> None:
    game = Interdiction(ShortestPath(4), 3, "max_min", max_steps=1)
    z, w = costs(2, 6, 6)
    with pytest.raises(NotConverged, match=r"interdiction \(problem [01] of 2\) stopped early: the gap") as stopped:
        BilevelCombinatorial(game, estimator)(z, w)  # type: ignore[arg-type]
    assert float(stopped.value.certificate.gap.max()) > 0
    loud = BilevelCombinatorial(game, estimator, on_failure="warn")  # type: ignore[arg-type]
    with pytest.warns(SolveWarning, match="the gap between the value found and the proven bound"):
        loud(z, w)
    quiet = BilevelCombinatorial(game, estimator, on_failure="ignore", on_zero_gradient="ignore")  # type: ignore[arg-type]
    x, y = quiet(z.requires_grad_(), w)
    (x.sum() + (y * z.detach()).sum()).backward()
    assert quiet.certificate is not None
    assert float(quiet.certificate.gap.max()) > 0


def test_a_tilted_answer_without_proof_is_one_too() -> None:
    z, w = costs(1, 6, 6)
    game = Interdiction(ShortestPath(4), 3, "max_min")
    x, _ = BilevelCombinatorial(game, BilevelBlackbox(1.0))(z.requires_grad_(), w)
    game.max_steps = 1
    with pytest.raises(NotConverged, match="stopped early"):
        x[0, 0, 1].backward()


@pytest.mark.parametrize("estimator", [Blackbox(1e-6), BilevelBlackbox(1e-6)])
def test_steps_that_are_too_small_are_noticed(estimator: object) -> None:
    z, w = costs(128, 3, 4)
    game = Interdiction(ShortestPath(), 2, "max_min")
    taken = game(z, w)[1]

    def wish(layer: BilevelCombinatorial) -> Tensor:
        """The gradient of how many cells of its path the follower still takes."""
        start = z.clone().requires_grad_()
        (found,) = torch.autograd.grad((layer(start, w)[1] * taken).sum(), start)
        return found

    layer = BilevelCombinatorial(game, estimator)  # type: ignore[arg-type]
    with pytest.warns(SolveWarning, match="zero"):
        found = wish(layer)
    assert float(found.abs().max()) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        wish(layer)
    assert layer.certificate is not None
    counted = layer.certificate.follower or layer.certificate
    assert counted.zero_gradients is not None
    assert int(counted.zero_gradients.sum()) == 128
    strict = BilevelCombinatorial(game, estimator, on_zero_gradient="raise")  # type: ignore[arg-type]
    with pytest.raises(Stalled, match="zero"):
        wish(strict)


@every_estimator
def test_an_infinite_gradient_stays_visible(estimator: object) -> None:
    layer, (z, w) = layer_of(estimator), costs(3, 3, 4)
    z.requires_grad_()
    _, y = layer(z, w)
    weights = torch.ones_like(y)
    weights[1, 0, 0] = torch.inf
    (y * weights).sum().backward()
    assert z.grad is not None
    assert not bool(z.grad[1].isfinite().all())
    assert bool(z.grad[[0, 2]].isfinite().all())


def test_perturbed_costs_outside_the_domain_are_projected_and_counted() -> None:
    layer, (z, w) = layer_of(BilevelBlackbox(100.0)), costs(4, 3, 4)
    z.requires_grad_()
    _, y = layer(z, w)
    (-y).sum().backward()
    assert layer.certificate is not None
    assert 0 < layer.certificate.projected < 1
