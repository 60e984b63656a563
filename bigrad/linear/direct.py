"""Factorisation of the materialised operator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from ..errors import InputError
from .factor import LU, Cholesky, Dense, multiply
from .solver import Factor, LinearSolver, MatVec, Operator, linear_tolerance, scaled, with_damping

_ROUNDS = 10  # of iterative refinement with a factor of another matrix
_CONTRACTION = 0.25  # what a round has to leave of the residual at most; a worse factor is replaced


@dataclass(frozen=True)
class Direct(LinearSolver):
    r"""Factorisation of :math:`A + \text{damping}\, I` with iterative refinement: Cholesky where definite, else LU.

    The factor is left in ``operator.kept`` and used again. A kept factor of another matrix, such as that of the point
    before, is only trusted as far as refinement with the true products confirms it; else the matrix is factored anew.

    Args:
        damping: ridge added to the diagonal.

    Source: Accuracy and Stability of Numerical Algorithms, chapter 12 (Higham, 2002).

    Example:
        >>> import torch
        >>> from bigrad.linear import Direct, Operator
        >>> A = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
        >>> Direct().solve(Operator(lambda u: A @ u), torch.tensor([2.0, 3.0]))[0]
        tensor([3., 1.])
    """

    damping: float = 0.0

    def __post_init__(self) -> None:
        if not self.damping >= 0:
            raise InputError(f"Direct: damping is {self.damping}; it must be >= 0")

    def solve(self, operator: Operator, b: Tensor, start: Tensor | None = None) -> tuple[Tensor, Certificate]:
        """Solve for ``u`` with the kept factor, or with a new one of ``(*batch, n, n)``; ``start`` is of no use."""
        b, unit = scaled(b)
        answer = self._by_kept(operator, b) or self._by_new(operator, b)
        certificate = Certificate(
            *("linear solve", answer.status, answer.norm * unit, answer.wanted * unit, torch.ones_like(answer.status)),
            ritz=answer.factor.ritz(b.shape[:-1]) if isinstance(answer.factor, Dense) else None,
        )
        return answer.u * unit.unsqueeze(-1), certificate

    def _by_kept(self, operator: Operator, b: Tensor) -> _Answer | None:
        """Solve with the kept factor; ``None`` where there is none, or it is too far from ``A``."""
        factor = operator.kept.factor
        if factor is None:
            return None
        exact = isinstance(factor, Dense) and factor.exact and factor.damping == self.damping
        if isinstance(factor, Dense) and exact:
            product: MatVec = partial(factor.apply, transposed=operator.transposed)
        else:
            known = operator.product if operator.dense is None else partial(multiply, operator.dense)
            product = with_damping(known, self.damping)
        norm = factor.norm if isinstance(factor, Dense) else None
        answer = _refined(factor, product, b, operator.transposed, norm)
        if answer.converged:
            return answer
        bad = (answer.status >= int(Status.MAX_STEPS)) & b.isfinite().all(-1)
        return None if bool(bad.any()) else answer

    def _by_new(self, operator: Operator, b: Tensor) -> _Answer:
        """Factor the matrix, leave the factor for the next solve, and solve."""
        matrix = operator.matrix(b)
        if operator.transposed:
            matrix = matrix.mT  # the factor kept is that of the matrix itself
        if self.damping:
            matrix = matrix + self.damping * torch.eye(b.shape[-1], dtype=b.dtype, device=b.device)
        factor: Dense = (Cholesky if operator.definite else LU).of(matrix, damping=self.damping, exact=True)
        defect = defective = factor.defective
        defect = torch.where(defect, int(Status.SINGULAR), int(Status.CONVERGED))
        failed = bool(defective.any())
        if failed and operator.definite:
            finite = matrix.isfinite().all(-1).all(-1)
            least = torch.linalg.eigvalsh(torch.where(finite[..., None, None], matrix, 0.0))[..., 0]
            noise = 10 * b.shape[-1] * torch.finfo(b.dtype).eps * factor.norm
            defect = torch.where(defective & (least < -noise), int(Status.INDEFINITE), defect)
            factor = LU.of(matrix, damping=self.damping, exact=True)
        elif not failed:
            operator.kept.factor = factor

        product = partial(factor.apply, transposed=operator.transposed)
        answer = _refined(factor, product, b, operator.transposed, factor.norm)
        finite = b.isfinite().all(-1) & factor.norm.isfinite()
        answer.status = torch.where(finite, torch.maximum(answer.status, defect), int(Status.NON_FINITE))
        return answer


@dataclass
class _Answer:
    """An answer, its residual norm, the norm wanted, how it ended, and whether all of it converged at once."""

    factor: Factor
    u: Tensor
    norm: Tensor
    wanted: Tensor
    status: Tensor
    converged: bool = False


def _refined(factor: Factor, product: MatVec, b: Tensor, transposed: bool, reach: Tensor | None) -> _Answer:
    """Iterative refinement; ``reach`` is the norm of ``A``, if known."""
    eps = torch.finfo(b.dtype).eps
    b_norm = _norm(b)
    wanted = linear_tolerance(None, b.dtype) * b_norm
    u = factor.solve(b, transposed=transposed)
    r = b - product(u)
    norm = _norm(r)
    if bool((norm <= wanted).all()):
        return _Answer(factor, u, norm, wanted, torch.zeros_like(norm, dtype=torch.int64), converged=True)
    before = b_norm
    for _ in range(_ROUNDS):
        improves = (norm < _CONTRACTION * before) & (norm > wanted)
        if not bool(improves.any()):
            break
        trial = u + factor.solve(r, transposed=transposed)
        left = b - product(trial)
        found = _norm(left)
        better = found < norm
        u, r = (torch.where(better.unsqueeze(-1), new, old) for new, old in ((trial, u), (left, r)))
        before, norm = norm, torch.where(better, found, norm)
    if reach is None:
        reach = b_norm / _norm(u)
    lost = 100 * eps * reach * _norm(u)  # what rounding does to A u
    floor = torch.where(lost < b_norm, int(Status.ROUNDING_FLOOR), int(Status.SINGULAR))
    status = torch.where((norm <= lost + 100 * eps * b_norm) & ~improves, floor, int(Status.STALLED))
    status = torch.where(norm <= wanted, int(Status.CONVERGED), status)
    status = torch.where(norm.isfinite(), status, int(Status.NON_FINITE))
    return _Answer(factor, u, norm, wanted, status)


def _norm(v: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(v, dim=-1)  # the method of the same name takes twice as long
    return norm
