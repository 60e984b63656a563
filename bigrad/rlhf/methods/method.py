"""What a method may add to a run; adding nothing, it learns from preferences alone or from the true reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..agent import SoftAgent
from ..replay import RelabelledReplayBuffer
from ..response import ResponseSettings
from ..reward_model import RewardEnsemble
from ..settings import Settings
from ..upper_level import Term

if TYPE_CHECKING:
    from ..trainer import PreferenceTrainer


class Method:
    """Deep RLHF (``drlhf``) as it is; the true reward (``sac``, ``softdqn``) where there are no rounds.

    Args:
        trainer: whose run this is.

    Attributes:
        answers: whether there is a term beside the preference loss.
        holds: whether the policy rests before a round, so that the last episodes are its own.

    Source: Deep Reinforcement Learning from Human Preferences (Christiano et al., 2017).
    """

    answers: ClassVar[bool] = False
    holds: ClassVar[bool] = False

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer = trainer

    @property
    def settings(self) -> Settings:
        """Of the run."""
        return self.trainer.settings

    @property
    def agent(self) -> SoftAgent:
        """The one that acts."""
        return self.trainer.agent

    @property
    def buffer(self) -> RelabelledReplayBuffer:
        """What it has done."""
        return self.trainer.buffer

    @property
    def reward_model(self) -> RewardEnsemble:
        """The upper level's variable."""
        return self.trainer.reward_model

    @property
    def estimator(self) -> ResponseSettings:
        """The settings of the estimates."""
        chosen = self.settings
        return ResponseSettings(
            chosen.segment, chosen.opponents, chosen.transitions, chosen.draws, chosen.ridge, chosen.horizon
        )

    def begin(self) -> None:
        """Called before the first step, and when a run goes on."""

    def terms(self, episodes: list[np.ndarray]) -> tuple[list[Term], float | None]:
        """Scalars, their mean's gradient beside the preference loss's; and the loss that segments have to expect.

        Called in each round after the first fit, if there are any.

        Args:
            episodes: places of the whole episodes that the policy has drawn since it rests.
        """
        return [], None

    def reward(self) -> RewardEnsemble:
        """What the agent learns from, once the reward model has moved."""
        return self.reward_model

    def state(self) -> Any:
        """What has to be kept so that a run can go on: nested dictionaries of tensors and numbers, or ``None``."""
        return None

    def restore(self, state: Any) -> None:
        """Take back what :meth:`state` gave."""
