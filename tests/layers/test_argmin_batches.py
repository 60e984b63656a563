"""Which shape the answer has, and that the problems of a batch do not touch each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bigrad import InputError, Status
from bigrad.layers import ArgMin

from .cases import D, vector


def near(y: Tensor, x: Tensor) -> Tensor:
    """One problem for each row of ``x``; ``y = sin(x)``."""
    return ((y - x.sin()) ** 2).sum(-1)


def assert_solves(layer: ArgMin, x: Tensor, **call: Any) -> Tensor:
    free = x.clone().requires_grad_()
    y = layer(free, **call)
    torch.testing.assert_close(y, x.sin(), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), free)[0], x.cos(), rtol=1e-7, atol=1e-8)
    return y


@pytest.mark.parametrize("lead", [(), (1,), (5,), (2, 4)])
def test_a_start_without_a_batch_is_expanded_to_it(lead: tuple[int, ...]) -> None:
    layer = ArgMin(near, torch.zeros(3, dtype=D))
    assert_solves(layer, vector(*lead, 3))
    assert layer.certificate is not None
    assert layer.certificate.status.shape == lead


@pytest.mark.parametrize("lead", [(5,), (2, 4)])
def test_a_start_with_its_batch_is_taken_as_it_is(lead: tuple[int, ...]) -> None:
    assert_solves(ArgMin(near, torch.zeros(*lead, 3, dtype=D)), vector(*lead, 3))


def test_a_start_can_be_a_function_of_the_inputs() -> None:
    asked: list[tuple[int, ...]] = []

    def start(x: Tensor) -> Tensor:
        asked.append(tuple(x.shape))
        return torch.zeros_like(x)

    layer = ArgMin(near, start)
    assert_solves(layer, vector(3))
    assert_solves(layer, vector(7, 3))
    assert asked == [(3,), (7, 3)]


def test_a_start_for_one_call_only() -> None:
    layer = ArgMin(near, torch.zeros(3, dtype=D))
    x = vector(4, 3)
    assert_solves(layer, x, init=x.sin())
    assert layer.certificate is not None
    assert int(layer.certificate.steps.max()) == 0
    assert_solves(layer, x)
    assert int(layer.certificate.steps.min()) > 0


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_start_that_happens_to_begin_with_the_size_of_the_batch(size: int) -> None:
    layer = ArgMin(near, torch.zeros(3, dtype=D))
    for _ in range(2):
        assert_solves(layer, vector(size, 3))


def test_the_same_where_every_leaf_begins_with_the_size_of_the_batch() -> None:
    init = {"a": torch.zeros(3, dtype=D), "b": torch.zeros(3, 2, dtype=D)}

    def objective(y: dict[str, Tensor], x: Tensor) -> Tensor:
        return ((y["a"] - x) ** 2).sum(-1) + ((y["b"] - x[..., None]) ** 2).sum((-1, -2))

    y = ArgMin(objective, init)(x := vector(3, 3))
    torch.testing.assert_close(y["a"], x, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(y["b"], x[..., None].expand(3, 3, 2), rtol=1e-7, atol=1e-8)


def test_under_a_transform_that_start_is_refused_before_and_after_an_eager_call() -> None:
    layer = ArgMin(near, torch.zeros(3, dtype=D))
    for _ in range(2):
        with pytest.raises(InputError, match="expand it"):
            torch.func.grad(lambda x: layer(x).sum())(vector(3, 3))
        assert_solves(layer, vector(3, 3))
    expanded = ArgMin(near, torch.zeros(3, 3, dtype=D))
    gradient = torch.func.grad(lambda x: expanded(x).sum())(vector(3, 3))
    torch.testing.assert_close(gradient, vector(3, 3).cos(), rtol=1e-7, atol=1e-8)


def test_a_batch_of_numbers() -> None:
    layer = ArgMin(lambda y, x: (y - x) ** 2, torch.zeros((), dtype=D))
    torch.testing.assert_close(layer(vector(5)), vector(5), rtol=1e-7, atol=1e-8)
    assert layer(vector()).shape == ()


def test_problems_of_a_batch_that_share_an_input_add_up_their_gradients() -> None:
    shared = vector(3).requires_grad_()
    factor = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=D)
    y = ArgMin(lambda y, c, s: ((y - c.unsqueeze(-1) * s) ** 2).sum(-1), torch.zeros(3, dtype=D))(factor, shared)
    (gradient,) = torch.autograd.grad(y.sum(), shared)
    torch.testing.assert_close(gradient, torch.full((3,), 10.0, dtype=D))


def test_no_problems_at_all() -> None:
    x = torch.zeros(0, 3, dtype=D, requires_grad=True)
    y = ArgMin(near, torch.zeros(3, dtype=D))(x)
    assert y.shape == (0, 3)
    y.sum().backward()
    assert x.grad is not None


def test_one_number_for_a_coupled_problem_is_right() -> None:
    x = vector(4, 3).requires_grad_()
    y = ArgMin(lambda y, x: ((y - x) ** 2).sum() + y.mean(0).square().sum(), torch.zeros(4, 3, dtype=D))(x)
    torch.testing.assert_close(y, x - x.mean(0) / 5, rtol=1e-7, atol=1e-8)


def centred(y: Tensor, x: Tensor) -> Tensor:
    return ((y - y.mean(0) - x) ** 2).sum(-1) + (y**2).sum(-1)


class Normed(nn.Module):
    """A batch norm in the way of the variables."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, affine=False, dtype=D)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return ((self.norm(y) - x) ** 2).sum(-1) + ((y - x) ** 2).sum(-1)


def next_one(y: Tensor, x: Tensor) -> Tensor:
    """Each problem looks at a single other one."""
    return ((y - x) ** 2).sum(-1) + 1e-4 * (y * y.roll(1, 0)).sum(-1)


@pytest.mark.parametrize("objective", [centred, next_one, Normed()], ids=["mean", "neighbour", "batch norm"])
@pytest.mark.parametrize("init", [torch.zeros(4, 3, dtype=D), torch.zeros_like, lambda x: x.clone()])
def test_a_coupled_batch_is_refused(objective: Callable[..., Tensor], init: Any) -> None:
    with pytest.raises(InputError, match="depends on the variables of another"):
        ArgMin(objective, init)(vector(4, 3))


def test_batch_norm_that_is_not_learning_couples_nothing() -> None:
    module = Normed().eval()
    layer = ArgMin(module, torch.zeros_like)
    y = layer(x := vector(4, 3))
    torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [vector(3), vector(1, 3)])
def test_a_first_call_without_a_batch_does_not_use_up_the_probe(first: Tensor) -> None:
    layer = ArgMin(lambda y, x: centred(y, x) if y.ndim > 1 else near(y, x), torch.zeros(3, dtype=D))
    layer(first)
    with pytest.raises(InputError, match="depends on the variables of another"):
        layer(vector(4, 3))


def test_the_probe_is_run_once_for_each_layer() -> None:
    calls = 0

    def counted(y: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return near(y, x)

    layer, counts = ArgMin(counted, torch.zeros(3, dtype=D)), []
    for _ in range(3):
        calls = 0
        layer(vector(4, 3))
        counts.append(calls)
    assert counts[0] == counts[1] + 2
    # one evaluation at each of the two points where the coupling is tried
    assert counts[1] == counts[2]


def test_a_start_at_the_optimum_of_mixed_scales_is_not_taken_for_coupled() -> None:
    scale = torch.logspace(-6, 6, 8, dtype=D)
    x = vector(8, 3)
    layer = ArgMin(lambda y, x: scale * near(y, x), lambda x: x.sin())
    assert_solves(layer, x)


@pytest.mark.parametrize("strong", [1e-9, 1.0, 1e9])
def test_coupling_is_seen_however_large_the_neighbours_are(strong: float) -> None:
    scale = torch.tensor([1.0, 1.0, strong, strong], dtype=D).unsqueeze(-1)
    tie = torch.tensor([0.1, 0.1, 0.0, 0.0], dtype=D).unsqueeze(-1)

    def objective(y: Tensor, x: Tensor) -> Tensor:
        pairs = y.unflatten(0, (2, 2)).flip(1).flatten(0, 1)
        return (scale * ((y - x) ** 2 + tie * y * pairs)).sum(-1)

    with pytest.raises(InputError, match="depends on the variables of another"):
        ArgMin(objective, torch.zeros_like)(vector(4, 3))


def test_a_failing_problem_is_named_and_its_neighbours_are_right() -> None:
    weight = torch.tensor([1.0, torch.nan, 1.0], dtype=D)
    layer = ArgMin(lambda y, x: weight * near(y, x), torch.zeros(4, dtype=D), on_failure="ignore")
    y = layer(x := vector(3, 4))
    assert layer.certificate is not None
    assert layer.certificate.status.tolist() == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    torch.testing.assert_close(y[::2], x.sin()[::2], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("objective", "complaint"),
    [
        (lambda y, x: (x @ y - 1) ** 2, "number per independent problem"),
        (lambda y, x: (y.sum() - x) ** 2, "depends on the variables of another"),
        (lambda y, x: (x[:2] @ y) ** 2 if y.ndim == 1 else y.sum(), "number per independent problem"),
        (lambda y, x: (y - x[0]).cumsum(0) ** 2, "depends on the variables of another"),
    ],
)
def test_a_vector_where_the_batch_is_not_is_refused(objective: Callable[..., Tensor], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        ArgMin(objective, torch.zeros(3, dtype=D))(vector(5, 3))
