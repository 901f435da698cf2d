"""A policy as C: policy.c and policy.h, which need no libc but math.h and string.h, and no heap.

    rlkit_policy_t policy;                               holds the memory
    rlkit_policy_reset(&policy);                         an episode opens
    code = rlkit_policy_act(&policy, obs, action);       the most likely action
    code = rlkit_policy_sample(&policy, obs, noise, action);

The arithmetic is that of policy.onnx and sample.onnx (rlkit.deploy.single, rlkit.deploy.kernel); what stands around it
is written here: memory, and a look at every observation before it can change that memory.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlkit.deploy import c_text
from rlkit.deploy.graph import Tensor
from rlkit.deploy.kernel import generator, kernels
from rlkit.deploy.single import single
from rlkit.embedded import Info
from rlkit.reading import Entry, Reader
from rlkit.space_json import from_json
from rlkit.spaces import Space, action_row, choice_counts, columns, describe, leaves, start_of
from rlkit.text import clean

FILES = ("policy.c", "policy.h", "example.c", "CMakeLists.txt")
TYPES = {"float32": "float", "float64": "double", "bool": "bool"} | {
    name: f"{name}_t" for name in ("uint8", "int8", "int16", "int32", "int64")
}
GRAPHS = {"policy.onnx": "greedy", "sample.onnx": "sampled"}


@dataclass(frozen=True)
class Field:
    """An array of the interface: name in C, NumPy dtype, shape, and what it is."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    note: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def declared(self) -> str:
        return f"{TYPES[self.dtype]} {self.name}[{self.size}];"

    def given(self, value: str, const: str = "const ") -> str:
        """A pointer to its numbers as the generated functions read it: [1, *shape]."""
        sizes = "".join(f"[{size}]" for size in self.shape)
        return f"({const}{TYPES[self.dtype]} (*){sizes}){value}" if sizes else value


class Interface:
    """What goes in and out of the C functions of a policy, from what policy.json says of it.

    That file may come from anybody: what stands in C is numbers, types of the table above and names of our own.
    """

    def __init__(self, info: Info) -> None:
        self.info = info
        action = from_json(info["action"])
        self.reader = Reader(from_json(info["observation"]), action, info["labels"], gaps=info["gaps"])
        self.alone = [entry.name for entry in self.reader.entries] == [""]
        self.entries: list[Field] = []
        for entry in self.reader.entries:
            names = {each.name for each in self.entries}
            name = "obs" if self.alone else identifier(entry.name, names)
            note = f"{entry.name}: {counted(entry.leaf)}" if entry.name else counted(entry.leaf)
            self.entries.append(Field(name, entry.dtype.name, entry.shape, note))
        self.memory = [
            Field(f"m{place}", str(each["dtype"]), tuple(map(int, each["shape"])), "")
            for place, each in enumerate(info["memory"])
        ]
        shape, dtype = action_row(action)
        self.action = Field("action", dtype, shape, "")
        self.noise = int(info["noise"])

    def kept(self, graph: str) -> list[Field]:
        """The memory of one of the two graphs."""
        names = [each["name"] for each in self.info["memory"]]
        return [self.memory[names.index(name)] for name in self.info["graphs"][graph]]

    def value(self, graph: str) -> bool:
        return bool(self.info["value"]) and graph == "policy.onnx"

    def single(self, graph: str, data: bytes) -> Any:
        """One of the two graphs for one lane."""
        names = [f"obs.{entry.name}" if entry.name else "obs" for entry in self.reader.entries]
        zeros = {name: _zeros(field) for name, field in zip(names, self.entries, strict=True)}
        zeros["first"] = np.array([True])
        if graph == "sample.onnx":
            zeros["noise"] = np.full((1, self.noise), 0.5, np.float32)
        kept = self.info["graphs"][graph]
        zeros |= {name: _zeros(field) for name, field in zip(kept, self.kept(graph), strict=True)}
        outputs = ["action", *(name.replace("memory.", "memory_out.") for name in kept)]
        return single(data, zeros, [*outputs, *(["value"] if self.value(graph) else [])])


def _zeros(field: Field) -> Tensor:
    return np.zeros((1, *field.shape), field.dtype)


def identifier(name: str, taken: set[str]) -> str:
    """A C name for an entry, which is neither a word of C or C++ nor a macro, and none of those taken."""
    made = base = "e_" + re.sub(r"[^A-Za-z0-9_]", "_", name)[:40]
    number = 2
    while made in taken:
        made, number = f"{base}_{number}", number + 1
    return made


def comment(text: str) -> str:
    """Text from a file as a comment may hold it."""
    return re.sub(r"[^\w .,:;()\[\]=+-]", "?", clean(text), flags=re.ASCII)


def counted(leaf: Space) -> str:
    """A space in words, and where its choices begin."""
    start = start_of(leaf)
    if start is None:
        return describe(leaf)
    return f"{describe(leaf)}, counted from 0: the environment's numbers less {np.ravel(start).tolist()}"


@dataclass(frozen=True)
class Sources:
    """The text of the C files; constants, memory: the bytes that these take, as far as they are in the text."""

    files: dict[str, str]
    constants: int
    memory: int


def sources(info: Info, graphs: dict[str, bytes]) -> Sources:
    """The C files of a policy; graphs: the bytes of policy.onnx and sample.onnx.

    The same graphs give the same text. Raises ConfigError where the generator is missing or refuses a graph.
    """
    face = Interface(info)
    made, size = kernels({GRAPHS[name]: face.single(name, graphs[name]) for name in GRAPHS})
    parts = [c_text.OPENING.format(generator=generator()), made, _look(face), c_text.RESET]
    parts += [_act(face, name) for name in GRAPHS]
    memory = sum(field.size * np.dtype(field.dtype).itemsize for field in face.memory)
    files = {
        "policy.c": "\n".join(parts),
        "policy.h": _header(face),
        "example.c": _example(face),
        "CMakeLists.txt": c_text.CMAKE,
    }
    return Sources(files, size, memory)


def sizes(made: Sources, flash: int, stack: int) -> str:
    """What the files take, in words; flash, stack: bytes of the compiled file, 0 where it was not compiled here."""
    code = f"{flash:,} bytes of code and constants"
    code = code if flash else f"{made.constants:,} bytes of constants beside its code (not measured)"
    depth = f", {stack:,} bytes of stack" if stack else ""
    return f"{code}, {made.memory:,} bytes of memory for each simulation{depth}"


def readme(info: Info, text: str) -> str:
    """What the README of the folder says of the C files; text: their sizes."""
    given, declared = ("obs", "obs[RLKIT_OBS_SIZE]") if Interface(info).alone else ("&obs", "obs")
    return c_text.README.format(sizes=text, given=given, declared=declared)


def _header(face: Interface) -> str:
    info, action = face.info, face.action
    if face.alone:
        entry = face.entries[0]
        obs = f"typedef {TYPES[entry.dtype]} rlkit_obs_t; /* [RLKIT_OBS_SIZE], {_shaped(entry)} */"
        obs = f"#define RLKIT_OBS_SIZE {entry.size}\n{obs}"
    else:
        lines = "\n".join(f"    {each.declared} /* {_shaped(each)} */" for each in face.entries)
        obs = f"typedef struct {{\n{lines}\n}} rlkit_obs_t;"
    memory = "".join(f"    {field.declared}\n" for field in face.memory)
    memory += c_text.VALUE if info["value"] else ""
    about = f"{info['run']}: a policy of rlkit {info['rlkit']}, agent {info['agent']}, step {info['step']}"
    strange = "infinity; NaN is a missing number" if face.reader.gaps else "NaN or infinity"
    return c_text.HEADER.format(
        about=comment(f"{about}, environment {info['environment']}"), obs=obs, size=action.size, memory=memory,
        dtype=TYPES[action.dtype], actions=_actions(face), noise=face.noise, strange=strange,
    )  # fmt: skip


def _shaped(field: Field) -> str:
    """What an array is, and its shape where that is not in the space's own words."""
    order = "" if len(field.shape) < 2 else f"; {list(field.shape)} in C order"
    return comment(field.note) + order


def _actions(face: Interface) -> str:
    """What each number of an action is."""
    lines, place = [], 0
    for name, leaf in leaves(face.reader.action):
        count = columns(leaf)
        where = f"[{place}]" if count == 1 else f"[{place}] to [{place + count - 1}]"
        lines.append(f"   {where}: {comment(f'{name}: ' if name else '')}{comment(counted(leaf))}")
        place += count
    return "\n".join(lines)


def _look(face: Interface) -> str:
    """The function that looks at an observation."""
    lines = []
    for entry, field in zip(face.reader.entries, face.entries, strict=True):
        lines += _looked(entry, field, "obs" if face.alone else f"obs->{field.name}", face)
    body = "".join(f"    {line}\n" for line in lines or ["(void)obs;"])
    return f"static int look(const rlkit_obs_t *obs) {{\n{body}    return RLKIT_OK;\n}}\n"


def _looked(entry: Entry, field: Field, x: str, face: Interface) -> list[str]:
    """The lines that look at one entry, which is called x in C."""
    loop, lines = f"for (int i = 0; i < {field.size}; ++i)", []
    if entry.floats:
        wrong = f"fabsf({x}[i]) > FLT_MAX" if face.reader.gaps else f"!(fabsf({x}[i]) <= FLT_MAX)"
        lines.append(f"{loop} if ({wrong}) return RLKIT_NOT_FINITE;")
    elif entry.limits is not None:
        info = np.iinfo(entry.dtype)
        for name, bound, sign, free in zip(
            ("low", "high"), entry.limits, "<>", (info.min, info.max), strict=True
        ):
            numbers = np.broadcast_to(bound, entry.shape).ravel().tolist()
            if set(numbers) == {free}:  # the type holds nothing beyond
                continue
            limit = _int64(numbers[0])
            if len(set(numbers)) > 1:
                limit = f"{name}_{field.name}[i]"
                listed = ", ".join(map(_int64, numbers))
                lines.append(f"static const int64_t {name}_{field.name}[{field.size}] = {{{listed}}};")
            lines.append(f"{loop} if ({x}[i] {sign} {limit}) return RLKIT_OUT_OF_RANGE;")
    if entry.mask:
        place = 0
        for count in choice_counts(face.reader.action):
            inside = f"for (int i = {place}; i < {place + count}; ++i) open += {x}[i] != 0;"
            lines.append(f"{{ int open = 0; {inside} if (!open) return RLKIT_NO_CHOICE; }}")
            place += count
    return lines


def _int64(number: int) -> str:
    return "INT64_MIN" if number == -(2**63) else f"INT64_C({number})"


def _act(face: Interface, graph: str) -> str:
    """rlkit_policy_act or rlkit_policy_sample."""
    drawn = graph == "sample.onnx"
    kept, noise = face.kept(graph), Field("uniforms", "float32", (face.noise,), "")
    given = [field.given("obs" if face.alone else f"obs->{field.name}") for field in face.entries]
    given += ["first", *([noise.given("uniforms")] if drawn else [])]
    given += [field.given(f"policy->{field.name}") for field in kept]
    given += [face.action.given("action", ""), *(field.given(field.name, "") for field in kept)]
    given += ["&policy->value"] if face.value(graph) else []
    head = f"int rlkit_policy_{'sample' if drawn else 'act'}(rlkit_policy_t *policy, const rlkit_obs_t *obs, "
    head += f"{'const float *noise, ' if drawn else ''}rlkit_action_t *action)"
    lines = ["const bool first[1] = {policy->first};", *(field.declared for field in kept)]
    lines += [f"float uniforms[{noise.size}];"] if drawn else []
    lines += ["const int code = look(obs);", "if (code != RLKIT_OK) return code;"]
    lines += [c_text.NOISE.format(size=noise.size)] if drawn else []
    lines += [f"{GRAPHS[graph]}_graph({', '.join(given)});"]
    lines += [f"memcpy(policy->{field.name}, {field.name}, sizeof {field.name});" for field in kept]
    body = "\n".join(f"    {line}" for line in [*lines, "policy->first = false;", "return RLKIT_OK;"])
    return f"{head} {{\n{body}\n}}\n"


def _example(face: Interface) -> str:
    """A program of three steps."""
    obs = f"static rlkit_obs_t obs{'[RLKIT_OBS_SIZE]' if face.alone else ''};"
    masks = [
        f"    for (int i = 0; i < {field.size}; ++i) obs.{field.name}[i] = 1; /* everything is allowed */\n"
        for entry, field in zip(face.reader.entries, face.entries, strict=True)
        if entry.mask
    ]
    return c_text.EXAMPLE.format(obs=obs, masks="".join(masks), given="obs" if face.alone else "&obs")
