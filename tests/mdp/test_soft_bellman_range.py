"""SoftBellman at the edges: exactness on random worlds, missing actions, odd states, cold and patient, other starts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bigrad import InputError, UnsupportedError, errors
from bigrad.gradients import Implicit, WarmStart
from bigrad.layers import SoftBellman
from bigrad.linear import GMRES
from bigrad.mdp import PolicyIteration, ValueIteration, soft_bellman
from bigrad.problems import random_mdp
from bigrad.solvers import Newton

D = torch.float64


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def formula(policy: Tensor, P: Tensor, discount: float, temperature: float, g: Tensor) -> Tensor:
    """The derivative in the reward of a function of the policy with slope ``g``, solved densely."""
    moves = torch.einsum("sa,sat->st", policy, P)
    right = (policy * g).sum(-1) - discount * torch.einsum("sat,sa->t", P, policy * g)
    w = torch.linalg.solve((torch.eye(len(P), dtype=D) - discount * moves).T, right)
    return policy * (g - w[:, None]) / temperature


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    states=st.integers(1, 8),
    actions=st.integers(2, 4),
    discount=st.floats(0, 0.99),
    temperature=st.floats(0.05, 10),
    terminal=st.booleans(),
    moves=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_the_hyper_gradient_is_that_of_the_formula_and_of_finite_differences(
    states: int, actions: int, discount: float, temperature: float, terminal: bool, moves: bool, seed: int
) -> None:
    mdp = random_mdp(draw(seed), states, actions, 3, discount, temperature, terminal)
    weight = torch.randn(states, actions, generator=draw(seed + 1), dtype=D)
    tilt = 0.3 * torch.randn(states, actions, states, 3, generator=draw(seed + 2), dtype=D) * moves

    def transition(x: Tensor) -> Tensor:
        chance = mdp.transition * (tilt @ x).exp()
        total = chance.sum(-1, keepdim=True)
        return chance / torch.where(total > 0, total, 1.0)

    def upper(policy: Tensor) -> Tensor:
        return (weight * policy).sum() + (weight.cos() * policy**2).sum()

    x = torch.randn(3, generator=draw(seed + 3), dtype=D).requires_grad_()
    solution = soft_bellman(mdp.reward(x), transition(x), discount, temperature)
    (found,) = torch.autograd.grad(upper(solution.policy), x)
    policy = solution.policy.detach().requires_grad_()
    (g,) = torch.autograd.grad(upper(policy), policy)
    row = formula(policy.detach(), transition(x).detach(), discount, temperature, g)
    effective = mdp.reward(x) + discount * transition(x) @ solution.value.detach()
    (truth,) = torch.autograd.grad((row * effective).sum(), x)
    lost = 1e-14 * float(g.norm() * mdp.design.norm()) / temperature  # where the gradient nearly vanishes
    assert (found - truth).norm() <= 1e-8 * truth.norm() + lost

    step = 2e-3 * min(1.0, temperature)
    places = torch.tensor([1.0, -1, 2, -2], dtype=D)[:, None, None] * step * torch.eye(3, dtype=D)
    points = (x.detach() + places).reshape(-1, 3)
    with torch.no_grad():
        rewards, kernels = (torch.stack([part(at) for at in points]) for part in (mdp.reward, transition))
        policies = soft_bellman(rewards, kernels, discount, temperature).policy
    values = torch.stack([upper(policy) for policy in policies]).reshape(4, 3)
    difference = torch.tensor([8.0, -8, -1, 1], dtype=D) @ values / (12 * step)
    assert (found - difference).norm() <= 1e-6 * difference.norm() + 1e-9


def test_a_missing_action_is_as_if_it_were_not_there() -> None:
    mdp = random_mdp(draw(0), states=4, actions=3)
    reward = mdp.reward(torch.ones(4, dtype=D))
    masked = torch.tensor([[0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=torch.bool)
    given_ = torch.where(masked, -torch.inf, reward).requires_grad_()
    numbers = torch.tensor([0.9, 0.5], dtype=D).requires_grad_()
    kernel = mdp.transition.clone().requires_grad_()
    one = SoftBellman()
    found = one(given_, transition=kernel, discount=numbers[0], temperature=numbers[1])
    assert one.certificate is not None
    assert not one.certificate.failed
    assert torch.equal(found.policy == 0, masked)
    assert torch.equal(found.q_value == -torch.inf, masked)
    weight = torch.randn(4, 3, generator=draw(1), dtype=D)
    slopes = torch.autograd.grad((weight * found.policy).sum() + found.value.sum(), [given_, kernel, numbers])

    hopeless = torch.where(masked, -1e3, reward).requires_grad_()  # a reward so low that nobody acts on it
    truth = soft_bellman(hopeless, kernel, *numbers.unbind())
    wanted = torch.autograd.grad((weight * truth.policy).sum() + truth.value.sum(), [hopeless, kernel, numbers])
    torch.testing.assert_close(found.policy, truth.policy)
    torch.testing.assert_close(found.value, truth.value)
    for slope, other in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(slope, other)
    assert not slopes[0][masked].any()
    free = [reward.clone().requires_grad_(), numbers.detach().requires_grad_()]
    function = lambda r, n: soft_bellman(r.masked_fill(masked, -torch.inf), mdp.transition, n[0], n[1]).policy  # noqa: E731
    assert torch.autograd.gradcheck(function, free)
    assert torch.autograd.gradgradcheck(function, free, fast_mode=True)


def test_a_state_without_an_action_is_named() -> None:
    reward = torch.zeros(3, 2, dtype=D)
    reward[1] = -torch.inf
    with pytest.raises(InputError, match="state 1 has no action"):
        soft_bellman(reward, torch.eye(3, dtype=D)[:, None].expand(3, 2, 3), 0.9, 1.0)
    for bad in (torch.inf, torch.nan):
        with pytest.raises(InputError, match="NaN or infinity"):
            soft_bellman(reward.nan_to_num(0.0) + bad, torch.zeros(3, 2, 3, dtype=D), 0.9, 1.0)


def test_absorbing_terminal_and_unreachable_states_have_their_closed_forms() -> None:
    transition = torch.zeros(3, 2, 3, dtype=D)
    transition[0, :, 0] = 1  # absorbs; 1 ends; nothing leads to 2
    transition[2, 0, 0] = transition[2, 1, 1] = 1
    reward = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]], dtype=D).requires_grad_()
    value = soft_bellman(reward, transition, 0.9, 0.5).value
    soft = lambda q: 0.5 * torch.logsumexp(q / 0.5, -1)  # noqa: E731  # a name for a one-liner
    absorbed, ended = soft(reward[0]) / 0.1, soft(reward[1])
    truth = torch.stack([absorbed, ended, soft(reward[2] + 0.9 * torch.stack([absorbed, ended]))])
    torch.testing.assert_close(value, truth)
    found, wanted = (torch.autograd.grad(part[2], reward, retain_graph=True)[0] for part in (value, truth))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("discount", [0.99, 0.999])
@pytest.mark.parametrize("shape", ["random", "chain", "sparse"])
def test_cold_and_patient_is_finite_certified_and_right(discount: float, shape: str) -> None:
    states = 40
    mdp = random_mdp(draw(2), states=states, actions=3, parameters=2)
    transition = mdp.transition
    if shape == "chain":
        place = torch.arange(states)
        ends = torch.stack([(place - 1).clamp(min=0), place, (place + 1).clamp(max=states - 1)], 1)
        transition = torch.nn.functional.one_hot(ends, states).to(D)
    given_ = transition
    if shape == "sparse":
        kept = transition >= transition.topk(4, -1).values[..., -1:]
        transition = torch.where(kept, transition, 0.0)
        transition = transition / transition.sum(-1, keepdim=True)
        given_ = transition.flatten(0, 1).to_sparse_csr()
    reward = mdp.reward(torch.ones(2, dtype=D)).requires_grad_()
    layer = SoftBellman(given_, discount=discount, temperature=1e-3)
    weight = torch.randn(states, 3, generator=draw(3), dtype=D)
    solution = layer(reward)
    (found,) = torch.autograd.grad((weight * solution.policy).sum(), reward)
    assert all(part.isfinite().all() for part in (*solution, found))
    certificate = layer.certificate
    assert certificate is not None
    assert not certificate.failed
    assert certificate.adjoint is not None
    assert not certificate.adjoint.failed
    # The truth by policy iteration on the hard maximum and then Newton in the entropy, in dense matrices only.
    value, P = torch.zeros(states, dtype=D), transition
    for _ in range(200):
        q = reward.detach() + discount * P @ value
        policy = torch.softmax(q / 1e-3, -1)
        gap = value - 1e-3 * torch.logsumexp(q / 1e-3, -1)
        moves = torch.einsum("sa,sat->st", policy, P)
        value = value - torch.linalg.solve(torch.eye(states, dtype=D) - discount * moves, gap)
    assert (solution.value - value).abs().max() <= 1e-6
    truth = formula(policy, P, discount, 1e-3, weight)
    assert (found - truth).norm() <= 1e-6 * truth.norm() + 1e-9


@pytest.mark.parametrize(
    "solver",
    [ValueIteration(), PolicyIteration(sweeps=0), PolicyIteration(linear_solver=GMRES()), Newton()],
    ids=lambda it: type(it).__name__,
)
def test_every_solver_finds_the_same_values(solver: object) -> None:
    mdp = random_mdp(draw(4), states=5, actions=3)
    reward = mdp.reward(torch.ones(4, dtype=D)) * torch.tensor([1.0, 3.0], dtype=D)[:, None, None]
    layer = SoftBellman(mdp.transition, discount=0.9, temperature=0.5, solver=solver)  # type: ignore[arg-type]
    torch.testing.assert_close(layer(reward).value, soft_bellman(reward, mdp.transition, 0.9, 0.5).value)
    assert layer.certificate is not None
    assert layer.certificate.what == "soft Bellman"


def test_too_few_sweeps_are_a_failure() -> None:
    mdp = random_mdp(draw(4))
    reward = mdp.reward(torch.ones(4, dtype=D))
    with pytest.raises(errors.NotConverged, match="soft Bellman used all its steps"):
        soft_bellman(reward, mdp.transition, 0.9, 0.5, solver=ValueIteration(max_steps=3))
    with pytest.raises(errors.NotConverged):
        soft_bellman(reward, mdp.transition, 0.9, 0.5, solver=PolicyIteration(max_steps=1))
    for bad in ({"rtol": -1.0}, {"max_steps": -1}):
        with pytest.raises(InputError, match="ValueIteration: "):
            ValueIteration(**bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="solver is 'vi'"):
        soft_bellman(reward, mdp.transition, 0.9, 0.5, solver="vi")  # type: ignore[arg-type]


def test_a_warm_start_saves_the_steps_and_changes_nothing() -> None:
    mdp = random_mdp(draw(5), states=6, discount=0.99)
    reward = mdp.reward(torch.ones(4, dtype=D)).requires_grad_()
    layer = SoftBellman(
        mdp.transition, discount=0.99, temperature=0.5, solver=ValueIteration(), gradient=Implicit(GMRES())
    )
    warm = WarmStart()
    cold = layer(reward, warm_start=warm)
    taken = int(layer.certificate.steps)  # type: ignore[union-attr]
    (slope,) = torch.autograd.grad(cold.policy[0, 0], reward)
    again = layer(reward, warm_start=warm)
    assert int(layer.certificate.steps) == 0  # type: ignore[union-attr]
    (other,) = torch.autograd.grad(again.policy[0, 0], reward)
    assert int(layer.certificate.adjoint.steps) == 0  # type: ignore[union-attr]
    torch.testing.assert_close(slope, other)
    near = layer(reward + 1e-6, init=cold.value)
    assert 0 < int(layer.certificate.steps) < taken / 1.5  # type: ignore[union-attr]
    torch.testing.assert_close(near.value, layer(reward + 1e-6).value, rtol=0, atol=1e-7)
    with pytest.raises(InputError, match=r"start has shape \(5,\)"):
        layer(reward, init=torch.zeros(5, dtype=D))
    with pytest.raises(UnsupportedError, match="warm start"):
        torch.func.grad(lambda r: layer(r, warm_start=warm).value.sum())(reward.detach())
