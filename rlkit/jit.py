"""What all functions share that numba compiles: once for types, and a word to whoever waits for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba

SILENCE = 1.0  # seconds for which nobody minds to wait


@contextmanager
def announced(told: str) -> Iterator[None]:
    """Print a line to stderr if what is done inside takes longer than SILENCE."""
    word = threading.Timer(SILENCE, print, [told], {"file": sys.stderr})
    word.daemon = True
    word.start()
    try:
        yield
    finally:
        word.cancel()


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
