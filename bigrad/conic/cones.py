"""Projections onto convex cones, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import isqrt

import torch
from torch import Tensor

Projection = tuple[Tensor, Tensor, Tensor]  # the point, the derivative, the distance from the nearest kink
Surface = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # negative inside the cone; its gradient and Hessian


@dataclass(frozen=True)
class Cones:
    """A product of cones in the order of the rows; the matrices are upper triangles by columns, times √2 off-diagonal.

    Args:
        zero: rows that vanish.
        nonnegative: rows that are at least zero.
        second_order: sizes of the cones ``|rest| <= first``.
        semidefinite: orders of the matrices.
        exponential: number of the cones ``y exp(x / y) <= z``.
        power: exponents of the cones ``|last| <= rest_1^α_1 ... rest_k^α_k``.
    """

    zero: int = 0
    nonnegative: int = 0
    second_order: tuple[int, ...] = ()
    semidefinite: tuple[int, ...] = ()
    exponential: int = 0
    power: tuple[tuple[float, ...], ...] = ()

    @property
    def size(self) -> int:
        """Number of rows."""
        return sum(self._sizes())

    def _sizes(self) -> list[int]:
        triangles = [order * (order + 1) // 2 for order in self.semidefinite]
        curved = [3] * self.exponential + [len(exponents) + 1 for exponents in self.power]
        return [self.zero, self.nonnegative, *self.second_order, *triangles, *curved]

    def project(self, v: Tensor, near: Tensor) -> Projection:
        """The point of the cones that is nearest to ``v`` ``(m,)``, and the derivative ``(m, m)`` there.

        Args:
            v: what is projected.
            near: roughly the answer. It is needed where the projection has no formula.
        """
        points, slopes, margins = zip(*self._parts(v.split(self._sizes()), near.split(self._sizes())), strict=True)
        return torch.cat(points), torch.block_diag(*slopes), torch.stack(margins).amin()

    def _parts(self, parts: tuple[Tensor, ...], near: tuple[Tensor, ...]) -> Iterator[Projection]:
        zero, plain, *rest = parts
        yield torch.zeros_like(zero), zero.new_zeros(self.zero, self.zero), zero.new_full((), torch.inf)
        yield plain.clamp_min(0), torch.diag((plain > 0).to(plain)), _least(plain)
        last = len(self.second_order) + len(self.semidefinite)
        for part in rest[: len(self.second_order)]:
            yield _second_order(part)
        for part in rest[len(self.second_order) : last]:
            yield _semidefinite(part)
        count = self.exponential
        if count:
            v, start = torch.stack(rest[last : last + count]), torch.stack(near[last + 2 : last + 2 + count])
            yield from zip(*_curved(v, start, _exponential), strict=True)
        for exponents, v, start in zip(self.power, rest[last + count :], near[last + 2 + count :], strict=True):
            yield from zip(*_curved(v[None], start[None], partial(_power, exponents)), strict=True)


def _least(values: Tensor) -> Tensor:
    return torch.cat([values.abs(), values.new_full((1,), torch.inf)]).amin()


def _second_order(v: Tensor) -> Projection:
    top, rest = v[0], v[1:]
    length = rest.norm()
    margin = _least(torch.stack([top - length, top + length]))
    eye = torch.eye(len(v), dtype=v.dtype)
    if top >= length:
        return v, eye, margin
    if top <= -length:
        return torch.zeros_like(v), torch.zeros_like(eye), margin
    first, side = eye[0], torch.cat([top.new_zeros(1), rest / length])
    slope = (1 + top / length) * (eye - first.outer(first)) - top / length * side.outer(side)
    slope = (slope + first.outer(first) + first.outer(side) + side.outer(first)) / 2
    return (top + length) / 2 * (first + side), slope, margin


def _semidefinite(v: Tensor) -> Projection:
    order = (isqrt(8 * len(v) + 1) - 1) // 2
    column, row = torch.tril_indices(order, order)
    place = torch.arange(len(v))
    basis = v.new_zeros(len(v), order, order)
    basis[place, row, column] = basis[place, column, row] = (row == column).to(v).clamp_min(0.5**0.5)
    values, vectors = torch.linalg.eigh((v[:, None, None] * basis).sum(0))
    positive, size = values.clamp_min(0), values.abs()
    weight = (positive[:, None] + positive) / (size[:, None] + size).clamp_min(torch.finfo(v.dtype).tiny)
    rotated = vectors.mT @ basis @ vectors
    point = (rotated.diagonal(dim1=-2, dim2=-1) * positive).sum(-1)
    slope = (rotated * weight).flatten(1) @ rotated.flatten(1).mT
    return point, torch.eye(len(v), dtype=v.dtype) if values[0] >= 0 else slope, _least(values)


def _curved(v: Tensor, near: Tensor, surface: Surface) -> Projection:
    """Cones ``(k, n)`` that are smooth but for their apex, from points near the answers."""
    size = v.shape[-1]
    eye = torch.eye(size, dtype=v.dtype)
    height, normal, _ = surface(near)
    away = (v - near).norm(dim=-1)
    inside, apex = away <= -height, near.norm(dim=-1) <= 1e-6 * away
    point, multiplier = near, ((v - near) * normal).sum(-1) / (normal * normal).sum(-1)
    inverse = v.new_zeros(len(v), size + 1, size + 1)
    for _ in range(6):  # Newton's method on point + multiplier * normal = v, height = 0
        height, normal, curvature = surface(point)
        upper = torch.cat([eye + multiplier[:, None, None] * curvature, normal.unsqueeze(-1)], -1)
        lower = torch.cat([normal, torch.zeros_like(height)[:, None]], -1)
        inverse = torch.linalg.inv_ex(torch.cat([upper, lower[:, None]], -2)).inverse
        gap = torch.cat([v - point - multiplier[:, None] * normal, -height[:, None]], -1)
        step = (inverse @ gap.unsqueeze(-1)).squeeze(-1)
        point, multiplier = point + step[:, :size], multiplier + step[:, size]
    point = torch.where(inside[:, None], v, torch.where(apex[:, None], 0.0, point))
    slope = torch.where(apex[:, None, None], 0.0, inverse[:, :size, :size])
    margin = torch.where(inside, -surface(near)[0], (v - point).norm(dim=-1))
    return point, torch.where(inside[:, None, None], eye, slope), margin


def _exponential(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = point.unbind(-1)
    growth, one = (x / y).exp(), torch.ones_like(x)
    tilt = torch.stack([one, -x / y, 0 * one], -1)
    normal = torch.stack([growth, growth * (1 - x / y), -one], -1)
    return y * growth - z, normal, (growth / y)[:, None, None] * tilt.unsqueeze(-1) * tilt.unsqueeze(-2)


def _power(exponents: tuple[float, ...], point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rest, last = point[:, :-1], point[:, -1:]
    alpha = torch.tensor(exponents, dtype=point.dtype)
    size, share = rest.pow(alpha).prod(-1, keepdim=True), alpha / rest
    curvature = torch.diag_embed(share / rest) - share.unsqueeze(-1) * share.unsqueeze(-2)
    padded = torch.nn.functional.pad(size.unsqueeze(-1) * curvature, (0, 1, 0, 1))
    return (last.abs() - size).squeeze(-1), torch.cat([-size * share, last.sign()], -1), padded
