"""The soft response layer."""

from __future__ import annotations

from torch import Tensor, nn

from bigrad.errors import InputError
from bigrad.mdp import Branches, ResponseEstimator, Segments, check_temperature_and_discount, soft_response


class SoftResponse(nn.Module):
    r"""``log pi(a | s)`` of a policy that answers a reward model, along segments: the sampled twin of SoftBellman.

    Forward hands back the log-probabilities that the segments carry. Backward gives
    :math:`(\nabla Q - \nabla V) / \text{temperature}` to the parameters of the reward model, weighted by the
    cotangent exactly as it arrives. The score-function loss of a bilevel problem is then
    ``(loss.detach() * logp.sum(1)).mean()``.

    Args:
        reward_model: ``(observation, action) -> reward`` with any leading shape.
        temperature: weight of the entropy in the policy's problem, positive.
        discount: of the policy's problem, ``0 <= discount < 1``.
        horizon: how far independent rollouts count; ``None`` is as far as they are given, 1 the published one-step
            shortcut. Only for the default estimator.
        estimator: :class:`~bigrad.mdp.Branches` (default), :class:`~bigrad.mdp.Trace` or
            :class:`~bigrad.mdp.LeastSquaresCritic`; :meth:`forward` takes one for a single call.

    Raises:
        InputError: temperature, discount or horizon out of range, a wrong shape, rollouts missing.
        UnsupportedError: when a second derivative is asked for.

    Source: Bilevel Reinforcement Learning via the Development of Hyper-gradient without Lower-Level Convexity
    (Yang, Gao, Yuan, 2025).
    """

    def __init__(
        self,
        reward_model: nn.Module,
        *,
        temperature: float,
        discount: float,
        horizon: int | None = None,
        estimator: ResponseEstimator | None = None,
    ) -> None:
        super().__init__()
        check_temperature_and_discount(temperature, discount)
        if horizon is not None and estimator is not None:
            raise InputError("horizon belongs to the default estimator: give one of horizon and estimator")
        self.reward_model = reward_model
        self.temperature, self.discount = temperature, discount
        self.estimator = Branches(horizon) if estimator is None else estimator

    def forward(self, segments: Segments, estimator: ResponseEstimator | None = None) -> Tensor:
        """Log-probabilities ``(B, H)`` of the segments' actions."""
        return soft_response(
            self.reward_model,
            segments,
            temperature=self.temperature,
            discount=self.discount,
            estimator=self.estimator if estimator is None else estimator,
        )

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        return f"temperature={self.temperature}, discount={self.discount}, estimator={type(self.estimator).__name__}"
