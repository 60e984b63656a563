"""Bad input: one table over all layers, with the error that each row ends in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import torch
from torch import Tensor, nn

from bigrad import Constraints, InputError, SolveError, errors
from bigrad.certificate import OnFailure
from bigrad.errors import Diverged, Indefinite, Infeasible, NotConverged, Singular, Stalled, Unbounded
from bigrad.gradients import FirstOrder, Implicit
from bigrad.layers import ArgMin, Bilevel, ConvexProgram, FixedPoint, QuadraticProgram, Root, SoftBellman
from bigrad.linear import CG, GMRES, MINRES, BiCGStab, Direct, Neumann
from bigrad.solvers import (
    LBFGS,
    Anderson,
    Broyden,
    Custom,
    FixedPointIteration,
    GradientDescent,
    InteriorPoint,
    Newton,
    Stackelberg,
    TorchOptimizer,
)

from .cases import D, vector

Make = Callable[[OnFailure], nn.Module]
X, ZERO, EYE = torch.tensor([0.5, -0.3, 0.2], dtype=D), torch.zeros(3, dtype=D), torch.eye(3, dtype=D)
BAD = torch.tensor([0.5, torch.nan, 0.2], dtype=D)
MANY = torch.zeros(2, 3, dtype=D)


@dataclass(frozen=True)
class Row:
    """A layer, its inputs, the error, whether only the backward pass can tell, and a part of the message."""

    name: str
    make: Make
    inputs: tuple[Tensor, ...]
    kind: type[errors.BigradError]
    backward: bool = False
    says: str = ""


def objective(y: Tensor, x: Tensor) -> Tensor:
    return ((y - x) ** 2).sum(-1)


def leader(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return ((y - z) ** 2).sum(-1) + ((x - 1) ** 2).sum(-1)


def follower(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return ((y - x) ** 2).sum(-1)


def argmin(function: Any = objective, init: Tensor = ZERO, **settings: Any) -> Make:
    return lambda mode: ArgMin(function, init, on_failure=mode, **settings)


def root(function: Any = lambda y, x: y - x, init: Tensor = ZERO, **settings: Any) -> Make:
    return lambda mode: Root(function, init, on_failure=mode, **settings)


def fixed(function: Any = lambda y, x: 0.5 * y + x, init: Tensor = ZERO, **settings: Any) -> Make:
    return lambda mode: FixedPoint(function, init, on_failure=mode, **settings)


def bilevel(upper: Any = leader, lower: Any = follower, init: Any = (ZERO, ZERO), **settings: Any) -> Make:
    return lambda mode: Bilevel(upper, lower, init, on_failure=mode, **settings)


def quadratic(**settings: Any) -> Make:
    return lambda mode: QuadraticProgram(on_failure=mode, **settings)


def convex(kind: str) -> Make:
    y, c = cp.Variable(3), cp.Parameter(3, name="c")
    problem = {
        "budget": cp.Problem(cp.Minimize(cp.sum_squares(y - c)), [cp.sum(y) <= c[0], y >= 0]),
        "below": cp.Problem(cp.Minimize(c @ y), [y <= 1]),
        "simplex": cp.Problem(cp.Minimize(c @ y), [y >= 0, cp.sum(y) == 1]),
    }[kind]
    return lambda mode: ConvexProgram(problem, [c], [y], on_failure=mode)


def bellman(mode: OnFailure) -> nn.Module:
    transition = torch.full((2, 2, 2), 0.5, dtype=D)
    return SoftBellman(transition, discount=0.9, temperature=1.0, on_failure=mode)


class Learnt(nn.Module):
    """A function with a parameter that is NaN in one entry, handed over last."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.weight, self.function = nn.Parameter(BAD.clone()), function

    def forward(self, *given: Tensor) -> Tensor:
        return self.function(*given, self.weight)


def no_solution() -> Iterator[Row]:
    rows = torch.cat([EYE[:1], -EYE[:1]])
    yield Row("QP", quadratic(), (EYE, X, torch.cat([EYE[:1], EYE[:1]]), X[:2]), Infeasible)
    yield Row(
        "QP with inequalities", quadratic(), (EYE, X, ZERO[None], ZERO[:1], rows, -torch.ones(2, dtype=D)), Infeasible
    )
    yield Row("convex", convex("budget"), (-torch.ones(3, dtype=D),), Infeasible)
    empty = Constraints(lower=1.0, upper=0.0)
    yield Row("leader", bilevel(leader_constraints=empty), (X,), Infeasible)
    yield Row("follower", bilevel(follower_constraints=empty), (X,), Infeasible)
    yield Row("no root", root(lambda y, x: y**2 + 1 + x**2), (X,), Stalled)
    for solver in (Anderson(), Broyden(), FixedPointIteration(), Newton()):
        yield Row(
            f"no fixed point, {type(solver).__name__}", fixed(lambda y, x: y + 1 + x**2, solver=solver), (X,), Stalled
        )
    yield Row("expansion", fixed(lambda y, x: 3 * y.roll(1) + y**3 + x, solver=FixedPointIteration()), (X,), Diverged)
    yield Row("cycle", fixed(lambda y, x: x - y, torch.ones(3, dtype=D), solver=FixedPointIteration()), (X,), Stalled)
    for name, function in (
        ("linear", lambda y, x: (y * x).sum()),
        ("cubic", lambda y, x: (y**3).sum() + (x * y).sum()),
        ("log", lambda y, x: (x * y).sum() - (1 + y**2).log().sum()),
    ):
        yield Row(f"unbounded, {name}", argmin(function), (X,), Stalled, says="bounded")
    yield Row("unbounded, Newton", argmin(lambda y, x: (y * x).sum(), solver=Newton()), (X,), Stalled)
    yield Row("unbounded QP", quadratic(), (0 * EYE, X), Unbounded)
    yield Row("unbounded convex", convex("below"), (torch.ones(3, dtype=D),), Unbounded)
    yield Row("unbounded leader", bilevel(lambda x, y, z: (x * z).sum()), (X,), SolveError)
    yield Row("unbounded follower", bilevel(leader, lambda y, x, z: (y * (1 + x**2)).sum()), (X,), SolveError)


def not_finite() -> Iterator[Row]:
    for name, make in (("argmin", argmin), ("root", root), ("fixed", fixed), ("bilevel", bilevel)):
        pair = name == "bilevel"
        for bad in (BAD, torch.tensor([0.0, torch.inf, 1.0], dtype=D)):
            yield Row(f"{name}, {float(bad[1])} in the input", make(), (bad,), Diverged)
        yield Row(f"{name}, init", make(init=(BAD, ZERO) if pair else BAD), (X,), Diverged)
    yield Row("bilevel, second init", bilevel(init=(ZERO, BAD)), (X,), Diverged)
    yield Row("argmin, parameter", argmin(Learnt(lambda y, x, w: ((y - w * x) ** 2).sum())), (X,), Diverged)
    yield Row("root, parameter", root(Learnt(lambda y, x, w: y - w * x)), (X,), Diverged)
    yield Row("fixed, parameter", fixed(Learnt(lambda y, x, w: 0.5 * y - w * x)), (X,), Diverged)
    yield Row("leader, parameter", bilevel(Learnt(lambda x, y, z, w: objective(y, w) + (x**2).sum())), (X,), Diverged)
    yield Row("follower, parameter", bilevel(leader, Learnt(lambda y, x, z, w: objective(y, w * x))), (X,), Diverged)
    yield Row("outside of the domain", argmin(lambda y, x: (x * y).sum() - (y - 1).log().sum()), (X,), Diverged)
    whole = (EYE, X, EYE[:1], X[:1], EYE, X.abs())
    for place, name in enumerate("QqAbGh"):
        spoilt = tuple(x * torch.nan if here == place else x for here, x in enumerate(whole))
        yield Row(f"QP, {name}", quadratic(), spoilt, Diverged)
    yield Row("soft Bellman", bellman, (torch.tensor([[0.0, torch.nan], [1, 2]], dtype=D),), InputError, says="NaN")


def not_unique() -> Iterator[Row]:
    flat = lambda y, x: (y.sum() - x.sum()) ** 2  # noqa: E731  # a name for a one-liner
    for name, settings in (("CG", {}), ("Newton", {"solver": Newton()}), ("direct", {"gradient": Implicit(Direct())})):
        yield Row(f"argmin, {name}", argmin(flat, **settings), (X,), Singular, backward=True)
    yield Row("root", root(lambda y, x: y**3 - 0 * x), (X,), Singular, backward=True)
    yield Row("fixed", fixed(lambda y, x: y + 0 * x), (X,), Singular, backward=True)
    yield Row("QP", quadratic(), (torch.diag(torch.tensor([1.0, 1, 0], dtype=D)), EYE[0]), Singular)
    yield Row("convex", convex("simplex"), (torch.ones(3, dtype=D),), Singular, backward=True)
    yield Row("follower with many minimisers", bilevel(leader, lambda y, x, z: flat(y, x)), (X,), Singular)
    yield Row("follower without y", bilevel(leader, lambda y, x, z: (x**2).sum()), (X,), Singular)
    yield Row("leader", bilevel(lambda x, y, z: flat(x, z), lambda y, x, z: objective(y, x.sum())), (X,), Singular)
    saddle = lambda y, x: y[0] ** 2 - y[1] ** 2 + (y[2] - x[2]) ** 2  # noqa: E731  # a name for a one-liner
    yield Row("argmin at a saddle", argmin(saddle), (X,), Indefinite, backward=True)
    yield Row("Newton at a saddle", argmin(saddle, solver=Newton(max_steps=0)), (X,), NotConverged)
    bent = torch.diag(torch.tensor([1.0, 1, -1], dtype=D))
    yield Row(
        "bent QP", quadratic(), (bent, X, EYE[:1], X[:1], torch.cat([EYE, -EYE]), torch.ones(6, dtype=D)), Indefinite
    )
    yield Row("bent follower", bilevel(leader, lambda y, x, z: -objective(y, x)), (X,), Indefinite)
    yield Row("constant", argmin(lambda y, x: (x**2).sum()), (X,), InputError, says="depend on y")
    yield Row("constant residual", root(lambda y, x: 1 * x), (X,), InputError, says="depend on y")
    kink = lambda y, x: y.abs().sum() + 0.5 * objective(y, x)  # noqa: E731  # a name for a one-liner
    for name, solver in (
        ("LBFGS", None),
        ("Newton", Newton()),
        ("own", lambda init, x: init),
        ("GD", GradientDescent(0.1)),
    ):
        yield Row(f"start on a kink, {name}", argmin(kink, solver=solver), (ZERO,), Stalled, says="differentiable")
    yield Row("into a kink", argmin(kink, torch.ones(3, dtype=D)), (X,), Stalled, says="differentiable")
    yield Row("kink of a norm", argmin(lambda y, x: y.norm() + objective(y, x)), (ZERO,), Stalled)
    yield Row("start of a leader on a kink", bilevel(lambda x, y, z: kink(x, z) + (y**2).sum()), (ZERO,), Stalled)
    yield Row("kink of a root", root(lambda y, x: (y - x).sign() + 0 * y), (X,), Stalled)


def out_of_steps() -> Iterator[Row]:
    quartic = lambda y, x: objective(y, x) + (y**4).sum(-1)  # noqa: E731  # a name for a one-liner
    adam = TorchOptimizer(torch.optim.Adam, max_steps=3)
    for steps, solvers in (
        (0, (LBFGS(max_steps=0), Newton(max_steps=0), GradientDescent(0.1, max_steps=0))),
        (1, (LBFGS(max_steps=1), Newton(max_steps=1), GradientDescent(0.1, max_steps=1), adam)),
    ):
        for solver in solvers:
            yield Row(f"argmin, {type(solver).__name__}, {steps}", argmin(quartic, solver=solver), (X,), NotConverged)
        for kind in (Newton, Broyden, Anderson):
            cubic = root(lambda y, x: y + y**3 - x, solver=kind(max_steps=steps))
            yield Row(f"root, {kind.__name__}, {steps}", cubic, (X,), NotConverged)
        yield Row(f"fixed, {steps}", fixed(solver=FixedPointIteration(max_steps=steps)), (X,), NotConverged)
        yield Row(
            f"bilevel, {steps}",
            bilevel(solver=Stackelberg(max_steps=steps), lower=lambda y, x, z: quartic(y, x)),
            (X,),
            NotConverged,
        )
    box = (EYE, X, None, None, EYE, X)
    yield Row("QP", quadratic(solver=InteriorPoint(max_steps=0)), box, NotConverged)  # type: ignore[arg-type]  # None is no constraint
    yield Row("own solver", argmin(solver=Custom(lambda init, x: init)), (X,), Stalled)
    inner = ArgMin(quartic, ZERO, solver=LBFGS(max_steps=1))
    yield Row("inner argmin", argmin(lambda y, x: objective(inner(y), x)), (X,), NotConverged)
    stiff, long = torch.logspace(0, 3, 20, dtype=D), torch.linspace(0.1, 1, 20, dtype=D)
    valley = lambda y, x: 0.5 * (stiff * y * y).sum() - (x * y).sum()  # noqa: E731  # a name for a one-liner
    for solver in (CG(max_steps=2), MINRES(max_steps=2), GMRES(max_steps=2), BiCGStab(max_steps=2), CG(max_steps=0)):
        cut = argmin(valley, 0 * long, gradient=Implicit(solver))
        yield Row(f"adjoint, {type(solver).__name__}", cut, (long,), NotConverged, backward=True)
    series = Implicit(Neumann())
    yield Row("Neumann, stiff", argmin(valley, 0 * long, gradient=series), (long,), Diverged, backward=True)
    double = fixed(lambda y, x: 2 * y + x, solver=Newton(), gradient=series)
    yield Row("Neumann, expansion", double, (X,), Diverged, backward=True)
    coarse = argmin(quartic, gradient=FirstOrder(rtol=1e-13))
    yield Row("first order", coarse, (X,), NotConverged, backward=True, says="relative error")
    short = Implicit(MINRES(max_steps=1))
    yield Row("adjoint of a QP", quadratic(gradient=short), (torch.diag(1 + X), X), NotConverged, backward=True)
    uneven = bilevel(lambda x, y, z: leader(torch.arange(1, 4) * x, y, z), gradient=short)
    yield Row("adjoint of a bilevel", uneven, (X,), NotConverged, backward=True)


def of_another_kind() -> Iterator[Row]:
    many = vector(2, 3)
    for name, make in (
        ("argmin", argmin(lambda y, x: objective(y, x + 0.5 * y.mean(0)), MANY)),
        ("root", root(lambda y, x: y + 0.3 * y.mean(0) - x, MANY, batch_dims=1)),
        ("fixed", fixed(lambda y, x: 0.3 * y.mean(0) + x, MANY, batch_dims=1)),
        ("leader", bilevel(lambda x, y, z: leader(x - x.mean(0), y, z), follower, (MANY, MANY))),
        ("follower", bilevel(leader, lambda y, x, z: objective(y, x + 0.5 * y.mean(0)), (MANY, MANY))),
        ("levels", bilevel(leader, lambda y, x, z: objective(y, x.mean(0)), (MANY, MANY))),
    ):
        yield Row(f"{name}, coupled", make, (many,), InputError, says="depends on the variables of another")
    meta = torch.zeros(3, dtype=D, device="meta")
    for name, make in (("argmin", argmin), ("root", root), ("fixed", fixed), ("bilevel", bilevel)):
        pair = name == "bilevel"
        for odd, says in ((meta, "meta"), (X.float(), "float32"), (X + 0j, "complex128"), (X.half(), "float16")):
            yield Row(f"{name}, {says}", make(), (odd,), InputError, says=says)
        yield Row(
            f"{name}, all meta", make(init=(meta, meta) if pair else meta), (meta,), InputError, says="no numbers"
        )
        half = ZERO.half()
        yield Row(
            f"{name}, all half", make(init=(half, half) if pair else half), (X.half(),), InputError, says="float16"
        )
    for odd, says in ((meta, "meta"), (X + 0j, "complex128"), (X.long(), "int64")):
        yield Row(f"QP, {says}", quadratic(), (EYE, odd), InputError, says=says)
        yield Row(f"convex, {says}", convex("simplex"), (odd,), InputError, says=says)
        yield Row(f"soft Bellman, {says}", bellman, (odd.expand(2, 3)[:, :2],), InputError, says=says)
    yield Row("QP, all meta", quadratic(), (EYE.to("meta"), meta), InputError, says="no numbers")
    yield Row("QP, float32", quadratic(), (EYE, X.float()), InputError, says="float32")
    yield Row("leader without x", bilevel(init=(ZERO[:0], ZERO)), (X,), InputError, says="at least one")
    yield Row("convex, no problem", convex("simplex"), (MANY[:0],), InputError, says="at least one problem")


TABLE = [row for part in (no_solution, not_finite, not_unique, out_of_steps, of_another_kind) for row in part()]
