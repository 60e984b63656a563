"""What the kernels for quadratic programs do with rows, and a triangular factor that grows and shrinks."""

from __future__ import annotations

import numpy as np

from ..kernel import Array, part


@part
def take(t: Array, rows: Array, index: Array, weights: Array, count: int, begin: int) -> None:
    """``t -= weights @ rows[index]`` for the columns of ``rows`` from ``begin`` on, and the first ``count`` weights."""
    size, i = t.shape[0], 0
    while i + 4 <= count:
        a, b, c, d = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        ra, rb, rc, rd = (
            rows[index[i], begin:],
            rows[index[i + 1], begin:],
            rows[index[i + 2], begin:],
            rows[index[i + 3], begin:],
        )
        for j in range(size):
            t[j] -= a * ra[j] + b * rb[j] + c * rc[j] + d * rd[j]
        i += 4
    while i < count:
        a, ra = weights[i], rows[index[i], begin:]
        for j in range(size):
            t[j] -= a * ra[j]
        i += 1


@part
def dot(left: Array, right: Array, begin: int, end: int) -> float:
    """The inner product of two rows between two columns."""
    total = 0.0
    for i in range(begin, end):
        total += left[i] * right[i]
    return total


@part
def fill(v: Array, number: float) -> None:
    """Every entry becomes ``number``; loops compile sooner than slices are assigned."""
    for i in range(v.shape[0]):
        v[i] = number


@part
def copy(target: Array, source: Array, begin: int, end: int) -> None:
    """``target`` becomes the ``source`` between two columns."""
    for i in range(begin, end):
        target[i] = source[i]


@part
def largest(v: Array) -> float:
    """The largest absolute value; a NaN is passed over."""
    most = 0.0
    for i in range(v.shape[0]):
        most = max(most, abs(v[i]))
    return most


@part
def or_one(number: float) -> float:
    return number if number > 0 else 1.0


@part
def forward(schur: Array, v: Array, count: int) -> None:
    """``v`` becomes ``L^-1 v``."""
    for i in range(count):
        v[i] = (v[i] - dot(schur[i], v, 0, i)) / schur[i, i]


@part
def backward(schur: Array, v: Array, count: int) -> None:
    """``v`` becomes ``L^-T v``."""
    for i in range(count - 1, -1, -1):
        row = schur[i]
        v[i] /= row[i]
        amount = v[i]
        for j in range(i):
            v[j] -= amount * row[j]


@part
def drop(schur: Array, order: Array, count: int, place: int) -> None:
    """The factor without the row that came in at ``place``."""
    for i in range(place, count - 1):
        order[i] = order[i + 1]
        for j in range(i + 2):
            schur[i, j] = schur[i + 1, j]
    for m in range(place, count - 1):
        x, y = schur[m, m], schur[m, m + 1]
        length = np.sqrt(x * x + y * y)
        c, s = x / length, y / length
        schur[m, m] = length
        for i in range(m + 1, count - 1):
            x, y = schur[i, m], schur[i, m + 1]
            schur[i, m], schur[i, m + 1] = c * x + s * y, c * y - s * x
