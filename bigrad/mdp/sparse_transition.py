"""Transitions of which most are zero: the pattern of the others, and the soft Bellman equation over it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar

import torch
from torch import Tensor

from .. import calculus
from ..errors import InputError, UnsupportedError
from .soft_bellman_equation import SoftBellmanEquation


@dataclass(frozen=True, eq=False)
class SparseTransition:
    """Transition probabilities in compressed rows, one row for each pair (state, action), flat in that order.

    The parts of a torch CSR matrix. Given in this form its values can be differentiated any number of times and under
    ``torch.func``; those of a torch CSR tensor only once, by ``.backward()``.

    Args:
        crow: where each row begins among the values ``(S * A + 1,)``.
        col: the next state of each value ``(entries,)``; no state twice in one row.
        values: the probabilities ``(*batch, entries)``.

    Example:
        >>> import torch
        >>> from bigrad.mdp import SparseTransition, soft_bellman
        >>> loop = SparseTransition(torch.tensor([0, 1, 1]), torch.tensor([0]), torch.ones(1))
        >>> soft_bellman(torch.tensor([[1.0, 0.0]]), loop, 0.5, 0.01).value  # stay for ever, or end
        tensor([2.])
    """

    crow: Tensor
    col: Tensor
    values: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> SparseTransition:
        """The parts of a torch CSR matrix ``(S * A, S)``.

        Raises:
            UnsupportedError: under a ``torch.func`` transform, which torch's sparse tensors know nothing of; in the
                backward pass, where a second derivative in the values is asked for.
        """
        if calculus.transforming():
            raise UnsupportedError(
                "a torch CSR tensor does not work under torch.func: give the transition to SoftBellman(...) or as "
                "mdp.SparseTransition(crow, col, values)"
            )
        values = matrix.values()
        if values.requires_grad:
            values.register_hook(_only_once)
        return cls(matrix.crow_indices(), matrix.col_indices(), values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the batch, and the number of rows."""
        return (*self.values.shape[:-1], len(self.crow) - 1)


def _only_once(cotangent: Tensor) -> None:
    if cotangent.requires_grad:
        raise UnsupportedError(
            "torch differentiates the values of a CSR tensor only once: give the transition as "
            "mdp.SparseTransition(crow, col, values)"
        )


@cache
def _hear_of_beta() -> None:
    """Let torch say, once a process and to nobody, that its CSR tensors are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)


@dataclass(frozen=True, eq=False)
class Rows:
    """The places of a matrix in compressed rows; 32-bit numbers where they suffice, which are read in half the time."""

    crow: Tensor
    col: Tensor
    width: int

    @classmethod
    def of(cls, crow: Tensor, col: Tensor, width: int) -> Rows:
        """The places in the smallest integers."""
        kind = torch.int32 if max(len(col), width) < 2**31 else torch.int64
        return cls(crow.to(kind).contiguous(), col.to(kind).contiguous(), width)

    def multiplier(self, values: Tensor) -> Callable[[Tensor], Tensor]:
        """``v -> M v`` for entries ``values`` ``(entries,)`` and ``v`` ``(width,)``."""
        size = (len(self.crow) - 1, self.width)
        # cuSPARSE refuses more entries than places, which repeated ones may be; other devices have no such matrices.
        cusparse = values.is_cuda and len(self.col) <= size[0] * size[1]
        if cusparse or (values.is_cpu and torch.backends.mkl.is_available()):
            _hear_of_beta()
            matrix = torch.sparse_csr_tensor(self.crow, self.col, values, size, check_invariants=False)
            return lambda v: matrix @ v
        row = torch.arange(size[0], device=values.device).repeat_interleave(self.crow.diff().long())
        col = self.col.long()
        return lambda v: v.new_zeros(size[0]).index_add(0, row, values * v.index_select(0, col))


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where the entries of a sparse transition are.

    Attributes:
        crow, col: as in :class:`SparseTransition`.
        actions: how many rows belong to one state.
    """

    crow: Tensor
    col: Tensor
    actions: int

    @property
    def states(self) -> int:
        """The number of states."""
        return (len(self.crow) - 1) // self.actions

    @cached_property
    def width(self) -> int | None:
        """The number of entries of every row, ``None`` where the rows differ."""
        rows = len(self.crow) - 1
        size = len(self.col) // rows
        regular = torch.arange(0, size * rows + 1, max(size, 1), device=self.crow.device)[: rows + 1]
        return size if size and len(regular) == len(self.crow) and torch.equal(self.crow.long(), regular) else None

    @cached_property
    def row(self) -> Tensor:
        """The row of each entry."""
        return torch.arange(len(self.crow) - 1, device=self.col.device).repeat_interleave(self.crow.diff().long())

    @cached_property
    def pairs(self) -> Rows:
        """The matrix ``(S * A, S)``."""
        return Rows.of(self.crow, self.col, self.states)

    @cached_property
    def onward(self) -> Rows:
        """The rows of the actions of one state in a row: a matrix ``(S, S)`` whose entries repeat."""
        return Rows.of(self.crow[:: self.actions], self.col, self.states)

    @cached_property
    def back(self) -> tuple[Rows, Tensor]:
        """The transpose of :attr:`onward`, and which entry goes where."""
        order = torch.argsort(self.onward.col, stable=True)
        count = torch.bincount(self.col, minlength=self.states)
        crow = torch.nn.functional.pad(count.cumsum(0), (1, 0))
        return Rows.of(crow, self.row[order] // self.actions, self.states), order

    def totals(self, entries: Tensor) -> Tensor:
        """The sum over each row ``(*batch, S * A)`` of ``entries`` ``(*batch, entries)``."""
        if self.width is not None:
            return entries.reshape(*entries.shape[:-1], -1, self.width).sum(-1)
        empty = entries.new_zeros((*entries.shape[:-1], len(self.crow) - 1))
        return empty.index_add(-1, self.row, entries)

    def spread(self, numbers: Tensor) -> Tensor:
        """Each row's number ``(*batch, S * A)`` at its entries ``(*batch, entries)``."""
        if self.width is not None:
            return numbers.unsqueeze(-1).expand(*numbers.shape, self.width).flatten(-2)
        return numbers.index_select(-1, self.row)

    def check(self) -> None:
        """Raise :class:`InputError` where a row has a state twice, or one that is not there."""
        if not len(self.col):
            return
        least, most = (int(end) for end in torch.aminmax(self.col))
        if least < 0 or most >= self.states:
            found = least if least < 0 else most
            raise InputError(f"the sparse transition leads to state {found}; wanted one of 0 to {self.states - 1}")
        key = self.row * self.states + self.col
        if bool((key.diff() > 0).all()):
            return
        key, _ = key.sort()
        again = key[1:][key.diff() == 0]
        if len(again):
            row, state = divmod(int(again[0]), self.states)
            raise InputError(
                f"the sparse transition row of state {row // self.actions}, action {row % self.actions} has state "
                f"{state} twice; wanted each once: add the two up"
            )


@dataclass(frozen=True, eq=False)
class SparseSoftBellmanEquation(SoftBellmanEquation):
    """The equation whose second input are the values ``(*batch, entries)`` of a sparse transition."""

    pattern: Pattern
    own_dims: ClassVar[int] = 1

    def following(self, y: Tensor, transition: Tensor) -> Tensor:
        """``P V`` ``(*batch, S, A)``."""
        pattern, size = self.pattern, (self.pattern.states, self.pattern.actions)
        plain = not (torch.is_grad_enabled() or calculus.transforming())
        if plain and transition.shape[:-1].numel() == 1 and y.numel():
            multiply = pattern.pairs.multiplier(transition.flatten())
            return torch.stack([multiply(v) for v in y.reshape(-1, y.shape[-1])]).reshape(*y.shape[:-1], *size)
        flat = pattern.totals(transition * y.index_select(-1, pattern.col))
        return flat.reshape(*flat.shape[:-1], *size)

    def row_sums(self, transition: Tensor) -> Tensor:
        """What the probabilities of each pair of state and action add up to."""
        return self.pattern.totals(transition)

    def moves(self, policy: Tensor, transition: Tensor) -> Tensor:
        """``P^pi`` ``(*batch, S, S)``."""
        pattern = self.pattern
        entries = pattern.spread(policy.flatten(-2)) * transition
        place = pattern.row // pattern.actions * pattern.states + pattern.col
        empty = entries.new_zeros((*entries.shape[:-1], pattern.states**2))
        full = empty.index_add(-1, place, entries)
        return full.reshape(*full.shape[:-1], pattern.states, pattern.states)

    def steps(self, policy: Tensor, transition: Tensor, transposed: bool) -> Callable[[Tensor], Tensor]:
        """``u -> P^pi u``, or with the transpose."""
        pattern = self.pattern
        entries = pattern.spread(policy.flatten(-2)) * transition
        rows, order = pattern.back if transposed else (pattern.onward, None)
        each = [
            rows.multiplier(part if order is None else part[order]) for part in entries.reshape(-1, entries.shape[-1])
        ]

        def apply(u: Tensor) -> Tensor:
            parts = u.reshape(-1, u.shape[-1])
            return torch.stack([multiply(v) for multiply, v in zip(each, parts, strict=True)]).reshape(u.shape)

        return apply
