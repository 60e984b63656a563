"""Sparse transitions: the same numbers and derivatives as dense ones, what is refused, and the iterative solves."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bigrad import InputError, UnsupportedError
from bigrad.gradients import Implicit
from bigrad.layers import SoftBellman
from bigrad.linear import GMRES
from bigrad.mdp import PolicyIteration, SparseTransition, ValueIteration, soft_bellman

D = torch.float64
with warnings.catch_warnings():  # torch says once that its CSR tensors are in beta
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()

# torch itself calls a deprecated function where forward mode is first used
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def world(states: int, regular: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A reward and a dense transition with three successors a row; some rows are empty unless ``regular``."""
    chance = torch.rand(states, 2, states, generator=draw(seed), dtype=D)
    kept = chance >= chance.topk(3, -1).values[..., -1:]
    transition = torch.where(kept, chance, 0.0)
    transition = transition / transition.sum(-1, keepdim=True)
    if not regular:
        transition[0, 1] = 0
        transition[-1] = 0
    return torch.randn(states, 2, generator=draw(seed + 1), dtype=D), transition


def parts(transition: Tensor) -> SparseTransition:
    return SparseTransition.of(transition.flatten(0, 1).to_sparse_csr())


def score(solution: Any) -> Tensor:
    weight = torch.linspace(-1, 2, solution.policy.numel(), dtype=D).reshape(solution.policy.shape)
    return (solution.policy * weight).sum() + solution.value.sin().sum() + (solution.q_value * weight).sum()


NUMBERS = torch.tensor([0.9, 0.4], dtype=D)


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"gradient": Implicit(GMRES())},
        {"solver": PolicyIteration(linear_solver=GMRES())},
        {"solver": PolicyIteration(linear_solver=GMRES()), "gradient": Implicit(GMRES())},
        {"solver": ValueIteration(rtol=1e-14, atol=1e-13), "gradient": Implicit(GMRES())},
    ],
    ids=str,
)
def test_a_sparse_transition_gives_what_the_dense_one_gives(how: dict[str, Any], regular: bool) -> None:
    reward, transition = world(7, regular)
    results = []
    for sparse in (False, True):
        free = [reward.clone().requires_grad_(), *NUMBERS.clone().requires_grad_().unbind()]
        kernel = transition.clone().requires_grad_()
        given = kernel.flatten(0, 1).to_sparse_csr() if sparse else kernel
        leaf = given.detach().requires_grad_() if sparse else kernel
        solution = soft_bellman(free[0], leaf, *free[1:], **(how if sparse else {}))
        *slopes, slope = torch.autograd.grad(score(solution), [*free, leaf])
        results.append([*solution, *slopes, slope.to_dense().reshape(transition.shape)])
    *dense, dense_slope = results[0]
    *found, slope = results[1]
    for one, other in zip(found, dense, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
    assert slope.any()
    torch.testing.assert_close(slope, torch.where(transition > 0, dense_slope, 0.0), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("regular", [True, False])
def test_batches_of_everything(regular: bool) -> None:
    reward, transition = world(6, regular)
    kernel = parts(transition)
    rewards = reward + torch.randn(3, 1, 6, 2, generator=draw(4), dtype=D)
    discounts = torch.tensor([0.5, 0.9], dtype=D)
    free, dense_free = rewards.clone().requires_grad_(), rewards.clone().requires_grad_()
    for solver in (PolicyIteration(), PolicyIteration(linear_solver=GMRES())):
        found = soft_bellman(free, kernel, discounts, 0.3, solver=solver, gradient=Implicit(GMRES()))
        truth = soft_bellman(dense_free, transition, discounts, 0.3)
        assert found.value.shape == (3, 2, 6)
        for one, other in zip(found, truth, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)
        pair = [torch.autograd.grad(score(s), at)[0] for s, at in ((found, free), (truth, dense_free))]
        torch.testing.assert_close(*pair, rtol=1e-9, atol=1e-10)
    many = SparseTransition(kernel.crow, kernel.col, kernel.values.expand(3, 1, -1) * 1.0)
    torch.testing.assert_close(soft_bellman(rewards, many, discounts, 0.3).value, found.value, rtol=1e-10, atol=1e-11)


@forward_mode
@pytest.mark.parametrize("gradient", [None, Implicit(GMRES())], ids=str)
def test_parts_are_differentiated_twice_and_under_transforms(gradient: Implicit | None) -> None:
    reward, transition = world(4, regular=False)
    kernel = parts(transition)

    def whole(reward: Tensor, values: Tensor, discount: Tensor, temperature: Tensor) -> Tensor:
        made = SparseTransition(kernel.crow, kernel.col, values)
        return score(soft_bellman(reward, made, discount, temperature, gradient=gradient))

    inputs = [tensor.clone().requires_grad_() for tensor in (reward, kernel.values, *NUMBERS)]
    # A row has to sum to one, so the values are moved less than what is tolerated.
    assert torch.autograd.gradcheck(whole, inputs, eps=2e-6, atol=1e-5, rtol=1e-5, fast_mode=True)
    assert torch.autograd.gradgradcheck(whole, inputs, eps=2e-6, atol=1e-4, rtol=1e-4, fast_mode=True)
    plain = torch.autograd.grad(whole(*inputs), inputs)
    fixed = [tensor.detach() for tensor in inputs]
    for one, other in zip(torch.func.grad(whole, argnums=(0, 1, 2, 3))(*fixed), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    layer = SoftBellman(transition.flatten(0, 1).to_sparse_csr(), discount=0.9, temperature=0.4)
    rewards = reward + torch.randn(3, 4, 2, generator=draw(5), dtype=D)
    torch.testing.assert_close(torch.func.vmap(layer)(rewards).policy, layer(rewards).policy)
    slopes = torch.func.vmap(torch.func.grad(lambda r: score(layer(r))))(rewards)
    for k in range(3):
        alone = rewards[k].clone().requires_grad_()
        torch.testing.assert_close(slopes[k], torch.autograd.grad(score(layer(alone)), alone)[0])
    forward = torch.func.jacfwd(lambda r: layer(r).policy)(reward)
    torch.testing.assert_close(forward, torch.func.jacrev(lambda r: layer(r).policy)(reward))


def test_what_torch_cannot_do_with_its_csr_tensors_raises() -> None:
    reward, transition = world(4, regular=True)
    matrix = transition.flatten(0, 1).to_sparse_csr()
    leaf, free = matrix.clone().requires_grad_(), reward.clone().requires_grad_()
    value = soft_bellman(free, leaf, 0.9, 0.5).value.sum()
    (slope,) = torch.autograd.grad(value, free, create_graph=True)
    torch.autograd.grad(slope.square().sum(), [free, leaf], retain_graph=True)
    with pytest.raises(UnsupportedError, match="only once"):
        torch.autograd.grad(value, leaf, create_graph=True)
    with pytest.raises(UnsupportedError, match=r"torch\.func"):
        torch.func.grad(lambda r: soft_bellman(r, matrix, 0.9, 0.5).value.sum())(reward)


def csr(crow: list[int], col: list[int], values: list[float], size: tuple[int, int] = (4, 2)) -> Tensor:
    made = torch.tensor(crow), torch.tensor(col), torch.tensor(values, dtype=D)
    return torch.sparse_csr_tensor(*made, size, check_invariants=False)


@pytest.mark.parametrize(
    ("matrix", "complaint"),
    [
        (csr([0, 1, 3, 4, 5], [0, 1, 1, 0, 1], [1, 0.5, 0.5, 1, 1]), r"state 0, action 1 has state 1 twice.*add"),
        (csr([0, 3, 4, 5, 6], [1, 0, 1, 0, 0, 1], [0.5, 0, 0.5, 1, 1, 1]), r"state 0, action 0 has state 1 twice"),
        (csr([0, 1, 2, 3, 4], [0, 1, 1, 0], [1, 1, 0.75, 1]), r"state 1, action 0 sums to 0\.75"),
        (csr([0, 1, 2, 4, 5], [0, 1, 0, 1, 0], [1, 1, 1.5, -0.5, 1]), r"probability is -0\.5"),
        (csr([0, 1, 2, 3, 4], [0, 1, 2, 0], [1, 1, 1, 1]), r"leads to state 2; wanted one of 0 to 1"),
        (csr([0, 1, 2, 3], [0, 1, 1], [1, 1, 1], (3, 2)), r"has 3 rows; .* must have 4"),
        (csr([0, 1, 2, 3, 4], [0, 1, 1, 0], [1, 1, 1, 1]).to(torch.float32), r"transition has dtype torch\.float32"),
        (csr([0, 1, 2, 3, 4], [0, 1, 1, 0], [1, 1, 1, 1]).to_sparse_coo(), r"torch\.sparse_coo; wanted"),
        (SparseTransition(torch.tensor([0, 1, 2, 3, 5]), torch.arange(4), torch.ones(4, dtype=D)), r"go from 0 to 5"),
    ],
    ids=["twice", "twice, unsorted", "sum", "negative", "nowhere", "rows", "dtype", "layout", "parts"],
)
def test_patterns_that_are_no_transition_are_named(matrix: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        soft_bellman(torch.zeros(2, 2, dtype=D), matrix, 0.9, 0.5)


def test_columns_in_any_order_are_right() -> None:
    shuffled = csr([0, 2, 3, 4, 5], [1, 0, 1, 1, 0], [0.25, 0.75, 1, 1, 1])
    reward = torch.tensor([[1.0, 0.5], [2.0, -1.0]], dtype=D)
    truth = soft_bellman(reward, shuffled.to_dense().reshape(2, 2, 2), 0.9, 0.5)
    torch.testing.assert_close(soft_bellman(reward, shuffled, 0.9, 0.5).value, truth.value)


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_layer_with_a_sparse_transition_travels(travel: Callable[[Any], Any]) -> None:
    reward, transition = world(5, regular=False)
    made = SoftBellman(transition.flatten(0, 1).to_sparse_csr(), discount=0.9, temperature=0.5)
    made(reward)
    arrived = travel(made)
    assert torch.equal(arrived(reward).policy, made(reward).policy)
    assert repr(arrived) == "SoftBellman(transition=(10,), discount=0.9, temperature=0.5)"
    single = arrived.to(torch.float32)(reward.float())
    assert single.policy.dtype == torch.float32
    torch.testing.assert_close(single.policy.double(), made(reward).policy, rtol=1e-4, atol=1e-5)


def test_many_states_are_solved_by_iteration_and_certified() -> None:
    states, generator = 600, draw(3)
    col = (torch.arange(states)[:, None, None] + torch.randperm(16, generator=generator)[:5] * 37) % states
    col = (col + torch.arange(2)[:, None]).sort(-1).values % states
    col = col.sort(-1).values
    chance = torch.rand(states, 2, 5, generator=generator, dtype=D)
    chance = chance / chance.sum(-1, keepdim=True)
    matrix = SparseTransition(torch.arange(0, col.numel() + 1, 5), col.flatten(), chance.flatten())
    reward = torch.randn(states, 2, generator=generator, dtype=D).requires_grad_()
    layer = SoftBellman(matrix, discount=0.99, temperature=0.05)
    solution = layer(reward)
    certificate = layer.certificate
    assert certificate is not None
    assert not certificate.failed
    weight = torch.randn(states, 2, generator=generator, dtype=D)
    (slope,) = torch.autograd.grad((weight * solution.policy).sum(), reward)
    assert certificate.adjoint is not None
    assert not certificate.adjoint.failed
    assert int(certificate.adjoint.steps) > 1
    dense = torch.zeros(states, 2, states, dtype=D).scatter_(-1, col, chance)
    moves = torch.einsum("sa,sat->st", solution.policy.detach(), dense)
    inner = solution.policy.detach() * weight
    right = inner.sum(-1) - 0.99 * torch.einsum("sat,sa->t", dense, inner)
    w = torch.linalg.solve(torch.eye(states, dtype=D) - 0.99 * moves.T, right)
    truth = solution.policy.detach() * (weight - w[:, None]) / 0.05
    assert (slope - truth).norm() <= 1e-8 * truth.norm()
