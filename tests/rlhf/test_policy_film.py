"""The film of a policy shows what it does in the first episodes that it is evaluated on."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from PIL import Image

from bigrad.errors import InputError, RunError, UnsupportedError
from bigrad.rlhf import PreferenceTrainer

from . import tiny
from .environments import LENGTH, Point

pytestmark = pytest.mark.usefixtures("unpainted", "unsynced")

LIT = "Tiny/Lit-v0"


class Lit(Point):
    """The left half of what is seen is as bright as the point is far to the right, the other half as it is old."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        picture = np.full((16, 32, 3), 25 * self.since, np.uint8)
        picture[:, :16] = int(np.clip(128 + 60 * self.state[0], 0, 255))
        return picture


gymnasium.register(LIT, Lit, max_episode_steps=LENGTH, disable_env_checker=True)


@pytest.fixture(scope="module")
def run() -> PreferenceTrainer:
    run = tiny.trainer(LIT, method="sac", labels=0)
    run.learn()
    return run


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How bright the left half of each picture of a film is, before it is compressed."""
    module, found = import_module(".people.film", "bigrad.rlhf"), list[float]()
    animate = module.animate

    def watched(pictures: list[np.ndarray], pace: float) -> bytes:
        found.extend(float(picture[:, :16].mean()) for picture in pictures)
        film: bytes = animate(pictures, pace)
        return film

    monkeypatch.setattr(module, "animate", watched)
    return found


def expected(act: Callable[[np.ndarray], np.ndarray], episodes: int, steps: int, seed: int = 10_000) -> list[float]:
    env, found = gymnasium.make(LIT, render_mode="rgb_array"), []
    for episode in range(episodes):
        observation = env.reset(seed=seed + episode)[0]
        for _ in range(min(steps, LENGTH)):
            observation = env.step(act(observation[None])[0])[0]
            found.append(float(np.asarray(env.render())[:, :16].mean()))
    return found


@pytest.mark.parametrize(("episodes", "steps"), [(1, 1), (1, 7), (1, 200), (3, 4), (2, 60)])
def test_it_shows_what_the_policy_does(
    episodes: int, steps: int, run: PreferenceTrainer, shown: list[float], tmp_path: Path
) -> None:
    run.film(tmp_path / "policy.webp", episodes, steps)
    assert shown == expected(run.act, episodes, steps)
    assert len(set(shown)) > 1 or steps == 1
    with Image.open(tmp_path / "policy.webp") as film:
        assert film.size == (32, 16)
        assert 1 <= getattr(film, "n_frames", 1) <= len(shown)  # what hardly differs is shown longer


def test_random_behaviour_can_be_seen_too(shown: list[float], tmp_path: Path) -> None:
    tiny.trainer(LIT, method="random", labels=0).film(tmp_path / "policy.webp", 2)
    space = gymnasium.make(LIT).action_space
    space.seed(10_000)
    assert shown == expected(lambda _: space.sample()[None], 2, LENGTH)


def test_without_pictures_there_is_no_film(finished: tuple[PreferenceTrainer, Path], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"Tiny/Point-v0 renders no pictures \(render_mode rgb_array\)"):
        finished[0].film(tmp_path / "policy.webp")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["episodes", "steps"])
def test_no_steps_make_no_film(name: str, run: PreferenceTrainer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{name} is 0; wanted at least 1"):
        run.film(tmp_path / "policy.webp", **{name: 0})


def test_where_it_cannot_be_written_is_named(run: PreferenceTrainer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="could not be written"):
        run.film(tmp_path / "file" / "policy.webp")
