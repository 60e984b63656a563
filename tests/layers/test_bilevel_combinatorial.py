"""The layer of two combinatorial levels as a module: batches, dtypes, copies, transforms, certificates, refusals."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from bigrad import InputError, UnsupportedError
from bigrad.combinatorial import (
    BilevelBlackbox,
    BilevelCertificate,
    Blackbox,
    Interdiction,
    ShortestPath,
    StraightThrough,
)
from bigrad.layers import BilevelCombinatorial

D = torch.float64
ESTIMATORS = {
    "other level fixed": Blackbox(step=2.0),
    "bilevel solver": BilevelBlackbox(step=1.0),
    "exact": BilevelBlackbox(step=1.0, exact=True),
    "pass-through": StraightThrough(),
}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
# torch itself calls a deprecated function where forward mode is first used
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")


def layer_of(estimator: object, order: str = "max_min", **settings: object) -> BilevelCombinatorial:
    """A game on grids, quiet about gradients of zero."""
    game = Interdiction(ShortestPath(), 2, order, **settings)  # type: ignore[arg-type]
    return BilevelCombinatorial(game, estimator, on_zero_gradient="ignore")  # type: ignore[arg-type]


def costs(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """``z`` and ``w`` of this shape."""
    z, w = torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=D)
    return z + 1, 2 * w


def loss(x: Tensor, y: Tensor) -> Tensor:
    """A number that depends on every entry of a problem's points in its own way ``(*batch)``."""
    weights = torch.cos(torch.arange(12, dtype=x.dtype)).reshape(3, 4)
    return (weights * y + weights.flip(0) * x).sum((-1, -2))


def gradients(layer: BilevelCombinatorial, z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the summed losses."""
    z, w = z.clone().requires_grad_(), w.clone().requires_grad_()
    return torch.autograd.grad(loss(*layer(z, w)).sum(), (z, w))


@every_estimator
@pytest.mark.parametrize("order", ["max_min", "min_max"])
def test_a_batch_is_its_problems(estimator: object, order: str) -> None:
    layer, (z, w) = layer_of(estimator, order), costs(2, 3, 3, 4)
    x, y = layer(z, w)
    found = gradients(layer, z, w)
    assert x.shape == y.shape == z.shape
    for place in ((0, 0), (1, 2)):
        torch.testing.assert_close(layer(z[place], w[place]), (x[place], y[place]))
        torch.testing.assert_close(gradients(layer, z[place], w[place]), tuple(part[place] for part in found))


@every_estimator
def test_a_shared_cost_gets_the_sum_of_the_gradients(estimator: object) -> None:
    layer, (z, w) = layer_of(estimator), costs(5, 3, 4)
    apart = gradients(layer, z, w[0].expand(5, 3, 4))
    shared = gradients(layer, z, w[0])
    torch.testing.assert_close(shared, (apart[0], apart[1].sum(0)))
    assert gradients(layer, z[:0], w[:0])[0].shape == (0, 3, 4)


@every_estimator
def test_dtypes_are_kept(estimator: object) -> None:
    layer, (z, w) = layer_of(estimator), costs(4, 3, 4)
    double, single = gradients(layer, z, w), gradients(layer, z.float(), w.float())
    assert all(part.dtype == torch.float32 for part in (*single, *layer(z.float(), w.float())))
    torch.testing.assert_close(single, tuple(part.float() for part in double))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(gradients(layer, z, w), double)


@every_estimator
def test_only_costs_that_want_a_gradient_get_one(estimator: object) -> None:
    layer, (z, w) = layer_of(estimator), costs(4, 3, 4)
    truth = gradients(layer, z, w)
    for place in (0, 1):
        alone = [part.clone().requires_grad_(place == here) for here, part in enumerate((z, w))]
        loss(*layer(*alone)).sum().backward()
        torch.testing.assert_close(alone[place].grad, truth[place])
        assert alone[1 - place].grad is None
    assert not any(part.requires_grad for part in layer(z, w))
    with torch.no_grad():
        assert not any(part.requires_grad for part in layer(z.requires_grad_(), w))


@every_estimator
def test_a_copy_does_the_same(estimator: object) -> None:
    layer, (z, w) = layer_of(estimator), costs(4, 3, 4)
    truth = gradients(layer, z, w)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert isinstance(twin.certificate, BilevelCertificate)
        assert repr(twin.certificate) == repr(layer.certificate)
        torch.testing.assert_close(gradients(twin, z, w), truth)
    layer.load_state_dict(layer.state_dict())


def test_what_it_shows() -> None:
    shown = repr(BilevelCombinatorial(Interdiction(ShortestPath(), 2), BilevelBlackbox(3.0)))
    assert "BilevelBlackbox(step=3.0, two_sided=False, exact=False)" in shown
    assert 'budget=2, order="min_max"' in shown
    assert "on_failure='raise', on_zero_gradient='warn'" in shown
    assert "follower=Blackbox(step=3.0" in repr(BilevelCombinatorial(Interdiction(ShortestPath(), 2), Blackbox(3.0)))


@every_estimator
def test_transforms(estimator: object) -> None:
    layer, (z, w) = layer_of(estimator), costs(4, 3, 4)
    truth = gradients(layer, z, w)
    one = torch.func.grad(lambda z, w: loss(*layer(z, w)), argnums=(0, 1))
    torch.testing.assert_close(one(z[0], w[0]), (truth[0][0], truth[1][0]))
    assert layer.certificate is None
    torch.testing.assert_close(torch.func.vmap(one)(z, w), truth)
    torch.testing.assert_close(torch.func.vmap(one, in_dims=(2, 0), out_dims=0)(z.permute(1, 2, 0), w), truth)
    torch.testing.assert_close(torch.func.vmap(layer, in_dims=(0, None))(z, w[0]), layer(z, w[0]))
    jacobian = torch.func.jacrev(lambda z: loss(*layer(z, w)))(z)
    torch.testing.assert_close(jacobian, torch.eye(4, dtype=D)[:, :, None, None] * truth[0])
    twice = torch.func.vmap(torch.func.vmap(one))(z.reshape(2, 2, 3, 4), w.reshape(2, 2, 3, 4))
    torch.testing.assert_close(twice, tuple(part.reshape(2, 2, 3, 4) for part in truth))


@every_estimator
def test_a_second_derivative_is_refused(estimator: object) -> None:
    layer, (z, w) = layer_of(estimator), costs(3, 4)
    z.requires_grad_()
    (first,) = torch.autograd.grad(loss(*layer(z, w)), z, create_graph=True)
    with pytest.raises(UnsupportedError, match="first derivatives in reverse mode only"):
        torch.autograd.grad((first**2).sum(), z)
    with pytest.raises(UnsupportedError, match="first derivatives in reverse mode only"):
        torch.func.grad(lambda z: torch.func.grad(lambda z: loss(*layer(z, w)))(z).square().sum())(z)


@every_estimator
@forward_mode
def test_forward_mode_is_refused(estimator: object) -> None:
    layer, (z, w) = layer_of(estimator), costs(3, 4)
    with pytest.raises(UnsupportedError, match="first derivatives in reverse mode only"):
        torch.func.jvp(lambda z: layer(z, w)[1], (z,), (torch.ones_like(z),))


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own graph breaks
def test_compiled_models_keep_the_layer() -> None:
    layer, (z, w) = layer_of(BilevelBlackbox(1.0)), costs(3, 4)
    model = torch.compile(lambda z, w: loss(*layer(2 * z, w)), backend="eager")
    z.requires_grad_()
    (found,) = torch.autograd.grad(model(z, w), z)
    torch.testing.assert_close(found, 2 * gradients(layer, 2 * z.detach(), w)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ShortestPath(), Blackbox()), "the oracle is ShortestPath"),
        ((Interdiction(ShortestPath(), 1), 3.0), "the estimator is 3.0"),
        ((Interdiction(ShortestPath(), 1), Blackbox), "the estimator is <class"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BilevelCombinatorial(*arguments)


@pytest.mark.parametrize("mode", ["on_failure", "on_zero_gradient"])
def test_modes_are_three(mode: str) -> None:
    with pytest.raises(InputError, match="'panic'; it must be"):
        BilevelCombinatorial(Interdiction(ShortestPath(), 1), Blackbox(), **{mode: "panic"})  # type: ignore[arg-type]


def test_costs_that_make_no_sense_are_refused() -> None:
    layer, (z, w) = layer_of(Blackbox()), costs(3, 4)
    for bad, message in (
        ((z, w[:2]), "z has shape"),
        ((-z, w), "least cost"),
        ((z, w.float()), "one dtype"),
        ((z, 1.0), "w is float"),
    ):
        with pytest.raises(InputError, match=message):
            layer(*bad)
    z[0, 0] = torch.nan
    with pytest.raises(InputError, match="1 entries of z are infinite or NaN"):
        layer(z, w)
