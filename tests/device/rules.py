"""What CUDA allows and what it waits for, read off an op's arguments."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .generator import generator_device
from .memory import NAME, on_device, tensors


class Argument(NamedTuple):
    """What matters here of an argument of an op's schema."""

    name: str
    written: bool
    by_name: bool
    tensor: bool


Bound = list[tuple[Argument, Any]]  # what an op is called with

# Ops that read a value back, or whose CUDA kernels do; copies are counted where they happen.
SYNCING = {
    *("_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount", "repeat_interleave"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive"),
    *("_linalg_eigh", "_linalg_svd", "linalg_eig", "_linalg_eigvals"),
}
INDEXING = ("index.Tensor", "_index_put_impl", "_unsafe_index.")


@cache
def unchecked_ops() -> frozenset[str]:
    """The ops whose CUDA kernels take 0-dim CPU tensors, from the table that torch is generated from."""
    import torchgen

    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    ops = re.split(r"\n(?=- func: )", table.read_text("utf-8"))
    return frozenset(re.split(r"[ (]", op)[2] for op in ops if "device_check: NoCheck" in op)


@cache
def arguments(op: Any) -> tuple[Argument, ...]:
    def written(argument: Any) -> bool:
        return argument.alias_info is not None and argument.alias_info.is_write

    return tuple(
        Argument(it.name, written(it), it.kwarg_only, isinstance(it.type, torch._C.TensorType))
        for it in op._schema.arguments
    )


def check_devices(op: str, bound: Bound) -> None:
    """Raise as CUDA would where the arguments mix devices."""
    if op == "fill_.Tensor":
        return  # takes a value from anywhere
    found = set()
    for argument, value in bound:
        if op.startswith(INDEXING) and argument.name == "indices":
            if not on_device(bound[0][1]) and any(map(on_device, tensors(value))):
                raise RuntimeError(
                    "indices should be either on cpu or on the same device as the indexed tensor (cpu) "
                    f"(when checking the arguments of aten::{op})"
                )
            continue
        if isinstance(value, torch.Generator) and (place := generator_device(value).type) != NAME:
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{place}'")
        for t in tensors(value):
            scalar = t.dim() == 0 and t.device.type == "cpu" and not argument.written
            if not (scalar and op in unchecked_ops()):
                found.add(t.device)
    if len(found) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(map(str, found), reverse=True))}! (when checking the arguments of aten::{op})"
        )


def syncs(op: str, bound: Bound) -> bool:
    if op.split(".")[0] in SYNCING:
        return True
    if not op.startswith(("_index_put_impl", "masked_fill_.Tensor", "fill_.Tensor")):
        return False
    values = {argument.name: value for argument, value in bound}
    if op.startswith("_index_put_impl"):  # x[mask] = values has to find the mask's entries; one value is a masked_fill_
        indices = tensors(values["indices"])
        masks = [t for t in indices if t.dtype in {torch.bool, torch.uint8} and on_device(t)]
        return bool(masks) and not (len(indices) == 1 and values["values"].numel() == 1)
    return on_device(values["value"]) and (op == "masked_fill_.Tensor" or not on_device(values["self"]))
