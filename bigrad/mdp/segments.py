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
    """``B`` segments of ``H`` steps, drawn by the policy whose response is asked for.

    Attributes:
        observation: ``(B, H, *observation_shape)``.
        action: ``(B, H, *action_shape)``.
        log_prob: the policy's log-probability of each action, ``(B, H)``.
        after_action: ``K`` rollouts from each ``(s_h, a_h)`` on, their first step included, lead ``(B, H, K)``;
            drawn independently of everything the loss looks at.
        after_state: ``K`` rollouts from each ``s_h`` on with a fresh first action, lead ``(B, H, K)``.
        continuation: the path that follows the last step, lead ``(B,)``, for :class:`~bigrad.mdp.Trace`.
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    after_action: Rollouts | None = None
    after_state: Rollouts | None = None
    continuation: Rollouts | None = None

    def __post_init__(self) -> None:
        if self.log_prob.ndim != 2:
            raise InputError(f"log_prob has shape {tuple(self.log_prob.shape)}; wanted (segments, steps)")
        for name in ("observation", "action"):
            shape = getattr(self, name).shape
            if shape[:2] != self.log_prob.shape:
                raise InputError(
                    f"{name} has shape {tuple(shape)}; wanted it to start with {tuple(self.log_prob.shape)}"
                )
