"""Gymnasium environments, with errors that say what to do."""

from __future__ import annotations

import difflib
import warnings

import gymnasium
import numpy as np
from gymnasium import spaces

from ..errors import InputError, MissingPackage, UnsupportedError
from . import discrete_pendulum

DISCRETE_PENDULUM = discrete_pendulum.NAME  # registered by the import
_PACKAGES = ("mujoco", "pygame")  # what the extra brings along for gymnasium's own environments
_NO_PICTURES = (
    "{} renders no pictures (render_mode rgb_array), and people need clips to compare: choose another environment "
    "or a SyntheticTeacher"
)


def make(name: str, pictures: bool = False) -> gymnasium.Env:
    """The registered environment ``name``; with ``pictures`` one that can be filmed.

    Raises:
        InputError: no such name; the nearest ones are named.
        MissingPackage: the environment needs a package that is not installed.
        UnsupportedError: its actions are neither bounded and continuous nor one choice of several, its observations no
            flat vector, or it needs a package that bigrad does not know.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*possible render_modes")  # said below, as an error
            env = gymnasium.make(name, render_mode="rgb_array") if pictures else gymnasium.make(name)
    except gymnasium.error.DependencyNotInstalled as error:
        for package in _PACKAGES:
            if package in str(error).lower():
                raise MissingPackage(package, "rl", f"the environment {name}") from error
        raise UnsupportedError(f"{name} needs a package that bigrad does not install: {error}") from error
    except TypeError as error:
        if not pictures:
            raise
        raise UnsupportedError(_NO_PICTURES.format(name)) from error
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        near = difflib.get_close_matches(name, list(gymnasium.registry), n=3, cutoff=0.4)
        hint = f"the nearest names are {', '.join(near)}" if near else "gymnasium.registry lists the names"
        raise InputError(f"gymnasium knows no environment {name!r}: {hint} ({error})") from error
    if pictures and "rgb_array" not in env.metadata.get("render_modes", ()):
        env.close()
        raise UnsupportedError(_NO_PICTURES.format(name))
    if not isinstance(env.action_space, spaces.Box | spaces.Discrete):
        env.close()
        raise UnsupportedError(
            f"{name} has actions {env.action_space}, which are not served: choose an environment with one Box or one "
            "Discrete, such as Pendulum-v1"
        )
    if not isinstance(env.observation_space, spaces.Box):
        env.close()
        raise UnsupportedError(
            f"{name} has observations {env.observation_space}; wanted a Box: wrap it in "
            "gymnasium.wrappers.FlattenObservation and register it"
        )
    if len(env.observation_space.shape) != 1:
        env.close()
        raise UnsupportedError(
            f"{name} has observations of shape {env.observation_space.shape}; image observations are not served yet: "
            "choose an environment with a vector"
        )
    box = env.action_space
    if isinstance(box, spaces.Box) and not (np.isfinite(box.low).all() and np.isfinite(box.high).all()):
        env.close()
        raise UnsupportedError(
            f"{name} has actions without bounds ({box}), and a squashed policy needs them: wrap it in "
            "gymnasium.wrappers.TransformAction with a bounded Box and register it"
        )
    return env
