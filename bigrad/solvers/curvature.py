"""Hessians, and where they lead downhill although they are not those of a minimum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear import Cholesky


@dataclass(frozen=True)
class Curvature:
    """Hessians ``(*batch, n, n)`` of an objective, factored where they are positive definite.

    Attributes:
        factor: of all of them; only right where not ``bad``.
        bad: which of them are not safely positive definite ``(*batch)``.
        values: the eigenvalues of the bad ones ``(bad, n)``, in ascending order.
        vectors: their eigenvectors ``(bad, n, n)``.
        saddle: which have a clearly negative eigenvalue ``(*batch)``.
    """

    factor: Cholesky
    bad: Tensor
    values: Tensor
    vectors: Tensor
    saddle: Tensor

    @classmethod
    def of(cls, matrix: Tensor, damping: float) -> Curvature:
        """Factor ``matrix + damping I``, and look closer where it is not positive definite."""
        size, eps = matrix.shape[-1], torch.finfo(matrix.dtype).eps
        if damping:
            matrix = matrix + damping * torch.eye(size, dtype=matrix.dtype, device=matrix.device)
        factor = Cholesky.of(matrix, damping=damping, exact=True)
        bad = factor.defective & matrix.isfinite().all(-1).all(-1)
        saddle = torch.zeros_like(bad)
        values, vectors = matrix.new_zeros((0, size)), matrix.new_zeros((0, size, size))
        if bool(bad.any()):
            values, vectors = torch.linalg.eigh(matrix[bad])
            saddle[bad] = values[..., 0] < -(eps**0.5) * values.abs().amax(-1)
        return cls(factor, bad, values, vectors, saddle)

    def direction(self, g: Tensor) -> Tensor:
        """Newton's direction, with the sizes of the eigenvalues in their places where the Hessian is bad."""
        direction = -self.factor.solve(g, transposed=False)
        if self.values.shape[0]:
            size = self.values.abs()
            size = torch.maximum(size, torch.finfo(g.dtype).eps * size.amax(-1, keepdim=True))
            along = (self.vectors.mT @ g[self.bad].unsqueeze(-1)).squeeze(-1)
            direction[self.bad] = -(self.vectors @ (along / size).unsqueeze(-1)).squeeze(-1)
        return direction

    def escape(self, g: Tensor) -> Tensor:
        """The unit vector of the most negative curvature, pointing downhill; zero where there is none."""
        direction = torch.zeros_like(g)
        if self.values.shape[0]:
            lowest = self.vectors[..., 0]
            direction[self.bad] = torch.where((lowest * g[self.bad]).sum(-1, keepdim=True) > 0, -lowest, lowest)
        return direction
