"""Tensors that a function uses without being handed them are found, and others can take their places."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bigrad.capture import captured_by, graph_leaves, substituted

D = torch.float64


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


def leaf(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=D, requires_grad=True)


def ids(tensors: list[Tensor]) -> set[int]:
    return {id(tensor) for tensor in tensors}


def test_a_captured_leaf_and_a_captured_result_are_found() -> None:
    y, theta = leaf(1.0, 2.0), leaf(3.0, 4.0)
    product = 2 * theta
    value, found = captured_by(lambda y: (y * theta + product).sum(), y)
    assert ids(found) == ids([theta, product])
    assert value.item() == 3 + 8 + 14


def test_what_was_handed_over_needs_no_gradient_or_is_made_inside_is_not_captured() -> None:
    y, x, constant = leaf(1.0), leaf(2.0), torch.ones(1, dtype=D)
    _, found = captured_by(lambda y, x: ((y * x).exp() + constant * y.sum()).sum(), y, x)
    assert found == []


def test_captured_tensors_in_lists_and_keywords_are_found() -> None:
    y, first, second, third = (leaf(float(number)) for number in range(1, 5))

    def objective(y: Tensor) -> Tensor:
        joined = torch.cat([y, torch.stack((first[0], y[0]))])
        shifted = torch.add(y, other=second) + torch.addcmul(y, third, value=2, tensor2=y)
        return torch.clamp(joined, min=0).sum() + shifted.sum()

    _, found = captured_by(objective, y)
    assert ids([first, second, third]) <= ids(found)


def test_the_parameters_of_a_captured_module_are_found() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    _, found = captured_by(lambda y: model(y).sum(), leaf(1.0, 2.0))
    assert ids(found) == ids(list(model.parameters()))


def test_grad_mode_being_off_around_it_hides_nothing() -> None:
    theta = leaf(3.0)
    with torch.no_grad():
        value, found = captured_by(lambda y: (y * theta).sum(), leaf(1.0))
    assert ids(found) == {id(theta)}
    assert value.requires_grad


@pytest.mark.parametrize("transform", [torch.func.grad, lambda f: lambda t: torch.func.vmap(f)(t.expand(2, 1))])
def test_a_tensor_of_a_running_transform_is_found(transform: object) -> None:
    found: list[list[Tensor]] = []

    def outer(theta: Tensor) -> Tensor:
        found.append(captured_by(lambda y: (y * theta).sum(), torch.ones(1, dtype=D))[1])
        return theta.sum()

    transform(outer)(torch.ones(1, dtype=D))  # type: ignore[operator]
    assert len(found[0]) == 1


def test_substitutes_take_the_gradient_and_the_value() -> None:
    theta, other = leaf(3.0), leaf(5.0)
    product = 2 * theta
    stand_in = leaf(7.0)
    with substituted([theta, product], [other, stand_in]):
        value = (theta * 10 + torch.cat([product, theta])).sum() + torch.add(product, other=theta).sum()
    assert value.item() == 2 * 50 + 7 + 5 + 12
    gone, *moved = torch.autograd.grad(value, [theta, other, stand_in], allow_unused=True)
    assert gone is None
    assert [float(gradient) for gradient in moved] == [22, 2]


def test_substitutes_reach_into_named_tuples_and_dictionaries() -> None:
    theta, other = leaf(3.0), leaf(5.0)

    def total(pair: Pair) -> Tensor:
        return torch.stack(pair).sum()

    with substituted([theta], [other]):
        assert total(Pair(theta, theta)).item() == 10
        assert torch.add(input=theta, other=theta).item() == 10
    assert total(Pair(theta, theta)).item() == 6


def test_the_inner_of_two_substitutions_is_first() -> None:
    theta, outer, inner = leaf(1.0), leaf(2.0), leaf(3.0)
    with substituted([theta, inner], [outer, leaf(10.0)]), substituted([theta], [inner]):
        assert (theta * 1).item() == 10
    with substituted([], []):
        assert (theta * 1).item() == 1


def test_as_many_supplies_as_places() -> None:
    with pytest.raises(ValueError, match="zip"), substituted([leaf(1.0)], []):
        pass


def test_graph_leaves_are_the_tensors_where_a_gradient_would_end() -> None:
    first, second, unused = leaf(1.0), leaf(2.0), leaf(3.0)
    hidden = (unused * first).detach()
    value = ((first * second).exp() + first * hidden).sum()
    assert ids(graph_leaves(value)) == ids([first, second])
    assert graph_leaves(torch.ones(())) == []
    assert graph_leaves((first * 1).detach()) == []


def test_graph_leaves_see_through_custom_functions() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x**2

        @staticmethod
        def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None: ...

        @staticmethod
        def backward(ctx: object, cotangent: Tensor) -> Tensor:
            return cotangent

    theta = leaf(3.0)
    assert ids(graph_leaves(Square.apply(2 * theta).sum())) == {id(theta)}
