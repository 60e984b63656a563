"""Control against an adversary: the two-level layer equals one convex program with a norm in its objective.

``max_e min_u u'Pu/2 + (x + e)'Qu + q'u`` over ``|e| <= sigma`` and ``|u| <= 1`` is, as the minimum is concave in ``e``,
``min_u u'Pu/2 + x'Qu + q'u + sigma |Qu|`` over ``|u| <= 1``.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad import Constraints
from bigrad.layers import Bilevel

from .cases import D, vector
from .two_levels import TIGHT, both_slopes, error, joined

SIGMA = 0.3
HALF, Q, SLOPE = vector(3, 3, seed=1), vector(2, 3, seed=2), 0.3 * vector(3, seed=3)
P = HALF @ HALF.T + 0.5 * torch.eye(3, dtype=D)
PARAMETERS = torch.cat([torch.tensor([0.3, -0.2], dtype=D), Q.reshape(-1), SLOPE])
INSIDE, OUTSIDE = PARAMETERS, PARAMETERS.clone()
OUTSIDE[:2] = torch.tensor([3.0, -2.0], dtype=D)


def cost(u: Tensor, e: Tensor, z: Tensor) -> Tensor:
    return 0.5 * u @ P @ u + (z[:2] + e) @ z[2:8].reshape(2, 3) @ u + z[8:] @ u


def layer() -> Bilevel:
    return Bilevel(
        lambda e, u, z: -cost(u, e, z),
        cost,
        (torch.zeros(2, dtype=D), torch.zeros(3, dtype=D)),
        leader_constraints=Constraints(inequality=lambda e, u, z: (e @ e - SIGMA**2)[None]),
        follower_constraints=Constraints(inequality=lambda u, e, z: (u @ u - 1)[None]),
        solver=TIGHT,
    )


def one_program(z: Tensor) -> Tensor:
    """The convex program by projected gradients; its objective is smooth where ``Qu`` is not zero."""
    x, Q, q = z[:2], z[2:8].reshape(2, 3), z[8:]
    u = -0.1 * (Q.T @ x + q)
    for _ in range(4000):
        image = Q @ u
        u = u - 0.05 * (P @ u + Q.T @ x + q + SIGMA * Q.T @ image / image.norm())
        u = u / u.norm().clamp_min(1)
    return u


@pytest.mark.parametrize("z", [INSIDE, OUTSIDE], ids=["free", "saturated"])
def test_the_answer_is_that_of_one_convex_program(z: Tensor) -> None:
    e, u = layer()(z)
    truth = one_program(z)
    assert (abs(float(truth.norm()) - 1) < 1e-12) == (z is OUTSIDE)
    image = z[2:8].reshape(2, 3) @ truth
    torch.testing.assert_close((e, u), (SIGMA * image / image.norm(), truth), rtol=1e-9, atol=1e-11)
    # The two-step baseline, disturbed after it has answered, is another point.
    calm = Bilevel(lambda e, u, z: (e @ e).sum(), cost, (torch.zeros(2, dtype=D), torch.zeros(3, dtype=D)))(z)[1]
    assert (calm - u).norm() > 1e-2


@pytest.mark.parametrize("z", [INSIDE, OUTSIDE], ids=["free", "saturated"])
def test_its_gradient(z: Tensor) -> None:
    assert error(*both_slopes(layer(), z, vector(5, seed=4))) < 1e-7


def test_the_derivative_of_the_value_is_that_of_the_cost_alone() -> None:
    z = OUTSIDE.clone().requires_grad_()
    e, u = layer()(z)
    (total,) = torch.autograd.grad(cost(u, e, z), z)
    free = OUTSIDE.clone().requires_grad_()
    (partial,) = torch.autograd.grad(cost(u.detach(), e.detach(), free), free)
    torch.testing.assert_close(total, partial, rtol=1e-10, atol=1e-12)
    assert joined((e, u)).isfinite().all()
