"""Device tensors on host memory, and back, by way of DLPack with the device field rewritten."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack, to_dlpack

NAME = "pretend"
HOST, EXTENSION = 1, 12  # dlpack.h's kDLCPU, and kDLExtDev, which torch reads as PrivateUse1


class DLTensorHead(ctypes.Structure):
    """The first fields of dlpack.h's DLTensor."""

    _fields_ = (("data", ctypes.c_void_p), ("kind", ctypes.c_int32), ("index", ctypes.c_int32))


capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
capsule_pointer.restype = ctypes.c_void_p
capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def retag(tensor: Tensor, kind: int) -> Tensor:
    """The same memory as a tensor of another device; either keeps it alive."""
    capsule = to_dlpack(tensor)
    head = DLTensorHead.from_address(capsule_pointer(capsule, b"dltensor"))
    head.kind, head.index = kind, 0
    return from_dlpack(capsule)


def device_tensor(cpu: Tensor) -> Tensor:
    if cpu._is_zerotensor():  # autograd's zeros that have no memory
        cpu = torch.zeros(cpu.shape, dtype=cpu.dtype)
    return retag(cpu.resolve_conj().resolve_neg(), EXTENSION)


def host_tensor(device: Tensor) -> Tensor:
    cpu = retag(device, HOST)
    cpu = torch._conj(cpu) if device.is_conj() else cpu
    return torch._neg_view(cpu) if device.is_neg() else cpu


def on_device(x: object) -> bool:
    return isinstance(x, Tensor) and x.device.type == NAME


def tensors(x: Any) -> list[Tensor]:
    """The tensors of an op's argument or result, of lists too."""
    if isinstance(x, (list, tuple)):
        return [t for y in x for t in tensors(y)]
    return [x] if isinstance(x, Tensor) else []


def each(function: Callable[[Any], Any], x: Any) -> Any:
    return type(x)([each(function, y) for y in x]) if isinstance(x, (list, tuple)) else function(x)
