"""What a function uses without being handed it, and other tensors in the places of those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .calculus import in_transform, level_of, transform_level, transforming, vjp

Function = Callable[..., Tensor]


class _Watch(TorchFunctionMode):
    """Notes tensors that need a gradient and enter a computation from outside, at transform depth ``level`` or less."""

    def __init__(self, known: Iterable[Tensor], level: int) -> None:
        super().__init__()
        self.level = level
        self.known = {id(tensor): tensor for tensor in known}
        self.found: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors_in((args, kwargs)):
            if (
                id(tensor) not in self.known
                and (tensor.requires_grad or in_transform(tensor))
                and level_of(tensor) <= self.level  # what lives deeper was made inside
            ):
                self.found[id(tensor)] = tensor
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors_in(result):
            self.known[id(tensor)] = tensor
        return result


class _Substitute(TorchFunctionMode):
    """Puts other tensors in the places of given ones wherever they enter a computation."""

    def __init__(self, places: Sequence[Tensor], supply: Sequence[Tensor]) -> None:
        super().__init__()
        self.swap = {id(old): new for old, new in zip(places, supply, strict=True)}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*_swapped(args, self.swap), **_swapped(kwargs or {}, self.swap))


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors_in(item)
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))


def _swapped(value: Any, swap: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return swap.get(id(value), value)
    if isinstance(value, (tuple, list)):
        items = [_swapped(item, swap) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: _swapped(item, swap) for key, item in value.items()}
    return value


def captured_by(function: Function, *arguments: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The value of ``function`` and the tensors needing a gradient that it uses without being handed them.

    Accessors such as ``tensor.shape`` are seen as uses too, which is harmless. In eager mode, what a transform inside
    of the function hands back is found too; under a transform the arguments are lifted above it, so that it is not.
    """
    found: list[Tensor] = []
    level = transform_level()

    def watched(*handed: Tensor) -> Tensor:
        with torch.enable_grad(), _Watch(handed, level) as watch:
            value = function(*handed)
        found.extend(watch.found.values())
        return value

    if transforming():
        return vjp(watched, *arguments)[0], found
    return watched(*arguments), found


@contextmanager
def substituted(places: Sequence[Tensor], supply: Sequence[Tensor]) -> Iterator[None]:
    """Within the context, each tensor of ``places`` is replaced by its partner in ``supply`` in every operation."""
    if not places:
        yield
        return
    with _Substitute(places, supply):
        yield


def graph_leaves(value: Tensor) -> list[Tensor]:
    """The leaf tensors that the autograd graph of ``value`` reaches."""
    leaves, seen, stack = [], set(), [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        stack.extend(parent for parent, _ in node.next_functions)
    return leaves
