"""The environments of a run, stepped together; what goes wrong in one of them is told apart from all else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, SupportsFloat

import gymnasium
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from ..errors import BigradError, InputError
from .environments import make
from .settings import Settings

TRUE_REWARD = "true_reward"  # in a step's info, where the agent is given another one


class SignedReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives the sign of each reward, and notes the reward itself.

    Source: Human-level Control through Deep Reinforcement Learning (Mnih et al., 2015).
    """

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step."""
        seen, reward, ended, cut, info = self.env.step(action)
        return seen, float(np.sign(float(reward))), ended, cut, info | {TRUE_REWARD: float(reward)}


class InTurn(DummyVecEnv):
    """One environment after the other, in this process."""

    def step_wait(self) -> Any:
        """One step of each.

        Raises:
            InputError: one of them raised.
        """
        try:
            return super().step_wait()
        except BigradError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a user's environment raises
            _tell(self.envs[0], error)


class InProcesses(SubprocVecEnv):
    """A process for each environment."""

    def step_wait(self) -> Any:
        """One step of each.

        Raises:
            InputError: one of them raised; its process has told what.
        """
        try:
            return super().step_wait()
        except (EOFError, ConnectionError) as error:
            self.waiting = False
            _tell("an environment", error)

    def close(self) -> None:
        """End the processes; one that has raised has ended by itself."""
        try:
            super().close()
        except (EOFError, ConnectionError):
            for process in self.processes:
                process.terminate()
                process.join()
            self.closed = True


def _tell(env: Any, error: Exception) -> NoReturn:
    raise InputError(
        f"{env} raised {type(error).__name__} in a step ({error}): mend it, and resume the run. What was learnt before "
        "is kept, and a new episode begins"
    ) from error


def side_by_side(chosen: Settings, watch: Callable[[gymnasium.Env], gymnasium.Env] | None = None) -> VecEnv:
    """The environments of a run, as many as it has.

    Args:
        chosen: of the run.
        watch: what each of them passes through, for people to see it.

    Raises:
        InputError: the settings do not go together.
        MissingPackage, UnsupportedError: as :func:`~bigrad.rlhf.environments.make` raises them.
    """
    if watch and chosen.env_processes:
        raise InputError("env_processes is true, and what people compare is filmed in the run's own; wanted false")

    def one() -> gymnasium.Env[Any, Any]:
        made = make(chosen.env, pictures=watch is not None)
        signed = SignedReward(made) if chosen.signed_rewards else made
        return Monitor(watch(signed) if watch else signed)

    if chosen.env_processes:
        one().close()  # what is wrong with it is said here
    envs: VecEnv = (InProcesses if chosen.env_processes else InTurn)([one] * chosen.envs)
    if chosen.normalise and len(envs.observation_space.shape or ()) == 3:
        envs.close()
        raise InputError(f"normalise is true, and {chosen.env} shows pictures, which are scaled anyway; wanted false")
    return VecNormalize(envs, norm_reward=False) if chosen.normalise else envs
