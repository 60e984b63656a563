"""Problems as residuals ``F(y, *inputs) = 0`` in flat coordinates: y is ``(*batch, n)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from . import calculus


class Problem(ABC):
    """An equation that defines ``y`` as a function of ``inputs``.

    Attributes:
        batch_dims: how many leading dimensions of ``y`` hold independent problems.
        symmetric: whether ``dF/dy`` is symmetric.
        companions: how many leading inputs always carry the batch dimensions of ``y``.
    """

    batch_dims: int
    symmetric: bool = False
    companions: int = 0

    @abstractmethod
    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``F(y, *inputs)`` of the shape of ``y``, differentiable in all of its arguments."""

    @abstractmethod
    def vmapped(self, in_dims: Sequence[int | None]) -> Problem:
        """The same problem with one more leading batch dimension on ``y`` and on inputs where ``in_dims`` is 0."""

    def jacobian(self, y: Tensor, *inputs: Tensor) -> Tensor | None:
        """``dF/dy`` as a matrix ``(*batch, n, n)`` where it is cheap to write down, else ``None``."""
        return None


@dataclass(frozen=True)
class Objective(Problem):
    """The minimiser of ``value(y, *inputs)`` ``(*batch)``, through its stationarity."""

    value: Callable[..., Tensor]
    batch_dims: int
    symmetric = True

    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """The gradient in ``y``."""
        return calculus.gradient(self.value, y, *inputs)

    def vmapped(self, in_dims: Sequence[int | None]) -> Objective:
        """The objective of ``B`` problems side by side has value ``(B, *batch)``."""
        return replace(self, value=calculus.batched(self.value, (0, *in_dims)), batch_dims=self.batch_dims + 1)


@dataclass(frozen=True)
class Adjoint(Problem):
    """The linear system ``(dF/dy)^T u = g`` (or ``(dF/dy) u = g``) of a problem: a root of inputs (g, y, *inputs).

    Because it is a root, whatever differentiates roots differentiates it: derivatives of every order follow.
    """

    base: Problem
    transposed: bool = True

    @property
    def batch_dims(self) -> int:  # type: ignore[override]  # read-only here
        """Those of the base problem."""
        return self.base.batch_dims

    @property
    def symmetric(self) -> bool:  # type: ignore[override]  # read-only here
        """As the base problem's Jacobian."""
        return self.base.symmetric

    @property
    def companions(self) -> int:  # type: ignore[override]  # read-only here
        """The right-hand side, the base's solution, and the base's own companions."""
        return 2 + self.base.companions

    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``(dF/dy)^T u - g`` at ``u = y``, with ``inputs = (g, y of the base, *its inputs)``."""
        target, at, *rest = inputs

        def function(free: Tensor) -> Tensor:
            return self.base.residual(free, *rest)

        if self.transposed or self.symmetric:
            _, pullback = calculus.vjp(function, at)
            return pullback(y)[0] - target
        return calculus.jvp(function, [at], [y]) - target

    def operator(self, at: Tensor, *inputs: Tensor) -> Callable[[Tensor], Tensor]:
        """``u -> (dF/dy)^T u`` on one retained graph."""
        if isinstance(self.base, Adjoint) and self.symmetric:
            return self.base.operator(*inputs[1:])  # the transpose of a symmetric system is that system
        if self.transposed or self.symmetric:
            return calculus.linearise(lambda free: self.base.residual(free, *inputs), at)[1]
        zero = at.new_zeros(at.shape)
        return calculus.linearise(lambda u: Adjoint(self.base).residual(u, zero, at, *inputs), zero)[1]

    def matrix(self, at: Tensor, *inputs: Tensor) -> Tensor | None:
        """The system's matrix where the base problem can write it down."""
        jacobian = self.base.jacobian(at, *inputs)
        return jacobian.mT if jacobian is not None and self.transposed else jacobian

    def jacobian(self, y: Tensor, *inputs: Tensor) -> Tensor | None:
        """The system's own matrix, as the system is linear."""
        return self.matrix(*inputs[1:])

    def vmapped(self, in_dims: Sequence[int | None]) -> Adjoint:
        """The base's point and solution gain the batch dimension together."""
        return replace(self, base=self.base.vmapped(tuple(in_dims)[2:]))
