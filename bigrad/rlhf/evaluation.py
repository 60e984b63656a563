"""The true return, measured on separate environments."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np

from ..errors import InputError
from .environments import make

Policy = Callable[[np.ndarray], np.ndarray]

_FIRST_SEED = 10_000  # the same starts for every run that is compared


def true_returns(env: str, policy: Policy | None, episodes: int, seed: int = _FIRST_SEED) -> np.ndarray:
    """Undiscounted returns of whole episodes, run side by side.

    Args:
        env: a registered environment.
        policy: observations ``(episodes, *)`` to actions ``(episodes, *)``; ``None`` acts at random.
        episodes: how many.
        seed: of the first start; the others follow.

    Raises:
        InputError: a return is NaN or infinite.
    """
    side_by_side = gymnasium.vector.SyncVectorEnv([lambda: make(env)] * episodes)
    try:
        observation, _ = side_by_side.reset(seed=seed)
        side_by_side.action_space.seed(seed)
        total, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
        while running.any():
            action = side_by_side.action_space.sample() if policy is None else policy(observation)
            observation, reward, ended, cut, _ = side_by_side.step(action)
            total += reward * running
            running &= ~(ended | cut)
    finally:
        side_by_side.close()
    if not np.isfinite(total).all():
        raise InputError(f"{env} gave an episode a return that is not finite: mend the environment's reward")
    return total
