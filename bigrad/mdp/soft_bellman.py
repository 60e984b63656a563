"""The soft Bellman fixed point and its derivatives, for a transition tensor that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import calculus
from ..certificate import Certificate, OnFailure, Status, check_on_failure
from ..equation import Problem
from ..errors import InputError
from ..gradients import GradientRule, Implicit, Record
from ..linear import Direct

_ROW_TOLERANCE = 1e-5


class SoftSolution(NamedTuple):
    """The optimum of an entropy-regularised Markov decision process.

    Attributes:
        policy: action probabilities ``(*batch, S, A)``.
        value: soft values ``(*batch, S)``.
        q_value: soft action values ``(*batch, S, A)``.
    """

    policy: Tensor
    value: Tensor
    q_value: Tensor


def soft_bellman(
    reward: Tensor,
    transition: Tensor,
    discount: float | Tensor,
    temperature: float | Tensor,
    *,
    gradient: GradientRule | None = None,
    on_failure: OnFailure = "raise",
) -> SoftSolution:
    """The soft-optimal policy and values, differentiable in every tensor given; see :func:`solve_soft_bellman`."""
    return solve_soft_bellman(reward, transition, discount, temperature, gradient, on_failure)[0]


def solve_soft_bellman(
    reward: Tensor,
    transition: Tensor,
    discount: float | Tensor,
    temperature: float | Tensor,
    gradient: GradientRule | None = None,
    on_failure: OnFailure = "raise",
) -> tuple[SoftSolution, Certificate | None]:
    r"""Solve :math:`V_s = \tau \log \sum_a \exp\big((r_{sa} + \gamma \sum_{t} P_{sat} V_t) / \tau\big)`.

    The backward pass is one solve with :math:`(I - \gamma P^\pi)^\top` and one vector-Jacobian product through whatever
    made the reward. The solution is itself a root, so second derivatives are right too.

    Args:
        reward: ``(*batch, S, A)``.
        transition: probabilities of the next state, ``(*batch, S, A, S)``; each row sums to one, or is all zero where
            the episode ends.
        discount: ``0 <= discount < 1``, a number or a tensor ``(*batch)``.
        temperature: weight of the entropy, positive, a number or a tensor ``(*batch)``.
        gradient: how to differentiate; default ``Implicit(linear.Direct())``.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"`` when the fixed point is not reached.

    Returns:
        the solution, and the certificate (``None`` under ``torch.func``).

    Raises:
        InputError: wrong shapes, dtypes or devices, a row that is no distribution, a number out of range.
        SolveError: the fixed point was not reached and ``on_failure="raise"``.

    Source: Bilevel Reinforcement Learning via the Development of Hyper-gradient without Lower-Level Convexity
    (Yang, Gao, Yuan, 2025).
    """
    inputs = _aligned(reward, transition, discount, temperature)
    batch = torch.broadcast_shapes(*(x.shape[: x.ndim - events] for x, events in zip(inputs, _EVENTS, strict=True)))
    record = Record(check_on_failure(on_failure))
    rule = Implicit(Direct()) if gradient is None else gradient
    if not isinstance(rule, GradientRule):
        raise InputError(f"gradient is {rule!r}; wanted one of bigrad.gradients, such as gradients.Implicit()")
    start = reward.new_zeros((*batch, reward.shape[-2]))
    value = rule.attach(SoftBellmanEquation(len(batch)), policy_iteration, start, inputs, record)
    q_value = action_values(value, *inputs[:3])
    policy = torch.softmax(q_value / inputs[3][..., None, None], -1)
    return SoftSolution(policy, value, q_value), None if calculus.transforming() else record.certificate


_EVENTS = (2, 3, 0, 0)  # dimensions of reward, transition, discount and temperature beyond the batch


def action_values(value: Tensor, reward: Tensor, transition: Tensor, discount: Tensor) -> Tensor:
    """``r + discount * P V``, ``(*batch, S, A)``."""
    following = (transition @ value[..., None, :, None]).squeeze(-1)
    return reward + discount[..., None, None] * following


@dataclass(frozen=True)
class SoftBellmanEquation(Problem):
    """``V - T V = 0`` in the value ``(*batch, S)``, of inputs (reward, transition, discount, temperature)."""

    batch_dims: int
    companions = 4  # under nested vmaps, inputs without a dimension would be aligned with another one's

    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``V - T V``."""
        reward, transition, discount, temperature = inputs
        q_value = action_values(y, reward, transition, discount)
        scale = temperature[..., None]
        return y - scale * torch.logsumexp(q_value / scale[..., None], -1)

    def jacobian(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``I - discount * P^pi`` with the policy that is soft-greedy in ``y``."""
        reward, transition, discount, temperature = inputs
        policy = torch.softmax(action_values(y, reward, transition, discount) / temperature[..., None, None], -1)
        moves = torch.einsum("...sa,...sat->...st", policy, transition)
        identity = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
        return identity - discount[..., None, None] * moves

    def vmapped(self, in_dims: Sequence[int | None]) -> SoftBellmanEquation:
        """Every operation here broadcasts over leading batch dimensions already."""
        return SoftBellmanEquation(self.batch_dims + 1)


def policy_iteration(
    problem: Problem, start: Tensor, inputs: tuple[Tensor, ...], max_steps: int = 100
) -> tuple[Tensor, Certificate]:
    """Newton's method on the soft Bellman equation, which is soft policy iteration: it converges from anywhere."""
    assert isinstance(problem, SoftBellmanEquation)
    _check_values(*inputs)
    eps = torch.finfo(start.dtype).eps
    tolerance = 1e-10 if start.dtype == torch.float64 else 1e-5
    value = start
    residual = problem.residual(value, *inputs)
    norm = residual.abs().amax(-1)
    wanted = tolerance + tolerance * norm
    steps = torch.zeros(norm.shape, dtype=torch.int64, device=norm.device)
    best, best_norm = value, norm
    live = norm.isfinite()
    for _ in range(max_steps):
        # Newton doubles the digits a step: one more beyond the tolerance costs little and reaches rounding error.
        live = live & (best_norm > 0.1 * eps)
        if not bool(live.any()):
            break
        correction = torch.linalg.solve(problem.jacobian(value, *inputs), residual.unsqueeze(-1)).squeeze(-1)
        value = torch.where(live.unsqueeze(-1), value - correction, value)
        residual = problem.residual(value, *inputs)
        norm = residual.abs().amax(-1)
        steps = steps + live
        better = norm < best_norm
        best = torch.where(better.unsqueeze(-1), value, best)
        live = live & norm.isfinite() & ((best_norm > wanted) | (norm < 0.5 * best_norm))
        best_norm = torch.where(better, norm, best_norm)
        floor = 100 * eps * (best.abs().amax(-1) + inputs[0].abs().amax((-1, -2)))
        live = live & ~((best_norm <= floor) & ~better)
    floor = 100 * eps * (best.abs().amax(-1) + inputs[0].abs().amax((-1, -2)))
    status = torch.where(best_norm <= floor, int(Status.ROUNDING_FLOOR), int(Status.MAX_STEPS))
    status = torch.where(best_norm <= wanted, int(Status.CONVERGED), status)
    status = torch.where(best_norm.isfinite(), status, int(Status.NON_FINITE))  # an infinite tolerance is always met
    return best, Certificate("soft Bellman", status, best_norm, wanted, steps)


def _aligned(
    reward: Tensor, transition: Tensor, discount: float | Tensor, temperature: float | Tensor
) -> tuple[Tensor, ...]:
    """The four inputs as tensors whose batch dimensions line up from the right."""
    for name, tensor in (("reward", reward), ("transition", transition)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(f"{name} is {kind}; wanted a real floating-point tensor")
    if reward.ndim < 2 or transition.ndim < 3:
        raise InputError(
            f"reward has shape {tuple(reward.shape)} and transition {tuple(transition.shape)}; "
            "wanted (*batch, S, A) and (*batch, S, A, S)"
        )
    states, actions = reward.shape[-2:]
    if tuple(transition.shape[-3:]) != (states, actions, states):
        raise InputError(
            f"transition has shape {tuple(transition.shape)}; with a reward of {tuple(reward.shape)} it must end with "
            f"{(states, actions, states)}"
        )
    if 0 in (states, actions):
        raise InputError(f"reward has shape {tuple(reward.shape)}; at least one state and one action are needed")
    named = {"transition": transition, "discount": discount, "temperature": temperature}
    numbers = {}
    for name, given in named.items():
        if not isinstance(given, (int, float, Tensor)):
            raise InputError(f"{name} is {given!r}; wanted a number or a tensor")
        tensor = given if isinstance(given, Tensor) else torch.tensor(given, dtype=reward.dtype, device=reward.device)
        if tensor.dtype != reward.dtype:
            raise InputError(f"{name} has dtype {tensor.dtype} and reward {reward.dtype}: convert one with .to()")
        if tensor.device != reward.device and tensor.ndim > 0:
            raise InputError(f"{name} is on {tensor.device} and reward on {reward.device}: move one with .to()")
        numbers[name] = tensor.to(reward.device)
    if reward.device.type == "meta":
        raise InputError("reward is on the meta device, which holds no numbers: give it some with .to_empty()")
    inputs = (reward, *numbers.values())
    rank = max(x.ndim - events for x, events in zip(inputs, _EVENTS, strict=True))
    try:
        torch.broadcast_shapes(*(x.shape[: x.ndim - events] for x, events in zip(inputs, _EVENTS, strict=True)))
    except RuntimeError as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise InputError(f"the batches of reward, transition, discount and temperature differ: {shapes}") from error
    lifted = []
    for x, events in zip(inputs, _EVENTS, strict=True):
        lifted.append(x.reshape((1,) * (rank - x.ndim + events) + x.shape))
    return tuple(lifted)


def _check_values(reward: Tensor, transition: Tensor, discount: Tensor, temperature: Tensor) -> None:
    """Raise :class:`InputError` where a number makes no Markov decision process."""
    if not bool(reward.isfinite().all()):
        raise InputError("reward contains NaN or infinity; wanted finite numbers")
    outside = ~((discount >= 0) & (discount < 1))
    if bool(outside.any()):
        found = float(discount[outside][0])
        raise InputError(f"discount is {found:.6g}; wanted 0 <= discount < 1 (an endless sum has no value at 1)")
    outside = ~((temperature > 0) & temperature.isfinite())
    if bool(outside.any()):
        raise InputError(f"temperature is {float(temperature[outside][0]):.6g}; wanted a positive finite number")
    total = transition.sum(-1)
    smallest = float(transition.min())
    good = (total - 1).abs() <= _ROW_TOLERANCE
    good = good | (transition.abs() <= _ROW_TOLERANCE).all(-1)
    if not bool(good.all()):
        place = int((~good).reshape(-1).nonzero()[0, 0])
        state, action = divmod(place % (total.shape[-2] * total.shape[-1]), total.shape[-1])
        raise InputError(
            f"the transition row of state {state}, action {action} sums to {float(total.reshape(-1)[place]):.6g}; "
            "wanted 1, or all zeros where the episode ends: divide the row by its sum"
        )
    if smallest < -_ROW_TOLERANCE:
        raise InputError(f"a transition probability is {smallest:.6g}; wanted none below 0")
