"""Preconditioners: cheap stand-ins for the inverse, which change the speed and never the answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .factor import multiply
from .solver import MatVec, Operator


class Preconditioner(ABC):
    """A positive definite ``M`` near ``A``, of which only ``r -> M^-1 r`` is used."""

    @abstractmethod
    def build(self, operator: Operator, like: Tensor, damping: float) -> MatVec:
        """``r -> M^-1 r`` on ``(*batch, n)``.

        Args:
            operator: the matrices ``A``.
            like: any vector ``(*batch, n)``.
            damping: the ridge that the solver adds to ``A``.
        """


@dataclass(frozen=True, eq=False)
class Diagonal(Preconditioner):
    r"""Jacobi's preconditioner :math:`M = \operatorname{diag}(A) + \text{damping}\, I`, with absolute values.

    The diagonal is read off where the matrix is known, and otherwise estimated by products with random signs ``z``
    as the mean of :math:`z \odot A z`; an entry below the error of its estimate is replaced by that error.

    Args:
        values: the diagonal of ``A``, positive, ``(n,)`` or ``(*batch, n)``; ``None`` is read off or estimated.
        probes: products that an estimate may cost; from ``n`` on it is exact.
        seed: of the random signs.

    Source: An Estimator for the Diagonal of a Matrix (Bekas, Kokiopoulou, Saad, 2007).

    Example:
        >>> import torch
        >>> from bigrad.linear import CG, Diagonal, Operator
        >>> scales = torch.logspace(0, 6, 50)
        >>> solver = CG(preconditioner=Diagonal(scales))
        >>> int(solver.solve(Operator(lambda u: scales * u, symmetric=True), torch.ones(50))[1].steps)
        1
    """

    values: Tensor | None = None
    probes: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.values is not None and not bool((self.values > 0).all()):
            raise InputError("Diagonal: values must be positive")
        if self.probes < 1:
            raise InputError(f"Diagonal: probes is {self.probes}; it must be >= 1")

    def build(self, operator: Operator, like: Tensor, damping: float) -> MatVec:
        """``r / (|diagonal| + damping)``, with entries that are as good as zero lifted."""
        diagonal = self._diagonal(operator, like)
        if like.shape[-1]:
            diagonal = diagonal.abs() + damping
            largest = diagonal.amax(-1, keepdim=True)
            diagonal = torch.maximum(diagonal, torch.finfo(like.dtype).eps * largest)
            diagonal = torch.where((diagonal > 0) & largest.isfinite(), diagonal, 1.0)
        return lambda r: r / diagonal

    def _diagonal(self, operator: Operator, like: Tensor) -> Tensor:
        if self.values is not None:
            return self.values.detach()
        size = like.shape[-1]
        if operator.dense is not None or self.probes >= size:
            return operator.matrix(like).diagonal(dim1=-2, dim2=-1)
        signs = 2 * torch.randint(2, (self.probes, size), **_stream(self.seed)).to(like) - 1
        samples = torch.stack([z * operator.product(z.expand_as(like)) for z in signs])
        mean = samples.mean(0)
        spread = (samples - mean).square().mean(0)
        return torch.maximum(mean.abs(), (spread / max(1, self.probes - 1)).sqrt())


@dataclass(frozen=True)
class Nystrom(Preconditioner):
    r"""Randomised Nyström preconditioner, for positive definite ``A`` with few large eigenvalues.

    With the best part :math:`U \Lambda U^\top` that ``rank`` products with random vectors show of ``A``,
    :math:`M^{-1} = (\lambda_r + \mu)\, U (\Lambda + \mu)^{-1} U^\top + I - U U^\top`. It is no inverse, not even
    nearly: outside of the span of ``U`` it is the identity.

    Args:
        rank: products spent, and vectors kept.
        ridge: :math:`\mu`, beside the solver's damping.
        seed: of the random vectors.

    Source: Randomized Nyström Preconditioning (Frangella, Tropp, Udell, 2023).

    Example:
        >>> import torch
        >>> from bigrad.linear import CG, Nystrom, Operator
        >>> scales = torch.cat([torch.logspace(3, 6, 10), torch.ones(90)])
        >>> solver = CG(preconditioner=Nystrom(10))
        >>> int(solver.solve(Operator(lambda u: scales * u, symmetric=True), torch.ones(100))[1].steps) < 10
        True
    """

    rank: int
    ridge: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"Nystrom: rank is {self.rank}; it must be >= 1")
        if not self.ridge >= 0:
            raise InputError(f"Nystrom: ridge is {self.ridge}; it must be >= 0")

    def build(self, operator: Operator, like: Tensor, damping: float) -> MatVec:
        """The preconditioner of the matrix without ``damping``, which enters as :math:`\\mu`."""
        size = like.shape[-1]
        if size == 0:
            return lambda r: r
        eps = torch.finfo(like.dtype).eps
        drawn = torch.randn(size, min(self.rank, size), dtype=torch.float64, **_stream(self.seed))
        test = torch.linalg.qr(drawn)[0].to(like)
        sketch = torch.stack([operator.product(column.expand_as(like)) for column in test.mT], -1)
        # Decompositions raise on numbers that are none; the solver's own products will tell of them.
        sketch = torch.where(sketch.isfinite().all(-1).all(-1)[..., None, None], sketch, 0.0)
        norm = torch.linalg.matrix_norm(sketch)
        norm = torch.where(norm > 0, norm, 1.0)[..., None, None]
        shift = size**0.5 * eps
        shifted = sketch / norm + shift * test
        core = test.mT @ shifted
        # The core's eigenvalues are at least the shift up to rounding; an indefinite A has others.
        values, vectors = torch.linalg.eigh((core + core.mT) / 2)
        root = (shifted @ vectors) / values.abs().clamp_min(shift).sqrt().unsqueeze(-2)
        basis, singular, _ = torch.linalg.svd(root, full_matrices=False)
        scale = norm.squeeze(-1)
        mu = torch.maximum(scale * shift, torch.full_like(scale, self.ridge + damping))
        kept = (singular.square() - shift).clamp_min(0) * scale + mu
        gain = kept[..., -1:] / kept - 1

        def apply(r: Tensor) -> Tensor:
            return r + multiply(basis, gain * multiply(basis.mT, r))

        return apply


def _stream(seed: int) -> dict[str, Any]:
    """Where to draw from: not the global stream, and the same numbers on every device."""
    generator = torch.Generator().manual_seed(seed)
    return {"generator": generator, "device": generator.device}
