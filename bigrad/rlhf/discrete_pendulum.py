"""The pendulum with a few torques to choose from: a discrete task on which preferences carry information."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

NAME = "bigrad/DiscretePendulum-v1"


class DiscretePendulum(gymnasium.ActionWrapper[Any, Any, Any]):
    """Pendulum-v1 with ``torques`` torques, evenly spread over those that it takes.

    Args:
        torques: how many.
        settings: as Pendulum-v1 has them.
    """

    def __init__(self, torques: int = 5, **settings: Any) -> None:
        super().__init__(gymnasium.make("Pendulum-v1", **settings).unwrapped)
        box = self.env.action_space
        assert isinstance(box, spaces.Box)
        self.torques = np.linspace(box.low, box.high, torques, dtype=np.float32)
        self.action_space = spaces.Discrete(torques)

    def action(self, action: Any) -> Any:
        """The torque of a number."""
        return self.torques[int(action)]


gymnasium.register(NAME, entry_point=f"{__name__}:DiscretePendulum", max_episode_steps=200)
