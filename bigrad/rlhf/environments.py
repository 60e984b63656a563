"""Gymnasium environments, with errors that say what to do."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from ..errors import InputError, MissingPackage, UnsupportedError
from . import discrete_pendulum
from .picture_reward import SMALLEST

DISCRETE_PENDULUM = discrete_pendulum.NAME  # registered by the import
_ATARI = "ALE/"
_STACKED = 4  # pictures that an Atari agent sees at once, as is usual
_PACKAGES = {"mujoco": "rl", "pygame": "rl", "opencv": "atari"}  # what the extras bring along
_NO_PICTURES = (
    "{} renders no pictures (render_mode rgb_array), and clips are made of them: choose another environment, or in "
    "place of people a SyntheticTeacher"
)


def make(name: str, pictures: bool = False) -> gymnasium.Env:
    """The registered environment ``name``; with ``pictures`` one that can be filmed.

    Atari games (``ALE/...``) come as is usual: 84 x 84 shades of grey, every fourth frame, the last four of these.

    Raises:
        InputError: no such name; the nearest ones are named.
        MissingPackage: the environment needs a package that is not installed.
        UnsupportedError: its actions are neither bounded and continuous nor one choice of several, its observations
            neither a flat vector nor a picture, or it needs a package that bigrad does not know.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*possible render_modes")  # said below, as an error
            env = _open(name, "rgb_array" if pictures else None)
    except gymnasium.error.DependencyNotInstalled as error:
        for package, extra in _PACKAGES.items():
            if package in str(error).lower():
                raise MissingPackage(package, extra, f"the environment {name}") from error
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
    why = _unserved_actions(env.action_space) or _unserved_observations(env.observation_space)
    if why:
        env.close()
        raise UnsupportedError(f"{name} has {why}")
    return env


def _open(name: str, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    settings: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    if not name.startswith(_ATARI):
        return gymnasium.make(name, **settings)
    try:
        import ale_py
    except ImportError as error:
        raise MissingPackage("ale_py", "atari", f"the environment {name}") from error
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)
    env = gymnasium.wrappers.AtariPreprocessing(gymnasium.make(name, frameskip=1, **settings))
    return gymnasium.wrappers.FrameStackObservation(env, _STACKED)


def _unserved_actions(space: spaces.Space[Any]) -> str | None:
    if not isinstance(space, spaces.Box | spaces.Discrete):
        return (
            f"actions {space}, which are not served: choose an environment with one Box or one Discrete, such as "
            "Pendulum-v1"
        )
    if isinstance(space, spaces.Box) and not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        return (
            f"actions without bounds ({space}), and a squashed policy needs them: wrap it in "
            "gymnasium.wrappers.TransformAction with a bounded Box and register it"
        )
    return None


def _unserved_observations(space: spaces.Space[Any]) -> str | None:
    if not isinstance(space, spaces.Box):
        return f"observations {space}; wanted a Box: wrap it in gymnasium.wrappers.FlattenObservation and register it"
    if len(space.shape) == 1:
        return None
    if len(space.shape) != 3:
        return (
            f"observations of shape {space.shape}; wanted a vector, or a picture (height, width, channels) or "
            "(channels, height, width): wrap it in gymnasium.wrappers.ReshapeObservation and register it"
        )
    if not is_image_space(space):
        return (
            f"pictures of {space.dtype} between {space.low.min()} and {space.high.max()}; wanted bytes (uint8) from 0 "
            "to 255: wrap it in gymnasium.wrappers.TransformObservation and register it"
        )
    sides = space.shape[1:] if is_image_space_channels_first(space) else space.shape[:2]
    if min(sides) < SMALLEST:
        return (
            f"pictures of {sides[0]} x {sides[1]} pixels; wanted at least {SMALLEST} on each side: wrap it in "
            "gymnasium.wrappers.ResizeObservation and register it"
        )
    return None
