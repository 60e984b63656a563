"""The quadratic program layer under torch.func, torch.compile and autocast, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bigrad import InputError, SolveWarning, UnsupportedError, errors
from bigrad.gradients import Implicit
from bigrad.layers import QuadraticProgram
from bigrad.linear import MINRES
from bigrad.solvers import LBFGS, InteriorPoint

from .programs import SHAPES, D, active_at, arguments, distance, formula, leaves, random_program

Function = Callable[[Tensor], Tensor]
layer = QuadraticProgram()
DATA = [x[0] for x in random_program(4, 6, 1, batch=1, seed=1)]
ACTIVE = active_at(layer(*DATA)[None], [x[None] for x in DATA])

# torch itself calls a deprecated function where forward mode is first used
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")


def moved(x: Tensor) -> list[Tensor]:
    """All six arguments as smooth functions of ``x`` ``(3,)``."""
    Q, q, A, b, G, h = DATA
    curve = Q + torch.diag(torch.cat([x, x[:1]]) ** 2)
    return [curve, q + x.sum() * x[0], A * (1 + 0.1 * x[1]), b + x[2], G * (1 + 0.1 * x[0] * x[2]), h + 0.1 * x[1] ** 2]


AT = torch.tensor([0.03, -0.02, 0.05], dtype=D)


def pair(gradient: Any = None) -> tuple[Function, Function]:
    solve = QuadraticProgram(gradient=gradient)
    return lambda x: solve(*moved(x)), lambda x: formula(ACTIVE, [it[None] for it in moved(x)])[0]


def number(function: Function) -> Function:
    return lambda x: (function(x) * torch.cos(torch.arange(4, dtype=D))).sum()


@forward_mode
@pytest.mark.parametrize(
    ("transform", "scalar"),
    [
        (torch.func.grad, True),
        (lambda f: torch.func.grad(lambda x: torch.func.grad(f)(x).sin().sum()), True),
        (torch.func.jacrev, False),
        (torch.func.jacfwd, False),
        (torch.func.hessian, True),
        (lambda f: torch.func.jacrev(torch.func.jacrev(f)), True),
        (lambda f: torch.func.jacrev(torch.func.hessian(f)), True),
        (lambda f: lambda x: torch.func.jvp(torch.func.grad(f), (x,), (AT.cos(),))[1], True),
    ],
    ids=["grad", "grad grad", "jacrev", "jacfwd", "hessian", "jacrev jacrev", "third", "jvp grad"],
)
def test_transforms_give_the_true_value(transform: Any, scalar: bool) -> None:
    found, wanted = (transform(number(f) if scalar else f)(AT) for f in pair())
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)
    assert wanted.norm() > 1e-3


@forward_mode
@pytest.mark.parametrize("transform", [lambda f: f, torch.func.grad, torch.func.hessian], ids=["value", "grad", "hess"])
def test_vmap_gives_the_true_value(transform: Any) -> None:
    many = AT * torch.tensor([[1.0], [0.5], [-1.0]], dtype=D)
    found, wanted = (torch.func.vmap(transform(number(f)))(many) for f in pair())
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)
    found = torch.func.grad(lambda x: torch.func.vmap(number(pair()[0]))(x).sum())(many)
    wanted = torch.func.vmap(torch.func.grad(number(pair()[1])))(many)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("batched", range(6))
def test_vmap_over_one_argument_shares_the_others(batched: int) -> None:
    many = DATA[batched] * torch.linspace(0.98, 1.0, 3, dtype=D).reshape(3, *[1] * DATA[batched].ndim)
    dims = tuple(0 if place == batched else None for place in range(6))
    given = [many if place == batched else x for place, x in enumerate(DATA)]
    found = torch.func.vmap(layer, in_dims=dims)(*given)
    slopes = torch.func.vmap(
        torch.func.grad(lambda *x: layer(*x).sin().sum(), argnums=(0, 1, 2, 3, 4, 5)), in_dims=dims
    )(*given)
    for place in range(3):
        data = leaves([x[place] if it == batched else x for it, x in enumerate(given)])
        y = layer(*data)
        torch.testing.assert_close(found[place], y.detach(), rtol=1e-11, atol=1e-12)
        for one, other in zip(slopes, torch.autograd.grad(y.sin().sum(), data), strict=True):
            torch.testing.assert_close(one[place], other, rtol=1e-9, atol=1e-10)


def test_each_vmap_brings_the_dimension_of_another_argument() -> None:
    Q, q, A, b, G, h = DATA
    scales, shifts = torch.linspace(0.98, 1.0, 3, dtype=D), torch.linspace(0.0, 0.01, 3, dtype=D)
    slope = torch.func.grad(lambda t, s: layer(t * Q, q + s, A, b, G, h).sin().sum(), argnums=(0, 1))
    found = torch.func.vmap(lambda t: torch.func.vmap(lambda s: slope(t, s))(shifts))(scales)
    wanted = torch.tensor([[[float(it) for it in slope(t, s)] for s in shifts] for t in scales], dtype=D)
    torch.testing.assert_close(torch.stack(found, -1), wanted, rtol=1e-9, atol=1e-10)


def test_another_linear_solver_gives_the_same_gradient() -> None:
    found, wanted = (torch.func.grad(number(pair(rule)[0]))(AT) for rule in (Implicit(MINRES()), None))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own machinery
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("shape", SHAPES[:3:2], ids=str)
def test_compiled_without_a_graph_break(backend: str, shape: tuple[int, int, int]) -> None:
    torch.compiler.reset()
    data = leaves(random_program(*shape, batch=2))

    def loss(*x: Any) -> Tensor:
        value: Tensor = layer(*x).sin().sum()
        return value

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    results = []
    for runs in (compiled, loss):
        value = runs(*arguments(data))
        slopes = torch.autograd.grad(value, data, allow_unused=True, materialize_grads=True)
        results.append(torch.cat([value.detach()[None], *(slope.flatten() for slope in slopes)]))
        if runs is compiled:
            assert layer.certificate is None
    torch.testing.assert_close(results[0], results[1], rtol=1e-11, atol=1e-12)
    with pytest.raises(errors.SolveError):
        compiled(*(None if x is None else x * torch.nan for x in arguments(data)))


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own machinery
def test_second_derivatives_of_the_compiled_layer() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda *x: layer(*x), fullgraph=True, backend="eager")
    shared = random_program(4, 5, 1, batch=2, seed=3)
    for data in (shared, [x[0] for x in shared], [shared[0][0], shared[1], *(x[0] for x in shared[2:])]):
        data = leaves(data)
        results = []
        for runs in (compiled, layer):
            slopes = torch.autograd.grad(runs(*data).sin().sum(), data, create_graph=True)
            curve = sum((torch.cos(torch.arange(it.numel(), dtype=D)) * it.flatten()).sum() for it in slopes)
            assert isinstance(curve, Tensor)
            results.append(torch.cat([it.flatten() for it in torch.autograd.grad(curve, data)]))
        torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore")  # torch.compile warns about its own machinery
def test_a_compiled_layer_has_no_other_gradient_rule() -> None:
    torch.compiler.reset()
    other = QuadraticProgram(gradient=Implicit(MINRES()))
    with pytest.raises(Exception, match="leave gradient out"):
        torch.compile(lambda *x: other(*x), fullgraph=True, backend="eager")(*DATA)


def test_autocast_solves_in_float32() -> None:
    data = leaves([x.bfloat16() for x in random_program(*SHAPES[0])])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(*data)
        assert y.dtype == torch.float32
        exact = layer(*(x.detach().double() for x in data))
        mixed = layer(*(x.detach().float() if place % 2 else x.detach() for place, x in enumerate(data)))
    assert distance(y.detach().double(), exact) < 1e-4
    torch.testing.assert_close(mixed, y.detach())
    assert all(x.dtype == torch.bfloat16 for x in torch.autograd.grad(y.sum(), data))
    with pytest.raises(InputError, match=r"Q is torch.bfloat16; wanted float32 or float64"):
        layer(*data)


def test_inference_mode() -> None:
    with torch.inference_mode():
        torch.testing.assert_close(layer(*DATA), layer(*DATA))


EYE, ONES = torch.eye(3, dtype=D), torch.ones(3, dtype=D)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ((EYE, torch.ones(2, dtype=D)), r"Q has shape \(3, 3\); with q of \(2,\)"),
        ((EYE, ONES, EYE, ONES[:2]), r"A has shape \(3, 3\).* must end with \(2, 3\)"),
        ((EYE, ONES, None, None, EYE[:, :2], ONES), r"G has shape \(3, 2\).* must end with \(3, 3\)"),
        ((EYE, ONES, EYE), "A and b go together"),
        ((EYE, ONES, None, None, None, ONES), "G and h go together"),
        ((EYE, ONES.float()), "q is torch.float32 and Q is torch.float64"),
        ((EYE, ONES.to("meta")), "q is on meta and Q on cpu"),
        ((EYE.long(), ONES), "Q is torch.int64; wanted a real floating-point tensor"),
        ((EYE, [1.0, 2.0, 3.0]), "q is list"),
        ((EYE[:0, :0], ONES[:0]), "at least one variable"),
        ((EYE, torch.tensor(1.0, dtype=D)), "at least one variable"),
        ((EYE.expand(2, 3, 3), ONES.expand(4, 3)), "batch dimensions differ"),
    ],
)
def test_arguments_that_do_not_fit(call: tuple[Any, ...], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        layer(*call)


def test_settings_that_do_not_fit() -> None:
    for setting in ({"solver": LBFGS()}, {"gradient": MINRES()}, {"on_failure": "stop"}):
        with pytest.raises(InputError, match=next(iter(setting))):
            QuadraticProgram(**setting)(EYE, ONES)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InputError, match="max_steps"):
        InteriorPoint(max_steps=-1)


FAILURES: list[tuple[tuple[Any, ...], type[errors.SolveError]]] = [
    ((EYE, ONES, None, None, torch.cat([EYE[:1], -EYE[:1]]), -ONES[:2]), errors.Infeasible),
    ((EYE, ONES, EYE[[0, 0]], torch.tensor([0.0, 1.0], dtype=D)), errors.Infeasible),
    ((0 * EYE, ONES, None, None, EYE, ONES), errors.Unbounded),
    ((0 * EYE, ONES), errors.Unbounded),
    ((torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=D)), ONES, None, None, EYE, ONES), errors.Indefinite),
    ((torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=D)), EYE[0], None, None, EYE, ONES), errors.Singular),
    ((EYE * torch.nan, ONES), errors.Diverged),
    ((EYE, ONES, None, None, EYE, ONES * torch.inf), errors.Diverged),
]


@pytest.mark.parametrize(("call", "kind"), FAILURES, ids=lambda it: getattr(it, "__name__", ""))
def test_failures_have_names(call: tuple[Any, ...], kind: type[errors.SolveError]) -> None:
    with pytest.raises(kind) as caught:
        layer(*call)
    assert caught.value.certificate.failed.all()
    with pytest.raises(kind):
        torch.func.grad(lambda q: layer(call[0], q, *call[2:]).sum())(call[1])
    with pytest.warns(SolveWarning):
        QuadraticProgram(on_failure="warn")(*call)


def test_negative_curvature_that_the_equations_rule_out_is_none() -> None:
    Q = torch.diag(torch.tensor([1.0, 1.0, -100.0], dtype=D))
    y = layer(Q, ONES, EYE[2:], ONES[:1], -EYE, ONES)
    torch.testing.assert_close(y, torch.tensor([-1.0, -1.0, 1.0], dtype=D), rtol=0, atol=1e-10)


def test_one_failure_leaves_the_others_alone() -> None:
    data = leaves(random_program(*SHAPES[0], batch=3))
    spoilt = [x.detach().clone() for x in data]
    spoilt[0][1] = torch.nan
    spoilt[4][2, 1], spoilt[5][2, :2] = -spoilt[4][2, 0], torch.tensor([-9.0, -9.0], dtype=D)
    spoilt = leaves(spoilt)
    careless = QuadraticProgram(on_failure="ignore")
    y = careless(*spoilt)
    assert careless.certificate is not None
    assert careless.certificate.failed.tolist() == [False, True, True]
    assert y[1:].isnan().all()
    found = torch.autograd.grad(y[0].sin().sum(), spoilt)
    wanted = torch.autograd.grad(layer(*(x[0] for x in data)).sin().sum(), data)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one[0], other[0], rtol=1e-9, atol=1e-11)


def test_an_unsupported_rule_says_so() -> None:
    from bigrad.gradients import Unrolled

    with pytest.raises(UnsupportedError):
        QuadraticProgram(gradient=Unrolled())(EYE, ONES)
