"""SoftResponse with real-valued states and actions, on a linear-quadratic problem whose soft optimum is closed form."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from bigrad.layers import SoftResponse
from bigrad.mdp import LeastSquaresCritic, Rollouts, Segments

D = torch.float64
A, B, NOISE, TEMPERATURE = 0.9, 0.5, 0.3, 0.4
THETA = torch.tensor([0.8, 0.6, 0.3, -0.2, 0.5], dtype=D)


def features(state: Tensor, action: Tensor) -> Tensor:
    """``(s^2, s a, a^2, s, a, 1)``."""
    return torch.stack([state**2, state * action, action**2, state, action, torch.ones_like(state)], -1)


def reward(theta: Tensor, state: Tensor, action: Tensor) -> Tensor:
    """A concave quadratic, linear in its parameters."""
    linear = theta[2] * state * action / 5 + theta[3] * state + theta[4] * action
    return linear - theta[0] * state**2 / 2 - theta[1] * action**2 / 2


class Quadratic(torch.nn.Module):
    """The reward as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = torch.nn.Parameter(THETA.clone())

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return reward(self.theta, observation[..., 0], action[..., 0])


def soft_values(theta: Tensor, discount: float) -> tuple[Tensor, Tensor]:
    """Coefficients of Q in the features and of V in ``(s^2, s, 1)``, by soft value iteration."""
    own = torch.stack([-theta[0] / 2, theta[2] / 5, -theta[1] / 2, theta[3], theta[4], torch.zeros((), dtype=D)])
    p = m = c = torch.zeros((), dtype=D)
    for _ in range(1 if discount == 0 else 160):
        ahead = [p * A**2, 2 * p * A * B, p * B**2, m * A, m * B, p * NOISE**2 + c]
        q = own + discount * torch.stack(ahead)
        curve = -2 * q[2]  # the policy is normal, with mean (q1 s + q4) / curve and variance temperature / curve
        p, m = q[0] + q[1] ** 2 / (2 * curve), q[3] + q[1] * q[4] / curve
        c = q[5] + q[4] ** 2 / (2 * curve) + TEMPERATURE / 2 * torch.log(2 * math.pi * TEMPERATURE / curve)
    return q, torch.stack([p, m, c])


def log_policy(theta: Tensor, discount: float, state: Tensor, action: Tensor) -> Tensor:
    """``(Q - V) / temperature``."""
    q, v = soft_values(theta, discount)
    value = v[0] * state**2 + v[1] * state + v[2]
    return (features(state, action) @ q - value) / TEMPERATURE


@cache
def gaussian(discount: float) -> tuple[float, float, float]:
    """Slope, offset and variance of the policy."""
    q = soft_values(THETA, discount)[0]
    return float(-q[1] / (2 * q[2])), float(-q[4] / (2 * q[2])), float(-TEMPERATURE / (2 * q[2]))


STATES = torch.tensor([[0.7, -0.3, 1.1], [-1.2, 0.4, 0.2]], dtype=D)
ACTIONS = torch.tensor([[0.2, 0.9, -0.5], [1.3, -0.1, 0.6]], dtype=D)
WEIGHT = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.7, -1.1]], dtype=D)


@cache
def truth(discount: float) -> Tensor:
    theta = THETA.clone().requires_grad_()
    return torch.autograd.grad((WEIGHT * log_policy(theta, discount, STATES, ACTIONS)).sum(), theta)[0]


def found(discount: float, segments: Segments, **settings: object) -> Tensor:
    layer = SoftResponse(Quadratic(), temperature=TEMPERATURE, discount=discount, **settings)
    logp = layer(segments)
    assert torch.equal(logp.detach(), segments.log_prob)
    (WEIGHT * logp).sum().backward()
    return layer.reward_model.theta.grad


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@cache
def log_prob(discount: float) -> Tensor:
    return log_policy(THETA, discount, STATES, ACTIONS)


def pieces(discount: float, after_action: Rollouts | None = None, after_state: Rollouts | None = None) -> Segments:
    return Segments(STATES[..., None], ACTIONS[..., None], log_prob(discount), after_action, after_state)


@pytest.mark.parametrize("discount", [0.0, 0.8])
def test_the_closed_form_is_a_density_and_its_own_fixed_point(discount: float) -> None:
    grid = torch.linspace(-12, 12, 4001, dtype=D)
    mass = log_policy(THETA, discount, torch.full_like(grid, 0.7), grid).exp().sum() * (grid[1] - grid[0])
    assert abs(float(mass) - 1) < 1e-10
    step = 1e-5 * torch.tensor([1.0, -1.0, 0.5, 2.0, 1.0], dtype=D)
    values = [(WEIGHT * log_policy(THETA + sign * step, discount, STATES, ACTIONS)).sum() for sign in (1, -1)]
    assert float((values[0] - values[1]) / 2) == pytest.approx(float(truth(discount) @ step), rel=1e-6)


def test_one_step_is_exact_by_quadrature() -> None:
    """Without a future, grad log pi is ``(grad r - E grad r) / temperature``; three nodes integrate a quadratic."""
    slope, offset, variance = gaussian(0.0)
    nodes = torch.tensor([-math.sqrt(3.0), 0.0, math.sqrt(3.0)], dtype=D) * variance**0.5
    weight = torch.tensor([0.5, 2.0, 0.5], dtype=D).expand(2, 3, 3)  # the mean over three counts each a third
    fresh = slope * STATES[..., None] + offset + nodes
    places = STATES[..., None].expand(2, 3, 3)
    after = Rollouts(places[..., None, None], fresh[..., None, None], weight[..., None])
    assert relative(found(0.0, pieces(0.0, after_state=after), horizon=1), truth(0.0)) < 1e-12
    narrow = Rollouts(
        places[..., None, None], (STATES[..., None] * slope + offset + nodes / 2)[..., None, None], after.weight
    )
    assert relative(found(0.0, pieces(0.0, after_state=narrow), horizon=1), truth(0.0)) > 0.05  # not the policy's


def critic(discount: float, table: object = features, offset_by: float = 0.0) -> LeastSquaresCritic:
    """Transitions from anywhere, with the next features' expectation in closed form."""
    slope, offset, variance = gaussian(discount)
    generator = torch.Generator().manual_seed(0)
    state, action = 2 * torch.randn(2, 40, generator=generator, dtype=D)

    def expected(mean: Tensor, spread: float) -> Tensor:
        """Features of the policy's step from a normal state."""
        square = mean**2 + spread
        chosen = slope * mean + offset + offset_by
        both = slope * square + (offset + offset_by) * mean
        parts = [square, both, chosen**2 + slope**2 * spread + variance, mean, chosen, torch.ones_like(mean)]
        return torch.stack(parts, -1)

    own = features(STATES, ACTIONS) - expected(STATES, 0.0)
    ahead = expected(A * state + B * action, NOISE**2)
    return LeastSquaresCritic.fit(
        state[:, None], action[:, None], features(state, action), ahead, own, discount, ridge=0.0
    )


def test_the_least_squares_critic_is_exact_where_its_features_hold_the_rewards() -> None:
    assert relative(found(0.8, pieces(0.8), estimator=critic(0.8)), truth(0.8)) < 1e-8
    assert relative(found(0.8, pieces(0.8), estimator=critic(0.8, offset_by=0.5)), truth(0.8)) > 0.02  # another policy


def roll(discount: float, generator: torch.Generator, count: int, given: bool, steps: int) -> Rollouts:
    slope, offset, variance = gaussian(discount)
    state = STATES[..., None].expand(2, 3, count)
    states, actions = [], []
    for step in range(steps):
        noise = torch.randn(2, 2, 3, count, generator=generator, dtype=D)
        action = slope * state + offset + variance**0.5 * noise[0]
        if given and step == 0:
            action = ACTIONS[..., None].expand(2, 3, count)
        states.append(state)
        actions.append(action)
        state = A * state + B * action + NOISE * noise[1]
    return Rollouts(torch.stack(states, -1)[..., None], torch.stack(actions, -1)[..., None])


def test_independent_rollouts_are_right_on_average_and_short_ones_are_not() -> None:
    discount, generator, errors = 0.7, torch.Generator().manual_seed(0), {}
    for horizon in (None, 1, 3):
        draws = []
        for _ in range(20):
            rollouts = [roll(discount, generator, 300, given, horizon or 25) for given in (True, False)]
            draws.append(found(discount, pieces(discount, *rollouts), horizon=horizon))
        table = torch.stack(draws)
        away = (table.mean(0) - truth(discount)).abs() / (table.std(0) / 20**0.5)
        errors[horizon] = float(away.max())
    assert errors[None] < 3
    assert errors[1] > 20
    assert 6 < errors[3] < errors[1]
