"""rlkit: one verb per wish. Imports nothing heavy itself; each verb is a module of rlkit.cli with
`main(argv) -> int`.

Whatever goes wrong becomes one line on stderr and an exit code: 2 for what was typed, 1 for what failed,
130 for Ctrl-C. `--traceback` anywhere (or RLKIT_TRACEBACK=1) shows everything.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from rlkit import __version__
from rlkit.text import clean, fault_line, quoted

VERBS = {
    "train": "train an agent, or a model of a supervised task",
    "resume": "continue a run exactly where it stopped",
    "evaluate": "measure an agent on episodes it never trained on, with confidence intervals",
    "watch": "see an agent play, in a window or as a video",
    "export": "write an agent as a folder that runs without torch, proven equal to it",
    "serve": "answer observations with actions, over HTTP and websockets",
    "collect": "play episodes and write labelled rows into a table",
    "data": "look at a table",
    "probe": "what a linear map reads from a run's features",
    "list": "what there is: agents, tasks, environments, networks, presets, runs, options",
    "doctor": "what this installation can do, and what to install for the rest",
}
EXAMPLES = """\
  rlkit train agent=ppo env=cartpole
  rlkit train env=LunarLander-v3 total_steps=1e6 agent.clip=0.1 seed=3
  rlkit watch runs/ppo-cartpole-0
  rlkit evaluate runs/ppo-cartpole-0 --episodes 100
  rlkit list options agent=ppo"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    # read when torch is loaded: how long its idle threads spin before they sleep. For ever (the default) keeps the
    # cores from environment workers, not at all slows every operation of the learner; 30,000 turns cost neither.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    words = list(sys.argv[1:] if argv is None else argv)
    traceback = "--traceback" in words or os.environ.get("RLKIT_TRACEBACK", "") not in ("", "0")
    words = [word for word in words if word != "--traceback"]
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        if traceback:
            raise
        return _fail("interrupted", 130)
    except BrokenPipeError as error:  # the reader has gone (`rlkit list ... | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"the reader of the output is gone{_notes(error)}", 1) if _notes(error) else 1
    except Exception as error:
        if traceback:
            raise
        return _explain(error)


def usage() -> str:
    """The text of `rlkit --help`."""
    verbs = "\n".join(f"  {verb:<10} {text}" for verb, text in VERBS.items())
    return (
        "usage: rlkit VERB ...\n\n"
        f"Train, watch, evaluate and embed deep reinforcement learning agents.\n\n{verbs}\n\n"
        f"examples:\n{EXAMPLES}\n\n"
        "rlkit VERB --help says more; --version; --traceback shows where an error came from."
    )


def _dispatch(words: list[str]) -> int:
    if not words:
        print(usage(), file=sys.stderr)
        return 2
    verb, rest = words[0], words[1:]
    if verb in ("-h", "--help", "help"):
        print(usage())
        return 0
    if verb in ("-V", "--version"):
        print(f"rlkit {__version__}")
        return 0
    if verb not in VERBS:
        from rlkit.options import nearest

        if "=" in verb:
            return _fail(f"{verb}: the verb is missing; type rlkit train {' '.join(map(quoted, words))}", 2)
        return _fail(f"{verb}: no such verb; {nearest(verb, VERBS)} (rlkit --help)", 2)
    try:
        code: int = importlib.import_module(f"rlkit.cli.{verb}").main(rest)
    except SystemExit as end:  # argparse has said what there is to say
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return code


def _explain(error: Exception) -> int:
    """One line for an error that nobody handled, and its exit code."""
    from rlkit.options import ConfigError

    notes = _notes(error)
    if isinstance(error, ConfigError):
        return _fail(str(error) + notes, 2)
    if isinstance(error, OSError):
        return _fail(_os_words(error) + notes, 1)
    if hasattr(error, "trace"):
        return _fail(fault_line(error, "; --traceback shows the way there") + notes, 1)
    text = str(error) or type(error).__name__
    if not isinstance(error, ValueError):
        text = f"{type(error).__name__}: {text}" if str(error) else text
    first, *more = text.splitlines()
    where = "" if hasattr(error, "complete") else " (--traceback shows where)"
    return _fail(f"{first}{' ...' if more else ''}{where}{notes}", 1)


def _notes(error: BaseException) -> str:
    """What was added to an error on its way, such as how to continue the run."""
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


def _os_words(error: OSError) -> str:
    name = error.filename if error.filename is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) and name:
        return f"disk full while writing {name}: free space, then try again"
    if error.errno in (errno.EACCES, errno.EPERM) and name:
        return f"{name}: no permission; choose another place (dir=FOLDER), or change who may write there"
    if error.errno == errno.ENOENT and name:
        return f"{name}: no such file or folder"
    return f"{name}: {error.strerror}" if name else (str(error.strerror or error).splitlines() or [""])[0]


def _fail(text: str, code: int) -> int:
    print(f"rlkit: {clean(text)}", file=sys.stderr)  # it may hold what somebody else has written
    return code


if __name__ == "__main__":
    sys.exit(main())
