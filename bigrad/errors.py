"""Everything bigrad can raise. Each message names what was found, what was wanted and the remedy."""

from __future__ import annotations

from typing import Any


class BigradError(Exception):
    """Base of every exception raised on purpose by bigrad."""


class InputError(BigradError, ValueError):
    """An argument has the wrong shape, dtype, device or value."""


class UnsupportedError(BigradError, NotImplementedError):
    """A correct answer is not available here, so none is given."""


class MissingPackage(BigradError, ImportError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra, self.purpose = package, extra, purpose
        super().__init__(f'{package} is needed for {purpose} and is not installed: pip install "bigrad[{extra}]"')

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.package, self.extra, self.purpose)


class RunError(BigradError, OSError):
    """A run folder cannot be read, written or resumed."""


class SolveError(BigradError, RuntimeError):
    """A solve did not end well.

    Attributes:
        certificate: what the solve could prove about itself (``None`` where it was never started).
    """

    def __init__(self, message: str, certificate: Any = None) -> None:
        super().__init__(message)
        self.certificate = certificate

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.certificate)


class NotConverged(SolveError):
    """The step budget ran out before the tolerance was met."""


class Stalled(SolveError):
    """No further progress is possible, and the residual is above both tolerance and rounding error."""


class Diverged(SolveError):
    """The iterates or their residual became infinite or NaN."""


class Indefinite(SolveError):
    """A matrix that had to be positive definite is not."""


class Singular(SolveError):
    """A linear system has no unique solution."""


class Infeasible(SolveError):
    """No point satisfies the constraints."""


class Unbounded(SolveError):
    """The objective has no lower bound on the constraints (for a maximum: no upper bound)."""


class SolveWarning(UserWarning):
    """A failed solve under ``on_failure="warn"``."""
