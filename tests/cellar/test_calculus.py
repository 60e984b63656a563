"""Derivatives agree with closed forms, in eager mode and inside torch.func transforms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bigrad import calculus

D = torch.float64
A = torch.tensor([0.3, -1.2, 2.0], dtype=D)
B = torch.tensor([1.5, 0.4, -0.7], dtype=D)
G = torch.tensor([1.0, -2.0, 0.5], dtype=D)

Run = Callable[[Callable[..., Tensor]], Tensor]

# torch itself calls a deprecated function where forward mode is first used
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")


def wave(a: Tensor, b: Tensor) -> Tensor:
    """Partial derivatives ``cos(a) b^2`` and ``2 sin(a) b``."""
    return torch.sin(a) * b**2


def eager(compute: Callable[..., Tensor]) -> Tensor:
    return compute(A, B, G)


def eager_with_grad(compute: Callable[..., Tensor]) -> Tensor:
    return compute(A.clone().requires_grad_(), B.clone().requires_grad_(), G.clone().requires_grad_()).detach()


def without_grad(compute: Callable[..., Tensor]) -> Tensor:
    with torch.no_grad():
        return compute(A, B, G)


def vmapped(compute: Callable[..., Tensor]) -> Tensor:
    return torch.func.vmap(compute, in_dims=(0, None, 0))(A.expand(2, 3), B, torch.stack([G, 2 * G]))[0]


def inside_grad(compute: Callable[..., Tensor]) -> Tensor:
    def outer(a: Tensor) -> tuple[Tensor, Tensor]:
        result = compute(a, B, G)
        return result.sum(), result

    return torch.func.grad(outer, has_aux=True)(A)[1]


modes = pytest.mark.parametrize("run", [eager, eager_with_grad, without_grad, vmapped, inside_grad])


@modes
def test_vjp_is_the_closed_form(run: Run) -> None:
    def both(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
        value, pullback = calculus.vjp(wave, a, b)
        return torch.stack([value, *pullback(g)])

    expected = torch.stack([wave(A, B), torch.cos(A) * B**2 * G, 2 * torch.sin(A) * B * G])
    torch.testing.assert_close(run(both), expected)


@modes
def test_jvp_is_the_closed_form(run: Run) -> None:
    push = lambda a, b, g: calculus.jvp(wave, [a, b], [g, b])  # noqa: E731  # a name for a one-liner
    torch.testing.assert_close(run(push), torch.cos(A) * B**2 * G + 2 * torch.sin(A) * B * B)


@modes
def test_gradient_is_the_closed_form(run: Run) -> None:
    slope = lambda a, b, g: calculus.gradient(lambda y, x: (g * wave(y, x)).sum(-1), a, b)  # noqa: E731
    torch.testing.assert_close(run(slope), torch.cos(A) * B**2 * G)


@modes
@pytest.mark.parametrize("part", [0, 1])
def test_a_computed_primal_counts_as_independent(run: Run, part: int) -> None:
    partial = lambda a, b, g: calculus.vjp(wave, a, 2 * a)[1](g)[part]  # noqa: E731  # a name for a one-liner
    expected = (torch.cos(A) * (2 * A) ** 2 * G, 2 * torch.sin(A) * 2 * A * G)[part]
    torch.testing.assert_close(run(partial), expected)


def test_differentiating_in_place_of_that_would_count_twice() -> None:
    a = A.clone().requires_grad_()
    double = torch.autograd.grad(wave(a, 2 * a), a, G)[0]
    assert not torch.allclose(double, calculus.vjp(wave, a, 2 * a)[1](G)[0], rtol=0.1)


def test_one_tensor_in_two_places_is_two_primals() -> None:
    a = A.clone().requires_grad_()
    first, second = calculus.vjp(wave, a, a)[1](G)
    torch.testing.assert_close(first, torch.cos(A) * A**2 * G)
    torch.testing.assert_close(second, 2 * torch.sin(A) * A * G)


def test_gradient_holds_still_what_y_was_computed_from_and_what_was_computed_from_y() -> None:
    x = B.clone().requires_grad_()
    for y, other in ((3 * x, x), (x, 3 * x)):
        slope = calculus.gradient(lambda y, x: wave(y, x).sum(), y, other)
        torch.testing.assert_close(slope, torch.cos(y) * other**2)


def test_a_pullback_can_be_called_again() -> None:
    _, pullback = calculus.vjp(wave, A, B)
    first = pullback(G)
    assert all(torch.equal(again, once) for again, once in zip(pullback(G), first, strict=True))


def test_vjp_and_jvp_and_gradient_are_differentiable_in_everything() -> None:
    inputs = [tensor.clone().requires_grad_() for tensor in (A, B, G)]
    checks = [
        lambda a, b, g: calculus.vjp(wave, a, b)[1](g),
        lambda a, b, g: calculus.jvp(wave, [a, b], [g, b]),
        lambda a, b, g: calculus.gradient(lambda y, x: (g * wave(y, x)).sum(-1), a, b),
    ]
    for check in checks:
        assert torch.autograd.gradcheck(check, inputs)
        assert torch.autograd.gradgradcheck(check, inputs)


@pytest.mark.parametrize("rule", ["vjp", "jvp", "gradient"])
def test_second_derivatives_under_torch_func(rule: str) -> None:
    first = {
        "vjp": lambda a: calculus.vjp(lambda a: wave(a, B), a)[1](G)[0],
        "jvp": lambda a: calculus.jvp(lambda a: wave(a, B), [a], [G]),
        "gradient": lambda a: calculus.gradient(lambda a: (G * wave(a, B)).sum(), a),
    }[rule]
    torch.testing.assert_close(torch.func.grad(lambda a: first(a).sum())(A), -torch.sin(A) * B**2 * G)
    torch.testing.assert_close(torch.func.jacrev(first)(A), torch.diag(-torch.sin(A) * B**2 * G))
    third = torch.func.grad(lambda a: torch.func.grad(lambda a: first(a).sum())(a).sum())(A)
    torch.testing.assert_close(third, -torch.cos(A) * B**2 * G)


@pytest.mark.parametrize("transform", [False, True])
def test_integer_primals_get_zeros_of_no_size(transform: bool) -> None:
    index = torch.tensor([2, 0, 1])

    def partials(a: Tensor) -> tuple[Tensor, ...]:
        return calculus.vjp(lambda a, index, b: wave(a[index], b), a, index, B)[1](G)

    of_a, of_index, of_b = torch.func.vjp(lambda a: partials(a), A)[0] if transform else partials(A)
    torch.testing.assert_close(of_a, torch.zeros(3, dtype=D).index_add(0, index, torch.cos(A[index]) * B**2 * G))
    torch.testing.assert_close(of_b, 2 * torch.sin(A[index]) * B * G)
    assert of_index.shape == ()
    assert of_index == 0


def test_jvp_passes_integer_primals_by() -> None:
    index = torch.tensor([2, 0, 1])
    pushed = calculus.jvp(lambda a, index: a[index] ** 2, [A, index], [G, torch.zeros_like(index)])
    torch.testing.assert_close(pushed, (2 * A * G)[index])


def test_a_primal_that_does_not_matter_gets_zeros_of_its_size() -> None:
    for fixed in (lambda a, b: torch.sin(b), lambda a, b: torch.ones(3, dtype=D)):
        _, pullback = calculus.vjp(fixed, A, B)
        assert torch.equal(pullback(G)[0], torch.zeros(3, dtype=D))
        assert torch.equal(calculus.jvp(fixed, [A, B], [G, torch.zeros_like(B)]), torch.zeros(3, dtype=D))


def test_without_grad_mode_no_graph_is_left() -> None:
    a = A.clone().requires_grad_()
    with torch.no_grad():
        value, pullback = calculus.vjp(wave, a, B)
        results = [value, *pullback(G)]
    assert not any(result.requires_grad for result in results)


def test_value_and_gradient_leave_nothing_behind() -> None:
    x = B.clone().requires_grad_()
    y = A.clone().requires_grad_()
    with torch.no_grad():
        value, slope = calculus.value_and_gradient(lambda y, x: wave(y, x).expand(2, 3).sum(-1), y.expand(2, 3), x)
    torch.testing.assert_close(value, wave(A, B).sum().expand(2))
    torch.testing.assert_close(slope, (torch.cos(A) * B**2).expand(2, 3))
    assert not value.requires_grad
    assert not slope.requires_grad
    assert x.grad is None
    assert y.grad is None


def test_gradients_of_are_zero_where_a_tensor_does_not_matter() -> None:
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    first, second = calculus.gradients_of((a**2).sum(), [a, b])
    torch.testing.assert_close(first, 2 * A)
    assert torch.equal(second, torch.zeros(3, dtype=D))
    assert a.grad is None


def test_linearise_gives_the_transposed_product_many_times() -> None:
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=D)
    value, product = calculus.linearise(lambda y: matrix @ torch.sin(y), A)
    torch.testing.assert_close(value, matrix @ torch.sin(A))
    for u in (G, B):
        torch.testing.assert_close(product(u), torch.cos(A) * (matrix.T @ u))
    assert not value.requires_grad
    assert not product(G).requires_grad


def test_linearise_of_a_constant_is_zero() -> None:
    _, product = calculus.linearise(lambda y: torch.ones(3, dtype=D), A)
    assert torch.equal(product(G), torch.zeros(3, dtype=D))


def test_batched_maps_over_the_marked_inputs() -> None:
    many = torch.stack([A, B])
    torch.testing.assert_close(calculus.batched(wave, [0, None])(many, B), wave(many, B))


def test_levels_count_the_transforms_that_run() -> None:
    assert not calculus.transforming()
    assert calculus.transform_level() == 0
    assert calculus.level_of(A) == 0

    def look(a: Tensor) -> Tensor:
        assert calculus.transforming()
        assert calculus.transform_level() == 1
        assert calculus.in_transform(a)
        assert calculus.level_of(a) == 1
        assert not calculus.in_transform(B)
        assert calculus.level_of(B) == 0
        torch.func.grad(lambda b: (calculus.transform_level() - 2 + b).sum() + calculus.level_of(a) - 1)(B)
        return a.sum()

    torch.func.grad(look)(A)
    assert not calculus.transforming()


@forward_mode
def test_forward_over_forward_is_noticed_and_nothing_else() -> None:
    seen: list[bool] = []

    def look(a: Tensor) -> Tensor:
        seen.append(calculus.nested_forward_mode())
        return a.sum()

    torch.func.jacfwd(look)(A)
    torch.func.jacfwd(torch.func.grad(look))(A)
    torch.func.grad(lambda a: torch.func.jacfwd(look)(a).sum())(A)
    assert not any(seen)
    torch.func.jacfwd(torch.func.jacfwd(look))(A)
    assert seen[-1]
