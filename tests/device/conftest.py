"""The pretend device, for tests with a process of their own: ``pytest tests/device -p no:cacheprovider``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from .pretend import pretend_device, register

register()  # before the process's first backward


@pytest.fixture
def device() -> Iterator[torch.device]:
    """``torch.device("pretend:0")``, with ``torch.Generator(device=...)`` able to name it."""
    with pretend_device() as it:
        yield it
