"""Nested tensors as one flat matrix: a solver only ever sees ``(*batch, n)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optree
import torch
from torch import Tensor

from .errors import InputError


@dataclass(frozen=True)
class Structure:
    """The shape of one problem's unknowns, batch dimensions left out.

    Attributes:
        spec: how the tensors are nested.
        shapes: each tensor's shape without batch dimensions.
    """

    spec: optree.PyTreeSpec
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, tree: Any, batch_dims: int = 0) -> Structure:
        """The structure of ``tree``, whose tensors carry ``batch_dims`` leading batch dimensions."""
        leaves, spec = optree.tree_flatten(tree)
        return cls(spec, tuple(leaf.shape[batch_dims:] for leaf in leaves))

    def ravel(self, tree: Any) -> Tensor:
        """Nested tensors ``(*batch, *shape)`` to one tensor ``(*batch, n)``."""
        leaves, spec = optree.tree_flatten(tree)
        if spec != self.spec:
            raise InputError(f"the structure is {spec}, wanted {self.spec}")
        parts = []
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            batch = leaf.shape[: leaf.ndim - len(shape)]
            if leaf.shape != (*batch, *shape):
                raise InputError(f"a tensor has shape {tuple(leaf.shape)}, wanted {tuple(shape)} after the batch")
            parts.append(leaf.reshape((*batch, math.prod(shape))))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def unravel(self, flat: Tensor) -> Any:
        """One tensor ``(*batch, n)`` back to nested tensors ``(*batch, *shape)``."""
        batch = flat.shape[:-1]
        parts = flat.split([math.prod(shape) for shape in self.shapes], -1) if len(self.shapes) > 1 else (flat,)
        leaves = [part.reshape((*batch, *shape)) for part, shape in zip(parts, self.shapes, strict=True)]
        return optree.tree_unflatten(self.spec, leaves)


@dataclass(frozen=True)
class Arguments:
    """Call arguments split into the tensors that take part in differentiation and everything else."""

    spec: optree.PyTreeSpec
    fixed: tuple[Any, ...]
    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, arguments: Any) -> Arguments:
        """Split nested ``arguments``."""
        leaves, spec = optree.tree_flatten(arguments)
        fixed = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        return cls(spec, fixed, tuple(leaf for leaf in leaves if isinstance(leaf, Tensor)))

    def rebuild(self, tensors: tuple[Tensor, ...]) -> Any:
        """The arguments again, with other tensors in the tensors' places."""
        supply = iter(tensors)
        return optree.tree_unflatten(self.spec, [next(supply) if leaf is None else leaf for leaf in self.fixed])


def tensors_of(tree: Any, name: str) -> list[Tensor]:
    """The tensors of a nested structure.

    Raises:
        InputError: a leaf is no tensor, there is none at all, or they differ in dtype or device or are not real.
    """
    leaves = optree.tree_leaves(tree)
    strangers = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)]
    if strangers or not leaves:
        raise InputError(f"{name} must be nested tensors; found {strangers[0] if strangers else 'none'}")
    for leaf in leaves:
        if not leaf.is_floating_point():
            raise InputError(f"{name} has dtype {leaf.dtype}; wanted real floating point: convert it with .double()")
    if len({(leaf.dtype, leaf.device) for leaf in leaves}) > 1:
        kinds = sorted({f"{leaf.dtype} on {leaf.device}" for leaf in leaves})
        raise InputError(f"{name} mixes {' and '.join(kinds)}; wanted one dtype and one device: convert with .to()")
    return leaves


def tree_map(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Apply ``function`` to every leaf."""
    return optree.tree_map(function, tree)
