"""The trainer's side of a person's labels: it leaves questions, and goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..preferences import Pairs, PreferenceStore


class LabelQueue:
    """Questions for people, and their answers as they come; nothing here ever waits.

    The store is the truth: :meth:`~bigrad.rlhf.PreferenceStore.load` gives what is to be learnt from. The queue tells
    what is new.

    Args:
        store: the run's.
        random: which segment of a pair is shown on the left, so that a person's liking for one side favours none.

    Example:
        >>> import numpy as np, torch
        >>> from bigrad.rlhf import Pairs, PreferenceStore
        >>> queue = LabelQueue(PreferenceStore(), np.random.default_rng(0))
        >>> pairs = Pairs(torch.zeros(3, 2, 5, 3), torch.zeros(3, 2, 5, 1), np.zeros((3, 2)))
        >>> queue.ask(pairs, [(b"left", b"right")] * 3, step=100)
        >>> queue.waiting, len(queue.collect()[1])
        (3, 0)
    """

    def __init__(self, store: PreferenceStore, random: np.random.Generator) -> None:
        self.store, self.random = store, random
        self.turn = 0

    @property
    def waiting(self) -> int:
        """How many questions nobody has answered yet."""
        return self.store.waiting

    def ask(self, pairs: Pairs, clips: Sequence[tuple[bytes, bytes]], step: int) -> None:
        """Leave pairs, with the left and the right clip of each, for whoever answers; they are on disk on return."""
        self.store.ask(pairs, clips, step, self.random.random(len(clips)) < 0.5)

    def collect(self) -> tuple[Pairs, Tensor]:
        """The pairs that were decided since the last call, and their labels ``(pairs,)``; perhaps none.

        The first call gives all there are. A pair whose answer was changed comes again.
        """
        until = self.store.turn
        found = self.store.load(self.turn, until)
        self.turn = until
        return found
