"""Device, precision, threads and memory: what a run computes on, chosen and said."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from rlkit.machine import How, cores
from rlkit.options import ConfigError

Say = Callable[[str], None]
SHORT = 20_000  # steps of a run that ends before tracing its networks has paid
MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


def choose_device(name: str, say: Say) -> torch.device:
    """auto: CUDA where there is one. An explicit cuda never falls back. Raises ConfigError."""
    available = torch.cuda.is_available()
    if name == "auto":
        if available:
            say(f"device: cuda ({torch.cuda.get_device_name()}), the fastest here; device=cpu turns it off")
            return torch.device("cuda")
        say("device: cpu, because torch finds no CUDA device")
        return torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda":
        if not available:
            why = "this torch is built without CUDA" if torch.version.cuda is None else "no GPU is visible"
            raise ConfigError(f"device={name}: {why}; type device=cpu or device=auto, or see rlkit doctor")
        if (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"device={name}: no such GPU; allowed: cuda:0 to cuda:{torch.cuda.device_count() - 1}"
            )
    return device


def choose_precision(name: str, device: torch.device, pixels: bool, say: Say) -> torch.dtype:
    """auto: bfloat16 for convolutional networks where the hardware multiplies it natively, else float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if not pixels:
        return torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = has_native_bf16()
    if native:
        say("precision: bfloat16 for learning from pixels (native here); precision=float32 turns it off")
        return torch.bfloat16
    return torch.float32


def has_native_bf16() -> bool:
    """Whether this processor has bfloat16 multiply instructions (AVX512-BF16 or AMX), not an emulation."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_threads(threads: int, pixels: bool, ranks: int = 1) -> int:
    """0: one thread for small vector networks (more cost time), all cores for pixels, shared by so many ranks."""
    if threads:
        return threads
    return max(cores() // ranks, 1) if pixels else 1


def choose_compile(
    how: How, steps: int, device: torch.device, precision: torch.dtype, simple: bool, say: Say
) -> How:
    """auto: the engine for runs long enough on a CPU, in float32, of networks that it can; false for all others.

    simple: the network has neither convolutions nor memory.
    """
    if how == "engine" and (device.type != "cpu" or precision != torch.float32):
        raise ConfigError(
            f"compile=engine: it computes on a CPU in float32, not on {device.type} in "
            f"{str(precision).removeprefix('torch.')}; type compile=auto"
        )
    if how != "auto":
        return how
    if device.type != "cpu" or precision != torch.float32 or not simple or steps < SHORT:
        return False
    say("compile: auto, rlkit's engine for small networks; compile=false turns it off")
    return "auto"


def keep_memory() -> None:
    """Have the C library keep freed memory for the next minibatch instead of giving it back to the system.

    Every page that it gets anew is first filled with zeros by the kernel: a tenth of learning from pixels. Where there
    is no glibc, nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30)


class TooLarge(Exception):
    """More memory than may be used."""


class Budget(TorchFunctionMode):
    """Raises TooLarge as soon as the tensors made inside take more than `most` bytes, before they are filled."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        if function in MAKERS:
            self.left -= made.numel() * made.element_size()
            if self.left < 0:
                raise TooLarge
        return made
