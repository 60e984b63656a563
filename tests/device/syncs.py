"""Counting the points where a GPU would make the host wait for it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

HERE, TORCH = Path(__file__).parent, str(Path(torch.__file__).parent)


class SyncCount:
    """What :func:`count_syncs` saw; it equals an int, the number of ``events``.

    ``events`` are a value read (``.item()``, ``float(t)``, ``if t:``), a device-to-host copy (``.cpu()``,
    ``.tolist()``, ``print``), and an op that has to look at values on the way (``nonzero``, ``x[bool_mask]``,
    ``torch.equal``, the error check of ``torch.linalg``). ``uploads`` are the host-to-device copies: CUDA waits for
    these too, but they are kept apart. Each is a text, ``"<op> at <file>:<line>"``.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.uploads: list[str] = []

    @property
    def count(self) -> int:
        return len(self.events)

    def __int__(self) -> int:
        return self.count

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, int) and self.count == other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"SyncCount({self.count}, events={self.events}, uploads={self.uploads})"


counters: list[SyncCount] = []


@contextlib.contextmanager
def count_syncs() -> Iterator[SyncCount]:
    """Count the host syncs of the block, those of autograd's threads included; blocks nest."""
    counters.append(counter := SyncCount())
    try:
        yield counter
    finally:
        counters[:] = [other for other in counters if other is not counter]


def note(what: str, *, upload: bool = False) -> None:
    """Tell every open counter of one sync."""
    if counters:
        text = f"{what} at {_caller()}"
        for counter in counters:
            (counter.uploads if upload else counter.events).append(text)


def _caller() -> str:
    """The innermost line that is neither torch's nor this harness's; autograd's own threads have none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        harness = file.parent == HERE and not file.name.startswith("test_")
        if not harness and not str(file).startswith((TORCH, "<")):
            return f"{file.name}:{frame.f_lineno}"
        frame = frame.f_back
    return "a backward thread"
