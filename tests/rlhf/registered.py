"""Tiny environments for processes of their own: ``tests.rlhf.registered:Tiny/Mortal-v0`` works in any of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium

from . import environments


class Mortal(environments.Point):
    """Counts its steps in the file $TINY_STEPS, and kills its process at step $TINY_DEATH."""

    def step(self, action: Any) -> Any:
        path = Path(os.environ["TINY_STEPS"])
        with path.open("ab") as file:
            file.write(b".")
        if path.stat().st_size == int(os.environ.get("TINY_DEATH", "-1")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Raises(environments.Point):
    """Fails in its 23rd step."""

    def step(self, action: Any) -> Any:
        return super().step(action) if self.age < 22 else 1 // 0


if "Tiny/Point-v0" not in gymnasium.registry:
    environments.register()
gymnasium.register("Tiny/Mortal-v0", Mortal, max_episode_steps=environments.LENGTH, disable_env_checker=True)
gymnasium.register("Tiny/Raises-v0", Raises, max_episode_steps=environments.LENGTH, disable_env_checker=True)
