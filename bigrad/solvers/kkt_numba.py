"""Batches of quadratic programs and the linear systems at their solutions, compiled by numba."""

from __future__ import annotations

import numpy as np

from ..kernel import Array, part, sums
from .exchange_numba import factored, lengths, scaled, searched
from .rows_numba import backward, copy, dot, fill, forward, largest, or_one


@part
def _rounded(number: float, single: bool) -> float:
    return float(np.float32(number)) if single else number


@part
def _corrected(
    upper: Array,
    unit: Array,
    schur: Array,
    order: Array,
    count: int,
    top: Array,
    bottom: Array,
    dy: Array,
    dmu: Array,
    r: Array,
) -> None:
    """``dy`` and ``dmu`` with ``Q dy + C' dmu = top`` and ``C dy = bottom`` on the active rows."""
    n, k = upper.shape[0], unit.shape[0]
    fill(dmu, 0.0)
    copy(dy, top, 0, n)
    for i in range(n):
        row = upper[i]
        dy[i] /= row[i]
        amount = dy[i]
        for j in range(i + 1, n):
            dy[j] -= amount * row[j]
        for a in range(k):
            dmu[a] += amount * row[n + a]
    for i in range(count):
        a = order[i]
        r[i] = unit[a] * (dmu[a] - bottom[a])
    forward(schur, r, count)
    backward(schur, r, count)
    fill(dmu, 0.0)
    for i in range(count):
        dmu[order[i]] = unit[order[i]] * r[i]
    for i in range(n - 1, -1, -1):
        row, total = upper[i], dy[i]
        for j in range(i + 1, n):
            total -= row[j] * dy[j]
        for a in range(k):
            total -= row[n + a] * dmu[a]
        dy[i] = total / row[i]


@part
def _excess(
    full: Array, turned: Array, y: Array, mu: Array, q: Array, d: Array, slope: Array, off: Array, excess: Array
) -> None:
    """``slope = Q y``, ``off = Q y + q + C' mu`` and ``excess = C y - d``."""
    n, k = turned.shape
    for a in range(k):
        excess[a] = -d[a]
    for i in range(n):
        row, wide, at = full[i], turned[i], y[i]
        slope[i] = dot(row, y, 0, n)
        off[i] = slope[i] + q[i] + dot(wide, mu, 0, k)
        for a in range(k):
            excess[a] += at * wide[a]


@sums
def settle(
    Q: Array,
    q: Array,
    A: Array,
    b: Array,
    G: Array,
    h: Array,
    small: float,
    eps: float,
    single: bool,
    budget: int,
    s: Array,
    steps: Array,
    numbers: Array,
    upper: Array,
    schur: Array,
    order: Array,
    count: Array,
    units: Array,
    active: Array,
) -> bool:
    """Solve programs ``(B, ...)``; matrices and vectors may also be ``(1, ...)``.

    Args:
        Q, q, A, b, G, h: the programs.
        small: what counts as zero beside one.
        eps: the precision of the dtype.
        single: whether the answer is rounded to float32.
        budget: most exchanges of one program.
        s: becomes ``(y, nu, lam)`` ``(B, n + k)``.
        steps: becomes the exchanges ``(B,)``.
        numbers: becomes the residual's norm, that of the linear terms, the violation and the margin ``(4, B)``.
        upper: becomes ``[R V]`` ``(M, n, n + k)``, where ``M`` is one if all programs share their matrices, else ``B``.
        schur: becomes the factor of the active part of the Gram matrix ``(B, k, k)``.
        order: becomes its rows ``(B, k)``.
        count: becomes how many there are ``(B,)``.
        units: becomes those of ``y``, of the rows, of the columns of ``V``, and of the cost ``(M, n + 2 k + 1)``.
        active: becomes the active rows ``(B, k)``.

    Returns:
        Whether every program is solved beyond doubt: ``Q`` is definite, the active rows are independent, and each
        inequality has a multiplier or a slack. What else there is, the torch code tells apart.

    Source: A numerically stable dual method for solving strictly convex quadratic programs (Goldfarb, Idnani, 1983).
    """
    batch, n, p = s.shape[0], Q.shape[1], A.shape[1]
    k = p + G.shape[1]
    full, turned, gram = np.empty((n, n)), np.empty((n, k)), np.empty((k, k))
    known = np.zeros(k, np.bool_)
    mu, dmu, excess, level, d, r = np.empty(k), np.empty(k), np.empty(k), np.empty(k), np.empty(k), np.empty(k)
    y, dy, slope, off, cost_row = np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    m = len(upper)
    for i in range(batch):
        own = i if m > 1 else 0
        R, unit = upper[own], units[own]
        y_unit, row_unit, column = unit[:n], unit[n : n + k], unit[n + k : n + 2 * k]
        if m > 1 or i == 0:
            unit[n + 2 * k] = scaled(Q[i % len(Q)], A[i % len(A)], G[i % len(G)], full, turned, y_unit, row_unit)
            if not factored(full, turned, R, np.sqrt(eps)):
                return False
            lengths(R, column)
            fill(known, False)
        cost = unit[n + 2 * k]
        at_q, at_b, at_h = q[i % len(q)], b[i % len(b)], h[i % len(h)]
        total = 0.0
        for j in range(n):
            total += at_q[j] * at_q[j]
            cost_row[j] = at_q[j] * (cost * y_unit[j])
        for a in range(k):
            number = at_b[a] if a < p else at_h[a - p]
            total += number * number
            d[a] = number * row_unit[a]
        numbers[1, i] = np.sqrt(total)
        if not total < np.inf:
            return False
        # the minimiser without constraints, and the slacks there
        copy(dy, cost_row, 0, n)
        fill(level, 0.0)
        for j in range(n):
            dy[j] /= R[j, j]
            amount = dy[j]
            for c in range(j + 1, n):
                dy[c] -= amount * R[j, c]
            for a in range(k):
                level[a] += amount * R[j, n + a]
        for a in range(k):
            level[a] = column[a] * (d[a] + level[a])
        many, steps[i] = searched(R, column, gram, known, level, p, small, budget, mu, schur[i], order[i])
        if many < 0:
            return False
        count[i] = many
        for a in range(k):
            mu[a] *= column[a]
        for j in range(n - 1, -1, -1):
            y[j] = (-dy[j] - dot(R[j, n:], mu, 0, k) - dot(R[j], y, j + 1, n)) / R[j, j]
        # one Newton step, exact but for rounding
        _excess(full, turned, y, mu, cost_row, d, slope, off, excess)
        for j in range(n):
            off[j] = -off[j]
        for a in range(k):
            excess[a] = -excess[a]
        _corrected(R, column, schur[i], order[i], many, off, excess, dy, dmu, r)
        # what comes out is judged in the digits in which it is handed over
        for j in range(n):
            s[i, j] = _rounded((y[j] + dy[j]) * y_unit[j], single)
            y[j] = s[i, j] / y_unit[j]
        for a in range(k):
            s[i, n + a] = _rounded((mu[a] + dmu[a]) * (row_unit[a] / cost), single)
            mu[a] = s[i, n + a] * cost / row_unit[a]
        _excess(full, turned, y, mu, cost_row, d, slope, off, excess)
        force, extent, bent = largest(cost_row), largest(y), largest(slope)
        pressed = largest(mu)
        rough, weak = 4 * eps * force, small * (force + 2 * bent) + 4 * eps * pressed
        held = active[i]
        for a in range(k):
            held[a] = a < p
        for c in range(p, many):
            held[order[i, c]] = True
        most, widest = 0.0, largest(d) + extent
        residual, violation, margin = 0.0, 0.0, np.inf
        for j in range(n):
            most = max(most, abs(off[j]))
            residual += (off[j] / (cost * y_unit[j])) ** 2
        if not (most <= small * (force + 2 * bent + pressed) and residual < np.inf):
            return False
        for a in range(k):
            out, lam = excess[a] / row_unit[a], s[i, n + a]
            limit = small * (abs(d[a]) + 2 * extent) + rough
            if held[a]:
                if not abs(excess[a]) <= limit:
                    return False
                residual += out * out
                violation = max(violation, out if a >= p else abs(out))
            elif not excess[a] < -limit:
                return False
            if a >= p:
                if held[a] and not (mu[a] > weak and lam > max(0.0, -out)):
                    return False
                slack = -excess[a] / (abs(d[a]) + or_one(widest))
                margin = min(margin, max(mu[a] / or_one(force + bent), slack))
        numbers[0, i], numbers[2, i], numbers[3, i] = np.sqrt(residual), violation, margin
    return True


@sums
def solve(
    upper: Array,
    schur: Array,
    order: Array,
    count: Array,
    units: Array,
    active: Array,
    b: Array,
    found: Array,
) -> None:
    """``found = J^-1 b`` for the Jacobian ``J`` of the conditions of optimality and ``b`` ``(more, B, n + k)``."""
    n, k = upper.shape[1], schur.shape[1]
    top, bottom, dy, dmu, r = np.empty(n), np.empty(k), np.empty(n), np.empty(k), np.empty(k)
    for more in range(b.shape[0]):
        for i in range(b.shape[1]):
            own = i % len(upper)
            unit, given, at = units[own], b[more, i], found[more, i]
            cost = unit[n + 2 * k]
            for j in range(n):
                top[j] = given[j] * (cost * unit[j])
            for a in range(k):
                bottom[a] = given[n + a] * unit[n + a]
            column = unit[n + k : n + 2 * k]
            _corrected(upper[own], column, schur[i], order[i], count[i], top, bottom, dy, dmu, r)
            for j in range(n):
                at[j] = dy[j] * unit[j]
            for a in range(k):
                at[n + a] = dmu[a] * (unit[n + a] / cost) if active[i, a] else -given[n + a]


@sums
def times(Q: Array, A: Array, G: Array, active: Array, u: Array, image: Array) -> None:
    """``image = J u`` for the Jacobian ``J`` of the conditions of optimality and ``u`` ``(B, n + p + m)``."""
    n, p, m = Q.shape[1], A.shape[1], G.shape[1]
    for i in range(u.shape[0]):
        quadratic, equal, limit = Q[i % len(Q)], A[i % len(A)], G[i % len(G)]
        at, out = u[i], image[i]
        for j in range(n):
            out[j] = 0.0
        for j in range(n):
            row, half = quadratic[j], 0.5 * at[j]
            total = dot(row, at, 0, n)
            for c in range(n):
                out[c] += half * row[c]
            out[j] += 0.5 * total
        for a in range(p):
            row, weight = equal[a], at[n + a]
            out[n + a] = dot(row, at, 0, n)
            for c in range(n):
                out[c] += weight * row[c]
        for a in range(m):
            row, weight = limit[a], at[n + p + a]
            if active[i, a]:
                out[n + p + a] = dot(row, at, 0, n)
                for c in range(n):
                    out[c] += weight * row[c]
            else:
                out[n + p + a] = -weight
