"""Compiles the C files of a policy, says what they take, and replays the recorded steps with them.

Nothing of a folder is compiled: its C files are made again from its graphs, which are data, and must be the same.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlkit import __version__
from rlkit.deploy import c_text, fmu, units
from rlkit.deploy.c import FILES, GRAPHS, Field, Interface, Sources, sources
from rlkit.deploy.graph import GraphError, Tensor
from rlkit.deploy.kernel import generator
from rlkit.deploy.parity import replay
from rlkit.deploy.runtime import Folder, Policy
from rlkit.embedded import Info
from rlkit.options import ConfigError

FLAGS = ["-std=c11", "-O2"]
SECONDS = 600  # after which a compiler, or a program that replays steps, is ended

Say = Callable[[str], None]


def compiler() -> list[str]:
    """The command of a C compiler: $CC, or what is found; empty where there is none.

    Raises ConfigError where $CC names no program.
    """
    named = shlex.split(os.environ.get("CC", ""))
    if named and shutil.which(named[0]) is None:
        raise ConfigError(
            f"CC={' '.join(named)}: there is no such program; unset CC, or let it name a C compiler"
        )
    return named or [found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))][:1]


def run(words: list[str], folder: Path) -> None:
    """Raises GraphError with the first line of what a command says where it fails."""
    try:
        told = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GraphError(f"{words[0]}: {error}") from error
    if told.returncode:
        lines = [line for line in told.stderr.splitlines() if "error" in line] or told.stderr.splitlines()
        raise GraphError(f"{words[0]} does not compile policy.c: {lines[0] if lines else told.returncode}")


class Built:
    """The C files of a policy, compiled in a folder of their own."""

    def __init__(self, info: Info, made: Sources, folder: Path) -> None:
        self.folder, self.face = folder, Interface(info)
        for name, text in made.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "replay.c").write_text(_replayer(self.face), encoding="utf-8")
        command = compiler()
        words = [*command, *FLAGS, "-c", "policy.c", "-o", "policy.o"]
        try:
            run([*words, "-fstack-usage"], folder)
        except GraphError:  # not every compiler has that option
            run(words, folder)
        run([*command, *FLAGS, "replay.c", "policy.o", "-lm", "-o", "replay"], folder)

    def unit(self, files: dict[str, bytes]) -> dict[str, bytes]:
        """The files of a co-simulation unit with the binary of this machine, where there is a name for it."""
        where = fmu.binary()
        if not where:
            return files
        for name, data in files.items():
            (self.folder / Path(name).name).write_bytes(data)
        run([*compiler(), *fmu.FLAGS, "fmu.c", "policy.c", "-lm", "-o", "unit"], self.folder)
        return files | {where: (self.folder / "unit").read_bytes()}

    def flash(self) -> int:
        """Bytes of code and constants; 0 where no program `size` says so."""
        try:
            told = subprocess.run(
                ["size", "policy.o"], cwd=self.folder, capture_output=True, text=True, check=True
            )
            text, data, _ = map(int, told.stdout.splitlines()[1].split()[:3])
        except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
            return 0
        return text + data

    def stack(self) -> int:
        """Bytes that a call of rlkit_policy_act or rlkit_policy_sample puts on the stack at most; 0: unknown."""
        try:
            lines = (self.folder / "policy.su").read_text(encoding="utf-8").splitlines()
        except OSError:
            return 0
        frames = {line.split("\t")[0].rsplit(":", 1)[-1]: int(line.split("\t")[1]) for line in lines}
        # an act calls its graph, which calls one operation after the other, which may call one function
        ours = [size for name, size in frames.items() if name.startswith("rlkit_policy_")]
        graphs = [size for name, size in frames.items() if "_graph" in name]
        rest = sorted(
            size
            for name, size in frames.items()
            if not name.startswith("rlkit_policy_") and "_graph" not in name
        )
        return max(ours, default=0) + max(graphs, default=0) + sum(rest[-2:])


@contextmanager
def built(info: Info, made: Sources) -> Iterator[Built]:
    """The compiled files, as long as they are used."""
    with tempfile.TemporaryDirectory(prefix="rlkit-c-") as folder:
        yield Built(info, made, Path(folder))


def check(folder: Folder, say: Say, program: Built | None = None) -> str:
    """Replay the recorded steps with the C files of a folder; what differs first, "" where nothing does.

    program: those files, where they have just been made and compiled. Raises GraphError where they are not what the
    folder's graphs give.
    """
    if not compiler():
        unit = f", and {fmu.FILE} holds sources alone" if fmu.FILE in folder.sums else ""
        say(f"policy.c was not verified: there is no C compiler here (cc){unit}")
        return ""
    if program is not None:
        return compared(folder, program, say)
    info = folder.json("policy.json")
    if not generator():
        say('policy.c was not verified: emx-onnx-cgen is missing (pip install "rlkit[embed-c]")')
        return ""
    theirs, ours = f"{info.get('c')} and rlkit {info.get('rlkit')}", f"{generator()} and rlkit {__version__}"
    if theirs != ours:
        say(f"policy.c was not verified: {theirs} made it, and here are {ours}")
        return ""
    made = sources(info, {name: folder.read(name) for name in GRAPHS})
    for name in FILES:
        if folder.read(name) != made.files[name].encode():
            raise GraphError(f"{folder.path / name} is not what its graphs give; export the run again")
    with built(info, made) as again:
        return compared(folder, again, say)


def compared(folder: Folder, program: Built, say: Say) -> str:
    """What differs first between the recorded steps and the compiled policy; "" where nothing does."""
    with _started(program) as steps:
        wrong = replay(_Native(folder, steps))
    if wrong:
        return f"policy.c: {wrong}"
    say(f"verified:    policy.c ({Path(compiler()[0]).name} {' '.join(FLAGS)}), every recorded step")
    if fmu.FILE in folder.sums:
        made = {name: (program.folder / name).read_text(encoding="utf-8") for name in FILES}
        files = program.unit(fmu.sources(program.face.info, made, folder.read("policy.onnx")))
        return units.check(folder, files, say)
    return ""


class _Native(Policy):
    """A policy whose graphs are computed by a program; memory stays there."""

    def __init__(self, folder: Folder, steps: _Steps) -> None:
        self.steps = steps
        super().__init__(folder, "numpy")

    def _opened(self, name: str, greedy: bool) -> Any:
        _, program, places = super()._opened(name, greedy)
        return partial(self.steps, name), program, places


@contextmanager
def _started(program: Built) -> Iterator[_Steps]:
    with subprocess.Popen(
        ["./replay"], cwd=program.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        try:
            yield _Steps(process, program.face)
        finally:
            timer.cancel()
            process.kill()


class _Steps:
    """Sends steps to the program of `_replayer` and reads what it answers."""

    def __init__(self, process: subprocess.Popen[bytes], face: Interface) -> None:
        self.process, self.face = process, face

    def __call__(self, graph: str, *arrays: Tensor) -> list[Tensor]:
        """Inputs of a graph without its memory -> its outputs. Raises GraphError."""
        face, stdin, stdout = self.face, self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None, "pipes"
        entries, first = arrays[: len(face.entries)], arrays[len(face.entries)]
        noise = [arrays[len(face.entries) + 1]] if graph == "sample.onnx" else []
        # what an agent remembers of the episode before is without effect, but is compared: only what is zero is reset
        remembers = any(x.any() for x in arrays[len(entries) + len(noise) + 1 :])
        opens = 0 if not first[0] else 1 if remembers else 2
        sent = [bytes([graph == "sample.onnx", opens]), *(x.tobytes() for x in (*entries, *noise))]
        fields = [Field("code", "int32", (1,), ""), face.action, *face.memory]
        fields += [Field("value", "float32", (), "")] if face.info["value"] else []
        size = sum(field.size * np.dtype(field.dtype).itemsize for field in fields)
        try:
            stdin.write(b"".join(sent))
            stdin.flush()
            data = stdout.read(size)
        except OSError:
            data = b""
        if len(data) != size:
            raise GraphError(f"the program of policy.c ended by itself (code {self.process.wait()})")
        found, place = {}, 0
        for field in fields:
            end = place + field.size * np.dtype(field.dtype).itemsize
            found[field.name] = np.frombuffer(data[place:end], field.dtype).reshape(1, *field.shape)
            place = end
        if found["code"].item():
            raise GraphError(f"policy.c refuses a recorded observation: code {found['code'].item()}")
        value = [found["value"].reshape(1)] if face.value(graph) else []
        return [found["action"], *(found[field.name] for field in face.kept(graph)), *value]


def _replayer(face: Interface) -> str:
    """A program that reads steps and writes actions, memory and value: as bytes, one field after the other."""
    entries = ["obs"] if face.alone else [f"obs.{field.name}" for field in face.entries]
    after = ["code", "action", *(f"policy.{field.name}" for field in face.memory)]
    after += ["policy.value"] if face.info["value"] else []
    return c_text.REPLAYER.format(
        obs="rlkit_obs_t obs[RLKIT_OBS_SIZE]" if face.alone else "rlkit_obs_t obs",
        given="obs" if face.alone else "&obs",
        reads=" && ".join(f"get({name}, sizeof {name})" for name in entries),
        writes=" ".join(f"fwrite(&{name}, sizeof {name}, 1, stdout);" for name in after),
    )
