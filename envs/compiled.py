"""Functions as machine code. No torch: worker processes import this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from rlkit.jit import general

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` as machine code that lets other threads run, kept on disk for later processes where that works.

    What is kept is renewed when the function's own file changes, so kernels call functions of their own file only
    (a changed constant that another file imports calls for `touch` on that file).
    """
    njit: Any = numba.njit
    try:
        kernel: F = general(njit(cache=True, nogil=True)(function))
    except RuntimeError:  # neither the package nor the user has a folder to write to
        kernel = general(njit(nogil=True)(function))
    return kernel
