"""torch's and numpy's global generators, which stable-baselines3 draws from."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch


class GlobalGenerators:
    """A run's own state of the global generators, in force inside ``with``; outside everything is as it was.

    So a run is the same whatever else draws random numbers, and nobody else's numbers depend on it.
    """

    def __init__(self) -> None:
        self._inside = False
        self._own: dict[str, Any] | None = None
        self._outer: dict[str, Any] = {}

    @property
    def state(self) -> dict[str, Any]:
        """The run's state, in tensors, arrays and numbers."""
        return _read() if self._inside or self._own is None else self._own

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        outer = _read()
        try:
            _write(state)  # raises where it is none
        finally:
            _write(outer)
        self._own = state

    def __enter__(self) -> Self:
        self._outer = _read()
        if self._own is not None:
            _write(self._own)
        self._inside = True
        return self

    def __exit__(self, *failure: object) -> None:
        self._own, self._inside = _read(), False
        _write(self._outer)


def _read() -> dict[str, Any]:
    return {"torch": torch.get_rng_state(), "numpy": list(np.random.get_state())}  # noqa: NPY002


def _write(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
