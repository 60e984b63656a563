"""Numbers so small that a processor computes with them a hundred times slower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 for 0 on this processor, as graphics cards do.

    The preference loss of a pair that is ranked with great certainty has such gradients, and its upper steps take twice
    the time.

    Example:
        >>> small = torch.tensor([1e-30])
        >>> with flushed_denormals():
        ...     inside = small * 1e-10
        >>> inside.item(), (small * 1e-10).item() > 0
        (0.0, True)
    """
    before = bool((torch.tensor([1e-30]) * 1e-10 == 0).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
