"""How numba compiles a kernel. Only the modules of kernels import this one, and they are imported when they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numpy.typing import NDArray

Array = NDArray[Any]
LANES = 8  # problems that lie side by side: the compiler works on them with one instruction
F = TypeVar("F", bound=Callable[..., Any])

_FREE = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}  # a NaN stays one; x / 0 is infinite


def kernel(function: F) -> F:
    """Compile at the first call, and keep the machine code on disk where there is a place to write it."""
    return _compiled(function)


def sums(function: F) -> F:
    """The same for a function whose sums may be taken in any order, several at a time."""
    return _compiled(function, **_FREE, no_cfunc_wrapper=True)


def part(function: F) -> F:
    """The same for one that only other kernels call, which spares what Python would call it by."""
    return _compiled(function, **_FREE, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def stored(kernel: Callable[..., Any]) -> bool:
    """Whether the machine code of a kernel outlives the process, so that it is compiled once on a machine."""
    return cast(Any, kernel).stats.cache_path is not None


def _compiled(function: F, **options: Any) -> F:
    try:
        return cast(F, numba.njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast(F, numba.njit(nogil=True, **options)(function))
