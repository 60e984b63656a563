"""The soft Bellman fixed point and its hyper-gradient; the four known wrong variants each disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bigrad.layers import SoftBellman
from bigrad.mdp import SoftSolution, soft_bellman
from bigrad.problems import TabularMDP, chain_mdp, random_mdp

D = torch.float64


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@dataclass(frozen=True)
class World:
    """An MDP whose reward and, if it ``moves``, transitions depend on ``x``; and a function of its policy."""

    mdp: TabularMDP
    weight: Tensor
    moves: bool
    tilt: Tensor
    shift: Tensor | float = 0.0

    @classmethod
    def of(cls, mdp: TabularMDP, seed: int, moves: bool) -> World:
        states, actions, parameters = mdp.design.shape
        weight = torch.randn(states, actions, generator=draw(seed), dtype=D)
        tilt = torch.randn(states, actions, states, parameters, generator=draw(seed + 1), dtype=D)
        return cls(mdp, weight, moves, tilt)

    def transition(self, x: Tensor) -> Tensor:
        if not self.moves:
            return self.mdp.transition
        chance = self.mdp.transition * (self.tilt @ x).exp()
        total = chance.sum(-1, keepdim=True)
        return torch.where(total > 0, chance / torch.where(total > 0, total, 1.0), 0.0)

    def solve(self, x: Tensor) -> SoftSolution:
        reward, transition = self.mdp.reward(x), self.transition(x)
        return SoftBellman(discount=self.mdp.discount, temperature=self.mdp.temperature)(reward, transition=transition)

    def upper(self, policy: Tensor) -> Tensor:
        """Nonlinear in the policy, each entry weighted in its own way."""
        return ((self.weight + self.shift) * policy).sum() + (self.weight.cos() * policy**2).sum().sin()

    def gradient(self, x: Tensor) -> Tensor:
        free = x.clone().requires_grad_()
        return torch.autograd.grad(self.upper(self.solve(free).policy), free)[0]

    def differences(self, x: Tensor, step: float = 1e-3) -> Tensor:
        """Central differences of fourth order."""
        points = [(1, 8), (-1, -8), (2, -1), (-2, 1)]
        with torch.no_grad():
            return torch.stack(
                [
                    sum(weight * self.upper(self.solve(x + place * step * e).policy) for place, weight in points)
                    / (12 * step)
                    for e in torch.eye(len(x), dtype=D)
                ]
            )


@dataclass(frozen=True)
class Matrices:
    """The dense letters of the formulas at ``x``; pairs (s, a) are flat, ``R`` includes what moves the transitions."""

    R: Tensor
    P: Tensor
    E: Tensor
    policy: Tensor
    g: Tensor
    discount: float
    temperature: float

    @classmethod
    def of(cls, world: World, x: Tensor) -> Matrices:
        states, actions, _ = world.mdp.design.shape
        solution = world.solve(x)
        policy = solution.policy.detach().requires_grad_()
        (g,) = torch.autograd.grad(world.upper(policy), policy)
        value, discount = solution.value.detach(), world.mdp.discount
        effective = lambda x: (world.mdp.reward(x) + discount * world.transition(x) @ value).reshape(-1)  # noqa: E731
        slope = torch.autograd.functional.jacobian(effective, x)
        owner = torch.eye(states, dtype=D).repeat_interleave(actions, 0)
        flat = world.transition(x).detach().reshape(-1, states)
        return cls(slope, flat, owner, policy.detach().reshape(-1), g.reshape(-1), discount, world.mdp.temperature)

    @property
    def U(self) -> Tensor:
        return self.E - self.discount * self.P

    def system(self, discount: float) -> Tensor:
        """``I - discount * P^pi``."""
        return torch.eye(self.E.shape[1], dtype=D) - discount * self.E.T @ (self.policy[:, None] * self.P)

    def assemble(self, w: Tensor, temperature: float) -> Tensor:
        """``R^T [pi * (g - E w)] / temperature``."""
        return self.R.T @ (self.policy * (self.g - self.E @ w)) / temperature

    def b(self, U: Tensor) -> Tensor:
        return U.T @ (self.policy * self.g)


def right(m: Matrices) -> Tensor:
    return m.assemble(torch.linalg.solve(m.system(m.discount).T, m.b(m.U)), m.temperature)


def three_terms(m: Matrices) -> Tensor:
    w = torch.linalg.solve(m.system(m.discount).T, m.b(m.U))
    slope_of_backup = m.E.T @ (m.policy[:, None] * m.R)
    return (m.R.T @ (m.policy * m.g) - slope_of_backup.T @ w) / m.temperature


def without_the_transpose(m: Matrices) -> Tensor:
    return m.assemble(torch.linalg.solve(m.system(m.discount), m.b(m.U)), m.temperature)


def with_the_discount_lost(m: Matrices) -> Tensor:
    return m.assemble(torch.linalg.pinv(m.system(1.0)).T @ m.b(m.U), m.temperature)


def with_E_for_U(m: Matrices) -> Tensor:
    return m.assemble(torch.linalg.solve(m.system(m.discount).T, m.b(m.E)), m.temperature)


def with_the_temperature_dropped(m: Matrices) -> Tensor:
    return m.assemble(torch.linalg.solve(m.system(m.discount).T, m.b(m.U)), 1.0)


@pytest.fixture(params=["fixed", "moving", "terminal", "chain"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "chain":
        return World.of(chain_mdp(draw(1), states=6, temperature=0.35), 5, moves=False)
    mdp = random_mdp(draw(1), states=7, actions=4, parameters=6, temperature=0.35, terminal=request.param == "terminal")
    return World.of(mdp, 5, moves=request.param == "moving")


@pytest.fixture
def x(world: World) -> Tensor:
    return torch.randn(world.mdp.design.shape[-1], generator=draw(9), dtype=D)


def test_policy_value_and_action_value_fit_together(world: World, x: Tensor) -> None:
    policy, value, q_value = world.solve(x)
    mdp = world.mdp
    backup = mdp.reward(x) + mdp.discount * world.transition(x) @ value
    torch.testing.assert_close(q_value, backup, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        mdp.temperature * torch.logsumexp(q_value / mdp.temperature, -1), value, rtol=0, atol=1e-12
    )
    torch.testing.assert_close(policy, torch.softmax(q_value / mdp.temperature, -1), rtol=0, atol=1e-12)
    entropy = -(policy * policy.log()).sum(-1)
    torch.testing.assert_close((policy * q_value).sum(-1) + mdp.temperature * entropy, value, rtol=0, atol=1e-12)


def test_both_dense_formulas_and_finite_differences_equal_the_layer(world: World, x: Tensor) -> None:
    found, matrices = world.gradient(x), Matrices.of(world, x)
    assert relative(found, right(matrices)) < 1e-10
    assert relative(found, three_terms(matrices)) < 1e-10
    assert relative(found, world.differences(x)) < 1e-8


@pytest.mark.parametrize(
    "wrong", [without_the_transpose, with_the_discount_lost, with_E_for_U, with_the_temperature_dropped]
)
def test_known_wrong_variants_disagree_with_finite_differences(
    world: World, x: Tensor, wrong: Callable[[Matrices], Tensor]
) -> None:
    assert relative(wrong(Matrices.of(world, x)), world.differences(x)) > 0.1


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    states=st.integers(1, 4),
    actions=st.integers(2, 3),
    parameters=st.integers(1, 3),
    discount=st.floats(0, 0.97),
    temperature=st.floats(0.2, 5),
    terminal=st.booleans(),
    moves=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_the_hyper_gradient_of_any_world_agrees_with_finite_differences(
    states: int,
    actions: int,
    parameters: int,
    discount: float,
    temperature: float,
    terminal: bool,
    moves: bool,
    seed: int,
) -> None:
    mdp = random_mdp(draw(seed), states, actions, parameters, discount, temperature, terminal)
    world = World.of(mdp, seed, moves)
    x = torch.randn(parameters, generator=draw(seed + 7), dtype=D)
    found, truth = world.gradient(x), world.differences(x)
    assert (found - truth).norm() <= 1e-6 * truth.norm() + 1e-10


def test_something_constant_in_each_state_moves_nothing(world: World, x: Tensor) -> None:
    shift = torch.randn(world.mdp.design.shape[0], 1, generator=draw(2), dtype=D)
    moved = replace(world, shift=shift)
    assert not torch.allclose(moved.upper(world.solve(x).policy), world.upper(world.solve(x).policy))
    assert relative(moved.gradient(x), world.gradient(x)) < 1e-10


def test_a_constant_reward_and_shaping_by_a_potential_leave_the_policy_alone(world: World, x: Tensor) -> None:
    mdp = world.mdp
    reward, transition = mdp.reward(x), world.transition(x)
    potential = torch.randn(reward.shape[0], generator=draw(3), dtype=D)
    shaping = mdp.discount * transition @ potential - potential[:, None]
    moves_on = transition.sum(-1)
    constant = 1 - mdp.discount * moves_on  # is (1 - discount) where no episode ends
    for direction in (shaping, constant):
        free = reward.clone().requires_grad_()
        policy = soft_bellman(free, transition, mdp.discount, mdp.temperature).policy
        changed = soft_bellman(reward + 3 * direction, transition, mdp.discount, mdp.temperature).policy
        torch.testing.assert_close(changed, policy.detach(), rtol=0, atol=1e-12)
        (slope,) = torch.autograd.grad(world.upper(policy), free)
        assert abs(float((slope * direction).sum())) < 1e-12 * float(slope.norm() * direction.norm()) + 1e-13


@pytest.fixture(scope="module")
def small() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mdp = random_mdp(draw(3), states=3, actions=2, terminal=True)
    reward = mdp.reward(torch.ones(4, dtype=D))
    numbers = torch.tensor(0.8, dtype=D), torch.tensor(0.4, dtype=D)
    return reward, mdp.transition, *numbers


@pytest.mark.parametrize("part", ["policy", "value", "q_value"])
def test_first_and_second_derivatives_in_everything_agree_with_finite_differences(
    small: tuple[Tensor, ...], part: str
) -> None:
    inputs = [tensor.clone().requires_grad_() for tensor in small]
    function = lambda *given: getattr(soft_bellman(*given), part)  # noqa: E731  # a name for a one-liner
    assert torch.autograd.gradcheck(function, inputs, atol=1e-6, rtol=1e-6)
    assert torch.autograd.gradgradcheck(function, inputs, atol=1e-6, rtol=1e-6, fast_mode=True)


def test_the_derivative_of_the_value_is_the_discounted_visits_of_the_policy(small: tuple[Tensor, ...]) -> None:
    reward, transition, discount, temperature = small
    free = reward.clone().requires_grad_()
    solution = soft_bellman(free, transition, discount, temperature)
    (found,) = torch.autograd.grad(solution.value[0], free)
    policy = solution.policy.detach()
    onward = torch.einsum("sa,sat->st", policy, transition)
    visits = torch.linalg.inv(torch.eye(3, dtype=D) - discount * onward)[0]
    torch.testing.assert_close(found, visits[:, None] * policy)


def test_the_end_of_an_episode_is_worth_its_reward() -> None:
    reward = torch.tensor([[1.0, 2.0]], dtype=D)
    ended = soft_bellman(reward, torch.zeros(1, 2, 1, dtype=D), 0.9, 0.5)
    torch.testing.assert_close(ended.q_value, reward)
    torch.testing.assert_close(ended.value, 0.5 * torch.logsumexp(reward / 0.5, -1))
