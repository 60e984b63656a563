"""People in a teacher's place."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from ...errors import InputError
from ..preferences import Pairs, PreferenceStore
from ..replay import RelabelledReplayBuffer
from .film import Film
from .label_queue import LabelQueue


class People:
    """Whoever sits at ``bigrad label``: pairs wait in the store, the run goes on, and answers come when they come.

    Args:
        megabytes: what the pictures of an environment's steps may take in memory; pairs are of steps that still have
            one.
        seed: of which segment is shown on which side; ``None`` lets chance decide.

    Example:
        >>> import gymnasium
        >>> people = People()
        >>> env = people.watch(gymnasium.make("Pendulum-v1", render_mode="rgb_array"))
        >>> people.reach  # steps that clips can be made of
        0
    """

    def __init__(self, megabytes: float = 256, seed: int | None = None) -> None:
        if not megabytes > 0:
            raise InputError(f"megabytes is {megabytes}; wanted a positive number: clips are made of pictures")
        self.megabytes, self.seed = megabytes, seed
        self.films: list[Film] = []
        self.queue: LabelQueue | None = None

    @property
    def reach(self) -> int:
        """How many of the latest steps there are pictures of."""
        return min((film.reach for film in self.films), default=0)

    def watch(self, env: gymnasium.Env[Any, Any]) -> Film:
        """The same environment, filmed from now on; it must render ``"rgb_array"``. Several are filmed in turn."""
        self.films.append(Film(env, self.megabytes))
        return self.films[-1]

    def ask(
        self, store: PreferenceStore, buffer: RelabelledReplayBuffer, places: np.ndarray, pairs: Pairs, step: int
    ) -> None:
        """Leave the pairs at ``places`` ``(pairs, 2, H)`` of the buffer, negative after an episode's end, for people.

        Raises:
            InputError: the environment is not watched, or there is no picture of a step.
            RunError: the questions could not be stored.
        """
        if not self.films:
            raise InputError("no film was made of this run: people.watch(env) comes before the agent acts")
        ages = np.where(places < 0, -1, buffer.ages(places))
        films = [[self.films[side[0] % buffer.n_envs] for side in pair] for pair in places.tolist()]
        clips = [(a.clip(left), b.clip(right)) for (a, b), (left, right) in zip(films, ages, strict=True)]
        self.of(store).ask(pairs, clips, step)

    def of(self, store: PreferenceStore) -> LabelQueue:
        """The queue of a run's store; it tells answers that come from now on."""
        if self.queue is None or self.queue.store is not store:
            self.queue = LabelQueue(store, np.random.default_rng(self.seed))
            self.queue.turn = store.turn
        return self.queue

    def __repr__(self) -> str:
        return f"People(megabytes={self.megabytes}, seed={self.seed})"
