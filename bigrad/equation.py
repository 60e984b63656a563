"""Problems as residuals ``F(y, *inputs) = 0`` in flat coordinates: y is ``(*batch, n)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from . import calculus

Pullback = Callable[[Tensor], list[Tensor | None]]


class Problem(ABC):
    """An equation that defines ``y`` as a function of ``inputs``.

    Attributes:
        batch_dims: how many leading dimensions of ``y`` hold independent problems.
        symmetric: whether ``dF/dy`` is symmetric.
        definite: whether ``dF/dy`` has to be positive definite at a solution.
        companions: how many leading inputs always carry the batch dimensions of ``y``.
        levels: the ``in_dims`` of every :meth:`vmapped` that made this problem, the outermost dimension's last.
    """

    batch_dims: int
    symmetric: bool = False
    definite: bool = False
    companions: int = 0
    levels: tuple[tuple[int | None, ...], ...] = ()

    @property
    def primitive(self) -> Callable[..., Tensor]:
        """What the problem is made of, a function of ``y`` ``(*batch, n)`` and the inputs: here the residual."""
        return self.residual

    @abstractmethod
    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``F(y, *inputs)`` of the shape of ``y``, differentiable in all of its arguments."""

    @abstractmethod
    def vmapped(self, in_dims: Sequence[int | None]) -> Problem:
        """The same problem with one more leading batch dimension on ``y`` and on inputs where ``in_dims`` is 0."""

    def jacobian(self, y: Tensor, *inputs: Tensor) -> Tensor | None:
        """``dF/dy`` as a matrix ``(*batch, n, n)`` where it is cheap to write down, else ``None``."""
        return None

    def matrix(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """``dF/dy`` as a matrix ``(*batch, n, n)``, by products where it is not cheap; outside any differentiation."""
        known = self.jacobian(y, *inputs)
        if known is not None:
            return known.detach().expand(*y.shape, y.shape[-1])
        return calculus.jacobian(lambda free: self.residual(free, *inputs), y)

    def pullback(self, y: Tensor, inputs: Sequence[Tensor], needed: Sequence[bool]) -> Pullback:
        """The map from ``u`` to ``u^T dF/dx`` for each input ``x`` that is ``needed``, differentiable in everything."""
        places = [place for place, need in enumerate(needed) if need]

        def residual(*free: Tensor) -> Tensor:
            full = list(inputs)
            for place, tensor in zip(places, free, strict=True):
                full[place] = tensor
            return self.residual(y, *full)

        _, products = calculus.vjp(residual, *(inputs[place] for place in places))

        def pullback(u: Tensor) -> list[Tensor | None]:
            found = iter(products(u))
            return [next(found) if need else None for need in needed]

        return pullback

    def linearised(self, y: Tensor, *inputs: Tensor, transposed: bool) -> Callable[[Tensor], Tensor]:
        """``u -> (dF/dy) u``, or with the transpose, on one retained graph; outside any differentiation."""
        if transposed or self.symmetric:
            return calculus.linearise(lambda free: self.residual(free, *inputs), y)[1]
        zero = y.new_zeros(y.shape)
        return calculus.linearise(lambda u: Adjoint(self).residual(u, zero, y, *inputs), zero)[1]


@dataclass(frozen=True)
class Objective(Problem):
    """The minimiser of ``value(y, *inputs)`` ``(*batch)``, through its stationarity."""

    value: Callable[..., Tensor]
    batch_dims: int
    levels: tuple[tuple[int | None, ...], ...] = ()
    symmetric = True
    definite = True

    @property
    def primitive(self) -> Callable[..., Tensor]:
        """The objective."""
        return self.value

    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """The gradient in ``y``."""
        return calculus.gradient(self.value, y, *inputs)

    def vmapped(self, in_dims: Sequence[int | None]) -> Objective:
        """The objective of ``B`` problems side by side has value ``(B, *batch)``."""
        value = calculus.batched(self.value, (0, *in_dims))
        levels = (*self.levels, tuple(in_dims))
        return replace(self, value=value, batch_dims=self.batch_dims + 1, levels=levels)


@dataclass(frozen=True)
class Equation(Problem):
    """The root of ``function(y, *inputs)``, which has the shape of ``y``."""

    function: Callable[..., Tensor]
    batch_dims: int
    levels: tuple[tuple[int | None, ...], ...] = ()

    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """The function itself."""
        return self.function(y, *inputs)

    def vmapped(self, in_dims: Sequence[int | None]) -> Equation:
        """The same function on ``(B, *batch, n)``."""
        function = calculus.batched(self.function, (0, *in_dims))
        levels = (*self.levels, tuple(in_dims))
        return replace(self, function=function, batch_dims=self.batch_dims + 1, levels=levels)


class Mapping(Equation):
    """The fixed point of ``function(y, *inputs)``, through ``F = y - function(y, *inputs)``."""

    def residual(self, y: Tensor, *inputs: Tensor) -> Tensor:
        """What one more application would take away."""
        return y - self.function(y, *inputs)


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
    def definite(self) -> bool:  # type: ignore[override]  # read-only here
        """As the base problem's Jacobian."""
        return self.base.definite

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

    def root(self, at: Tensor, *inputs: Tensor) -> tuple[Problem, bool, Tensor, tuple[Tensor, ...]]:
        """The nonlinear problem at the bottom: (problem, whether its Jacobian enters transposed, its y, its inputs)."""
        base, transposed = self.base, self.transposed
        while isinstance(base, Adjoint):
            transposed ^= base.transposed
            at, inputs, base = inputs[1], inputs[2:], base.base
        return base, transposed, at, inputs

    def jacobian(self, y: Tensor, *inputs: Tensor) -> Tensor | None:
        """The system's own matrix, as the system is linear."""
        jacobian = self.base.jacobian(*inputs[1:])
        return jacobian.mT if jacobian is not None and self.transposed else jacobian

    def vmapped(self, in_dims: Sequence[int | None]) -> Adjoint:
        """The base's point and solution gain the batch dimension together."""
        return replace(self, base=self.base.vmapped(tuple(in_dims)[2:]))
