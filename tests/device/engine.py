"""What torch asks of a backend besides kernels: a device module, a device guard, and storages that can be copied."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration

from .memory import NAME
from .syncs import note


class DeviceModule(backend_registration._DummyBackendModule):
    """``torch.pretend``."""

    def synchronize(self, device: Any = None) -> None:
        note("synchronize")

    def device(self, index: int) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()  # a draw without a generator takes the CPU's default one

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]  # torch.utils.checkpoint asks


raise_pending = ctypes.pythonapi.Py_IsInitialized  # any call by way of pythonapi raises what is pending
lost: list[BaseException] = []


class DeviceGuard(torch._C._acc.DeviceGuard):
    """A guard that survives an exception out of a hook.

    While such an exception unwinds, torch's engine asks the guard for its type; a Python method that returns with an
    exception pending then aborts the process. So take it away, and let :func:`raising_lost` raise it.
    """

    def type_(self) -> Any:
        try:
            raise_pending()
        except BaseException as error:  # noqa: BLE001 - whatever it was, it is raised again
            lost.append(error)
        return torch._C._autograd.DeviceType.PrivateUse1


def raising_lost(run_backward: Callable[..., Any]) -> Callable[..., Any]:
    """Autograd's entry, raising what the guard took instead of the complaint that nothing was raised."""

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return run_backward(*args, **kwargs)
        except SystemError:
            if not lost:
                raise
            error = lost[0]
            lost.clear()
            raise error from None

    return run


def mend_storages() -> None:
    """Let device storages be cloned (``copy.deepcopy``) and moved (``torch.load``), without an allocator."""
    clone_elsewhere, move_elsewhere = torch.UntypedStorage.clone, torch.UntypedStorage.to

    def content(storage: torch.UntypedStorage) -> Tensor:
        return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)

    def clone(self: torch.UntypedStorage) -> torch.UntypedStorage:
        return content(self).clone().untyped_storage() if self.device.type == NAME else clone_elsewhere(self)

    def to(self: torch.UntypedStorage, *, device: Any, non_blocking: bool = False) -> torch.UntypedStorage:
        if torch.device(device).type == NAME:
            return content(self).to(NAME).untyped_storage()
        return move_elsewhere(self, device=device, non_blocking=non_blocking)

    torch.UntypedStorage.clone, torch.UntypedStorage.to = clone, to
