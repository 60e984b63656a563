"""Convex programs with their values, for the tests of the layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import torch
from torch import Tensor

from bigrad.layers import ConvexProgram

from .cases import D, vector


@dataclass(frozen=True)
class Program:
    """A layer, values of its parameters, and a name."""

    name: str
    layer: ConvexProgram
    values: tuple[Tensor, ...]

    def __repr__(self) -> str:
        return self.name


def projection(**settings: Any) -> ConvexProgram:
    """The nearest non-negative vector of three."""
    y, point = cp.Variable(3, name="y"), cp.Parameter(3, name="point")
    return ConvexProgram(cp.Problem(cp.Minimize(cp.sum_squares(y - point)), [y >= 0]), [point], [y], **settings)


def simplex(**settings: Any) -> ConvexProgram:
    """The vertex of the simplex with the least cost."""
    y, cost = cp.Variable(3, name="y"), cp.Parameter(3, name="cost")
    return ConvexProgram(cp.Problem(cp.Minimize(cost @ y), [y >= 0, cp.sum(y) == 1]), [cost], [y], **settings)


def budget(**settings: Any) -> ConvexProgram:
    """Non-negative with a sum of at most the first entry of the point: infeasible where that is negative."""
    y, point = cp.Variable(3, name="y"), cp.Parameter(3, name="point")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(y - point)), [cp.sum(y) <= point[0], y >= 0])
    return ConvexProgram(problem, [point], [y], **settings)


def quadratic(
    n: int = 50, m: int = 50, p: int = 10
) -> tuple[cp.Problem, list[cp.Parameter], cp.Variable, list[Tensor]]:
    """A dense random quadratic program with about half of its inequalities active."""
    y = cp.Variable(n)
    R, q, G, h, A, b = (cp.Parameter(shape) for shape in ((n, n), n, (m, n), m, (p, n), p))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(R @ y) / 2 + q @ y), [G @ y <= h, A @ y == b])
    inside, rows, equal = vector(n, seed=4), vector(m, n, seed=2), vector(p, n, seed=3)
    values = [vector(n, n, seed=1) / n**0.5, vector(n, seed=5), rows, rows @ inside + 0.1 * vector(m, seed=6).abs()]
    return problem, [R, q, G, h, A, b], y, [*values, equal, equal @ inside]


def catalogue() -> list[Program]:
    """One program or more for each cone."""
    n, m = 5, 7
    y, q, G, h = cp.Variable(n), cp.Parameter(n, name="q"), cp.Parameter((m, n), name="G"), cp.Parameter(m, name="h")
    rows, multipliers = vector(m, n, seed=1), vector(m, seed=2).abs()
    q_value, h_value = vector(n, seed=3), vector(m, seed=4).abs() + 0.1

    def over_y(name: str, objective: cp.Expression, *constraints: cp.Constraint, cost: Tensor = q_value) -> Program:
        layer = ConvexProgram(cp.Problem(cp.Minimize(objective), list(constraints)), [q, G, h], [y])
        return Program(name, layer, (cost, rows, h_value))

    near = cp.sum_squares(y - q) / 10
    X, C, d = cp.Variable((4, 4), PSD=True), cp.Parameter((4, 4), symmetric=True), cp.Parameter(4)
    C_value = vector(4, 4, seed=5) + vector(4, 4, seed=5).mT
    nearest = ConvexProgram(cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == d]), [C, d], [X])
    P = cp.Parameter((n, n), PSD=True)
    ridge = ConvexProgram(cp.Problem(cp.Minimize(cp.quad_form(y, P) + q @ y), [y >= -0.1]), [P, q], [y])
    free = ConvexProgram(cp.Problem(cp.Minimize(cp.quad_form(y, P) + q @ y)), [P, q], [y])
    mean = cp.geo_mean(y, approx=False) + cp.sum(G @ y) / 10 - cp.norm(cp.multiply(h[:n], y)) + q @ y / 10
    three, cost = cp.Variable(3), cp.Parameter(3)
    cone = [cp.PowCone3D(three[0], three[1], three[2], 0.3), three[2] >= 1]
    power = ConvexProgram(cp.Problem(cp.Minimize(cost @ three), cone), [cost], [three])
    return [
        Program("QP", ridge, (rows.mT @ rows, q_value)),
        Program("unconstrained", free, (rows.mT @ rows, q_value)),
        over_y("LP", q @ y, G @ y <= h, cost=-rows.mT @ multipliers),
        over_y("SOCP", cp.norm(G @ y - h) + q @ y / 10, cp.norm(y) <= 0.5),
        over_y("lasso", cp.sum_squares(G @ y - h) + cp.norm1(y) + q @ y),
        over_y("group lasso", cp.sum_squares(G @ y - h) + cp.norm(y - q) / 2),
        over_y("logistic", cp.sum(cp.logistic(G @ y - h)) + near, y >= -0.5),
        over_y("log-sum-exp", cp.log_sum_exp(G @ y - h) + near),
        over_y("geometric mean", -mean, cp.norm(y) <= 1),
        Program("SDP", nearest, (C_value, torch.ones(4, dtype=D))),
        Program("power", power, (torch.tensor([1.0, 2.0, 0.5], dtype=D),)),
    ]
