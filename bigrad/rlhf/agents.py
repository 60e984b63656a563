"""Which agent a run has."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from ..errors import InputError
from .agent import SoftAgent
from .environments import make
from .replay import RelabelledReplayBuffer
from .settings import AGENTS, METHODS, Settings
from .soft_actor_critic import SoftActorCritic
from .soft_dqn import SoftDQN
from .soft_tqc import SoftTQC

CONTINUOUS: dict[str, Callable[..., SoftAgent]] = {"sac": SoftActorCritic, "tqc": SoftTQC}
DISCRETE: dict[str, Callable[..., SoftAgent]] = {"softdqn": SoftDQN}


def agents_for(actions: spaces.Space[Any]) -> dict[str, Callable[..., SoftAgent]]:
    """Those that serve the actions, the usual one first."""
    return DISCRETE if isinstance(actions, spaces.Discrete) else CONTINUOUS


def make_agent(chosen: Settings, env: VecEnv, device: torch.device) -> SoftAgent:
    """The agent that ``chosen.agent`` names; ``"auto"`` is SAC for continuous actions and SoftDQN for discrete ones.

    Raises:
        InputError: the agent does not serve the environment's actions, or a setting of the run.
    """
    served = agents_for(env.action_space)
    usual = chosen.method if chosen.method in AGENTS else next(iter(served))  # of the true reward: its agent's name
    name = usual if chosen.agent == "auto" else chosen.agent
    if name not in served:
        raise InputError(
            f"agent is {name!r}, and the actions of {chosen.env} are {env.action_space}; wanted one of auto, "
            f"{', '.join(served)}"
        )
    settings: dict[str, Any] = {"learning_rate": chosen.lr, "batch_size": chosen.batch, "gamma": chosen.discount}
    settings |= {"learning_starts": chosen.warm_up, "buffer_size": chosen.buffer or chosen.steps}
    settings |= {"train_freq": chosen.update_every, "gradient_steps": chosen.envs}
    pictures = len(env.observation_space.shape or ()) == 3
    layers = [chosen.units, chosen.units]
    if served is DISCRETE:  # the rhythm that SAC has by default: its target follows with every update
        settings |= {"target_update_interval": 1, "tau": 0.005 if chosen.envs == 1 else 1 - 0.995**chosen.envs}
        layers = [] if pictures else layers
    network = {"features_extractor_kwargs": {"features_dim": chosen.units}} if pictures else {}
    if chosen.learn_temperature:
        settings |= _adapted(chosen, name)
    return served[name](
        "CnnPolicy" if pictures else "MlpPolicy",
        env,
        temperature=chosen.temperature,
        policy_kwargs={"net_arch": layers, "optimizer_kwargs": {"fused": True}, **network},
        replay_buffer_class=RelabelledReplayBuffer,
        seed=chosen.seed,
        device=device,
        **settings,
    )


def _adapted(chosen: Settings, name: str) -> dict[str, Any]:
    if name not in CONTINUOUS:
        raise InputError(f"learn_temperature is true, and the agent {name} has a fixed one; wanted sac or tqc")
    if chosen.method in ("sobirl", "hpgd"):
        warnings.warn(
            "the temperature is learnt, and the response term carries its inverse: it grows as the temperature falls, "
            f"up to what {chosen.least_temperature} allows (least_temperature)",
            UserWarning,
            stacklevel=2,
        )
    return {"least_temperature": chosen.least_temperature}


def methods_for(envs: Sequence[str]) -> list[str]:
    """The methods that serve the actions of all these environments.

    Raises:
        InputError, MissingPackage, UnsupportedError: an environment that cannot be learnt in.

    Example:
        >>> "softdqn" in methods_for(["Pendulum-v1"]), "softdqn" in methods_for(["bigrad/DiscretePendulum-v1"])
        (False, True)
    """
    served = set(METHODS)
    for name in envs:
        env = make(name)
        served -= AGENTS.keys() - agents_for(env.action_space).keys()
        env.close()
    return [name for name in METHODS if name in served]
