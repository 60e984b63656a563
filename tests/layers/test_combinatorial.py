"""The combinatorial layer: what it counts, what it warns of, what it refuses, and what is built around it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from bigrad import InputError, SolveWarning
from bigrad.combinatorial import (
    IMLE,
    Blackbox,
    Estimator,
    Identity,
    LogNormal,
    Normal,
    PerturbedOptimizer,
    RelativeStep,
    ShortestPath,
)
from bigrad.errors import Stalled
from bigrad.layers import Combinatorial

from ..combinatorial.points import D, numbers, seeded
from .solutions import COST, COTANGENT, NOISY, QUIET, backward, points

# What the certificate counts


def test_gradients_of_zero_are_counted() -> None:
    layer = Combinatorial(points(), Blackbox(0.7), on_zero_gradient="ignore")
    cotangent = COTANGENT.clone()
    cotangent[2] = 0
    found = backward(layer, cotangent=cotangent)
    certificate = layer.certificate
    assert certificate is not None
    assert certificate.asked is not None
    assert certificate.zero_gradients is not None
    assert certificate.step is not None
    assert certificate.asked.tolist() == [place != 2 for place in range(6)]
    assert certificate.zero_gradients.tolist() == [place != 2 and not found[place].any() for place in range(6)]
    assert 0 < certificate.zero_gradients.sum() < 5
    assert certificate.step.tolist() == [0.7] * 6
    assert f"{int(certificate.zero_gradients.sum())} of 5 gradients zero" in repr(certificate)


def test_the_certificate_is_the_last_call_s_and_waits_for_backward() -> None:
    layer = Combinatorial(points(), Blackbox(2.0))
    assert layer.certificate is None
    first = layer(COST.clone().requires_grad_())
    one = layer.certificate
    layer(COST)
    assert one is not layer.certificate
    assert one is not None
    assert one.zero_gradients is None
    (first * COTANGENT).sum().backward()
    assert one.zero_gradients is not None
    assert (one.calls, one.solves) == (2, 12)


def test_a_step_too_small_warns_once() -> None:
    layer = Combinatorial(points(), Blackbox(1e-4))
    assert not backward(layer).any()  # too few to tell
    with pytest.warns(SolveWarning, match=r"12 of 12 gradients .* 2 of 2 problems .* raise step, now 0.0001"):
        backward(layer)
    backward(layer)
    assert layer.certificate is not None
    assert layer.certificate.solves == 12  # and no longer looks
    twin = Combinatorial(points(), Blackbox(RelativeStep(1e-4)))
    with pytest.warns(SolveWarning, match="raise the ratio"):
        backward(twin, COST.repeat(2, 1), COTANGENT.repeat(2, 1))


def test_a_batch_of_one_is_judged_by_many_passes() -> None:
    layer = Combinatorial(points(), Blackbox(1e-4))
    for w, g in zip(COST.repeat(2, 1)[:9], COTANGENT.repeat(2, 1)[:9], strict=True):
        backward(layer, w, g)
    with pytest.warns(SolveWarning, match="10 of 10"):
        backward(layer, COST[0], COTANGENT[0])


def test_zeros_among_other_gradients_are_no_failure() -> None:
    layer = Combinatorial(points(), Blackbox(1.1), on_zero_gradient="raise")
    for _ in range(5):
        backward(layer)
    assert layer.certificate is not None
    assert layer.certificate.zero_gradients is not None
    assert layer.certificate.zero_gradients.any()
    assert layer.certificate.solves == 12  # nothing was looked into


def test_a_step_too_small_raises_where_that_is_wanted_and_is_silent_where_that_is() -> None:
    layer = Combinatorial(points(), Blackbox(1e-4), on_zero_gradient="raise")
    backward(layer)
    for count in (12, 18):
        with pytest.raises(Stalled, match=f"{count} of {count} gradients") as caught:
            backward(layer)
        assert caught.value.certificate is layer.certificate
    silent = Combinatorial(points(), Blackbox(1e-4), on_zero_gradient="ignore")
    backward(silent)
    assert silent.certificate is not None
    assert (int(silent.certificate.zero_gradients.sum()), silent.certificate.solves) == (6, 12)


@pytest.mark.parametrize("maximise", [False, True], ids=["min", "max"])
def test_a_gradient_that_should_be_zero_is_no_failure(maximise: bool) -> None:
    """With the solution at its target, no other one lowers the loss."""
    oracle = points(maximise=maximise)
    for step in (1e-4, 20.0):
        layer = Combinatorial(oracle, Blackbox(step), on_zero_gradient="raise")
        for _ in range(3):
            assert not backward(layer, COST, 1 - 2 * oracle(COST)).any()
        assert layer.certificate is not None
        assert layer.certificate.zero_gradients is not None
        assert layer.certificate.zero_gradients.all()


def test_samples_with_one_solution_give_no_score() -> None:
    layer = Combinatorial(points(), PerturbedOptimizer(4, Normal(1e-6), generator=seeded()))
    with pytest.warns(SolveWarning, match="raise the noise's scale"):
        backward(layer, COST.repeat(2, 1), COTANGENT.repeat(2, 1))


def test_perturbed_costs_outside_the_domain_are_projected_and_counted() -> None:
    oracle, cost = points(nonnegative=True), COST.abs()
    noise = Normal(0.8)
    drawn = noise.draw(cost, 3, seeded())
    layer = Combinatorial(oracle, PerturbedOptimizer(3, noise, generator=seeded()))
    layer(cost)
    assert layer.certificate is not None
    assert layer.certificate.projected == (cost - 0.8 * drawn < 0).double().mean()
    assert (oracle.asked[-1] == 0).any()
    layer = Combinatorial(oracle, Blackbox(1.5))
    backward(layer, cost)
    assert layer.certificate is not None
    assert layer.certificate.outside == int((cost + 1.5 * COTANGENT < 0).sum()) > 0
    layer = Combinatorial(oracle, PerturbedOptimizer(3, LogNormal(), generator=seeded()))
    layer(cost)
    assert layer.certificate is not None
    assert layer.certificate.projected == 0


def test_a_user_s_cost_outside_the_domain_is_refused() -> None:
    for estimator in (Identity(), Blackbox(), PerturbedOptimizer(3), PerturbedOptimizer(3, LogNormal())):
        with pytest.raises(InputError, match="wanted costs >= 0"):
            Combinatorial(points(nonnegative=True), estimator)(COST)


@pytest.mark.parametrize("estimator", [Identity(), PerturbedOptimizer(3)], ids=["quiet", "noisy"])
def test_what_is_no_cost_is_refused(estimator: Estimator) -> None:
    layer = Combinatorial(points(), estimator)
    for cost, message in (
        (COST.long(), "float32 or float64"),
        (COST.half(), "float32 or float64"),
        (COST.tolist(), "float32 or float64"),
        (COST * torch.inf, "infinite or NaN"),
        (torch.tensor(1.0), "shape"),
    ):
        with pytest.raises(InputError, match=message):
            layer(cost)
    with pytest.raises(InputError, match=r"oracle\(function\)"):
        Combinatorial(lambda cost: cost)
    with pytest.raises(InputError, match="wanted one such as"):
        Combinatorial(points(), Blackbox)
    with pytest.raises(InputError, match="on_failure"):
        Combinatorial(points(), on_zero_gradient="shout")


def test_an_incoming_gradient_that_is_not_finite_goes_on() -> None:
    """As a scaler of gradients needs it; the other problems are not touched."""
    layer = Combinatorial(points(), Blackbox(2.0))
    cotangent = COTANGENT.clone()
    cotangent[1, 2], cotangent[4, 0] = torch.nan, torch.inf
    found, wanted = backward(layer, cotangent=cotangent), backward(layer)
    assert found[[1, 4]].isnan().all()
    assert torch.equal(found[[0, 2, 3, 5]], wanted[[0, 2, 3, 5]])


# Shapes, dtypes, copies


@pytest.mark.parametrize("name", [*QUIET, *NOISY])
@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,), (2, 0)])
def test_shapes_and_dtypes(name: str, dtype: torch.dtype, batch: tuple[int, ...]) -> None:
    estimator = QUIET[name] if name in QUIET else NOISY[name]()
    cost = numbers(*batch, 4).to(dtype).requires_grad_()
    y = Combinatorial(points(), estimator, on_zero_gradient="ignore")(cost)
    assert y.shape == cost.shape
    assert y.dtype == dtype
    (y * numbers(*batch, 4, seed=3).to(dtype)).sum().backward()
    assert cost.grad is not None
    assert cost.grad.dtype == dtype
    assert cost.grad.any() == bool(cost.numel())
    if name in QUIET:
        assert torch.equal(y, points()(cost))


def test_a_batch_is_its_problems() -> None:
    for estimator in QUIET.values():
        whole = backward(Combinatorial(points(), estimator))
        alone = [backward(Combinatorial(points(), estimator), w, g) for w, g in zip(COST, COTANGENT, strict=True)]
        torch.testing.assert_close(whole, torch.stack(alone))


def test_problems_of_several_dimensions() -> None:
    cost = numbers(2, 3, 5, 5).abs().requires_grad_()
    for estimator in (Identity(), Blackbox(RelativeStep()), IMLE(2.0, 3), PerturbedOptimizer(3, LogNormal(0.3))):
        layer = Combinatorial(ShortestPath(), estimator)
        (found,) = torch.autograd.grad(layer(cost), cost, numbers(2, 3, 5, 5, seed=1))
        assert found.shape == cost.shape
        assert found.isfinite().all()
        assert layer.certificate is not None
        assert layer.certificate.asked is not None
        assert layer.certificate.asked.shape == (2, 3)


@pytest.mark.parametrize("name", [*QUIET, *NOISY])
def test_copies_and_repr(name: str) -> None:
    layer = Combinatorial(points(), QUIET[name] if name in QUIET else NOISY[name]())
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    wanted = backward(layer)
    for twin in copies:
        assert torch.equal(backward(twin), wanted)
        assert twin.certificate is not layer.certificate
        assert repr(twin.certificate) == repr(layer.certificate)
    assert type(layer.estimator).__name__ in repr(layer)
    used = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    assert all(repr(twin.certificate) == repr(layer.certificate) for twin in used)
    assert layer.state_dict().keys() == ({"estimator.ratio", "estimator.nonzeros"} if "Adaptive" in name else set())


def test_the_default_is_one_solve() -> None:
    oracle = points()
    layer = Combinatorial(oracle)
    assert layer.estimator == Identity(centre=True, normalise=True)
    backward(layer)
    assert len(oracle.asked) == 1
