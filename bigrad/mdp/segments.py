"""Pieces of experience: segments of a policy's behaviour and what may follow each of their steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Rollouts:
    """Steps ``t = 0 .. T-1`` of one or many rollouts.

    Attributes:
        observation: ``(*lead, T, *observation_shape)``.
        action: ``(*lead, T, *action_shape)``.
        weight: ``(*lead, T)``: 1 while a rollout lasts and 0 after it, times an importance weight where it was drawn by
            another policy; ``None`` counts every step once.
    """

    observation: Tensor
    action: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Segments:
    """``B`` segments of ``H`` steps, drawn by the policy whose response is asked for, or by another one.

    Where another policy has drawn them, ``ratio`` tells how much likelier the policy makes each action. The loss of a
    segment then counts ``ratio.prod(1)`` times, ``(segments.ratio.prod(1) * loss.detach() * logp.sum(1)).mean()``, and
    rollouts carry products of their own in their weights.

    Attributes:
        observation: ``(B, H, *observation_shape)``.
        action: ``(B, H, *action_shape)``.
        log_prob: the policy's log-probability of each action, ``(B, H)``.
        after_action: ``K`` rollouts from each ``(s_h, a_h)`` on, their first step included, lead ``(B, H, K)``;
            drawn independently of everything the loss looks at.
        after_state: ``K`` rollouts from each ``s_h`` on with a fresh first action, lead ``(B, H, K)``.
        continuation: the path that follows the last step, lead ``(B,)``, for :class:`~bigrad.mdp.Trace`; its weight is
            the product of the ratios from its own first step on.
        ratio: probability of each action under the policy over that under the one that drew it, ``(B, H)``; ``None`` is
            1, the same policy.
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    after_action: Rollouts | None = None
    after_state: Rollouts | None = None
    continuation: Rollouts | None = None
    ratio: Tensor | None = None

    def __post_init__(self) -> None:
        if self.log_prob.ndim != 2:
            raise InputError(f"log_prob has shape {tuple(self.log_prob.shape)}; wanted (segments, steps)")
        for name in ("observation", "action", "ratio"):
            if getattr(self, name) is None:
                continue
            shape = getattr(self, name).shape
            if shape[:2] != self.log_prob.shape:
                raise InputError(
                    f"{name} has shape {tuple(shape)}; wanted it to start with {tuple(self.log_prob.shape)}"
                )
