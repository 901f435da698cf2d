"""Files of a run that were damaged: bits flipped, cut, emptied, exchanged, removed, replaced by something else.

Survived: of checkpoints, what is read is bit for bit what was written at that step, and if it is not the newest step,
that is said. Of config.yaml, the run is refused, or the option that is another one is named, or none is. Of
metrics.csv, the run goes on with every line that was not touched.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from rlkit import checkpoint
from rlkit.config.compose import from_yaml
from rlkit.files import named
from rlkit.metrics import MetricsWriter
from rlkit.options import ConfigError
from rlkit.run.folder import changed_by_hand
from scripts.ledger.runs import checkpoint_hash, checkpoint_hashes, trained
from scripts.ledger.trial import Task, Trial, Trials

PARTS = {"ppo": ("policy", "state"), "dqn": ("policy", "state", "replay")}


def trials(task: Task) -> Trials:
    for agent, names in PARTS.items():
        run = trained(task, agent, "log.tensorboard=false")
        yield from _checkpoints(task, run, names, 40 if task.short else 350)
    yield from _options(task, run, 20 if task.short else 200)
    yield from _metrics(task, run, 10 if task.short else 100)


def _checkpoints(task: Task, run: Path, names: tuple[str, ...], count: int) -> Trials:
    written = checkpoint_hashes(run, *names)
    for _ in range(count):
        copy = task.copy(run)
        what = task.dice.choice(WHOLE)(copy / "checkpoints", task.dice)
        heard: list[str] = []
        try:
            step, _, parts = checkpoint.newest(copy / "checkpoints", *names, say=heard.append)
        except Exception as error:
            yield Trial(what, False, f"not read: {error!r}")
        else:
            same = checkpoint_hash(parts, *names) == written.get(step)
            told = bool(heard) or step == max(written)
            yield Trial(what, same and told, f"step {step}, as written: {same}; said: {heard}")
        shutil.rmtree(copy.parent)


def _options(task: Task, run: Path, count: int) -> Trials:
    before = from_yaml(run / "config.yaml")
    for _ in range(count):
        copy = task.copy(run)
        what = flip(copy / "config.yaml", task.dice)
        try:
            after = from_yaml(copy / "config.yaml")
            said = changed_by_hand(named(copy), after)
            yield Trial(what, after == before or bool(said), "; ".join(said) or "nothing said")
        except ConfigError as error:
            yield Trial(what, True, str(error))
        except Exception as error:
            yield Trial(what, False, repr(error))
        shutil.rmtree(copy.parent)


def _metrics(task: Task, run: Path, count: int) -> Trials:
    for _ in range(count):
        copy = task.copy(run)
        path = copy / "metrics.csv"
        before = path.read_bytes().splitlines()
        what = task.dice.choice((flip, cut, zero))(path, task.dice)
        damaged = path.read_bytes().splitlines()
        whole = {line for line in before[1:] if line in damaged} if damaged[:1] == before[:1] else set()
        heard: list[str] = []
        try:
            MetricsWriter(copy, tensorboard=False, say=heard.append).close()
            kept = whole <= {*path.read_bytes().splitlines()}
            yield Trial(what, kept, f"{len(whole)} lines untouched; said: {heard}")
        except Exception as error:
            yield Trial(what, False, repr(error))
        shutil.rmtree(copy.parent)


def flip(path: Path, dice: random.Random) -> str:
    data = bytearray(path.read_bytes())
    at, bit = dice.randrange(len(data)), dice.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"{path.name}: bit {bit} of byte {at} flipped"


def cut(path: Path, dice: random.Random) -> str:
    size = dice.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"{path.name}: cut to {size} bytes"


def zero(path: Path, dice: random.Random) -> str:
    data = path.read_bytes()
    at = dice.randrange(len(data))
    path.write_bytes(data[:at] + bytes(min(64, len(data) - at)) + data[at + 64 :])
    return f"{path.name}: up to 64 zeros at byte {at}"


def longer(path: Path, dice: random.Random) -> str:
    with open(path, "ab") as file:
        file.write(dice.randbytes(dice.randrange(1, 100)))
    return f"{path.name}: made longer"


def removed(path: Path, dice: random.Random) -> str:
    path.unlink()
    return f"{path.name}: removed"


def folder(path: Path, dice: random.Random) -> str:
    path.unlink()
    path.mkdir()
    return f"{path.name}: a folder"


def pipe(path: Path, dice: random.Random) -> str:
    path.unlink()
    os.mkfifo(path)
    return f"{path.name}: a pipe"


def linked(path: Path, dice: random.Random) -> str:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))
    return f"{path.name}: a link"


def nested(path: Path, dice: random.Random) -> str:
    """Also in the manifest's place, a text that is deep rather than long."""
    depth = dice.randrange(500, 100_000)
    path.write_text("[" * depth + "]" * depth)
    return f"{path.name}: {depth} nested lists"


def of_another(path: Path, dice: random.Random) -> str:
    """The same file of the checkpoint before."""
    others = [each for each in sorted(path.parent.parent.glob("step-*")) if each != path.parent]
    shutil.copy(dice.choice(others) / path.name, path)
    return f"{path.name}: of another step"


def exchanged(path: Path, dice: random.Random) -> str:
    other = dice.choice([each for each in sorted(path.parent.iterdir()) if each != path])
    aside = path.with_suffix(".aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)
    return f"{path.name}: exchanged with {other.name}"


Damage = Callable[[Path, random.Random], str]
FILES: tuple[Damage, ...] = (
    flip, flip, flip, flip, cut, zero, longer, removed, folder, pipe, linked, nested, of_another, exchanged,
)  # fmt: skip


def _a_file(saved: Path, dice: random.Random) -> str:
    """One file of the newest checkpoint."""
    newest = max(saved.glob("step-*"))
    return dice.choice(FILES)(dice.choice(sorted(newest.iterdir())), dice)


def _all_manifest(saved: Path, dice: random.Random) -> str:
    """The manifest, which nothing but itself vouches for."""
    return dice.choice((flip, cut, zero, nested))(max(saved.glob("step-*")) / "manifest.json", dice)


def _renamed(saved: Path, dice: random.Random) -> str:
    """An older checkpoint under a later step's name."""
    oldest, step = min(saved.glob("step-*")), dice.randrange(300, 10_000)
    oldest.rename(saved / f"step-{step:09}")
    return f"{oldest.name} renamed to step {step}"


def _swapped(saved: Path, dice: random.Random) -> str:
    oldest, *_, newest = sorted(saved.glob("step-*"))
    oldest.rename(saved / "aside")
    newest.rename(oldest)
    (saved / "aside").rename(newest)
    return f"{oldest.name} and {newest.name} exchanged"


WHOLE: tuple[Damage, ...] = (_a_file,) * 12 + (_all_manifest,) * 4 + (_renamed, _swapped)
