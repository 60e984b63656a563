"""Gymnasium environments, with errors that say what to do."""

from __future__ import annotations

import difflib

import gymnasium
import numpy as np
from gymnasium import spaces

from ..errors import InputError, MissingPackage, UnsupportedError

_PACKAGES = ("mujoco", "pygame")  # what the extra brings along for gymnasium's own environments


def make(name: str) -> gymnasium.Env:
    """The registered environment ``name``.

    Raises:
        InputError: no such name; the nearest ones are named.
        MissingPackage: the environment needs a package that is not installed.
        UnsupportedError: its actions are not continuous and bounded, its observations no flat vector, or
            it needs a package that bigrad does not know.
    """
    try:
        env = gymnasium.make(name)
    except gymnasium.error.DependencyNotInstalled as error:
        for package in _PACKAGES:
            if package in str(error).lower():
                raise MissingPackage(package, "rl", f"the environment {name}") from error
        raise UnsupportedError(f"{name} needs a package that bigrad does not install: {error}") from error
    except gymnasium.error.Error as error:
        near = difflib.get_close_matches(name, list(gymnasium.registry), n=3, cutoff=0.4)
        hint = f"the nearest names are {', '.join(near)}" if near else "gymnasium.registry lists the names"
        raise InputError(f"gymnasium knows no environment {name!r}: {hint} ({error})") from error
    if isinstance(env.action_space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        env.close()
        raise UnsupportedError(
            f"{name} has discrete actions ({env.action_space}), which are not served yet: choose an environment with "
            "continuous ones, such as Pendulum-v1"
        )
    if not isinstance(env.action_space, spaces.Box) or not isinstance(env.observation_space, spaces.Box):
        env.close()
        raise UnsupportedError(
            f"{name} has spaces {env.observation_space} and {env.action_space}; wanted a Box each: wrap it "
            "in gymnasium.wrappers.FlattenObservation and register it"
        )
    if len(env.observation_space.shape) != 1:
        env.close()
        raise UnsupportedError(
            f"{name} has observations of shape {env.observation_space.shape}; image observations are not served yet: "
            "choose an environment with a vector"
        )
    if not (np.isfinite(env.action_space.low).all() and np.isfinite(env.action_space.high).all()):
        env.close()
        raise UnsupportedError(
            f"{name} has actions without bounds ({env.action_space}), and a squashed policy needs them: wrap it in "
            "gymnasium.wrappers.TransformAction with a bounded Box and register it"
        )
    return env
