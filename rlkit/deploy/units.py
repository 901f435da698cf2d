"""Looks at a co-simulation unit: FMPy validates it, and replays the recorded steps with the binary of this machine."""

from __future__ import annotations

import importlib.util
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.deploy import fmu
from rlkit.deploy.c import Interface
from rlkit.deploy.graph import LARGEST_FILE, GraphError, Tensor
from rlkit.deploy.parity import replay
from rlkit.deploy.runtime import Folder, Policy

PERIOD = 0.1  # seconds between decisions, and of one communication step


def check(folder: Folder, files: dict[str, bytes], say: Callable[[str], None]) -> str:
    """What differs first between the recorded steps and the unit in a folder; "" where nothing does.

    files: what its graphs give, with the binary of this machine, which alone is run. Raises GraphError where those in
    the folder are others.
    """
    held = _unpacked(folder)
    where = fmu.binary()
    if (
        any(held.get(name) != data for name, data in files.items() if name != where)
        or not files.keys() >= held.keys()
    ):
        raise GraphError(
            f"{folder.path / fmu.FILE} is not what the folder's graphs give; export the run again"
        )
    if where in held and held[where] != files[where]:
        say(f"{fmu.FILE} holds a binary of another compiler, which is not looked at: its sources are")
    if importlib.util.find_spec("fmpy") is None:
        say(f'{fmu.FILE} was not verified: FMPy is missing (pip install "rlkit[embed-fmu]")')
        return ""
    with tempfile.TemporaryDirectory(prefix="rlkit-fmu-") as place:
        unit = Path(place) / fmu.FILE
        unit.write_bytes(fmu.packed(files))
        problems = _problems(unit)
        if problems:
            return f"{fmu.FILE}: FMPy finds: {'; '.join(problems)}"
        if where not in files:
            say(f"{fmu.FILE} is valid; FMI 2.0 has no name for binaries of this machine, and none was run")
            return ""
        inside = Path(place) / "unit"
        with zipfile.ZipFile(unit) as archive:
            archive.extractall(inside)
        steps = Steps(inside, Interface(folder.json("policy.json")), fmu.guid(folder.read("policy.onnx")))
        try:
            wrong = replay(_Unit(folder, steps))
        finally:
            steps.close()
    if wrong:
        return f"{fmu.FILE}: {wrong}"
    say(f"verified:    {fmu.FILE} (FMPy), every recorded step")
    return ""


def _unpacked(folder: Folder) -> dict[str, bytes]:
    """The files in a unit. Raises GraphError."""
    try:
        with zipfile.ZipFile(io.BytesIO(folder.read(fmu.FILE))) as archive:
            if sum(each.file_size for each in archive.infolist()) > LARGEST_FILE:
                raise GraphError(f"{fmu.FILE} holds too much")
            return {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, RuntimeError) as error:
        raise GraphError(f"{folder.path / fmu.FILE} is damaged: {error}") from error


def _problems(unit: Path) -> list[str]:
    from fmpy.validation import validate_fmu

    return [" ".join(str(each).split()) for each in validate_fmu(str(unit))]


class Steps:
    """An instance of a unit in this process, one decision in every communication step."""

    def __init__(self, unit: Path, face: Interface, guid: str) -> None:
        from fmpy.fmi2 import FMU2Slave

        self.face, self.made = face, fmu.variables(face)[0]
        self.time, self.first = 0.0, True
        self.slave = FMU2Slave(
            guid=guid, unzipDirectory=str(unit), modelIdentifier=fmu.MODEL, instanceName=fmu.MODEL
        )
        self.slave.instantiate()
        self.open()

    def open(self) -> None:
        """Begin a simulation."""
        self.slave.setupExperiment(startTime=self.time)
        self.slave.enterInitializationMode()
        self.slave.setReal([0], [PERIOD])
        self.slave.exitInitializationMode()

    def __call__(self, entries: list[Tensor], first: bool) -> Tensor:
        """What is seen, [1, ...] each -> the action, [1, ...]."""
        if first and self.first:  # `reset` would not rise
            self.slave.reset()
            self.open()
        self.first = first
        numbers = np.concatenate([x.astype(np.float64).ravel() for x in entries]).tolist()
        seen = [each for each in self.made.all if each.causality == "input" and each.name != "reset"]
        setters = {
            "Real": self.slave.setReal,
            "Integer": self.slave.setInteger,
            "Boolean": self.slave.setBoolean,
        }
        for kind, setter in setters.items():
            chosen = [(each.reference, x) for each, x in zip(seen, numbers, strict=True) if each.kind == kind]
            if chosen:
                setter([place for place, _ in chosen], [x if kind == "Real" else int(x) for _, x in chosen])
        self.slave.setBoolean([0], [first])
        self.slave.doStep(self.time, PERIOD)
        self.time += PERIOD
        getters = {"Real": self.slave.getReal, "Integer": self.slave.getInteger}
        outputs = [each for each in self.made.all if each.causality == "output"]
        action = [getters[each.kind]([each.reference])[0] for each in outputs]
        return np.array(action).astype(self.face.action.dtype).reshape(1, *self.face.action.shape)

    def close(self) -> None:
        """End the simulation, and let the binary go."""
        self.slave.terminate()
        self.slave.freeInstance()


class _Unit(Policy):
    """A policy whose greedy actions are a unit's; its memory, which a unit does not show, is NumPy's."""

    def __init__(self, folder: Folder, steps: Steps) -> None:
        self.steps = steps
        super().__init__(folder, "numpy")

    def _opened(self, name: str, greedy: bool) -> Any:
        run, program, places = super()._opened(name, greedy)
        if not greedy:
            return run, program, places
        count = len(self.steps.face.entries)

        def acted(*arrays: Tensor) -> list[Tensor]:
            _, *memory = run(*arrays)
            return [self.steps(list(arrays[:count]), bool(arrays[count][0])), *memory]

        return acted, program, places
