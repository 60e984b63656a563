"""The true return, measured on separate environments, and a film of how it is reached."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import gymnasium
import numpy as np

from ..errors import InputError
from .environments import make
from .people import Film

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


def film(env: str, policy: Policy | None, episodes: int, steps: int, seed: int = _FIRST_SEED) -> bytes:
    """An animated WebP of the first of these episodes one after the other, ``steps`` steps of each at most.

    Raises:
        UnsupportedError: the environment gives no pictures, or cannot on this machine.
    """
    watched = Film(make(env, pictures=True), seconds=0)
    watched.action_space.seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="glfw")  # of a missing screen: the error says it
            for episode in range(episodes):
                observation, _ = watched.reset(seed=seed + episode)
                for _ in range(steps):
                    whole = np.asarray(observation)[None]
                    action = watched.action_space.sample() if policy is None else policy(whole)[0]
                    observation, _, ended, cut, _ = watched.step(action)
                    if ended or cut:
                        break
        return watched.clip(range(watched.reach)[::-1])
    finally:
        watched.close()
