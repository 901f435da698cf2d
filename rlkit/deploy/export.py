"""A trained policy as a folder that any simulator can run, proven equal to the agent.

    policy.onnx, sample.onnx    the greedy and the sampled policy, one step (rlkit.deploy.trace)
    policy.json                 spaces, memory, preprocessing, and where it is from
    parity.npz                  recorded steps of the agent (rlkit.deploy.parity)
    rlkit_runtime.py            runs all this with NumPy alone (rlkit.deploy.runtime)
    policy.c, policy.h, ...     the same arithmetic in C, where it was asked for (rlkit.deploy.c)
    policy.fmu                  and as a co-simulation unit (rlkit.deploy.fmu)
    README.md                   inputs, outputs, how to call it
    manifest.json               size and SHA-256 of each file, and the SHA-256 of all that

The folder is made beside its place and moved there once it is whole and verified.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import numpy as np

from rlkit import __version__
from rlkit.checkpoint import sealed
from rlkit.config.schema import RunConfig
from rlkit.deploy import c, fmu, native, readme
from rlkit.deploy.bundle import bundle
from rlkit.deploy.cut import Cutter
from rlkit.deploy.kernel import generator, require_generator
from rlkit.deploy.parity import replay
from rlkit.deploy.record import record
from rlkit.deploy.runtime import BACKENDS, FORMAT, Folder, Policy
from rlkit.deploy.trace import MEMORY_AFTER, OPSET, SAMPLED_AFTER, names_of, trace
from rlkit.embedded import Info
from rlkit.files import Place
from rlkit.options import ConfigError
from rlkit.play.saved import AgentPolicy, preprocessing
from rlkit.space_json import to_json
from rlkit.types import tree_leaves

NEEDED = ("onnx", "onnxscript", "onnxruntime")
FORMS = ("onnx", "c", "fmu")
Say = Callable[[str], None]


class Unequal(ValueError):
    """An exported policy that does not do what the agent does."""

    complete = True  # the message says everything


@dataclass(frozen=True)
class Origin:
    """Where a policy is from."""

    run: str
    agent: str
    step: int
    checkpoint: str  # SHA-256 of its manifest
    licence: str = ""


def origin(agent: AgentPolicy, config: RunConfig, run: str, licence: str = "") -> Origin:
    """Of a policy that was loaded from a checkpoint; licence: under which it is passed on."""
    data = (agent.path / "manifest.json").read_bytes()
    step = int(json.loads(data)["step"])
    return Origin(run, config.agent_name, step, hashlib.sha256(data).hexdigest(), licence)


def require_packages(form: str = "onnx") -> None:
    """Raises ConfigError where the extra is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'rlkit export needs {", ".join(missing)}: pip install "rlkit[export]"')
    if form != "onnx":
        require_generator()


def export(
    agent: AgentPolicy,
    config: RunConfig,
    place: Place,
    where: Origin,
    *,
    steps: int = 1000,
    value: bool = False,
    verify: bool = True,
    form: str = "onnx",
    say: Say = print,
) -> Info:
    """Write the folder at `place`, in the stead of one that is there; returns what policy.json says.

    form: one of FORMS. Raises ConfigError where the policy cannot be written so, Unequal where what was written does
    something else than the agent; then nothing is left of it.
    """
    require_packages(form)
    if form == "fmu":
        fmu.require_vectors(agent.reader.space)
    files, info = _graphs(agent, value)
    info = _described(agent, where, value) | info
    kept = [int(each["name"][7:]) for each in info["memory"]]
    steps_of_agent, buffer = record(agent, config, steps, kept, say, value), io.BytesIO()
    np.savez_compressed(buffer, **steps_of_agent)  # type: ignore[arg-type]
    files |= {
        "policy.json": json.dumps(info, indent=1).encode(),
        "parity.npz": buffer.getvalue(),
        "rlkit_runtime.py": bundle(__version__).encode(),
        "README.md": readme.text(info, names_of(agent)).encode(),
    }
    with ExitStack() as opened:
        program = _native(info, files, form, opened, say)
        _placed(place, files, lambda folder: check(folder, say, program) if verify else None)
    return info


def _native(
    info: Info, files: dict[str, bytes], form: str, opened: ExitStack, say: Say
) -> native.Built | None:
    """Add the files in C to `files`; returns what a compiler makes of them, where there is one."""
    if form == "onnx":
        return None
    info["c"] = generator()
    made = c.sources(info, files)
    program = opened.enter_context(native.built(info, made)) if native.compiler() else None
    sizes = c.sizes(made, program.flash() if program else 0, program.stack() if program else 0)
    say(f"policy.c:    {sizes}")
    files |= {name: text.encode() for name, text in made.files.items()}
    files |= {"policy.json": json.dumps(info, indent=1).encode()}
    files["README.md"] += c.readme(info, sizes).encode()
    if form == "fmu":
        unit = fmu.sources(info, made.files, files["policy.onnx"])
        files[fmu.FILE] = fmu.packed(program.unit(unit) if program else unit)
        files["README.md"] += fmu.README.encode()
    return program


def _placed(place: Place, files: dict[str, bytes], check: Callable[[Place], None]) -> None:
    """Write a folder beside its place, check it, and move it there; what stood there stays where this fails."""
    temporary, replaced = place.beside(f".{place.name}.tmp"), place.beside(f".{place.name}.old")
    temporary.remove()
    try:
        _write(temporary, files)
        check(temporary)
        replaced.remove()
        if place.exists():
            place.rename(replaced)
        temporary.rename(place)
        place.parent.sync()
        replaced.remove()
    except BaseException:
        with suppress(OSError):
            temporary.remove()
            if replaced.exists() and not place.exists():
                replaced.rename(place)
        raise


def _write(folder: Place, files: dict[str, bytes]) -> None:
    folder.mkdir()
    sums = {}
    for name, data in files.items():
        (folder / name).write(data)
        sums[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest = sealed({"format": FORMAT, "files": sums})
    (folder / "manifest.json").write(json.dumps(manifest, indent=1).encode())
    folder.sync()


def check(folder: Place, say: Say, program: native.Built | None = None) -> None:
    """Replay the recorded steps with every backend. Raises Unequal, and GraphError where the folder is damaged.

    program: the folder's C files, where these have just been compiled.
    """
    for backend in BACKENDS:
        if backend != "numpy" and importlib.util.find_spec(backend) is None:
            say(f"{backend} is not installed: not compared")
            continue
        policy = Policy.load(folder.path, backend)
        wrong = replay(policy)
        if wrong:
            raise Unequal(f"the exported policy is not the agent: {backend}: {wrong}")
        say(f"verified:    {backend}, every recorded step")
    opened = Folder(folder.path)
    if "policy.c" in opened.sums:
        wrong = native.check(opened, say, program)
        if wrong:
            raise Unequal(f"the exported policy is not the agent: {wrong}")


def _graphs(agent: AgentPolicy, value: bool) -> tuple[dict[str, bytes], Info]:
    """The files of both graphs, and what policy.json says of them."""
    cutter = Cutter(trace(agent, ["action", "sampled", *(["value"] if value else [])]))
    parts = [part for part in tree_leaves(agent.opening(1)) if part[0].numel()]
    greedy, sampled = memory_kept(cutter, len(parts), value)
    files, graphs, used = {}, {}, set()
    for name, action, after, kept in (
        ("policy.onnx", "action", MEMORY_AFTER, sorted(greedy)),
        ("sample.onnx", "sampled", SAMPLED_AFTER, sorted(sampled)),
    ):
        outputs = {action: "action"} | {f"{after}{i}": f"{MEMORY_AFTER}{i}" for i in kept}
        outputs |= {"value": "value"} if value and action == "action" else {}
        noise = ["noise"] if action == "sampled" else []
        inputs = [*names_of(agent), "first", *noise, *(f"memory.{i}" for i in kept)]
        model = cutter.cut(outputs, inputs)
        used |= {node.op_type for node in model.graph.node}
        files[name], graphs[name] = model.SerializeToString(), [f"memory.{i}" for i in kept]
    memory = [
        {"name": f"memory.{i}", "shape": list(parts[i].shape[1:]), "dtype": str(parts[i].numpy().dtype)}
        for i in sorted(greedy | sampled)
    ]
    return files, {"memory": memory, "graphs": graphs, "opset": OPSET, "operators": sorted(used)}


def memory_kept(cutter: Cutter, count: int, value: bool) -> tuple[set[int], set[int]]:
    """The parts of the memory that the greedy graph has, and those of the sampled one.

    Both may be used in turn: what one of them needs and the other one changes, the other one has, too.
    """
    changed = {
        after: {i for i in range(count) if not cutter.same(f"{after}{i}", f"memory.{i}")}
        for after in (MEMORY_AFTER, SAMPLED_AFTER)
    }
    greedy: set[int] = set()
    sampled: set[int] = set()
    while True:
        more = cutter.memory(
            ["action", *(["value"] if value else [])], MEMORY_AFTER, sampled & changed[MEMORY_AFTER]
        )
        others = cutter.memory(["sampled"], SAMPLED_AFTER, more & changed[SAMPLED_AFTER])
        if (more, others) == (greedy, sampled):
            return greedy, sampled
        greedy, sampled = more, others


def _described(agent: AgentPolicy, where: Origin, value: bool) -> Info:
    """What policy.json says beside the graphs."""
    return {
        "format": FORMAT,
        "rlkit": __version__,
        "run": where.run,
        "agent": where.agent,
        "step": where.step,
        "checkpoint": where.checkpoint,
        "licence": where.licence,
        "environment": agent.spec.id,
        "observation": to_json(agent.spec.observation),
        "action": to_json(agent.spec.action),
        "labels": list(agent.unknown),
        "gaps": agent.reader.gaps,
        "agents": list(agent.policy.spec.agents),
        "preprocessing": _preprocessing(agent),
        "noise": agent.policy.noise_size,
        "value": value,
    }


def _preprocessing(agent: AgentPolicy) -> Info:
    """What the environment did to observations before the policy saw them."""
    try:
        return preprocessing(agent.path)
    except ConfigError:  # a checkpoint outside its run
        return {}
