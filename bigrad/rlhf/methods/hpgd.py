"""HPGD: the change of advantages from rollouts that have nothing to do with the losses they are weighted with."""

from __future__ import annotations

import numpy as np

from ..trace_response import rollout_term
from ..upper_level import Term
from .method import Method


class HPGD(Method):
    r"""Adds :math:`\tau^{-1} E[\sum_h G_h \, \partial_x A(s_h, a_h)]`, :math:`\partial_x A` by Monte Carlo.

    The paper rolls out twice from every place, and a gymnasium environment cannot be set to a place. As in its code,
    :math:`\partial_x Q` is a mean over rollouts that came by; with states that have no table the mean becomes a
    regression on features, and :math:`\partial_x V` its expectation over the policy's actions. The rollouts are one
    half of the policy's last episodes, and the losses :math:`G_h` to come are those of the other half, which keeps
    them independent; then they change places. There is no bootstrap, and no step beyond the run's own: every
    environment step counts as for the other methods. Where the policy has drawn one episode alone since it rests, the
    rollouts are those of the episode before, of an older policy.

    Bias: rollouts end with their episode, so that a time limit cuts off what is left, at most
    :math:`\gamma^{T - t} / (1 - \gamma)` of the largest gradient; the regression's ridge; what is not linear in the
    features. With one feature for each state and action and episodes that end by themselves only the ridge is left,
    and a table's own bias of a mean over a random number of visits.

    Source: Contextual Bilevel Reinforcement Learning for Incentive Alignment (Thoma, Pasztor, Krause, Ramponi, Hu,
    2024).
    """

    answers = holds = True

    def terms(self, episodes: list[np.ndarray]) -> tuple[list[Term], float | None]:
        """One of all episodes, or two of independent halves where there are four or more."""
        return rollout_term(self.agent, self.buffer, self.reward_model, episodes, self.estimator, self.trainer.random)
