"""Functions as machine code. No torch: worker processes import this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

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


def general(kernel: Any) -> Any:
    """The same kernel, which others that call it with constants have compiled once for their types, not for each value.

    Constants reach the machine code anyway, where it is inlined, and a third of the time to compile is saved.
    """
    template, unliteral = getattr(kernel, "get_call_template", None), numba.types.unliteral
    if template is None:  # a plain function, with NUMBA_DISABLE_JIT=1
        return kernel

    def of_types(arguments: Any, named: Any) -> Any:
        plain = {key: unliteral(each) for key, each in named.items()}  # type: ignore[no-untyped-call]
        return template(tuple(map(unliteral, arguments)), plain)

    kernel.get_call_template = of_types
    return kernel
