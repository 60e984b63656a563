"""The search for the active set of one quadratic program, compiled by numba: the twin of :mod:`dual_path`.

A program is brought to equilibrated units first, as :func:`scaled_program.equilibrate` does it. ``upper`` holds
``L' = R`` and ``V = L^-1 C'`` beside it, ``n`` rows ``[R V]``; ``schur`` the Cholesky factor of the active part of the
Gram matrix ``V' V`` of columns of unit length, its rows in the order in which the constraints came in.
"""

from __future__ import annotations

import numpy as np

from ..kernel import Array, part
from .rows_numba import backward, copy, dot, drop, fill, forward, largest, or_one, take

_INDEPENDENT = 10.0  # times what is negligible: the least squared pivot of an active constraint


@part
def _exact(number: float) -> float:
    """The nearest power of two."""
    return float(np.exp2(np.rint(np.log2(number))))


@part
def scaled(Q: Array, A: Array, G: Array, full: Array, turned: Array, y_unit: Array, row_unit: Array) -> float:
    """Fill ``full`` with ``Q`` and ``turned`` with ``C'`` in equilibrated units; the units, the cost's returned."""
    n, p = Q.shape[0], A.shape[0]
    k = p + G.shape[0]
    most = 0.0
    for i in range(n):
        most = max(most, abs(Q[i, i]))
        for a in range(p):
            turned[i, a] = A[a, i]
        for a in range(k - p):
            turned[i, p + a] = G[a, i]
        y_unit[i] = 1.0
    fill(row_unit, 1.0)
    cost = 1.0 / or_one(most)
    column, across = np.empty(n), np.empty(k)
    for sweep in range(4):
        fill(across, 0.0)
        for i in range(n):
            row, unit, total = turned[i], y_unit[i], 0.0
            for a in range(k):
                square = row[a] * row[a]
                total += square * row_unit[a]
                across[a] += square * unit
            column[i] = (cost * abs(Q[i, i]) * unit) ** 2 + unit * total
        if sweep == 3:
            break
        for a in range(k):
            row_unit[a] /= np.sqrt(or_one(row_unit[a] * across[a]))
        for i in range(n):
            y_unit[i] /= np.sqrt(or_one(column[i]))
    most = 0.0
    for i in range(n):
        most = max(most, cost * abs(Q[i, i]) * y_unit[i])
        y_unit[i] = _exact(np.sqrt(y_unit[i]))
    for a in range(k):
        row_unit[a] = _exact(np.sqrt(1.0 / or_one(across[a])))
    cost = _exact(cost / or_one(most))
    for i in range(n):
        unit = cost * y_unit[i]
        for j in range(n):
            full[i, j] = 0.5 * (Q[i, j] + Q[j, i]) * unit * y_unit[j]
        unit = y_unit[i]
        for a in range(k):
            turned[i, a] *= unit * row_unit[a]
    return cost


@part
def factored(full: Array, turned: Array, upper: Array, least: float) -> bool:
    """Fill ``upper`` with ``[R V]``; whether every squared pivot is above ``least``."""
    n = full.shape[0]
    weights, index = np.empty(n), np.arange(n)
    for j in range(n):
        row = upper[j]
        copy(row, full[j], j, n)
        for a in range(turned.shape[1]):
            row[n + a] = turned[j, a]
        for i in range(j):
            weights[i] = upper[i, j]
        take(row[j:], upper, index, weights, j, j)
        if not row[j] > least:
            return False
        unit = 1.0 / np.sqrt(row[j])
        for i in range(j, row.shape[0]):
            row[i] *= unit
    return True


@part
def lengths(upper: Array, unit: Array) -> None:
    """One over the lengths of the columns of ``V``, one where that is zero."""
    n, k = upper.shape[0], unit.shape[0]
    fill(unit, 0.0)
    for i in range(n):
        row = upper[i]
        for a in range(k):
            unit[a] += row[n + a] * row[n + a]
    for a in range(k):
        unit[a] = 1.0 / np.sqrt(or_one(unit[a]))


@part
def _cross(upper: Array, unit: Array, a: int, row: Array, weights: Array, index: Array) -> None:
    """The row ``a`` of the Gram matrix of the columns of ``V`` divided by their lengths."""
    n, k = upper.shape[0], unit.shape[0]
    for i in range(n):
        weights[i] = -upper[i, n + a] * unit[a]
    fill(row, 0.0)
    take(row, upper, index, weights, n, n)
    for c in range(k):
        row[c] *= unit[c]
    row[a] = 1.0


@part
def solved(schur: Array, order: Array, level: Array, count: int, r: Array, mu: Array) -> None:
    """The multipliers with which the slacks of the active constraints are zero."""
    for i in range(count):
        r[i] = level[order[i]]
    forward(schur, r, count)
    backward(schur, r, count)
    for i in range(count):
        mu[order[i]] = -r[i]


@part
def searched(
    upper: Array,
    unit: Array,
    gram: Array,
    known: Array,
    level: Array,
    p: int,
    small: float,
    budget: int,
    mu: Array,
    schur: Array,
    order: Array,
) -> tuple[int, int]:
    """Find the active set: how many constraints it has and how many exchanges it took, or a negative number.

    Slacks are ``level + gram mu``; a row of ``gram`` is written when it is first needed, and ``known`` from then on.
    The most violated constraint comes in, with a multiplier as large as it takes; one whose multiplier would change
    its sign on the way goes out.
    """
    n, k = upper.shape[0], level.shape[0]
    weights, index = np.empty(n), np.arange(n)
    slack, r, move, inside = np.empty(k), np.empty(k), np.empty(k), np.zeros(k, np.bool_)
    copy(slack, level, 0, k)
    fill(mu, 0.0)
    least = _INDEPENDENT * small
    for a in range(p):
        if not known[a]:
            _cross(upper, unit, a, gram[a], weights, index)
            known[a] = True
        copy(r, gram[a], 0, a)
        forward(schur, r, a)
        pivot = gram[a, a] - dot(r, r, 0, a)
        if not pivot > least:
            return -1, 0
        copy(schur[a], r, 0, a)
        schur[a, a] = np.sqrt(pivot)
        order[a], inside[a] = a, True
    count = p
    if p:
        solved(schur, order, level, p, r, mu)
        take(slack, gram, order, r, p, 0)
    rough, steps = largest(level), p
    while steps < budget:
        worst, entering = -small * (rough + largest(mu)), -1
        for a in range(p, k):
            if slack[a] < worst and not inside[a]:
                worst, entering = slack[a], a
        if entering < 0:
            solved(schur, order, level, count, r, mu)
            return count, steps
        row = gram[entering]
        if not known[entering]:
            _cross(upper, unit, entering, row, weights, index)
            known[entering] = True
        while steps < budget:
            steps += 1
            for i in range(count):
                r[i] = row[order[i]]
            forward(schur, r, count)
            pivot = row[entering] - dot(r, r, 0, count)
            copy(schur[count], r, 0, count)
            backward(schur, r, count)
            reach, leaving = np.inf, -1
            for i in range(p, count):
                a = order[i]
                if r[i] > 0.0 and mu[a] < reach * r[i]:
                    reach, leaving = mu[a] / r[i], i
            whole = -slack[entering] / pivot if pivot > least else np.inf
            length = min(reach, whole)
            if not length < np.inf:
                return -1, 0
            mu[entering] += length
            for i in range(count):
                mu[order[i]] -= length * r[i]
            copy(move, row, 0, k)
            take(move, gram, order, r, count, 0)
            for a in range(k):
                slack[a] += length * move[a]
            if whole <= reach:
                schur[count, count] = np.sqrt(pivot)
                order[count], inside[entering] = entering, True
                count += 1
                break
            mu[order[leaving]] = 0.0
            inside[order[leaving]] = False
            drop(schur, order, count, leaving)
            count -= 1
    return -1, 0
