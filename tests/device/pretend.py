"""A pretend accelerator for machines without one: the device ``pretend:0``, to catch code that mixes devices.

Its tensors are real PrivateUse1 tensors, with torch's own dispatch, storages, views and autograd, so that double
backward, ``torch.func`` and ``nn.Module.to`` are what runs on a GPU; only their memory is the host's (``memory.py``).
One Python kernel, the fallback of every op, checks the devices of its arguments, runs the CPU's op on the same memory,
and returns device tensors. Composite ops have been taken apart by then, as for CUDA, and many raise torch's own error
on the way.

Checked as CUDA does (``rules.py``, ``generator.py``):

- tensors of both devices in one op raise ``RuntimeError: Expected all tensors to be on the same device``. A 0-dim CPU
  tensor that is only read passes in the ops that torch's table exempts, elementwise ones for the most part;
- CPU indices may index a device tensor, device indices may not index a CPU tensor;
- a generator has to be of the device that it draws on;
- ``.numpy()`` of a device tensor and a gradient on the wrong device raise, by torch's own checks.

:func:`register` comes before the process's first backward, which starts autograd's thread of every device known by
then. Nothing undoes it: what uses the device has a process of its own.

Not as on a GPU: ``Module.to`` makes new parameters, so that an optimizer made before it keeps the old ones; draws are
the CPU's; there is one device, and no stream, pinned memory, sparse tensor, convolution or ``torch.compile``;
``UntypedStorage(n, device="pretend")`` crashes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration

from .engine import DeviceGuard, DeviceModule, mend_storages, raising_lost
from .generator import pretend_device
from .memory import NAME, device_tensor, each, host_tensor, on_device, tensors
from .rules import Bound, arguments, check_devices, syncs
from .syncs import SyncCount, count_syncs, note

__all__ = ["SyncCount", "count_syncs", "pretend_device", "register"]

libraries: list[torch.library.Library] = []  # a registration lives as long as its library


def register() -> None:
    """Make the device known to torch for the rest of the process; further calls do nothing."""
    if libraries:
        return
    backend_registration._setup_privateuseone_for_python_backend(
        NAME, backend_module=DeviceModule(), device_guard=DeviceGuard()
    )
    for module in (torch.autograd, torch.autograd.graph):
        module._engine_run_backward = raising_lost(module._engine_run_backward)
    mend_storages()
    fallback, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    fallback.fallback(kernel, "PrivateUse1")
    for bit in ("Conjugate", "Negative"):  # resolving the bit is a copy, which must not ask for the bit to be resolved
        aten.impl("_copy_from", torch.library.fallthrough_kernel, bit)
    aten.impl("_linalg_solve_ex", solve, "PrivateUse1")  # torch's composite has an internal assert for an error message
    libraries.extend([fallback, aten])


def solve(*args: Any, **kwargs: Any) -> Any:
    return kernel(torch.ops.aten._linalg_solve_ex.default, *args, **kwargs)


def kernel(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Run any op that has come down to the device's kernels."""
    name = op._name.removeprefix("aten::")
    packet = name.split(".")[0]
    if op.is_view or packet == "set_":
        # Their CPU kernels share the storage and set up sizes, whatever the device.
        return op._op_dk(torch._C.DispatchKey.CPU, *args, **kwargs)
    if packet == "_copy_from":
        return copy(*args)
    if packet == "resize_":
        return resize(*args, **kwargs)

    bound = list(zip(arguments(op), args, strict=False))
    bound += [(it, kwargs[it.name]) for it in arguments(op)[len(args) :] if it.name in kwargs]
    check_devices(name, bound)
    if syncs(name, bound):
        note(name)
    if not torch._C._should_allow_numbers_as_tensors(packet):
        bound = [(argument, as_tensor(value) if argument.tensor else value) for argument, value in bound]
    return on_host(op, bound, len(args))


def copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    if not on_device(target):
        note("copy to the host")
    elif not on_device(source):
        note("copy to the device", upload=True)
    source, destination = (host_tensor(t) if on_device(t) else t for t in (source, target))
    destination.copy_(source)
    return target


def resize(target: Tensor, size: list[int], **kwargs: Any) -> Tensor:
    target.data = device_tensor(host_tensor(target).clone().resize_(size, **kwargs))
    return target


def as_tensor(value: Any) -> Any:
    """The 0-dim tensor that the dispatcher has turned into a number for a Python kernel."""
    if isinstance(value, (int, float, complex)):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    return value


def on_host(op: Any, bound: Bound, positional: int) -> Any:
    """Run the CPU's op in the device tensors' memory; its first ``positional`` arguments are not given by name.

    Only an ``out`` gets memory of its own, empty at first: the CPU may resize it on the way, which torch cannot do to
    memory that came by DLPack, and warns of if it is not empty.
    """
    read = {id(t) for argument, value in bound if not argument.written for t in tensors(value)}
    outs = {id(t) for argument, value in bound if argument.by_name for t in tensors(value)} - read
    twins: dict[int, tuple[Tensor, Tensor]] = {}
    back: dict[int, Tensor] = {}

    def to_host(x: Any) -> Any:
        if type(x) is torch.device and x.type == NAME:
            return torch.device("cpu")
        if not on_device(x):
            return x
        if id(x) not in twins:
            twin = torch.empty(0, dtype=x.dtype) if id(x) in outs else host_tensor(x)
            twins[id(x)], back[id(twin)] = (x, twin), x
        return twins[id(x)][1]

    values = [each(to_host, value) for _, value in bound]
    named = {argument.name: value for (argument, _), value in zip(bound[positional:], values[positional:], strict=True)}
    result = op(*values[:positional], **named)

    for out, twin in twins.values():
        if id(out) in outs and out.shape == twin.shape:
            host_tensor(out).copy_(twin)
        elif id(out) in outs:
            out.data = device_tensor(twin)
    if any(type(value) is torch.device and value.type != NAME for _, value in bound):
        return result  # it was asked for elsewhere
    return each(lambda x: back[id(x)] if id(x) in back else device_tensor(x) if isinstance(x, Tensor) else x, result)
