"""Random quadratic programs with known solutions, their exact gradients, and the layers that solve them.

Every way is a function of the sizes that returns a layer ``(Q, q, A, b, G, h) -> x``, batched in all of its arguments:
``x`` minimises ``x Q x / 2 + q x`` with ``A x = b`` and ``G x <= h``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from problems import random
from torch import Tensor

Layer = Callable[..., Tensor]


@dataclass(frozen=True)
class Sizes:
    """How many programs, variables, inequalities and equations."""

    batch: int
    variables: int
    inequalities: int
    equations: int


@dataclass(frozen=True)
class Programs:
    """A batch of programs, all strictly complementary: a constraint is active or far from it.

    Attributes:
        data: ``(Q, q, A, b, G, h)``.
        solution: the minimisers ``(batch, variables)``.
        active: the rows of ``G`` that hold with equality ``(batch, active)``.
        weight: the cotangent of the minimisers.
    """

    data: tuple[Tensor, ...]
    solution: Tensor
    active: Tensor
    weight: Tensor

    def exact(self, Q: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> Tensor:
        """The minimisers as long as the same constraints stay active: one dense solve, differentiable as it stands."""
        rows = G.gather(-2, self.active.unsqueeze(-1).expand(*self.active.shape, G.shape[-1]))
        bound = torch.cat([A, rows], -2)
        corner = Q.new_zeros(*bound.shape[:-1], bound.shape[-2])
        matrix = torch.cat([torch.cat([Q, bound.mT], -1), torch.cat([bound, corner], -1)], -2)
        return torch.linalg.solve(matrix, torch.cat([-q, b, h.gather(-1, self.active)], -1))[..., : q.shape[-1]]

    def to(self, device: torch.device) -> Programs:
        """The same programs there."""
        data = tuple(part.to(device) for part in self.data)
        return Programs(data, *(part.to(device) for part in (self.solution, self.active, self.weight)))

    def gradients(self) -> list[Tensor]:
        """The exact gradients of ``(weight * x).sum()``."""
        return gradients(self.exact(*(free := fresh(self.data))), free, self.weight)


def fresh(data: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Leaves of a new graph."""
    return tuple(tensor.clone().requires_grad_() for tensor in data)


def gradients(x: Tensor, data: tuple[Tensor, ...], weight: Tensor) -> list[Tensor]:
    """The gradients of ``(weight * x).sum()``; that of Q is made symmetric, as layers split it differently."""
    first, *rest = torch.autograd.grad(x, data, weight)
    return [(first + first.mT) / 2, *rest]


def programs(sizes: Sizes, seed: int = 0) -> Programs:
    """Draw the solution and its multipliers first, and the programs that have them after that."""
    generator = torch.Generator().manual_seed(seed)
    B, n, m, p = sizes.batch, sizes.variables, sizes.inequalities, sizes.equations
    count = min(m // 2, (n - p) // 2)
    root = random(generator, B, n, n)
    Q = root @ root.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)
    A, G, x = random(generator, B, p, n), random(generator, B, m, n), random(generator, B, n)
    active = torch.stack([torch.randperm(m, generator=generator)[:count] for _ in range(B)])
    is_active = torch.zeros(B, m, dtype=torch.bool).scatter(1, active, True)
    amount = 0.5 + torch.rand(B, m, generator=generator, dtype=torch.float64)
    multiplier, slack = torch.where(is_active, amount, 0.0), torch.where(is_active, 0.0, amount)
    free = random(generator, B, p)
    q = -torch.einsum("bij,bj->bi", Q, x) - torch.einsum("bji,bj->bi", G, multiplier)
    q = q - torch.einsum("bji,bj->bi", A, free)
    b, h = torch.einsum("bij,bj->bi", A, x), torch.einsum("bij,bj->bi", G, x) + slack
    return Programs((Q, q, A, b, G, h), x, active, random(generator, B, n))


def infeasibility(x: Tensor, data: tuple[Tensor, ...]) -> float:
    """The largest violation of a constraint."""
    _, _, A, b, G, h = data
    equal = (torch.einsum("bij,bj->bi", A, x) - b).abs()
    return float(torch.cat([equal, (torch.einsum("bij,bj->bi", G, x) - h).clamp_min(0)], -1).max())


def by_bigrad(_: Sizes) -> Layer:
    """bigrad, everything at its default."""
    from bigrad.layers import QuadraticProgram

    return QuadraticProgram()


def compiled() -> None:
    """On a fresh machine numba compiles at the first program; its cache holds from then on."""
    drawn = programs(sizes := Sizes(3, 8, 8, 2))
    gradients(by_bigrad(sizes)(*(data := fresh(drawn.data))), data, drawn.weight)


def by_qpth(_: Sizes) -> Layer:
    """qpth; it need not check Q."""
    from qpth.qp import QPFunction

    solve = QPFunction(eps=1e-12, verbose=-1, check_Q_spd=False, maxIter=30)
    return lambda Q, q, A, b, G, h: solve(Q, q, G, h, A, b)


def by_qplayer(_: Sizes) -> Layer:
    """proxsuite's QPLayer; it makes its gradients in the default dtype, so that has to be float64."""
    from proxsuite.torch.qplayer import QPFunction

    solve = QPFunction(eps=1e-10, eps_backward=1e-10, rho_backward=1e-10, mu_backward=1e-10)
    return lambda Q, q, A, b, G, h: solve(Q, q, A, b, G, torch.full_like(h, -1e20), h)[0]


def cvxpy_layer(sizes: Sizes, solver: str | None, by_root: bool, arguments: dict[str, object]) -> Layer:
    """cvxpylayers; where its solver takes no quadratic objective with a parameter, Q goes in ``by_root``."""
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    n, m, p = sizes.variables, sizes.inequalities, sizes.equations
    x, q = cp.Variable(n), cp.Parameter(n)
    Q = cp.Parameter((n, n)) if by_root else cp.Parameter((n, n), PSD=True)
    A, b, G, h = cp.Parameter((p, n)), cp.Parameter(p), cp.Parameter((m, n)), cp.Parameter(m)
    square = cp.sum_squares(Q @ x) if by_root else cp.quad_form(x, Q)
    program = cp.Problem(cp.Minimize(square / 2 + q @ x), [A @ x == b, G @ x <= h])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = CvxpyLayer(program, [Q, q, A, b, G, h], [x], solver=solver, solver_args=arguments)
    if by_root:
        return lambda Q, *rest: layer(torch.linalg.cholesky(Q).mT, *rest)[0]
    return lambda *data: layer(*data)[0]


# SCS gets closer than Clarabel on the cone programs that these become, and takes less time.
SCS = {"solve_method": "SCS", "eps": 1e-10, "max_iters": 100_000, "n_jobs_forward": 1, "n_jobs_backward": 1}


def by_diffcp(sizes: Sizes) -> Layer:
    """cvxpylayers with its default way back, iterative least squares."""
    return cvxpy_layer(sizes, None, True, {**SCS, "mode": "lsqr"})


def by_diffcp_dense(sizes: Sizes) -> Layer:
    """cvxpylayers with a dense way back."""
    return cvxpy_layer(sizes, None, True, {**SCS, "mode": "dense"})


def by_cvxpy_moreau(sizes: Sizes) -> Layer:
    """cvxpylayers with Moreau."""
    return cvxpy_layer(sizes, "MOREAU", False, {})


def by_moreau(sizes: Sizes) -> Layer:
    """Moreau itself, on dense patterns."""
    import moreau
    from moreau.torch import Solver

    n, rows = sizes.variables, sizes.equations + sizes.inequalities
    solver = Solver(
        n=n,
        m=rows,
        P_row_offsets=torch.arange(0, n * n + 1, n),
        P_col_indices=torch.arange(n).repeat(n),
        A_row_offsets=torch.arange(0, rows * n + 1, n),
        A_col_indices=torch.arange(n).repeat(rows),
        cones=moreau.Cones(num_zero_cones=sizes.equations, num_nonneg_cones=sizes.inequalities),
        settings=moreau.Settings(device="cpu", batch_size=sizes.batch, enable_grad=True),
    )

    def layer(Q: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> Tensor:
        matrix = torch.cat([A, G], -2)
        return solver.solve(Q.flatten(-2), matrix.flatten(-2), q, torch.cat([b, h], -1)).x

    return layer


WAYS: dict[str, Callable[[Sizes], Layer]] = {
    "bigrad": by_bigrad,
    "qpth": by_qpth,
    "QPLayer": by_qplayer,
    "Moreau": by_moreau,
    "cvxpylayers, Moreau": by_cvxpy_moreau,
    "cvxpylayers": by_diffcp,
    "cvxpylayers, dense": by_diffcp_dense,
}
