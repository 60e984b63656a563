"""Continuous actions with truncated quantile critics: sb3-contrib's TQC at a fixed temperature."""

from __future__ import annotations

from sb3_contrib import TQC

from .soft_actor_critic import SquashedGaussianAgent


class SoftTQC(SquashedGaussianAgent, TQC):
    """TQC whose temperature stays fixed, or has a least value.

    Args:
        policy: as sb3-contrib has it.
        env: an environment with bounded continuous actions.
        temperature: weight of the entropy.
        least_temperature: given, the temperature is learnt as TQC does, but does not fall below.
        settings: any other argument of TQC.

    Source: Controlling Overestimation Bias with Truncated Mixture of Continuous Distributional Quantile Critics
    (Kuznetsov, Shvechikov, Grishin, Vetrov, 2020).
    """

    origin = "sb3-contrib TQC"
