"""Text for a terminal: of a file or a name that somebody else may have written, and of commands to type."""

from __future__ import annotations

import re
import shlex


def clean(text: object, limit: int = 0) -> str:
    """A text as a terminal may show it: what is not printable (control characters, line ends, marks that turn the
    direction of writing) as Python writes it, such as \\x1b; cut to `limit` characters where that is given.
    """
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
    return shown if not limit or len(shown) <= limit else f"{shown[: limit - 3]}..."


def quoted(word: object) -> str:
    """A word of a command as a shell takes it unchanged; a path that begins with a dash is none of its options."""
    text = str(word)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def fault_line(error: Exception, more: str = "") -> str:
    """An environment's fault (rlkit.envs.EnvFault) on one line: what and where, the line of code, what to type.

    more: what is said after the line of code that raised.
    """
    *trace, text, hint = str(error).splitlines()
    frames = re.findall(r'File "(.+)", line (\d+)', "\n".join(trace))
    if not any("most recent call first" in each for each in trace):  # as faulthandler writes, in workers
        frames.reverse()
    line = next((":".join(frame) for frame in frames if not frame[0].endswith("watchdog.py")), "")
    if text.startswith("raised") and line:
        return f"{text} ({line}{more})"
    return f"{text} ({hint}{f'; it was at {line}' if line else ''})"
