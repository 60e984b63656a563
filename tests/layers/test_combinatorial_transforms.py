"""The combinatorial layer under torch's transforms, its compiler and autocast, and in a model that learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bigrad import UnsupportedError
from bigrad.combinatorial import (
    IMLE,
    Blackbox,
    Identity,
    RelativeStep,
)
from bigrad.layers import Combinatorial

from ..combinatorial.points import FORWARD_MODE, D, Points, numbers, seeded
from .solutions import COST, COTANGENT, NOISY, QUIET, backward, points


@pytest.mark.parametrize("name", QUIET)
def test_transforms(name: str) -> None:
    layer = Combinatorial(points(), QUIET[name])

    def loss(cost: Tensor, weight: Tensor) -> Tensor:
        return (weight * layer(cost)).sum()

    wanted = backward(layer)
    torch.testing.assert_close(torch.func.grad(loss)(COST, COTANGENT), wanted)
    assert layer.certificate is None
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(COST, COTANGENT), wanted)
    # One cost and many gradients, many costs and one gradient, and other dimensions.
    for dims in ((None, 0), (0, None), (1, 0), (1, 1)):
        one, other = (part.mT if dim == 1 else part for part, dim in zip((COST, COTANGENT), dims, strict=True))
        one, other = (part[0] if dim is None else part for part, dim in zip((one, other), dims, strict=True))
        found = torch.func.vmap(torch.func.grad(loss), in_dims=dims)(one, other)
        rows = [
            backward(layer, COST[0 if dims[0] is None else row], COTANGENT[0 if dims[1] is None else row])
            for row in range(6)
        ]
        torch.testing.assert_close(found, torch.stack(rows))
    nested = torch.func.vmap(torch.func.vmap(torch.func.grad(loss)))(COST.reshape(2, 3, 4), COTANGENT.reshape(2, 3, 4))
    torch.testing.assert_close(nested.reshape(6, 4), wanted)
    jacobian = torch.func.jacrev(layer)(COST[0])
    rows = [backward(layer, COST[0], row) for row in torch.eye(4, dtype=D)]
    torch.testing.assert_close(jacobian, torch.stack(rows))


@pytest.mark.parametrize("name", NOISY)
def test_transforms_of_noise(name: str) -> None:
    """As torch's own random operations: a batch has to say whether its problems share their noise."""
    cost = COST[:1].expand(6, 4)

    def loss(cost: Tensor) -> Tensor:
        return (COTANGENT[0] * Combinatorial(points(), estimator)(cost)).sum()

    estimator = NOISY[name]()
    torch.testing.assert_close(
        torch.func.grad(loss)(COST[0]), backward(Combinatorial(points(), NOISY[name]()), COST[0], COTANGENT[0])
    )
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(loss)(cost)
    same = torch.func.vmap(torch.func.grad(loss), randomness="same")(cost)
    assert torch.equal(same, same[:1].expand(6, 4))
    different = torch.func.vmap(loss, randomness="different")(cost)
    assert len(different.unique()) > 1


@pytest.mark.filterwarnings(FORWARD_MODE)
@pytest.mark.parametrize("name", [*QUIET, *NOISY])
def test_derivatives_that_do_not_exist_raise(name: str) -> None:
    layer = Combinatorial(points(), QUIET[name] if name in QUIET else NOISY[name]())

    def loss(cost: Tensor) -> Tensor:
        return (layer(cost) ** 2 * COTANGENT[0]).sum()

    cost = COST[0].clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(cost), cost, create_graph=True)
    with pytest.raises(UnsupportedError, match="first derivatives"):
        first.sum().backward()
    (linear,) = torch.autograd.grad(layer(cost).sum(), cost, create_graph=True)
    with pytest.raises(UnsupportedError, match="first derivatives"):
        linear.sum().backward()
    with pytest.raises(UnsupportedError, match="first derivatives"):
        torch.func.jvp(layer, (COST[0],), (COST[0],))
    if name in QUIET:
        with pytest.raises(UnsupportedError, match="first derivatives"):
            torch.func.hessian(loss)(COST[0])
        with pytest.raises(UnsupportedError, match="first derivatives"):
            torch.func.jacfwd(layer)(COST[0])


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own graph breaks
@pytest.mark.parametrize("name", [*QUIET, *NOISY])
def test_compiled_with_graph_breaks(name: str) -> None:
    torch.compiler.reset()
    found = []
    for compiling in (False, True):
        layer = Combinatorial(points(), QUIET[name] if name in QUIET else NOISY[name]())
        model = nn.Sequential(nn.Linear(3, 4, dtype=D), layer)
        with torch.no_grad():
            model[0].weight.copy_(numbers(4, 3))
            model[0].bias.zero_()
        run = torch.compile(model, backend="eager") if compiling else model
        (run(numbers(6, 3, seed=3)) * COTANGENT).sum().backward()
        found.append(model[0].weight.grad)
    assert torch.equal(*found)
    assert found[0].any()


def test_autocast_does_not_reach_the_oracle() -> None:
    cost = torch.tensor([[1.0, 1.0 + 1e-4, 3.0, 4.0]], requires_grad=True)  # the same in bfloat16
    layer = Combinatorial(Points(torch.eye(4).flip(0)), Blackbox(2.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(cost)
        assert y.tolist() == [[1.0, 0.0, 0.0, 0.0]]
        (found,) = torch.autograd.grad(y, cost, torch.tensor([[1e-4, 0.0, 0.0, 0.0]]))
    assert found.tolist() == [[-0.5, 0.5, 0.0, 0.0]]


def test_a_model_learns_costs_through_its_solutions() -> None:
    x, truth = numbers(64, 5, seed=3), numbers(4, 5, seed=4)
    target = points()(x @ truth.mT)
    for estimator in (Identity(), Blackbox(RelativeStep()), IMLE(RelativeStep(), 4, generator=seeded())):
        weight = nn.Parameter(torch.zeros(4, 5, dtype=D) + 0.1 * numbers(4, 5, seed=5))
        layer, optimizer = Combinatorial(points(), estimator), torch.optim.Adam([weight], lr=0.05)
        for _ in range(120):
            loss = (layer(x @ weight.mT) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right = (points()((x @ weight.mT).detach()) == target).all(-1).double().mean()
        assert right > 0.9, estimator
