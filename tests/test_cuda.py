"""What the pretend device is for, on a GPU where there is one; and runs. Autograd takes the two devices for one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import pytest
import torch

from .device import test_decision_processes, test_layers, test_methods, test_oracles, test_waits
from .device.syncs import SyncCount
from .rlhf import environments, tiny

pytestmark = pytest.mark.cuda

for room in (test_decision_processes, test_layers, test_methods, test_oracles, test_waits):
    globals().update({name: it for name, it in vars(room).items() if name.startswith("test_")})


@contextlib.contextmanager
def count_syncs() -> Iterator[SyncCount]:
    """What CUDA itself reports, uploads among the events: it does not tell them apart."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield (counter := SyncCount())
        finally:
            torch.cuda.set_sync_debug_mode("default")
            texts = [f"{it.message} at {it.filename}:{it.lineno}" for it in seen]
            counter.events += [text for text in texts if "called a synchronizing" in text]  # not that this is in beta


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(test_waits, "count_syncs", count_syncs)
    return torch.device("cuda:0")


@pytest.mark.parametrize("method", ["sobirl", "pbrl"])
def test_a_run_on_a_gpu_ends_and_its_networks_are_there(method: str) -> None:
    environments.register()
    trainer = tiny.trainer(method=method, device="cuda")
    assert torch.isfinite(torch.tensor(trainer.learn().true_return))
    networks = (trainer.agent.policy, trainer.reward_model)
    assert {parameter.device.type for network in networks for parameter in network.parameters()} == {"cuda"}
