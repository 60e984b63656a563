"""Which agent a run has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import torch
from gymnasium import spaces

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


def agents_for(env: gymnasium.Env[Any, Any]) -> dict[str, Callable[..., SoftAgent]]:
    """Those that serve the environment's actions, the usual one first."""
    return DISCRETE if isinstance(env.action_space, spaces.Discrete) else CONTINUOUS


def make_agent(chosen: Settings, env: gymnasium.Env[Any, Any], device: torch.device) -> SoftAgent:
    """The agent that ``chosen.agent`` names; ``"auto"`` is SAC for continuous actions and SoftDQN for discrete ones.

    Raises:
        InputError: the agent does not serve the environment's actions.
    """
    served = agents_for(env)
    usual = chosen.method if chosen.method in AGENTS else next(iter(served))  # of the true reward: its agent's name
    name = usual if chosen.agent == "auto" else chosen.agent
    if name not in served:
        raise InputError(
            f"agent is {name!r}, and the actions of {chosen.env} are {env.action_space}; wanted one of auto, "
            f"{', '.join(served)}"
        )
    settings: dict[str, Any] = {"learning_rate": chosen.lr, "batch_size": chosen.batch, "gamma": chosen.discount}
    settings |= {"learning_starts": chosen.warm_up, "buffer_size": max(chosen.steps, 1)}
    if served is DISCRETE:  # the rhythm that SAC has by default
        settings |= {"train_freq": 1, "target_update_interval": 1, "tau": 0.005}
    return served[name](
        "MlpPolicy",
        env,
        temperature=chosen.temperature,
        policy_kwargs={"net_arch": [chosen.units, chosen.units], "optimizer_kwargs": {"fused": True}},
        replay_buffer_class=RelabelledReplayBuffer,
        seed=chosen.seed,
        device=device,
        **settings,
    )


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
        served -= AGENTS.keys() - agents_for(env).keys()
        env.close()
    return [name for name in METHODS if name in served]
