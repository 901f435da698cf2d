"""Run folders made by somebody who means harm, opened by every verb in a process that is watched by an audit hook.

Survived: no program is started, no host reached, no module of the folder or of the current one imported, nothing
unpickled, nothing outside the run's own folder made, changed or removed; it ends within a minute and two gigabytes,
without a traceback and without control characters in what is printed. A verb may refuse the folder or use it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from scripts.ledger import harm
from scripts.ledger.runs import command, trained
from scripts.ledger.trial import Ended, Task, Trial, Trials, apart, line

RUN = "runs/run"
STARTS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork", "os.forkpty", "pty.spawn")
CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "os.link",
    "os.symlink",
    "shutil.rmtree",
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MEGABYTES = 2000


def load() -> int:
    """What a program does with a folder that it was given."""
    import rlkit

    try:
        print("loaded", type(rlkit.load(RUN)).__name__)
    except (ValueError, OSError) as error:
        print(error)
    return 0


VERBS: dict[str, Callable[[], int]] = {
    "resume": lambda: command("resume", RUN),
    "evaluate": lambda: command("evaluate", RUN, "--episodes", "1"),
    "watch": lambda: command(
        "watch", RUN, "--episodes", "1"
    ),  # without a display a film in the run's videos/
    "list": lambda: command("list", "runs"),
    "load": load,
}


def trials(task: Task) -> Trials:
    run = trained(task, "ppo")
    cases = dict(harm.CASES)
    if task.short:
        cases = {name: cases[name] for name in sorted(task.dice.sample(sorted(cases), 8))}
    for name, change in {"nothing": lambda run: None, **cases}.items():
        for verb in ("resume", "load") if task.short else VERBS:
            home = task.folder() / "home"
            prepare(home, run)
            change(home / RUN)
            before = contents(home.parent)
            ended = apart(partial(watched, home, VERBS[verb]), home, seconds=60.0)
            wrong = faults(home, before, ended)
            if name == "nothing" and ended.status:
                wrong.append(f"what is whole is refused: {ended.output}")
            yield Trial(f"{name}: {verb}", not wrong, "; ".join(wrong) or line(ended.output))
            shutil.rmtree(home.parent)


def prepare(home: Path, run: Path) -> None:
    """The folder in which a user stands: the run, code that merely lies about, and beside it what nobody may touch."""
    shutil.copytree(run, home / RUN)
    harm.edit(home / RUN, "total_steps: 240", "total_steps: 300")
    for name in ("bait", "json", "torch", "yaml", "sitecustomize"):
        (home / f"{name}.py").write_text(harm.BAIT)
    outside = home.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    shutil.copytree(
        run / "checkpoints", outside / "checkpoints"
    )  # another run's, which a link may pass for this one's
    shutil.copy(run / "metrics.csv", outside)
    (outside / "bait.py").write_text(harm.BAIT)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder but the run itself and what rlkit remembers of its user."""
    found = {}
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = [
            name for name in folders if here / name not in (folder / "home" / RUN, folder / "state")
        ]
        for name in (*folders, *files):
            path = here / name
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path.relative_to(folder))] = (path.lstat().st_mode, data)
    return found


def faults(home: Path, before: dict[str, tuple[int, bytes]], ended: Ended) -> list[str]:
    """What a verb did that it must not do."""
    wrong = [text for text in ended.output.splitlines() if text.startswith("AUDIT ")]
    if contents(home.parent) != before:
        now = contents(home.parent)
        changed = sorted(key for key in now.keys() | before.keys() if now.get(key) != before.get(key))
        wrong.append(f"changed outside: {changed}")
    if ended.status is None:
        wrong.append("did not end")
    elif ended.status < 0:
        wrong.append(f"ended by signal {-ended.status}")
    if ended.megabytes > MEGABYTES:
        wrong.append(f"took {ended.megabytes:.0f} MB")
    if "Traceback" in ended.output:
        wrong.append(f"a traceback: {ended.output}")
    if any(ord(character) < 32 and character not in "\n\r\t" for character in ended.output):
        wrong.append(f"control characters: {ended.output!r}")
    return wrong


def watched(home: Path, verb: Callable[[], int]) -> int:
    """Run a verb and print what the interpreter's audit hook saw of what is forbidden."""
    seen: list[str] = []
    cache = f"{tempfile.gettempdir()}/torchinductor_"  # of compiled graphs
    allowed = (str(home / RUN), str(home.parent / "state"), "/dev/", "/proc/", cache)

    def outside(path: object) -> bool:
        """Whether a path from the root is none of ours; what a relative one made is looked at afterwards."""
        text = os.fsdecode(path) if isinstance(path, (str, bytes)) else ""
        return text.startswith("/") and not text.startswith(allowed)

    def kernels() -> bool:
        """Whether numba reads or writes its own cache of the package's machine code, as it does without any run."""
        frame = sys._getframe(2)
        while frame is not None and not frame.f_code.co_filename.endswith("numba/core/caching.py"):
            frame = frame.f_back  # type: ignore[assignment]
        return frame is not None

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("pickle.find_class", "open", *CHANGES) and kernels():
            return
        if event in STARTS:
            ours = "ffmpeg" in str(arguments[:1]) or "from rlkit.envs.backends." in str(arguments[1:2])
            if not ours:
                seen.append(f"{event} {arguments}")
        elif event == "socket.connect":
            seen.append(f"{event} {arguments[1:]}")
        elif event == "pickle.find_class":
            seen.append(f"{event} {arguments}")
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITES and outside(path):
                seen.append(f"{event} {path}")
        elif event in CHANGES and outside(arguments[0]):
            seen.append(f"{event} {arguments}")

    sys.addaudithook(hook)
    sys.path.insert(0, str(home))  # as an interpreter has it that is started there
    try:
        return verb()
    finally:
        loaded = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
        seen += [f"imported {path}" for path in loaded if path.startswith(str(home.parent))]
        for text in seen:
            print("AUDIT", text)
