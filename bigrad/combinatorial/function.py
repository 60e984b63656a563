"""A user's own solver."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .oracle import Oracle
from .pool import Pool

Function = Callable[[Any], Any]


def oracle(
    function: Function,
    *,
    event_dims: int,
    maximise: bool = False,
    nonnegative: bool = False,
    batched: bool = False,
    numpy: bool = True,
    workers: int = 0,
) -> Custom:
    """The oracle of a function of yours that solves one problem, or a batch of them.

    What the function returns has to have the shape of what it was given, and finite entries. An error that it raises
    is passed on with a note that names the problem.

    Args:
        function: ``function(cost) -> y``. It may change its argument.
        event_dims: dimensions of one problem's cost.
        maximise: whether it maximises ``<cost, y>``.
        nonnegative: whether a cost below zero is outside its domain.
        batched: whether it takes ``(B, *event)``, or one problem ``(*event)`` at a time.
        numpy: whether it speaks NumPy, or torch on the device of the cost.
        workers: how many processes solve; 0 solves in this one. Worth it where a call takes a millisecond or more. The
            function must then be defined in a module, and a script start its work under ``if __name__ == "__main__"``.
            The processes start at the first call; :meth:`Custom.close` ends them.

    Raises:
        InputError: the settings contradict each other, or the function cannot be sent to a process.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from bigrad.combinatorial import oracle
        >>> cheapest = oracle(lambda cost: np.eye(len(cost))[cost.argmin()], event_dims=1)
        >>> cheapest(torch.tensor([[3.0, 1.0, 2.0], [0.0, 4.0, 5.0]]))
        tensor([[0., 1., 0.],
                [1., 0., 0.]])
    """
    return Custom(function, event_dims, maximise, nonnegative, batched, numpy, workers)


class Custom(Oracle):
    """A function of the user's as an oracle; :func:`oracle` makes it."""

    def __init__(
        self,
        function: Function,
        event_dims: int,
        maximise: bool,
        nonnegative: bool,
        batched: bool,
        numpy: bool,
        workers: int,
    ) -> None:
        if event_dims < 0 or workers < 0:
            raise InputError(f"oracle: event_dims is {event_dims} and workers {workers}; wanted none below 0")
        self.function, self.batched, self.numpy = function, batched, numpy
        self.event_dims, self.maximise, self.nonnegative = event_dims, maximise, nonnegative
        self.pool = Pool(workers) if workers else None
        self._name = getattr(function, "__name__", type(function).__name__)
        if workers:
            try:
                pickle.dumps(function)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise InputError(
                    f"oracle: {self._name} cannot be sent to a worker process ({error}); define it at the top of a "
                    "module, or use workers=0"
                ) from error

    def __repr__(self) -> str:
        workers = 0 if self.pool is None else self.pool.workers
        return (
            f"oracle({self._name}, event_dims={self.event_dims}, maximise={self.maximise}, "
            f"nonnegative={self.nonnegative}, batched={self.batched}, numpy={self.numpy}, workers={workers})"
        )

    def close(self) -> None:
        """End the worker processes; the next call starts new ones."""
        if self.pool is not None:
            self.pool.close()

    def solve(self, cost: Tensor) -> Tensor:
        """The function's points ``(B, *event)`` for costs ``(B, *event)``.

        Raises:
            InputError: the function returned another shape, or an entry that is infinite or NaN.
            SolveError: a worker process has died.
        """
        shares = 1 if self.pool is None else self.pool.workers
        parts = cost.tensor_split(min(shares, len(cost))) if self.batched else cost.unbind()
        answers = iter(self._answers(parts))
        points: list[Tensor] = []
        for part in parts:
            try:
                points.append(self._read(next(answers), part))
            except Exception as error:
                done = sum(map(len, points)) if self.batched else len(points)
                error.add_note(f"raised in {self!r} after {done} of {len(cost)} problems")
                raise
        return torch.cat(points) if self.batched else torch.stack(points)

    def _answers(self, parts: Iterable[Tensor]) -> Iterable[Any]:
        """What the function returns, in its own language."""
        if self.pool is not None:
            arrays = [part.cpu().numpy() for part in parts]
            return self.pool.map(self.function if self.numpy else InTorch(self.function), arrays)
        if self.numpy:
            return map(self.function, (part.clone().cpu().numpy() for part in parts))
        return map(self.function, (part.clone() for part in parts))

    def _read(self, answer: Any, cost: Tensor) -> Tensor:
        """An answer as a tensor like the cost, in memory of its own."""
        if not isinstance(answer, Tensor) and (self.numpy or self.pool is not None):
            import numpy as np

            answer = torch.from_numpy(np.array(answer, order="C"))
        if not isinstance(answer, Tensor) or answer.shape != cost.shape or answer.is_complex():
            found = f"{answer.dtype} of shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer)
            raise InputError(
                f"oracle: {self._name} returned {found}; wanted real numbers of the cost's shape {tuple(cost.shape)}"
            )
        point = answer.detach().to(cost, copy=True)
        if not bool(point.isfinite().all()):
            raise InputError(
                f"oracle: {self._name} returned {int((~point.isfinite()).sum())} entries that are infinite or NaN; "
                "wanted finite ones: let it raise where it finds no solution"
            )
        return point


@dataclass(frozen=True)
class InTorch:
    """A function on torch tensors that is given NumPy arrays, in a process of one thread."""

    function: Function

    def __call__(self, cost: Any) -> Any:
        """The function's answer as an array."""
        torch.set_num_threads(1)
        return torch.as_tensor(self.function(torch.from_numpy(cost))).numpy()
