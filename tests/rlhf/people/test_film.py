"""A clip shows the steps it is asked for, in their order, also across the end of an episode."""

from __future__ import annotations

import io
from typing import Any

import gymnasium
import numpy as np
import pytest
from PIL import Image, ImageSequence

from bigrad.errors import InputError, UnsupportedError
from bigrad.rlhf import Film

from .room import Counter


def acted(film: Film, steps: int) -> Film:
    """A film of so many steps, in episodes."""
    film.reset(seed=0)
    for _ in range(steps):
        if film.step(np.zeros(1))[2]:
            film.reset()
    return film


def look(clip: bytes) -> tuple[list[int], list[int], Image.Image]:
    """The grey levels of a clip's pictures, how long each lasts in milliseconds, and the image."""
    image = Image.open(io.BytesIO(clip))
    levels, times = [], []
    for picture in ImageSequence.Iterator(image):
        picture.load()
        levels.append(round(float(np.asarray(picture.convert("RGB")).mean())))
        times.append(int(picture.info["duration"]))
    return levels, times, image


def test_a_clip_shows_the_steps_in_their_order_and_never_stops() -> None:
    film = acted(Film(Counter(), seconds=0), 30)
    levels, times, image = look(film.clip(range(19, 5, -1)))
    # Step 20 ended an episode: it shows its end, not the next one's start at 255.
    assert levels == pytest.approx([5 * step for step in range(11, 25)], abs=2)
    assert times == [40] * 13 + [540]
    assert image.format == "WEBP"
    assert image.info["loop"] == 0
    assert look(film.clip([0, 9]))[0] == pytest.approx([150, 105], abs=2)


def test_a_short_clip_is_slowed_down() -> None:
    assert look(acted(Film(Counter(), seconds=2), 30).clip(range(9, -1, -1)))[1] == [200] * 9 + [700]
    assert look(acted(Film(Counter(), seconds=0.1), 30).clip(range(9, -1, -1)))[1] == [40] * 9 + [540]


def test_after_the_end_the_last_picture_stays() -> None:
    film = acted(Film(Counter(), seconds=0), 30)
    levels, times, _ = look(film.clip([12, 11, 10, -1, -7]))
    assert levels == pytest.approx([90, 95, 100], abs=2)  # equal pictures become one that lasts longer
    assert times == [40, 40, 3 * 40 + 500]


def test_both_clips_of_each_pair() -> None:
    film = acted(Film(Counter()), 40)
    ages = np.array([[[9, 8, 7], [19, 18, 17]], [[2, 1, 0], [29, 28, 27]]])
    levels = [[look(clip)[0] for clip in both] for both in film.clips(ages)]
    assert np.array(levels) == pytest.approx(5 * (40 - ages), abs=2)


def test_what_does_not_fit_makes_room() -> None:
    film = acted(Film(Counter()), 40)
    assert film.reach == 40
    tight = acted(Film(Counter(), megabytes=film.bytes / 2 / 2**20), 40)
    assert 15 < tight.reach < 25
    assert tight.bytes <= film.bytes / 2
    assert look(tight.clip([1, 0]))[0] == pytest.approx([195, 200], abs=2)
    with pytest.raises(InputError, match=f"wanted some of the latest {tight.reach}"):
        tight.clip([tight.reach, 0])
    tight.clip([tight.reach - 1, 0])


@pytest.mark.parametrize("ages", [[], [-1, 0], [3]])
def test_steps_that_were_not_seen_make_no_clip(ages: list[int]) -> None:
    with pytest.raises(InputError, match="wanted some of the latest 3"):
        acted(Film(Counter()), 3).clip(ages)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((8, 12, 3), (12, 8)), ((700, 500, 3), (166, 233)), ((640, 2, 3), (1, 320)), ((700, 2, 3), (2, 700))],
)
def test_pictures_are_made_smaller_by_whole_blocks(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    assert look(acted(Film(Counter(shape=shape)), 2).clip([1, 0]))[2].size == size


class Stripes(Counter):
    """Every other line is bright."""

    def render(self) -> Any:
        picture = np.zeros(self.shape, np.uint8)
        picture[::2] = 200
        return picture


def test_a_block_is_its_mean() -> None:
    assert look(acted(Film(Stripes(), side=6), 1).clip([0]))[0] == pytest.approx([100], abs=2)


class FatalError(Exception):
    """MuJoCo's is no RuntimeError either."""


class Blind(Counter):
    def render(self) -> Any:
        raise FatalError("no display")


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (Blind(), r"no display.*MUJOCO_GL"),
        (Counter(shape=(8, 12)), r"renders \(8, 12\); wanted a picture"),
        (Counter(shape=(8, 12, 4)), r"renders \(8, 12, 4\)"),
    ],
)
def test_an_environment_that_shows_nothing_is_named(env: Counter, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        acted(Film(env), 1)


def test_an_environment_made_without_pictures_is_refused() -> None:
    with pytest.raises(InputError, match=r'render_mode is None.*render_mode="rgb_array"'):
        Film(Counter(render_mode=None))


def test_a_filmed_run_is_the_run_itself() -> None:
    def rollout(env: gymnasium.Env[Any, Any]) -> list[Any]:
        seen = [env.reset(seed=3)[0]]
        env.action_space.seed(4)
        for _ in range(20):
            seen += env.step(env.action_space.sample())[:2]
        return seen

    plain, filmed = gymnasium.make("Pendulum-v1"), Film(gymnasium.make("Pendulum-v1", render_mode="rgb_array"))
    assert all(np.array_equal(a, b) for a, b in zip(rollout(plain), rollout(filmed), strict=True))
    clip = filmed.clip(range(19, -1, -1))
    assert look(clip)[2].size == (250, 250)
    assert len(clip) < 60_000
    assert filmed.bytes / filmed.reach < 10_000
