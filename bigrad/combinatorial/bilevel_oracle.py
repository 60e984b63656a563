"""What a solver of a two-level combinatorial problem is to a layer."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..certificate import Certificate
from ..errors import InputError, UnsupportedError
from .oracle import Oracle


class BilevelOracle(ABC):
    r"""Both levels' best points, of :math:`\langle z + x \odot w, y \rangle + \langle a, x \rangle + \langle b, y
    \rangle` unless a subclass says otherwise.

    ``a`` and ``b`` are the tilts that estimators need: linear terms in the leader's and the follower's variable. The
    last ``event_dims`` dimensions belong to one problem. A subclass writes :meth:`solve`, and :meth:`search` where its
    answer may be one that is not proven to be best.

    Attributes:
        event_dims: dimensions of one problem's cost.
        leader_maximises, follower_maximises: the sense of each level.
        leader, follower: what solves one level alone, the other one's point fixed, for the linear costs of
            :meth:`costs`; ``None`` where there is no such solver.
        bilinear: whether the objective is the one above, the same for both levels.
    """

    event_dims: int = 1
    leader_maximises: bool = True
    follower_maximises: bool = False
    leader: Oracle | None = None
    follower: Oracle | None = None
    bilinear: bool = True

    @abstractmethod
    def solve(self, z: Tensor, w: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The leader's and the follower's points ``(B, *event)`` each, for ``z`` and ``w`` ``(B, *event)``."""

    def search(
        self, z: Tensor, w: Tensor, a: Tensor | None = None, b: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Certificate | None]:
        """The points as of :meth:`solve`, and what is proven about them; ``None`` where they always are the best."""
        return *self.solve(z, w, a, b), None

    def check(self, z: Tensor, w: Tensor) -> None:  # noqa: B027  # most oracles take every cost
        """Raise :class:`InputError` where finite ``z`` and ``w`` ``(*batch, *event)`` are no costs of this oracle's."""

    def project(self, z: Tensor, w: Tensor) -> Tensor:
        """The nearest ``z`` that is in the domain together with ``w``."""
        return z

    def costs(self, z: Tensor, w: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The linear costs that the leader and the follower see, the other one's point given."""
        return w * y, z + x * w

    def respond(self, z: Tensor, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The leader's point ``x`` with its derivative in the costs, the follower's fixed, where there is one.

        Raises:
            UnsupportedError: the leader's points are finitely many, or the oracle does not know.
        """
        raise UnsupportedError(
            f"{self} has no solver of the leader alone: set its attribute leader, or use another estimator"
        )

    def value(self, z: Tensor, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        r"""The value of both points in each problem, of the batch shape.

        With the oracle's own points, as constants, its derivative is exactly that of the game's value: :math:`y` in
        ``z`` and :math:`x \odot y` in ``w``. So is the derivative of a leader's regret, which is zero where a known
        ``x`` is its best choice: the value of the game minus that of ``x`` and the follower's best answer to it.
        """
        return ((z + x * w) * y).unsqueeze(-1).flatten(-1 - self.event_dims).sum(-1)

    def __call__(self, z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """The leader's and the follower's points ``(*batch, *event)``, without derivative.

        Raises:
            InputError: the costs have the wrong shape or dtype, are not finite, or lie outside the domain.
            SolveError: what was found is not proven to be best; the message names the gap.
        """
        self.validate(z, w)
        z, w = torch.broadcast_tensors(z.detach(), w.detach())
        shape = z.shape
        batch, event = shape[: len(shape) - self.event_dims], shape[len(shape) - self.event_dims :]
        if batch.numel() == 0:
            return torch.zeros_like(z), torch.zeros_like(z)
        x, y, certificate = self.search(z.reshape(-1, *event), w.reshape(-1, *event))
        if certificate is not None:
            certificate.enforce("raise")
        return x.reshape(shape), y.reshape(shape)

    def validate(self, z: Tensor, w: Tensor) -> None:
        """Raise :class:`InputError` where the costs are none that :meth:`__call__` takes."""
        self.check_shapes(z, w)
        for letter, cost in (("z", z), ("w", w)):
            if count := int((~cost.isfinite()).sum()):
                name = type(self).__name__
                raise InputError(f"{name}: {count} entries of {letter} are infinite or NaN; wanted finite ones")
        self.check(z.detach(), w.detach())

    def check_shapes(self, z: Tensor, w: Tensor) -> None:
        """Raise :class:`InputError` where the costs are no tensors that fit together."""
        name = type(self).__name__
        for letter, cost in (("z", z), ("w", w)):
            if not isinstance(cost, Tensor) or cost.dtype not in (torch.float32, torch.float64):
                found = cost.dtype if isinstance(cost, Tensor) else type(cost).__name__
                raise InputError(f"{name}: {letter} is {found}; wanted a tensor of float32 or float64")
        if (z.dtype, z.device) != (w.dtype, w.device):
            raise InputError(
                f"{name}: z is {z.dtype} on {z.device} and w is {w.dtype} on {w.device}; bring them to one dtype and "
                "device"
            )
        events = [tuple(cost.shape[max(cost.ndim - self.event_dims, 0) :]) for cost in (z, w)]
        if min(z.ndim, w.ndim) < self.event_dims or events[0] != events[1] or not _broadcast(z, w):
            raise InputError(
                f"{name}: z has shape {tuple(z.shape)} and w {tuple(w.shape)}; wanted (*batch, *event) both, with the "
                f"same {self.event_dims} dimensions of one problem, and batches that broadcast"
            )


def _broadcast(z: Tensor, w: Tensor) -> bool:
    """Whether two shapes broadcast."""
    try:
        torch.broadcast_shapes(z.shape, w.shape)
    except RuntimeError:
        return False
    return True
