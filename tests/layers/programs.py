"""Random quadratic programs, and their solutions as formulas that autograd differentiates."""

from __future__ import annotations

import torch
from torch import Tensor

D = torch.float64
Data = list[Tensor]  # Q, q, A, b, G, h
SHAPES = [(5, 7, 2), (5, 7, 0), (5, 0, 2), (4, 0, 0)]  # variables, inequalities, equations


def random_program(n: int, m: int, p: int, batch: int = 3, seed: int = 0) -> Data:
    """Strictly feasible, strictly convex, with an unsymmetric ``Q``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=D)

    root, inside, A, G = normal(batch, n, n), normal(batch, n), normal(batch, p, n), normal(batch, m, n)
    slant = normal(batch, n, n)
    Q = root @ root.mT / n + 0.1 * torch.eye(n, dtype=D) + 0.3 * (slant - slant.mT)
    room = torch.rand((batch, m), generator=generator, dtype=D)
    b, h = ((matrix @ inside.unsqueeze(-1)).squeeze(-1) for matrix in (A, G))
    return [Q, normal(batch, n), A, b, G, h + room]


def arguments(data: Data) -> list[Tensor | None]:
    """What the layer is called with: ``None`` for constraints that are not there."""
    Q, q, A, b, G, h = data
    return [Q, q, *((A, b) if b.shape[-1] else (None, None)), *((G, h) if h.shape[-1] else (None, None))]


def active_at(y: Tensor, data: Data) -> Tensor:
    """The inequalities without slack, bool ``(B, m)``."""
    G, h = data[4:]
    return (h - (G @ y.unsqueeze(-1)).squeeze(-1)).detach() < 1e-7 * (1 + h.detach().abs())


def formula(active: Tensor, data: Data) -> Tensor:
    """The solution with this active set as equations, problem by problem, by a dense inverse."""
    full = [x.expand(len(active), *x.shape[x.ndim - events :]) for x, events in zip(data, (2, 1) * 3, strict=True)]
    return torch.stack([_one(mask, [x[place] for x in full])[0] for place, mask in enumerate(active)])


def _one(mask: Tensor, data: Data) -> tuple[Tensor, Tensor]:
    Q, q, A, b, G, h = data
    C, d = torch.cat([A, G[mask]]), torch.cat([b, h[mask]])
    corner = torch.zeros(len(d), len(d), dtype=D)
    matrix = torch.cat([torch.cat([(Q + Q.mT) / 2, C.mT], 1), torch.cat([C, corner], 1)])
    # torch.linalg.solve is silently wrong under some nested transforms in torch 2.13
    point = torch.linalg.inv(matrix) @ torch.cat([-q, d])
    return point[: len(q)], point[len(q) + len(b) :]


def truth(y: Tensor, data: Data) -> Tensor:
    """The solution, proved to be one: the conditions of optimality hold strictly; differentiable in ``data``."""
    active = active_at(y, data)
    exact = formula(active, data)
    full = [x.detach().expand(len(y), *x.shape[x.ndim - events :]) for x, events in zip(data, (2, 1) * 3, strict=True)]
    for place, mask in enumerate(active):
        one = [x[place] for x in full]
        point, lam = _one(mask, one)
        G, h = one[4:]
        scale = float(one[1].norm())
        assert (lam > 1e-9 * scale).all()
        assert (G[~mask] @ point < h[~mask]).all()
    return exact


def leaves(data: Data) -> Data:
    return [x.detach().clone().requires_grad_() for x in data]


def distance(found: Tensor, wanted: Tensor) -> float:
    """The relative error in the maximum norm, against one where the truth is zero."""
    size = float(wanted.abs().amax()) if wanted.numel() else 0.0
    return float((found - wanted).abs().amax()) / (size or 1.0) if wanted.numel() else 0.0
