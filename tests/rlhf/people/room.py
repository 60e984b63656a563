"""A run's folder with questions in it, and a film of steps that can be told apart."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from bigrad.rlhf import LabelQueue, Pairs, PreferenceStore, Settings

BUDGET = 8


def pairs(count: int, first: int = 0) -> Pairs:
    """Pairs whose numbers tell which they are, from ``first`` on."""
    mark = torch.arange(first, first + count, dtype=torch.float32)[:, None, None, None]
    side = torch.tensor([0.0, 0.5])[:, None, None]
    return Pairs((mark + side).expand(count, 2, 5, 3), torch.zeros(count, 2, 5, 1), np.zeros((count, 2)))


def clips(count: int, first: int = 0) -> list[tuple[bytes, bytes]]:
    return [(f"left {mark}".encode(), f"right {mark}".encode()) for mark in range(first, first + count)]


def queue(store: PreferenceStore) -> LabelQueue:
    return LabelQueue(store, np.random.default_rng(0))


def configure(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"settings": Settings(labels=BUDGET).to_json()}))
    return folder


def open_store(folder: Path) -> PreferenceStore:
    return PreferenceStore(folder / "labels.sqlite")


def with_questions(folder: Path, mirrored: list[bool]) -> Path:
    """A run's folder in which pairs wait, as somebody killed at this point leaves it."""
    configure(folder)
    open_store(folder).ask(pairs(len(mirrored)), clips(len(mirrored)), 7, mirrored)
    return folder


def rows(folder: Path, what: str) -> list[tuple[Any, ...]]:
    """What is on disk, as somebody else sees it."""
    with sqlite3.connect(folder / "labels.sqlite") as other:
        found = other.execute(f"select {what} from preference order by id").fetchall()
    other.close()
    return found


class Counter(gymnasium.Env[Any, Any]):
    """Counts its steps and shows five times the count as a grey level; an episode has ten."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012  # as gymnasium declares it

    def __init__(self, render_mode: str | None = "rgb_array", shape: tuple[int, ...] = (8, 12, 3)) -> None:
        self.render_mode, self.shape = render_mode, shape
        self.observation_space = self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.count = self.age = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.age = 0
        self.level = 255  # of a fresh episode
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        self.age += 1
        self.level = 5 * self.count
        return np.zeros(1, np.float32), 0.0, self.age == 10, False, {}

    def render(self) -> Any:
        return np.full(self.shape, self.level, np.uint8)
