"""SoBiRL: the policy's answer to the reward, in one of three forms."""

from __future__ import annotations

import numpy as np

from ..critics_response import critics_term
from ..response import response_term
from ..trace_response import trace_term
from ..upper_level import Term
from .method import Method

_ESTIMATES = {"critic": response_term, "critics": critics_term, "trace": trace_term}


class SoBiRL(Method):
    r"""Adds :math:`\tau^{-1} E[\sum_h A(h) (\nabla Q - \nabla V)(s_h, a_h)]`, see the settings' ``response``.

    ``"critic"`` reads :math:`\nabla Q - \nabla V` from a least-squares critic of the whole buffer, and has for A the
    losses to come. ``"trace"`` takes :math:`\nabla Q` along the path itself, and a learnt advantage of the losses for
    A. A ``horizon`` of n counts n steps; 1 is the shortcut of the published code, with a mean over fresh actions for
    :math:`E_\pi \nabla r` and no critic, which is 0 for a reward of the state alone.

    Source: Bilevel Reinforcement Learning via the Development of Hyper-gradient without Lower-Level Convexity
    (Yang, Gao, Yuan, 2025).
    """

    answers = holds = True

    def terms(self, episodes: list[np.ndarray]) -> tuple[list[Term], float | None]:
        """One for each half of the episodes."""
        estimate = _ESTIMATES[self.settings.response]
        return estimate(self.agent, self.buffer, self.reward_model, episodes, self.estimator, self.trainer.random)
