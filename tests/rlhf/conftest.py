"""Tiny environments and runs that many tests look at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from bigrad.rlhf import PreferenceTrainer

from . import environments, tiny

environments.register()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreferenceTrainer, Path]:
    """A finished run and its folder; look, but do not touch."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run = tiny.trainer()
    run.learn(out=folder, command="the command")
    return run, folder


@pytest.fixture
def folder(finished: tuple[PreferenceTrainer, Path], tmp_path: Path) -> Path:
    """A copy of the finished run's folder, to be spoilt."""
    return tiny.copy(finished[1], tmp_path)


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the picture's canvas empty, which saves a second."""
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **settings: file.write(b"a picture"))
