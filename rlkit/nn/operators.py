"""Functions of ours as operators of torch, which a compiled graph calls as a whole.

TorchInductor unrolls loops, and lets threads decide in which order numbers are added up that go to one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch

_LIBRARY = torch.library.Library("rlkit", "FRAGMENT")  # type: ignore[no-untyped-call]


def operator(shapes: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make of a function one operator of torch, which a compiled graph calls as a whole.

    shapes: gives empty tensors like the function's results, which is all that tracing asks for.

    torch.library.custom_op does so too, but its operators import the compiler, which takes seconds, at their first
    call, also in runs that compile nothing.
    """

    def make(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        if hasattr(torch.ops.rlkit, name):  # of this module, imported once more in the same process
            return cast(Callable[..., Any], getattr(torch.ops.rlkit, name).default)
        schema = torch.library.infer_schema(function, mutates_args=())
        _LIBRARY.define(name + schema)  # type: ignore[no-untyped-call]
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"rlkit::{name}", shapes, lib=_LIBRARY)
        return cast(Callable[..., Any], getattr(torch.ops.rlkit, name).default)

    return make
