"""Ctrl-C, where a run can be stopped without a trace."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_interrupt(react: Callable[..., Any]) -> Iterator[None]:
    """Inside ``with``, the first Ctrl-C calls ``react`` and the second one stops at once.

    Nothing is changed outside the main thread, and where somebody else listens already.
    """
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def first(*heard: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        react(*heard)

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
