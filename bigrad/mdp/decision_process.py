"""The numbers of a Markov decision process as tensors that fit together, and what is refused."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .soft_bellman_equation import SoftBellmanEquation
from .sparse_transition import Pattern, SparseSoftBellmanEquation, SparseTransition

Transition = Tensor | SparseTransition
_ROW_TOLERANCE = 1e-5


class DecisionProcess(NamedTuple):
    """The equation of a decision process and what it is an equation of.

    Attributes:
        equation: the soft Bellman equation.
        inputs: reward, transition (the values of a sparse one), discount and temperature, with batch dimensions that
            line up from the right.
        start: zero values ``(*batch, S)``.
    """

    equation: SoftBellmanEquation
    inputs: tuple[Tensor, ...]
    start: Tensor


def decision_process(
    reward: Tensor, transition: Transition, discount: float | Tensor, temperature: float | Tensor
) -> DecisionProcess:
    """Line up what a user has given; see :func:`bigrad.mdp.solve_soft_bellman` for shapes.

    Raises:
        InputError: wrong kinds, shapes, dtypes or devices.
    """
    if isinstance(transition, Tensor) and transition.layout == torch.sparse_csr:
        transition = SparseTransition.of(transition)
    sparse = transition if isinstance(transition, SparseTransition) else None
    probabilities = transition.values if isinstance(transition, SparseTransition) else transition
    for name, tensor in (("reward", reward), ("transition", probabilities)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(f"{name} is {kind}; wanted a real floating-point tensor")
        if tensor.layout != torch.strided:
            raise InputError(f"{name} is {tensor.layout}; wanted a dense tensor, or a transition .to_sparse_csr()")
    _check_shapes(reward, probabilities, sparse)
    named = {"transition": probabilities, "discount": discount, "temperature": temperature}
    numbers = [_like(reward, name, given) for name, given in named.items()]
    if reward.device.type == "meta":
        raise InputError("reward is on the meta device, which holds no numbers: give it some with .to_empty()")

    inputs = (reward, *numbers)
    events = (2, 3 if sparse is None else 1, 0, 0)
    lead = [x.ndim - own for x, own in zip(inputs, events, strict=True)]
    try:
        batch = torch.broadcast_shapes(*(x.shape[:dims] for x, dims in zip(inputs, lead, strict=True)))
    except RuntimeError as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise InputError(f"the batches of reward, transition, discount and temperature differ: {shapes}") from error
    lined_up = tuple(x.reshape((1,) * (len(batch) - dims) + x.shape) for x, dims in zip(inputs, lead, strict=True))
    start = reward.new_zeros((*batch, reward.shape[-2]))
    if sparse is None:
        return DecisionProcess(SoftBellmanEquation(len(batch)), lined_up, start)
    pattern = Pattern(sparse.crow, sparse.col, reward.shape[-1])
    pattern.check()
    return DecisionProcess(SparseSoftBellmanEquation(len(batch), pattern), lined_up, start)


def _check_shapes(reward: Tensor, probabilities: Tensor, sparse: SparseTransition | None) -> None:
    if reward.ndim < 2 or (sparse is None and probabilities.ndim < 3):
        raise InputError(
            f"reward has shape {tuple(reward.shape)} and transition {tuple(probabilities.shape)}; "
            "wanted (*batch, S, A) and (*batch, S, A, S), or one sparse CSR matrix (S * A, S)"
        )
    states, actions = reward.shape[-2:]
    if sparse is None and tuple(probabilities.shape[-3:]) != (states, actions, states):
        raise InputError(
            f"transition has shape {tuple(probabilities.shape)}; with a reward of {tuple(reward.shape)} it must end "
            f"with {(states, actions, states)}"
        )
    if 0 in (states, actions):
        raise InputError(f"reward has shape {tuple(reward.shape)}; at least one state and one action are needed")
    if sparse is None:
        return
    if len(sparse.crow) != states * actions + 1:
        raise InputError(
            f"the sparse transition has {len(sparse.crow) - 1} rows; with a reward of {tuple(reward.shape)} it must "
            f"have {states * actions}, one for each state and action"
        )
    ends = int(sparse.crow[0]), int(sparse.crow[-1])
    entries = len(sparse.col), probabilities.shape[-1]
    if ends != (0, entries[0]) or entries[0] != entries[1] or bool((sparse.crow.diff() < 0).any()):
        raise InputError(
            f"the sparse transition's rows go from {ends[0]} to {ends[1]}, with {entries[0]} columns and {entries[1]} "
            "values; wanted rows from 0 to the number of columns, which is that of values"
        )


def _like(reward: Tensor, name: str, given: float | Tensor) -> Tensor:
    """A number as a tensor that goes with the reward."""
    if not isinstance(given, (int, float, Tensor)):
        raise InputError(f"{name} is {given!r}; wanted a number or a tensor")
    tensor = given if isinstance(given, Tensor) else torch.tensor(given, dtype=reward.dtype, device=reward.device)
    if tensor.dtype != reward.dtype:
        raise InputError(f"{name} has dtype {tensor.dtype} and reward {reward.dtype}: convert one with .to()")
    if tensor.device != reward.device and tensor.ndim > 0:
        raise InputError(f"{name} is on {tensor.device} and reward on {reward.device}: move one with .to()")
    return tensor.to(reward.device)


def check_numbers(
    equation: SoftBellmanEquation, reward: Tensor, transition: Tensor, discount: Tensor, temperature: Tensor
) -> None:
    """Raise :class:`InputError` where a number makes no Markov decision process."""
    missing = reward == -torch.inf
    if not bool((reward.isfinite() | missing).all()):
        raise InputError(
            "reward contains NaN or infinity; wanted finite numbers, or minus infinity where there is no action"
        )
    if bool((idle := missing.all(-1)).any()):
        state = int(idle.reshape(-1).nonzero()[0, 0]) % reward.shape[-2]
        raise InputError(
            f"state {state} has no action: every reward there is minus infinity; where the episode has ended, leave "
            "one action with a transition row of zeros"
        )
    outside = ~((discount >= 0) & (discount < 1))
    if bool(outside.any()):
        found = float(discount[outside][0])
        raise InputError(f"discount is {found:.6g}; wanted 0 <= discount < 1 (an endless sum has no value at 1)")
    outside = ~((temperature > 0) & temperature.isfinite())
    if bool(outside.any()):
        raise InputError(f"temperature is {float(temperature[outside][0]):.6g}; wanted a positive finite number")
    smallest = float(transition.min()) if transition.numel() else 0.0
    if smallest < -_ROW_TOLERANCE:
        raise InputError(f"a transition probability is {smallest:.6g}; wanted none below 0")
    total = equation.row_sums(transition)
    good = ((total - 1).abs() <= _ROW_TOLERANCE) | (total.abs() <= _ROW_TOLERANCE)
    if not bool(good.all()):
        place = int((~good).reshape(-1).nonzero()[0, 0])
        actions = reward.shape[-1]
        state, action = divmod(place % (reward.shape[-2] * actions), actions)
        raise InputError(
            f"the transition row of state {state}, action {action} sums to {float(total.reshape(-1)[place]):.6g}; "
            "wanted 1, or all zeros where the episode ends: divide the row by its sum"
        )
