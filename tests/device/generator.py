"""Random draws: ``torch.Generator(device="pretend")``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from torch.overrides import TorchFunctionMode

from .memory import NAME, tensors

CpuGenerator = torch.Generator


class GeneratorType(type(CpuGenerator)):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, CpuGenerator)


class PretendGenerator(CpuGenerator, metaclass=GeneratorType):
    """Stands in for ``torch.Generator``: on the pretend device it draws what a CPU generator of its seed draws."""

    place: torch.device
    living: ClassVar[WeakValueDictionary[int, PretendGenerator]] = WeakValueDictionary()

    def __new__(cls, device: Any = "cpu") -> PretendGenerator:
        place = torch.device(device)
        generator = super().__new__(cls, "cpu" if place.type == NAME else place)
        generator.place = torch.device(NAME, 0) if place.type == NAME else place
        cls.living[generator._cdata] = generator
        return generator

    @property
    def device(self) -> torch.device:
        return self.place


def generator_device(generator: torch.Generator) -> torch.device:
    """Its device, by way of the C++ object: the dispatcher hands a kernel another Python object for it."""
    return PretendGenerator.living.get(generator._cdata, generator).device


class GeneratorCheck(TorchFunctionMode):
    """Raise where a device generator feeds a draw on the CPU. The reverse is the kernel's to catch."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = (*args, *(kwargs or {}).values())
        result = func(*args, **(kwargs or {}))
        if any(type(x) is PretendGenerator and x.device.type == NAME for x in given) and any(
            t.device.type == "cpu" for t in tensors(result)
        ):
            raise RuntimeError(f"Expected a 'cpu' device type for generator but found '{NAME}'")
        return result


@contextlib.contextmanager
def pretend_device() -> Iterator[torch.device]:
    """The device; within the block, its generators can be made and are checked."""
    torch.Generator = PretendGenerator
    try:
        with GeneratorCheck():
            yield torch.device(NAME, 0)
    finally:
        torch.Generator = CpuGenerator
