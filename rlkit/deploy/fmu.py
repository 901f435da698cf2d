"""A policy as an FMI 2.0 co-simulation unit, policy.fmu (fmi-standard.org).

    modelDescription.xml        inputs obs[i], mask[i], reset; outputs action[i]; parameter period
    sources/                    policy.c and policy.h (rlkit.deploy.c), fmu.c, and model.h, which names the variables
    binaries/linux64/policy.so  where a C compiler was

A number of an observation is a Real, a choice an Integer, a mask's entry and `reset` Booleans. Indices count from 1, as
in Modelica; arrays of several axes are in C order.
"""

from __future__ import annotations

import hashlib
import io
import platform
import sys
import xml.etree.ElementTree as Xml
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rlkit.deploy.c import FILES, TYPES, Interface, counted
from rlkit.embedded import Info
from rlkit.options import ConfigError
from rlkit.spaces import Space, columns, leaves, limits_of, row_dtype
from rlkit.text import clean

FILE, MODEL = "policy.fmu", "policy"
MOST_INPUTS = 256
FLAGS = ["-std=c11", "-O2", "-shared", "-fPIC", "-fvisibility=hidden"]


@dataclass(frozen=True)
class Variable:
    """One number that goes in or out: name, kind (Real, Integer, Boolean), value reference, bounds where there are."""

    name: str
    kind: str
    reference: int
    causality: str
    description: str
    low: float = -np.inf
    high: float = np.inf

    @property
    def start(self) -> float:
        return 1.0 if self.name.startswith("mask") else float(np.clip(0.0, self.low, self.high))


@dataclass
class Variables:
    """All of them, in the order of the description: parameter, inputs, outputs."""

    all: list[Variable] = field(default_factory=list)

    def add(
        self, name: str, kind: str, causality: str, text: str, low: float = -np.inf, high: float = np.inf
    ) -> Variable:
        made = Variable(name, kind, len(self.of(kind)), causality, text, low, high)
        self.all.append(made)
        return made

    def of(self, kind: str, *causality: str) -> list[Variable]:
        return [
            each for each in self.all if each.kind == kind and (not causality or each.causality in causality)
        ]


def require_vectors(space: Space) -> None:
    """Raises ConfigError where a policy that observes `space` reads more numbers than a unit has inputs."""
    inputs = sum(columns(leaf) for _, leaf in leaves(space))
    if inputs > MOST_INPUTS:
        raise ConfigError(
            f"--format fmu: this policy reads {inputs:,} numbers, and a unit has at most {MOST_INPUTS} inputs; use "
            "--format c, where a picture is one array, or rlkit.runtime in Python"
        )


def variables(face: Interface) -> tuple[Variables, str]:
    """The variables of a policy, and the C function that makes a decision of their values."""
    made, lines = Variables(), []
    text = "Seconds between decisions; 0: one decision in every communication step"
    made.add("period", "Real", "parameter", text, 0.0, 1e9)
    made.add("reset", "Boolean", "input", "Clears the memory when it becomes true: an episode opens")
    for entry, given in zip(face.reader.entries, face.entries, strict=True):
        base = "mask" if entry.mask else "obs" if face.alone else f"obs.{given.name}"
        kind = "Boolean" if entry.mask else "Real" if entry.floats else "Integer"
        place = "obs" if face.alone else f"obs.{given.name}"
        for index, (low, high) in enumerate(_bounds(entry.leaf)):
            name = f"{base}[{index + 1}]" if given.shape else base
            one = made.add(name, kind, "input", clean(given.note), low, high)
            value = f"v->{kind.lower()}[{one.reference}]"
            if kind == "Integer":  # what the observation's type does not hold would become something else
                lines.append(f"if (({TYPES[given.dtype]}){value} != {value}) return RLKIT_OUT_OF_RANGE;")
            lines.append(f"{place}[{index}] = ({TYPES[given.dtype]}){value};")
    lines.append(f"const int code = rlkit_policy_act(policy, {'obs' if face.alone else '&obs'}, action);")
    lines.append("if (code != RLKIT_OK) return code;")
    lines += _outputs(face, made)
    obs = f"rlkit_obs_t obs{'[RLKIT_OBS_SIZE]' if face.alone else ''};"
    body = "\n".join(
        f"    {line}"
        for line in [obs, "rlkit_action_t action[RLKIT_ACTION_SIZE];", *lines, "return RLKIT_OK;"]
    )
    return made, f"static int decide(rlkit_policy_t *policy, Values *v) {{\n{body}\n}}\n"


def _outputs(face: Interface, made: Variables) -> list[str]:
    """Adds the outputs; the lines that write an action into them."""
    lines, place = [], 0
    for name, leaf in leaves(face.reader.action):
        kind, to = ("Real", "double") if row_dtype(leaf) == "float32" else ("Integer", "int")
        for low, high in _bounds(leaf):
            text = clean(f"{name}: {counted(leaf)}" if name else counted(leaf))
            one = made.add(f"action[{place + 1}]", kind, "output", text, low, high)
            lines.append(f"v->{kind.lower()}[{one.reference}] = ({to})action[{place}];")
            place += 1
    return lines


def _bounds(leaf: Space) -> list[tuple[float, float]]:
    """(low, high) of each number; infinite where there is no bound, or none that a variable of FMI can have."""
    limits = limits_of(leaf) or (np.array(-np.inf), np.array(np.inf))
    low, high = (
        np.broadcast_to(each, getattr(leaf, "shape", ())).astype(np.float64).ravel() for each in limits
    )
    most = float(np.finfo(np.float32).max) if row_dtype(leaf) == "float32" else 2.0**31
    bounds = zip(low.tolist(), high.tolist(), strict=True)
    return [(a if a > -most else -np.inf, b if b < most else np.inf) for a, b in bounds]


def guid(graph: bytes) -> str:
    """What a description and a binary have in common: a digest of the graph."""
    return f"{{{hashlib.sha256(graph).hexdigest()[:32]}}}"


def model_header(made: Variables, decide: str, name: str) -> str:
    """model.h: how many variables there are, what they begin with, and a decision."""
    counts = []
    for kind in ("Real", "Integer", "Boolean"):
        counts.append(f"#define {kind.upper()}S {len(made.of(kind))}")
        counts.append(f"#define SETTABLE_{kind.upper()}S {len(made.of(kind, 'parameter', 'input'))}")
    starts = [
        f"v->{each.kind.lower()}[{each.reference}] = {each.start if each.kind == 'Real' else int(each.start)};"
        for each in made.all
        if each.start
    ]
    return HEADER.format(
        guid=name,
        counts="\n".join(counts),
        starts="".join(f"    {line}\n" for line in starts or ["(void)v;"]),
        decide=decide,
    )


HEADER = """\
/* The variables of this unit, by value references; made by rlkit export --format fmu. */
#include "policy.h"

#define MODEL_GUID "{guid}"
#define PERIOD 0 /* of the Reals */
#define RESET 0  /* of the Booleans */
{counts}

typedef struct {{
    double real[REALS + 1]; /* no array is empty */
    int integer[INTEGERS + 1];
    int boolean[BOOLEANS];
}} Values;

static void set_starts(Values *v) {{
{starts}}}

{decide}"""


README = """
`policy.fmu` is the greedy policy as an FMI 2.0 co-simulation unit: set `obs[i]` (and `mask[i]`), step, read
`action[i]`. `period` is the time between decisions in seconds, over which actions are held; 0, the default, means one
decision in every communication step. `reset` clears the memory when it becomes true.
"""


def description(info: Info, made: Variables, name: str) -> bytes:
    """modelDescription.xml."""
    about = f"Agent {info['agent']}, step {info['step']}, environment {info['environment']}"
    root = Xml.Element(
        "fmiModelDescription", fmiVersion="2.0", modelName=clean(info["run"]), guid=name, description=clean(about),
        generationTool=f"rlkit {info['rlkit']}", variableNamingConvention="structured",
        numberOfEventIndicators="0",
    )  # fmt: skip
    unit = Xml.SubElement(
        root, "CoSimulation", modelIdentifier=MODEL, canHandleVariableCommunicationStepSize="true",
        canGetAndSetFMUstate="true", canSerializeFMUstate="true",
    )  # fmt: skip
    files = Xml.SubElement(unit, "SourceFiles")
    for source in ("policy.c", "fmu.c"):
        Xml.SubElement(files, "File", name=source)
    Xml.SubElement(
        Xml.SubElement(Xml.SubElement(root, "UnitDefinitions"), "Unit", name="s"), "BaseUnit", s="1"
    )
    categories = Xml.SubElement(root, "LogCategories")
    Xml.SubElement(categories, "Category", name="logStatusError")
    Xml.SubElement(root, "DefaultExperiment", startTime="0.0")
    listed = Xml.SubElement(root, "ModelVariables")
    for each in made.all:
        scalar = Xml.SubElement(
            listed, "ScalarVariable", name=each.name, valueReference=str(each.reference), description=each.description,
            causality=each.causality,
        )  # fmt: skip
        if each.causality == "parameter":
            scalar.set("variability", "fixed")
        elif each.causality == "output" or each.kind != "Real":
            scalar.set("variability", "discrete")
        if each.causality == "output":
            scalar.set("initial", "exact")
        kind = Xml.SubElement(scalar, each.kind, start=_shown(each, each.start))
        for bound, value in (("min", each.low), ("max", each.high)):
            if np.isfinite(value) and each.kind != "Boolean":
                kind.set(bound, _shown(each, value))
        if each.name == "period":
            kind.set("unit", "s")
    outputs = Xml.SubElement(Xml.SubElement(root, "ModelStructure"), "Outputs")
    for index, each in enumerate(made.all, 1):
        if each.causality == "output":
            Xml.SubElement(outputs, "Unknown", index=str(index), dependencies="")
    Xml.indent(root)
    text: str = Xml.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


def _shown(variable: Variable, value: float) -> str:
    if variable.kind == "Boolean":
        return "true" if value else "false"
    return repr(float(value)) if variable.kind == "Real" else str(int(value))


def sources(info: Info, files: dict[str, str], graph: bytes) -> dict[str, bytes]:
    """The files of the unit by their names in it, without a binary; files: those of rlkit.deploy.c."""
    face = Interface(info)
    made, decide = variables(face)
    name = guid(graph)
    found = {f"sources/{each}": files[each].encode() for each in FILES[:2]}
    found["sources/fmu.c"] = Path(__file__).with_name("fmu.c").read_bytes()
    found["sources/model.h"] = model_header(made, decide, name).encode()
    found["modelDescription.xml"] = description(info, made, name)
    return found


def binary() -> str:
    """Where this machine's binary stands in a unit; "" for a machine that FMI 2.0 has no name for."""
    system = {"linux": ("linux64", "so"), "darwin": ("darwin64", "dylib")}.get(sys.platform)
    if system is None or platform.machine() not in ("x86_64", "AMD64"):
        return ""
    return f"binaries/{system[0]}/{MODEL}.{system[1]}"


def packed(files: dict[str, bytes]) -> bytes:
    """A zip archive, the same for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()
