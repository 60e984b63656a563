"""The quadratic program layer: its answers and its derivatives against formulas and finite differences."""

from __future__ import annotations

import copy
import pickle
import sys

import pytest
import torch
from torch import Tensor

from bigrad import errors
from bigrad.layers import QuadraticProgram
from bigrad.solvers import InteriorPoint

from .programs import SHAPES, D, Data, active_at, arguments, distance, leaves, random_program, truth

layer = QuadraticProgram()
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture(autouse=True, params=["numba", "torch"])
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which code solves; numba's hands over to torch's whatever is degenerate."""
    if request.param == "torch":
        monkeypatch.setattr("bigrad.compiled.installed", lambda package: False)


def gradients(y: Tensor, data: Data) -> list[Tensor]:
    weight = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)
    given = [x for x in data if x.requires_grad]
    return list(torch.autograd.grad((weight * y).sum(), given, allow_unused=True, materialize_grads=True))


def errors_of(data: Data) -> list[float]:
    """Relative errors of the answer and of the gradients in all six arguments."""
    data = leaves(data)
    y = layer(*arguments(data))
    exact = truth(y, data)
    pairs = zip([y, *gradients(y, data)], [exact, *gradients(exact, data)], strict=True)
    return [distance(one.detach(), other.detach()) for one, other in pairs]


@every_shape
@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradients_are_those_of_a_dense_solve(shape: tuple[int, int, int], seed: int) -> None:
    assert max(errors_of(random_program(*shape, batch=8, seed=seed))) < 1e-10


def test_of_larger_programs_too() -> None:
    assert max(errors_of(random_program(30, 45, 8, batch=4, seed=5))) < 1e-9


@every_shape
def test_gradients_and_second_derivatives_against_finite_differences(shape: tuple[int, int, int]) -> None:
    data = leaves(random_program(*shape, batch=1))
    given = [x for x in data if x.numel()]

    def solve(*tensors: Tensor) -> Tensor:
        supply = iter(tensors)
        result: Tensor = layer(*arguments([next(supply) if x.numel() else x for x in data]))
        return result

    assert torch.autograd.gradcheck(solve, given, atol=1e-6)
    assert torch.autograd.gradgradcheck(solve, given, eps=1e-5, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("what", ["objective", "levels", "equations", "inequalities", "variables", "mixed"])
def test_scales(scale: float, what: str) -> None:
    Q, q, A, b, G, h = random_program(*SHAPES[0], batch=4, seed=3)
    if what == "objective":
        Q, q = scale * Q, scale * q
    elif what == "levels":
        q, b, h = scale * q, scale * b, scale * h
    elif what == "equations":
        A, b = scale * A, scale * b
    elif what == "inequalities":
        G, h = scale * G, scale * h
    elif what == "variables":
        unit = scale ** torch.linspace(0, 1, 5, dtype=D)
        Q, q, A, G = Q * unit * unit.unsqueeze(-1), q * unit, A * unit, G * unit
    else:
        unit = torch.tensor([1, scale, scale**0.5, 1 / scale], dtype=D).unsqueeze(-1)
        Q, q, b, h = Q * unit.unsqueeze(-1), q * unit, b, h
    assert max(errors_of([Q, q, A, b, G, h])) < 1e-9


@pytest.mark.parametrize("shape", [(20, 20, 5), (12, 30, 2), (30, 25, 0), (10, 20, 0)])
def test_the_solution_does_not_depend_on_the_units_of_the_variables(shape: tuple[int, int, int]) -> None:
    data = random_program(*shape, batch=256, seed=3)
    powers = torch.rand((256, shape[0]), generator=torch.Generator().manual_seed(1), dtype=D) - 0.5
    unit = 10 ** (4 * powers)
    Q, q, A, b, G, h = data
    wide = unit.unsqueeze(-2)
    scaled = [Q * wide * unit.unsqueeze(-1), q * unit, A * wide, b, G * wide, h]
    found, wanted = layer(*arguments(scaled)) * unit, layer(*arguments(data))
    truth(wanted, data)
    assert ((found - wanted).norm(dim=-1) <= 1e-9 * wanted.norm(dim=-1)).all()


@pytest.mark.parametrize("code", ["torch"], indirect=True)
def test_a_search_that_ends_without_its_equations_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_program(6, 4, 3, batch=2)
    wanted = layer(*arguments(data))
    nothing = torch.zeros((2, 7), dtype=D)
    ended = torch.ones(2, dtype=torch.bool)
    forged = nothing, nothing.bool(), ended, torch.zeros(2, dtype=torch.int64)
    module = sys.modules["bigrad.solvers.dual_path"]
    monkeypatch.setattr(module.Dual, "settle", lambda *_: forged)
    assert torch.allclose(layer(*arguments(data)), wanted, atol=1e-12)


def test_ten_times_the_objective_has_the_same_solution() -> None:
    data = random_program(*SHAPES[0], batch=4)
    more = [10 * data[0], 10 * data[1], *data[2:]]
    torch.testing.assert_close(layer(*more), layer(*data), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [SHAPES[0], (12, 20, 3)], ids=str)
def test_an_ill_conditioned_objective(shape: tuple[int, int, int]) -> None:
    data = random_program(*shape, batch=4, seed=2)
    basis = torch.linalg.qr(data[0])[0]
    data[0] = (basis * torch.logspace(-6, 0, shape[0], dtype=D)) @ basis.mT
    assert max(errors_of(data)) < 1e-8


@pytest.mark.parametrize("which", ["QAG", "QA", "G", "qbh", "QqAbG"])
def test_shared_arguments_get_the_sum_of_the_gradients(which: str) -> None:
    Q, q, A, b, G, h = random_program(*SHAPES[0], batch=3)
    data = [Q, q, A, 0.1 * b, G, 1 + h.abs()]  # feasible whoever is shared
    data = [x[:1] if name in which else x for name, x in zip("QqAbGh", data, strict=True)]
    assert max(errors_of(data)) < 1e-10
    bare = leaves([x[0] if name in which else x for name, x in zip("QqAbGh", data, strict=True)])
    kept = leaves(data)
    for one, other in zip(gradients(layer(*bare), bare), gradients(layer(*kept), kept), strict=True):
        torch.testing.assert_close(one, other.reshape(one.shape), rtol=1e-9, atol=1e-11)


def test_two_batch_dimensions_and_an_empty_one() -> None:
    data = random_program(*SHAPES[0], batch=6)
    wide = [x.reshape(2, 3, *x.shape[1:]) for x in data]
    y = layer(*wide)
    assert layer.certificate is not None
    assert layer.certificate.status.shape == (2, 3)
    torch.testing.assert_close(y.reshape(6, 5), layer(*data), rtol=1e-11, atol=1e-12)
    none = leaves([x[:0] for x in data])
    y = layer(*none)
    assert y.shape == (0, 5)
    assert [x.shape for x in gradients(y, none)] == [x.shape for x in none]
    single = layer(*(x[0] for x in data))
    assert single.shape == (5,)


def test_projection_on_the_simplex() -> None:
    point = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=D).requires_grad_()
    eye = torch.eye(6, dtype=D)
    y = layer(eye, -point, torch.ones(1, 6, dtype=D), torch.ones(1, dtype=D), -eye, torch.zeros(6, dtype=D))
    ordered = point.sort(-1, descending=True).values
    level = (ordered.cumsum(-1) - 1) / torch.arange(1, 7, dtype=D)
    count = (ordered > level).sum(-1, keepdim=True)
    exact = (point - level.gather(-1, count - 1)).clamp_min(0)
    torch.testing.assert_close(y, exact, rtol=1e-12, atol=1e-13)
    weight = torch.cos(torch.arange(6, dtype=D))
    found, wanted = (torch.autograd.grad((weight * it).sum(), point)[0] for it in (y, exact))
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_projection_on_a_box() -> None:
    point = (2 * torch.randn(30, 4, generator=torch.Generator().manual_seed(1), dtype=D)).requires_grad_()
    eye, ones = torch.eye(4, dtype=D), torch.ones(8, dtype=D)
    y = layer(eye, -point, None, None, torch.cat([eye, -eye]), ones)
    torch.testing.assert_close(y, point.clamp(-1, 1), rtol=1e-13, atol=1e-14)
    (slope,) = torch.autograd.grad(y.sum(), point)
    torch.testing.assert_close(slope, (point.abs() < 1).to(D), rtol=1e-12, atol=1e-13)


def test_the_vertex_of_a_linear_program_has_no_derivative_but_in_its_constraints() -> None:
    cost = torch.tensor([1.0, 2.0, 3.0], dtype=D, requires_grad=True)
    flat = torch.zeros(3, 3, dtype=D, requires_grad=True)
    total = torch.ones(1, dtype=D, requires_grad=True)
    y = layer(flat, cost, torch.ones(1, 3, dtype=D), total, -torch.eye(3, dtype=D), torch.zeros(3, dtype=D))
    torch.testing.assert_close(y, torch.tensor([1.0, 0, 0], dtype=D), rtol=0, atol=1e-12)
    of_cost, of_flat, of_total = torch.autograd.grad(y[0], (cost, flat, total))
    assert of_cost.norm() < 1e-12
    assert of_flat.norm() < 1e-12
    torch.testing.assert_close(of_total, torch.ones(1, dtype=D))


def test_a_weakly_active_constraint_is_left_out_and_shows_in_the_margin() -> None:
    one = torch.ones(1, 1, dtype=D)
    for at, slope, wide in ((0.5, 1.0, True), (1.0, 1.0, False), (1.5, 0.0, True)):
        target = torch.tensor([at], dtype=D, requires_grad=True)
        y = layer(one, -target, None, None, one, one[0])
        assert layer.certificate is not None
        assert layer.certificate.margin is not None
        assert (float(layer.certificate.margin) > 0.1) == wide
        assert float(layer.certificate.margin) >= 0
        assert float(torch.autograd.grad(y.sum(), target)[0]) == pytest.approx(slope, abs=1e-12)
    assert float(layer(one, -one[0], None, None, one, one[0])) == pytest.approx(1.0, abs=1e-12)
    assert float(layer.certificate.margin) == pytest.approx(0.0, abs=1e-12)


def test_dependent_active_constraints_share_the_derivative() -> None:
    eye = torch.eye(2, dtype=D)
    level = torch.ones(4, dtype=D, requires_grad=True)
    cost = torch.tensor([-3.0, -4.0], dtype=D, requires_grad=True)
    y = layer(eye, cost, None, None, torch.cat([eye, eye]), level)
    torch.testing.assert_close(y, torch.ones(2, dtype=D), rtol=0, atol=1e-12)
    assert layer.certificate is not None
    assert layer.certificate.margin is not None
    assert float(layer.certificate.margin) == 0
    of_level, of_cost = torch.autograd.grad(y.sum(), (level, cost), create_graph=True)
    torch.testing.assert_close(of_level, torch.full((4,), 0.5, dtype=D), rtol=1e-9, atol=1e-10)
    assert of_cost.norm() < 1e-10
    with pytest.raises(errors.Singular):  # two multipliers cannot move apart
        torch.autograd.grad((of_level * torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=D)).sum(), level)


def test_wrong_variants_of_the_gradient_are_caught() -> None:
    data = leaves(random_program(6, 12, 0, batch=1, seed=4))
    y = layer(*arguments(data))
    exact = truth(y, data)
    right = dict(zip("QqAbGh", gradients(exact, data), strict=True))
    found = dict(zip("QqAbGh", gradients(y, data), strict=True))
    assert all(distance(found[name], right[name]) < 1e-10 for name in "QqGh")
    Q, q, _, _, G, h = (x.detach()[0] for x in data)
    mask, point = active_at(y, data)[0], y.detach()[0]
    sym = (Q + Q.mT) / 2
    lam = torch.linalg.lstsq(G[mask].mT, -(sym @ point + q).unsqueeze(-1)).solution.squeeze(-1)
    u = -right["q"][0]
    # Q' u y without its other half
    assert distance(-u.outer(point), right["Q"][0]) > 0.1
    assert distance(-(u.outer(point) + point.outer(u)) / 2, right["Q"][0]) < 1e-9
    # the multiplier with the other sign
    share = right["h"][0][mask]
    assert distance(-share.outer(point) + lam.outer(u), right["G"][0][mask]) > 0.1
    assert distance(-share.outer(point) - lam.outer(u), right["G"][0][mask]) < 1e-9
    # the interior point itself, at a gap that a solver may well stop at
    slack = h - G @ point
    gap = 1e-5
    weight = torch.where(mask, gap / slack.clamp_min(1e-9) ** 2, gap / slack.clamp_min(1e-9) ** 2)
    weight[mask] = lam**2 / gap
    cosine = torch.cos(torch.arange(6, dtype=D))
    unpolished = -torch.linalg.solve(sym + G.mT @ (weight.unsqueeze(-1) * G), cosine)
    assert 1e-6 < distance(unpolished, right["q"][0]) < 1e-1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    data = random_program(*SHAPES[0], batch=8)
    exact = layer(*data)
    given = leaves([x.to(dtype) for x in data])
    y = layer(*given)
    assert y.dtype == dtype
    assert all(x.dtype == dtype for x in gradients(y, given))
    assert distance(y.detach().double(), exact) < (1e-4 if dtype == torch.float32 else 1e-12)
    assert layer.certificate is not None
    assert not layer.certificate.failed.any()


def test_copies_and_settings() -> None:
    strict = QuadraticProgram(solver=InteriorPoint(rtol=1e-9, max_steps=30), on_failure="warn")
    assert strict.state_dict() == {}
    assert "max_steps=30" in repr(strict)
    data = random_program(*SHAPES[0])
    for twin in (copy.deepcopy(strict), pickle.loads(pickle.dumps(strict))):
        assert torch.equal(twin(*data), strict(*data))
        assert twin.on_failure == "warn"
