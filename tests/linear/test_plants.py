"""Wrong variants that one might write, each caught by the tolerance that the right solver keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad import Certificate
from bigrad.linear import GMRES, MINRES, LinearSolver, Operator

from .systems import D, assert_no_third_outcome, indefinite, product, unsymmetric, vector


class Plant(LinearSolver):
    """Claims success."""

    def answer(self, operator: Operator, b: Tensor) -> Tensor:
        raise NotImplementedError

    def solve(self, operator: Operator, b: Tensor, start: Tensor | None = None) -> tuple[Tensor, Certificate]:
        u = self.answer(operator, b)
        norm = (b - operator.product(u)).norm()
        return u, Certificate("plant", torch.tensor(0), norm, 1e-12 * b.norm(), torch.tensor(1))


class OneRotation(Plant):
    """MINRES whose columns are turned by the last rotation only, and not by the one before."""

    def answer(self, operator: Operator, b: Tensor) -> Tensor:
        size, beta = b.shape[-1], b.norm()
        v_old, v, w = torch.zeros_like(b), b / beta, torch.zeros_like(b)
        left, beta = beta, torch.zeros((), dtype=D)
        u, c, s, above = torch.zeros_like(b), -torch.ones((), dtype=D), torch.zeros((), dtype=D), beta
        for _ in range(size):
            image = operator.product(v)
            alpha = image @ v
            v_next = image - beta * v_old - alpha * v
            beta = v_next.norm()
            delta, turned = c * above + s * alpha, s * above - c * alpha
            above = -c * beta
            gamma = torch.hypot(turned, beta)
            c, s = turned / gamma, beta / gamma
            w = (v - delta * w) / gamma
            u, left = u + c * left * w, s * left
            v_old, v = v, v_next / beta
        return u


class Symmetrised(Plant):
    """The matrix taken for a symmetric one: the transpose in place of the product."""

    def answer(self, operator: Operator, b: Tensor) -> Tensor:
        return torch.linalg.solve(operator.matrix(b).mT, b)


class Unorthogonal(Plant):
    """GMRES that solves with the Hessenberg matrix of an Arnoldi process which drops all but two coefficients."""

    def answer(self, operator: Operator, b: Tensor) -> Tensor:
        size, basis = b.shape[-1], [b / b.norm()]
        hessenberg = torch.zeros(size + 1, size, dtype=D)
        for step in range(size):
            w = operator.product(basis[-1])
            for place in range(max(0, step - 1), step + 1):
                hessenberg[place, step] = basis[place] @ w
                w = w - hessenberg[place, step] * basis[place]
            hessenberg[step + 1, step] = w.norm()
            basis.append(w / w.norm())
        goal = torch.zeros(size + 1, dtype=D)
        goal[0] = b.norm()
        return torch.stack(basis[:size], -1) @ (torch.linalg.pinv(hessenberg) @ goal)


@pytest.mark.parametrize(
    ("right", "wrong", "matrix"),
    [
        (MINRES(), OneRotation(), indefinite(10.0, 8, 0)),
        (GMRES(), Symmetrised(), unsymmetric(8, 0)),
        (GMRES(), Unorthogonal(), unsymmetric(8, 0)),
    ],
)
def test_the_wrong_variant_is_caught(right: LinearSolver, wrong: LinearSolver, matrix: Tensor) -> None:
    b = vector(8)
    assert not assert_no_third_outcome(right, matrix, b).failed
    with pytest.raises(AssertionError):
        assert_no_third_outcome(wrong, matrix, b)


def test_the_transpose_of_a_symmetric_matrix_is_no_plant() -> None:
    matrix, b = indefinite(10.0, 8, 0), vector(8)
    u, _ = Symmetrised().solve(Operator(lambda u: product(matrix, u)), b)
    torch.testing.assert_close(product(matrix, u), b)
