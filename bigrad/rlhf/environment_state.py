"""Where an environment is in its episode, as plain numbers: written down and brought back, nothing is executed."""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from ..errors import RunError

# What an environment is made of, and no part of its state.
_SETTLED = (gymnasium.Env, spaces.Space, EnvSpec, type, np.dtype, FunctionType, ModuleType)
_CONSTANT = ("MjModel", "MujocoRenderer")


def read_environment(env: gymnasium.Env[Any, Any]) -> list[dict[str, Any]] | None:
    """The state of an environment and of its wrappers, outermost first.

    Args:
        env: of any kind.

    Returns:
        numbers, strings, arrays and nested dicts, lists and tuples of them, by the names of the attributes; ``None``
        where one of the objects has an attribute of another kind, so that its state is not known.

    Example:
        >>> import gymnasium, numpy
        >>> env, copy = gymnasium.make("Pendulum-v1"), gymnasium.make("Pendulum-v1")
        >>> _ = env.reset(seed=0)
        >>> _ = copy.reset(seed=1)
        >>> write_environment(copy, read_environment(env))
        >>> push = numpy.ones(1)
        >>> bool((env.step(push)[0] == copy.step(push)[0]).all())
        True
    """
    layers = []
    for layer in _layers(env):
        found = {name: _read(value) for name, value in vars(layer).items() if not _skipped(value)}
        if any(value is NotImplemented for value in found.values()):
            return None
        layers.append(found)
    return layers


def write_environment(env: gymnasium.Env[Any, Any], state: list[dict[str, Any]]) -> None:
    """Bring an environment of the same kind, which has been reset, to the state that :func:`read_environment` gave.

    Raises:
        RunError: it is of another kind.
    """
    layers = _layers(env)
    names = [{name for name, value in vars(layer).items() if not _skipped(value)} for layer in layers]
    # A step may add an attribute; none goes.
    if len(names) != len(state) or any(own - set(content) for own, content in zip(names, state, strict=True)):
        raise RunError(
            "the state of the environment was written by another version of it: its parts have other attributes. "
            "Start anew, or go back to that version"
        )
    for layer, content in zip(layers, state, strict=True):
        for name, value in content.items():
            _write(layer, name, value)


def _layers(env: gymnasium.Env[Any, Any]) -> list[gymnasium.Env[Any, Any]]:
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers


def _skipped(value: Any) -> bool:
    return isinstance(value, _SETTLED) or type(value).__name__ in _CONSTANT


def _read(value: Any) -> Any:
    """A value that can be written down, ``NotImplemented`` where there is none."""
    if isinstance(value, np.random.Generator):
        return {"generator": value.bit_generator.state}
    if type(value).__name__ == "MjData":
        return {"physics": _physics(value)}
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return value
    if isinstance(value, np.ndarray):
        return value.copy() if value.dtype != object else NotImplemented
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        parts: Any = {key: _read(part) for key, part in value.items()}
        return NotImplemented if any(part is NotImplemented for part in parts.values()) else {"dict": parts}
    if isinstance(value, list | tuple):
        parts = [_read(part) for part in value]
        return NotImplemented if any(part is NotImplemented for part in parts) else type(value)(parts)
    return NotImplemented


def _write(layer: Any, name: str, value: Any) -> None:
    old = getattr(layer, name, None)
    if type(old).__name__ == "MjData":
        _restore_physics(layer.model, old, value["physics"])
        return
    setattr(layer, name, _rebuilt(value))


def _rebuilt(value: Any) -> Any:
    if isinstance(value, dict):
        if "generator" in value:
            generator = np.random.default_rng()
            generator.bit_generator.state = value["generator"]
            return generator
        return {key: _rebuilt(part) for key, part in value["dict"].items()}
    if isinstance(value, list | tuple):
        return type(value)(_rebuilt(part) for part in value)
    return value.copy() if isinstance(value, np.ndarray) else value


def _physics(data: Any) -> np.ndarray:
    """All that MuJoCo's integrator starts from."""
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.zeros(mujoco.mj_stateSize(data.model, kind))
    mujoco.mj_getState(data.model, data, state, kind)
    return state


def _restore_physics(model: Any, data: Any, state: np.ndarray) -> None:
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(model, data, state, kind)
    mujoco.mj_forward(model, data)  # what follows from the state; it moves the solver's own start, so:
    mujoco.mj_setState(model, data, state, kind)
