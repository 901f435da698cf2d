"""What `reset` and `step` return: checked as it comes, and explained where it is something else.

Most of it is checked without cost: what an environment hands out is unpacked in any case, and an error that comes from
there is told in terms of Gymnasium's interface.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Mapping

import gymnasium
import numpy as np

from rlkit.envs.aliases import Value

# types whose values are taken as they are
NUMBERS = frozenset({float, int, bool, np.bool_, np.float32, np.float64, np.int32, np.int64})
FLAGS = frozenset({bool, np.bool_})
RESET = "def reset(self, *, seed=None, options=None): ... return obs, info (a dict, which may be empty)"
STEP = "return obs, reward, terminated, truncated, info"
SPACES = "Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple of gymnasium.spaces"


class Misuse(Exception):
    """A value that reset or step may not return. kind: as of `EnvFault`; field: what it was returned as."""

    def __init__(self, kind: str, field: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.field, self.detail = kind, field, detail


def number(value: Value, strict: bool) -> float:
    """A reward as a float; strict: an array of one number is refused. Raises Misuse."""
    array = _array(value)
    if array is None or array.dtype.kind not in "biuf" or array.size != 1:
        raise Misuse("interface", "reward", f"{_show(value)} is no number; write reward = float(...)")
    if strict and array.ndim:
        raise Misuse("dtype", "reward", f"an array of shape {array.shape}; write reward = float(...)")
    return float(array.item())


def flag(field: str, value: Value) -> bool:
    """`terminated` or `truncated` as a bool. Raises Misuse."""
    array = _array(value)
    if array is not None and array.dtype.kind in "biuf" and array.size == 1 and array.item() in (0, 1):
        return bool(array.item())
    where = f" (step ends with {STEP})" if isinstance(value, Mapping) else ""
    raise Misuse(
        "interface", field, f"{_show(value)} is neither True nor False{where}; write {field} = bool(...)"
    )


def check_info(info: Value) -> None:
    """Raise Misuse where the second value of reset is no info."""
    if not isinstance(info, Mapping):
        raise Misuse("interface", "reset", f"its second value, info, is {_show(info)}; write {RESET}")


def own(error: BaseException) -> bool:
    """Whether an environment raised an error itself; else it means this process (Ctrl-C, a deadline) and goes on.

    KeyboardInterrupt is an environment's own where Ctrl-C would raise something else: in a thread, in workers, and
    while a run is trained.
    """
    if isinstance(error, Exception | SystemExit):
        return True
    if isinstance(error, KeyboardInterrupt):
        main = threading.current_thread() is threading.main_thread()
        return not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    return not type(error).__module__.startswith("rlkit.")


def misuse(error: BaseException, method: str) -> Misuse | None:
    """What an error says of the interface, where it was raised by who called the environment, not by itself."""
    text = str(error)
    if not isinstance(error, TypeError) and not (isinstance(error, ValueError) and "unpack" in text):
        return None
    if isinstance(error, TypeError) and re.search(r"reset\(\) (got an unexpected|takes )", text):
        return Misuse("interface", "reset", f"{text}; write {RESET}")
    if not _by_a_caller(error):
        return None
    expected = RESET if method == "reset" else f"{STEP} (older Gym returned four values)"
    found = re.search(r"got (\d+)", text)
    if "unpack" in text:
        what = f"returned {found[1]} values" if found else f"returned {_kind(text)}"
        return Misuse("interface", method, f"{what}; write {expected}")
    return Misuse("interface", method, f"returned something of the wrong type ({text}); write {expected}")


def require_spaces(env: Value, id: str) -> None:
    """Raise ValueError where an environment has no observation_space or no action_space."""
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not isinstance(space, gymnasium.Space):
            what = f"has no {name}" if space is None else f"its {name} is {_show(space)}"
            raise ValueError(f"env.id={id}: {what}; write self.{name} = ... in its constructor: a {SPACES}")


def _by_a_caller(error: BaseException) -> bool:
    """Whether the innermost frame of an error is a lane's or a wrapper's (ours, Gymnasium's)."""
    end = error.__traceback__
    while end is not None and end.tb_next is not None:
        end = end.tb_next
    module = "" if end is None else str(end.tb_frame.f_globals.get("__name__", ""))
    return module.startswith(
        ("rlkit.envs.backends.", "rlkit.envs.wrappers.", "gymnasium.wrappers.", "gymnasium.core")
    )


def _array(value: Value) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None:
    """A value as an array; None for what only looks like one."""
    if value is None or isinstance(value, str | bytes | Mapping):
        return None
    try:
        return np.asarray(value)
    except Exception:
        return None


def _show(value: Value) -> str:
    """A value and its type, on one line and not long."""
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _kind(text: str) -> str:
    """What "cannot unpack non-iterable X object" or "too many values" says that was there."""
    found = re.search(r"non-iterable (\S+)", text)
    return found[1] if found else "more values than that, or an observation alone"
