"""Sampled derivatives of a soft-optimal policy with respect to its reward: estimators of grad Q - grad V."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..gradients import surrogate
from ..linear import Direct, Operator
from .segments import Rollouts, Segments

RewardModel = Callable[[Tensor, Tensor], Tensor]  # (observation, action) with any leading shape -> that leading shape


class ResponseEstimator(ABC):
    """Estimates, as a function of the reward's parameters, the sum of future rewards that each action changes.

    The derivative of its result stands for that of ``Q(s_h, a_h) - V(s_h)`` under the fixed policy.

    Attributes:
        approximate: whether the estimate is biased by something learnt or cut off.
    """

    approximate: bool = False

    @abstractmethod
    def advantage(self, reward: RewardModel, segments: Segments, discount: float) -> Tensor:
        """``(B, H)``, differentiable in the parameters of ``reward``."""


@dataclass(frozen=True)
class Branches(ResponseEstimator):
    """Independent rollouts after each state and action: unbiased for any loss weight, but they need a simulator.

    Where states can be compared, the two rollouts of a place may end (weight 0) as soon as they are in one state at one
    time, or have taken the same first action: the difference keeps its mean and loses nearly all of its variance.

    Args:
        horizon: how many steps of a rollout count; ``None`` is all of them. ``horizon=1`` is the one-step shortcut
            of the published Atari code: it needs no rollouts after the action, and is zero for a reward of the state
            alone.
    """

    horizon: int | None = None

    def __post_init__(self) -> None:
        if self.horizon is not None and self.horizon < 1:
            raise InputError(f"horizon is {self.horizon}; wanted at least 1 step, or None for all")

    def advantage(self, reward: RewardModel, segments: Segments, discount: float) -> Tensor:
        """Discounted reward after the action less that after the state, each the mean over its rollouts."""
        if segments.after_state is None or (segments.after_action is None and self.horizon != 1):
            raise InputError(
                "independent rollouts are needed: give Segments its after_action and after_state, or use the "
                "estimators Trace or LeastSquaresCritic, which need no simulator"
            )
        if segments.after_action is None:
            q_value = rewards(reward, segments.observation, segments.action)
        else:
            q_value = self._sum(reward, segments.after_action, discount)
        return q_value - self._sum(reward, segments.after_state, discount)

    def _sum(self, reward: RewardModel, rollouts: Rollouts, discount: float) -> Tensor:
        r = rewards(reward, rollouts.observation, rollouts.action)
        if rollouts.weight is not None:
            r = r * rollouts.weight
        r = r[..., : self.horizon]
        powers = discount ** torch.arange(r.shape[-1], device=r.device, dtype=r.dtype)
        return (r * powers).sum(-1).mean(-1)


@dataclass(frozen=True)
class Trace(ResponseEstimator):
    """The path itself, continued past the segment; no reset, no second rollout, no grad V.

    Where another policy has drawn the path, the segments' ``ratio`` makes each reward count as often as the actions
    between are likelier; the cotangent then is the advantage times ``segments.ratio.cumprod(1)``.

    **Right only for a cotangent that is a true advantage of the loss**, ``A_U(h) = E[l | past, a_h] - E[l | past]``.
    A loss minus a constant or minus a baseline of the state shares its future with this path: the result is then wrong
    by several times its own size.

    Args:
        horizon: how many steps after each action count; ``None`` is all of them.
    """

    horizon: int | None = None

    def advantage(self, reward: RewardModel, segments: Segments, discount: float) -> Tensor:
        """Discounted reward from each step to the path's end."""
        r = rewards(reward, segments.observation, segments.action)
        steps = r.shape[1]
        if segments.continuation is not None:
            tail = rewards(reward, segments.continuation.observation, segments.continuation.action)
            if segments.continuation.weight is not None:
                tail = tail * segments.continuation.weight
            r = torch.cat([r, tail], 1)
        lag = torch.arange(r.shape[1], device=r.device) - torch.arange(steps, device=r.device)[:, None]
        inside = (lag >= 0) & (lag < (self.horizon or r.shape[1]))
        powers = torch.where(inside, discount ** lag.clamp_min(0).to(r.dtype), 0.0)
        if segments.ratio is None:
            return r @ powers.T
        own = torch.ones_like(r)  # the tail's weights tell of its own actions
        own[:, :steps] = segments.ratio
        likelier = torch.where(lag > 0, own.detach().unsqueeze(1), 1.0).cumprod(-1)
        return torch.einsum("bht,ht,bt->bh", likelier, powers, r)


@dataclass(frozen=True)
class LeastSquaresCritic(ResponseEstimator):
    r"""The soft Bellman adjoint, projected on features: a gradient critic that is solved for and not trained.

    For features :math:`\varphi(s, a)` and transitions :math:`i` it solves least-squares temporal differences,
    :math:`\sum_i \varphi_i (\varphi_i - \gamma \varphi_i')^\top w = \sum_i \varphi_i r_i`, and reads
    :math:`Q = \varphi^\top w`. The segments' side of the system is solved once, by :meth:`fit`; backward is then one
    vector-Jacobian product through the rewards of the transitions, whatever model made them. With one feature for each
    state and action this is exactly the adjoint of :class:`~bigrad.layers.SoftBellman`; with other features it is
    approximate. It needs neither resets nor on-policy transitions, and no single path's future enters it: any baseline
    of the past may be subtracted from the loss.

    Attributes:
        observation, action: the transitions' first half, ``(N, *shape)``.
        features: their features ``(N, d)``.
        projection: the solved segments' side, ``(B, H, d)``.
        discount: the one it was fitted for.

    Source of least-squares temporal differences: Linear Least-Squares Algorithms for Temporal Difference Learning
    (Bradtke, Barto, 1996).
    """

    observation: Tensor
    action: Tensor
    features: Tensor
    projection: Tensor
    discount: float
    approximate = True

    @classmethod
    def fit(
        cls,
        observation: Tensor,
        action: Tensor,
        features: Tensor,
        next_features: Tensor,
        segment_features: Tensor,
        discount: float,
        ridge: float = 1e-6,
    ) -> LeastSquaresCritic:
        """Solve for the segments' side.

        Args:
            observation, action: transitions ``(N, *shape)``, drawn by any policy.
            features: of these, ``(N, d)``.
            next_features: expected features of the next step under the policy, zero where an episode ended, ``(N, d)``.
            segment_features: features along the segments less their expectation under the policy, ``(B, H, d)``.
            discount: ``0 <= discount < 1``.
            ridge: added to the matrix's diagonal, relative to the diagonal's mean.

        Raises:
            InputError: shapes that do not fit together.
            SolveError: the system is singular even with its ridge.
        """
        count, size = features.shape
        if next_features.shape != features.shape or segment_features.shape[-1] != size:
            raise InputError(
                f"features {tuple(features.shape)}, next_features {tuple(next_features.shape)} and segment_features "
                f"{tuple(segment_features.shape)} do not fit: wanted (N, d), (N, d) and (B, H, d)"
            )
        exact = features.double()
        matrix = exact.T @ (exact - discount * next_features.double()) / count
        damping = ridge * float(matrix.diagonal().mean().abs())
        wanted = segment_features.reshape(-1, size).double()
        solved, certificate = Direct(damping).solve(Operator(lambda u: u @ matrix, dense=matrix.T), wanted)
        certificate.what = "least-squares critic"
        certificate.enforce("raise")
        projection = (solved / count).to(features.dtype).reshape(segment_features.shape)
        return cls(observation, action, features, projection, discount)

    def advantage(self, reward: RewardModel, segments: Segments, discount: float) -> Tensor:
        """``(phi(s_h, a_h) - E_pi phi(s_h, .))^T w`` with ``w`` linear in the transitions' rewards."""
        if discount != self.discount:
            raise InputError(f"the critic was fitted for discount {self.discount} and is used with {discount}")
        r = rewards(reward, self.observation, self.action)
        return self.projection.to(r.dtype) @ (self.features.T.to(r.dtype) @ r)


def rewards(reward: RewardModel, observation: Tensor, action: Tensor) -> Tensor:
    """Call a reward model, and refuse a result whose shape is not the leading shape of its arguments."""
    result = reward(observation, action)
    if not isinstance(result, Tensor) or not result.is_floating_point():
        kind = result.dtype if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"the reward model returned {kind}; wanted a floating-point tensor")
    lead = result.shape
    if observation.shape[: len(lead)] != lead or action.shape[: len(lead)] != lead or len(lead) < 1:
        raise InputError(
            f"the reward model returned shape {tuple(lead)} for observations {tuple(observation.shape)} and actions "
            f"{tuple(action.shape)}; wanted their leading shape, one reward for each step"
        )
    return result


def soft_response(
    reward: RewardModel,
    segments: Segments,
    *,
    temperature: float,
    discount: float,
    estimator: ResponseEstimator,
) -> Tensor:
    """``log pi(a | s)`` along segments, with ``(grad Q - grad V) / temperature`` as its derivative in the reward.

    Args:
        reward: a module ``(observation, action) -> reward``.
        segments: where the policy acted.
        temperature: weight of the entropy in the policy's problem, positive.
        discount: ``0 <= discount < 1``.
        estimator: how grad Q - grad V is estimated.

    Returns:
        log-probabilities ``(B, H)``.

    Raises:
        InputError: temperature or discount out of range, or a wrong shape.
        UnsupportedError: on a second derivative: fixed-policy rollouts do not hold it.
    """
    check_temperature_and_discount(temperature, discount)
    advantage = estimator.advantage(reward, segments, discount)
    if advantage.shape != segments.log_prob.shape:
        raise InputError(f"the advantage has shape {tuple(advantage.shape)}; wanted {tuple(segments.log_prob.shape)}")
    scale = advantage.new_tensor(1 / temperature)
    return surrogate(
        segments.log_prob.to(advantage.dtype),
        advantage,
        scale,
        reason="SoftResponse is right to first order only: use SoftBellman for second derivatives of the response",
    )


def check_temperature_and_discount(temperature: float, discount: float) -> None:
    """Raise :class:`InputError` where either is out of range."""
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature is {temperature}; wanted a positive finite number")
    if not 0 <= discount < 1:
        raise InputError(f"discount is {discount}; wanted 0 <= discount < 1 (an endless sum has no value at 1)")
