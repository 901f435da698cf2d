"""A trained policy as a folder that any simulator can run, proven equal to the agent.

    policy.onnx, sample.onnx    the greedy and the sampled policy, one step (rlkit.deploy.trace)
    policy.json                 spaces, memory, preprocessing, and where it is from
    parity.npz                  recorded steps of the agent (rlkit.deploy.parity)
    rlkit_runtime.py            runs all this with NumPy alone (rlkit.deploy.runtime)
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
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlkit import __version__
from rlkit.checkpoint import sealed
from rlkit.config.schema import RunConfig
from rlkit.deploy import readme
from rlkit.deploy.bundle import bundle
from rlkit.deploy.cut import Cutter
from rlkit.deploy.parity import replay
from rlkit.deploy.record import record
from rlkit.deploy.runtime import BACKENDS, FORMAT, Policy
from rlkit.deploy.trace import MEMORY_AFTER, OPSET, SAMPLED_AFTER, names_of, trace
from rlkit.files import Place
from rlkit.options import ConfigError
from rlkit.play.saved import AgentPolicy, preprocessing
from rlkit.space_json import to_json
from rlkit.types import tree_leaves

NEEDED = ("onnx", "onnxscript", "onnxruntime")
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


def origin(agent: AgentPolicy, config: RunConfig, run: str) -> Origin:
    """Of a policy that was loaded from a checkpoint."""
    data = (agent.path / "manifest.json").read_bytes()
    step = int(json.loads(data)["step"])
    return Origin(run, config.agent_name, step, hashlib.sha256(data).hexdigest())


def require_packages() -> None:
    """Raises ConfigError where the extra is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'rlkit export needs {", ".join(missing)}: pip install "rlkit[export]"')


def export(
    agent: AgentPolicy,
    config: RunConfig,
    place: Place,
    where: Origin,
    *,
    steps: int = 1000,
    value: bool = False,
    verify: bool = True,
    say: Say = print,
) -> dict[str, Any]:
    """Write the folder at `place`, in the stead of one that is there; returns what policy.json says.

    Raises ConfigError where the policy cannot be written as a graph, Unequal where what was written does something else
    than the agent; then nothing is left of it.
    """
    require_packages()
    files, info = _graphs(agent, value)
    info = _described(agent, where, value) | info
    kept = [int(each["name"][7:]) for each in info["memory"]]
    steps_of_agent, buffer = record(agent, config, steps, kept, say), io.BytesIO()
    np.savez_compressed(buffer, **steps_of_agent)  # type: ignore[arg-type]
    files |= {
        "policy.json": json.dumps(info, indent=1).encode(),
        "parity.npz": buffer.getvalue(),
        "rlkit_runtime.py": bundle(__version__).encode(),
        "README.md": readme.text(info, names_of(agent)).encode(),
    }
    temporary, replaced = place.beside(f".{place.name}.tmp"), place.beside(f".{place.name}.old")
    temporary.remove()
    try:
        _write(temporary, files)
        if verify:
            check(temporary, say)
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
    return info


def _write(folder: Place, files: dict[str, bytes]) -> None:
    folder.mkdir()
    sums = {}
    for name, data in files.items():
        (folder / name).write(data)
        sums[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest = sealed({"format": FORMAT, "files": sums})
    (folder / "manifest.json").write(json.dumps(manifest, indent=1).encode())
    folder.sync()


def check(folder: Place, say: Say) -> None:
    """Replay the recorded steps with every backend. Raises Unequal, and GraphError where the folder is damaged."""
    for backend in BACKENDS:
        if backend != "numpy" and importlib.util.find_spec(backend) is None:
            say(f"{backend} is not installed: not compared")
            continue
        policy = Policy.load(folder.path, backend)
        wrong = replay(policy)
        if wrong:
            raise Unequal(f"the exported policy is not the agent: {backend}: {wrong}")
        say(f"verified:    {backend}, every recorded step")


def _graphs(agent: AgentPolicy, value: bool) -> tuple[dict[str, bytes], dict[str, Any]]:
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


def _described(agent: AgentPolicy, where: Origin, value: bool) -> dict[str, Any]:
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


def _preprocessing(agent: AgentPolicy) -> dict[str, Any]:
    """What the environment did to observations before the policy saw them."""
    try:
        return preprocessing(agent.path)
    except ConfigError:  # a checkpoint outside its run
        return {}
