"""Quadratic programs solved one by one in the dual, compiled by numba: the twin of :mod:`dual_path`.

Every program is brought to equilibrated units first, as :func:`scaled_program.equilibrate` does it. ``upper`` holds
``L' = R`` and ``V = L^-1 C'`` beside it, ``n`` rows ``[R V]``; ``schur`` the Cholesky factor of the active part of the
Gram matrix ``V' V`` with its rows in the order in which the constraints came in.
"""

from __future__ import annotations

import numpy as np

from ..kernel import Array, part, sums

_INDEPENDENT = 10.0  # times what is negligible: the least squared pivot of an active constraint


@part
def _take(t: Array, rows: Array, index: Array, weights: Array, count: int, begin: int) -> None:
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
def _dot(left: Array, right: Array, begin: int, end: int) -> float:
    """The inner product of two rows between two columns."""
    total = 0.0
    for i in range(begin, end):
        total += left[i] * right[i]
    return total


@part
def _fill(v: Array, number: float) -> None:
    """Every entry becomes ``number``; loops compile sooner than slices are assigned."""
    for i in range(v.shape[0]):
        v[i] = number


@part
def _copy(target: Array, source: Array, begin: int, end: int) -> None:
    """``target`` becomes the ``source`` between two columns."""
    for i in range(begin, end):
        target[i] = source[i]


@part
def _largest(v: Array) -> float:
    """The largest absolute value; a NaN is passed over."""
    most = 0.0
    for i in range(v.shape[0]):
        most = max(most, abs(v[i]))
    return most


@part
def _or_one(number: float) -> float:
    return number if number > 0 else 1.0


@part
def _exact(number: float) -> float:
    """The nearest power of two."""
    return float(np.exp2(np.rint(np.log2(number))))


@part
def _rounded(number: float, single: bool) -> float:
    return float(np.float32(number)) if single else number


@part
def _scaled(Q: Array, A: Array, G: Array, full: Array, turned: Array, y_unit: Array, row_unit: Array) -> float:
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
    _fill(row_unit, 1.0)
    cost = 1.0 / _or_one(most)
    column, across = np.empty(n), np.empty(k)
    for sweep in range(4):
        _fill(across, 0.0)
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
            row_unit[a] /= np.sqrt(_or_one(row_unit[a] * across[a]))
        for i in range(n):
            y_unit[i] /= np.sqrt(_or_one(column[i]))
    most = 0.0
    for i in range(n):
        most = max(most, cost * abs(Q[i, i]) * y_unit[i])
        y_unit[i] = _exact(np.sqrt(y_unit[i]))
    for a in range(k):
        row_unit[a] = _exact(np.sqrt(1.0 / _or_one(across[a])))
    cost = _exact(cost / _or_one(most))
    for i in range(n):
        unit = cost * y_unit[i]
        for j in range(n):
            full[i, j] = 0.5 * (Q[i, j] + Q[j, i]) * unit * y_unit[j]
        unit = y_unit[i]
        for a in range(k):
            turned[i, a] *= unit * row_unit[a]
    return cost


@part
def _factored(full: Array, turned: Array, upper: Array, least: float) -> bool:
    """Fill ``upper`` with ``[R V]``; whether every squared pivot is above ``least``."""
    n = full.shape[0]
    weights, index = np.empty(n), np.arange(n)
    for j in range(n):
        row = upper[j]
        _copy(row, full[j], j, n)
        for a in range(turned.shape[1]):
            row[n + a] = turned[j, a]
        for i in range(j):
            weights[i] = upper[i, j]
        _take(row[j:], upper, index, weights, j, j)
        if not row[j] > least:
            return False
        unit = 1.0 / np.sqrt(row[j])
        for i in range(j, row.shape[0]):
            row[i] *= unit
    return True


@part
def _lengths(upper: Array, unit: Array) -> None:
    """One over the lengths of the columns of ``V``, one where that is zero."""
    n, k = upper.shape[0], unit.shape[0]
    _fill(unit, 0.0)
    for i in range(n):
        row = upper[i]
        for a in range(k):
            unit[a] += row[n + a] * row[n + a]
    for a in range(k):
        unit[a] = 1.0 / np.sqrt(_or_one(unit[a]))


@part
def _cross(upper: Array, unit: Array, a: int, row: Array, weights: Array, index: Array) -> None:
    """The row ``a`` of the Gram matrix of the columns of ``V`` divided by their lengths."""
    n, k = upper.shape[0], unit.shape[0]
    for i in range(n):
        weights[i] = -upper[i, n + a] * unit[a]
    _fill(row, 0.0)
    _take(row, upper, index, weights, n, n)
    for c in range(k):
        row[c] *= unit[c]
    row[a] = 1.0


@part
def _forward(schur: Array, v: Array, count: int) -> None:
    """``v`` becomes ``L^-1 v``."""
    for i in range(count):
        v[i] = (v[i] - _dot(schur[i], v, 0, i)) / schur[i, i]


@part
def _backward(schur: Array, v: Array, count: int) -> None:
    """``v`` becomes ``L^-T v``."""
    for i in range(count - 1, -1, -1):
        row = schur[i]
        v[i] /= row[i]
        amount = v[i]
        for j in range(i):
            v[j] -= amount * row[j]


@part
def _solved(schur: Array, order: Array, level: Array, count: int, r: Array, mu: Array) -> None:
    """The multipliers with which the slacks of the active constraints are zero."""
    for i in range(count):
        r[i] = level[order[i]]
    _forward(schur, r, count)
    _backward(schur, r, count)
    for i in range(count):
        mu[order[i]] = -r[i]


@part
def _drop(schur: Array, order: Array, count: int, place: int) -> None:
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


@part
def _searched(
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

    Slacks are ``level + gram mu``; rows of ``gram`` are written when they are first needed, and ``known`` then. The most violated constraint comes in, with a multiplier as large as it takes; one
    whose multiplier would change its sign on the way goes out.
    """
    n, k = upper.shape[0], level.shape[0]
    weights, index = np.empty(n), np.arange(n)
    slack, r, move, inside = np.empty(k), np.empty(k), np.empty(k), np.zeros(k, np.bool_)
    _copy(slack, level, 0, k)
    _fill(mu, 0.0)
    least = _INDEPENDENT * small
    for a in range(p):
        if not known[a]:
            _cross(upper, unit, a, gram[a], weights, index)
            known[a] = True
        _copy(r, gram[a], 0, a)
        _forward(schur, r, a)
        pivot = gram[a, a] - _dot(r, r, 0, a)
        if not pivot > least:
            return -1, 0
        _copy(schur[a], r, 0, a)
        schur[a, a] = np.sqrt(pivot)
        order[a], inside[a] = a, True
    count = p
    if p:
        _solved(schur, order, level, p, r, mu)
        _take(slack, gram, order, r, p, 0)
    rough, steps = _largest(level), p
    while steps < budget:
        worst, entering = -small * (rough + _largest(mu)), -1
        for a in range(p, k):
            if slack[a] < worst and not inside[a]:
                worst, entering = slack[a], a
        if entering < 0:
            _solved(schur, order, level, count, r, mu)
            return count, steps
        row = gram[entering]
        if not known[entering]:
            _cross(upper, unit, entering, row, weights, index)
            known[entering] = True
        while steps < budget:
            steps += 1
            for i in range(count):
                r[i] = row[order[i]]
            _forward(schur, r, count)
            pivot = row[entering] - _dot(r, r, 0, count)
            _copy(schur[count], r, 0, count)
            _backward(schur, r, count)
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
            _copy(move, row, 0, k)
            _take(move, gram, order, r, count, 0)
            for a in range(k):
                slack[a] += length * move[a]
            if whole <= reach:
                schur[count, count] = np.sqrt(pivot)
                order[count], inside[entering] = entering, True
                count += 1
                break
            mu[order[leaving]] = 0.0
            inside[order[leaving]] = False
            _drop(schur, order, count, leaving)
            count -= 1
    return -1, 0


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
    _fill(dmu, 0.0)
    _copy(dy, top, 0, n)
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
    _forward(schur, r, count)
    _backward(schur, r, count)
    _fill(dmu, 0.0)
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
def _excess(full: Array, turned: Array, y: Array, mu: Array, q: Array, d: Array, slope: Array, off: Array, excess: Array) -> None:
    """``slope = Q y``, ``off = Q y + q + C' mu`` and ``excess = C y - d``."""
    n, k = turned.shape
    for a in range(k):
        excess[a] = -d[a]
    for i in range(n):
        row, wide, at = full[i], turned[i], y[i]
        slope[i] = _dot(row, y, 0, n)
        off[i] = slope[i] + q[i] + _dot(wide, mu, 0, k)
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
        part = i if m > 1 else 0
        R, unit = upper[part], units[part]
        y_unit, row_unit, column = unit[:n], unit[n : n + k], unit[n + k : n + 2 * k]
        if m > 1 or i == 0:
            unit[n + 2 * k] = _scaled(Q[i % len(Q)], A[i % len(A)], G[i % len(G)], full, turned, y_unit, row_unit)
            if not _factored(full, turned, R, np.sqrt(eps)):
                return False
            _lengths(R, column)
            _fill(known, False)
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
        _copy(dy, cost_row, 0, n)
        _fill(level, 0.0)
        for j in range(n):
            dy[j] /= R[j, j]
            amount = dy[j]
            for c in range(j + 1, n):
                dy[c] -= amount * R[j, c]
            for a in range(k):
                level[a] += amount * R[j, n + a]
        for a in range(k):
            level[a] = column[a] * (d[a] + level[a])
        many, steps[i] = _searched(R, column, gram, known, level, p, small, budget, mu, schur[i], order[i])
        if many < 0:
            return False
        count[i] = many
        for a in range(k):
            mu[a] *= column[a]
        for j in range(n - 1, -1, -1):
            y[j] = (-dy[j] - _dot(R[j, n:], mu, 0, k) - _dot(R[j], y, j + 1, n)) / R[j, j]
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
        force, extent, bent = _largest(cost_row), _largest(y), _largest(slope)
        pressed = _largest(mu)
        rough, weak = 4 * eps * force, small * (force + 2 * bent) + 4 * eps * pressed
        held = active[i]
        for a in range(k):
            held[a] = a < p
        for c in range(p, many):
            held[order[i, c]] = True
        most, widest = 0.0, _largest(d) + extent
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
                slack = -excess[a] / (abs(d[a]) + _or_one(widest))
                margin = min(margin, max(mu[a] / _or_one(force + bent), slack))
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
            part = i % len(upper)
            unit, given, at = units[part], b[more, i], found[more, i]
            cost = unit[n + 2 * k]
            for j in range(n):
                top[j] = given[j] * (cost * unit[j])
            for a in range(k):
                bottom[a] = given[n + a] * unit[n + a]
            column = unit[n + k : n + 2 * k]
            _corrected(upper[part], column, schur[i], order[i], count[i], top, bottom, dy, dmu, r)
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
            total = _dot(row, at, 0, n)
            for c in range(n):
                out[c] += half * row[c]
            out[j] += 0.5 * total
        for a in range(p):
            row, weight = equal[a], at[n + a]
            out[n + a] = _dot(row, at, 0, n)
            for c in range(n):
                out[c] += weight * row[c]
        for a in range(m):
            row, weight = limit[a], at[n + p + a]
            if active[i, a]:
                out[n + p + a] = _dot(row, at, 0, n)
                for c in range(n):
                    out[c] += weight * row[c]
            else:
                out[n + p + a] = -weight
