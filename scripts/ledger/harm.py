"""What somebody who means harm can do to a run folder: one function per kind, which changes the folder it is given."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rlkit.checkpoint import sealed

Change = Callable[[Path], object]

BAIT = """
import os
open(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "outside", "canary"), "w").close()
import gymnasium
def function(*arguments, **more):
    raise RuntimeError("the bait was taken")
class Bait(gymnasium.Env):
    def __init__(self, **kwargs):
        function()
"""


def edit(run: Path, old: str, new: str) -> None:
    path = run / "config.yaml"
    text = path.read_text()
    if old not in text:
        raise RuntimeError(f"{old!r} is not in the configuration; the case is out of date")
    path.write_text(text.replace(old, new, 1))


def option(run: Path, group: str, key: str, value: object) -> None:
    """Give an option another value, whatever it was."""
    lines = (run / "config.yaml").read_text().splitlines()
    start = lines.index(f"{group}:") + 1 if group else 0
    indent = "  " if group else ""
    at = next(i for i in range(start, len(lines)) if lines[i].startswith(f"{indent}{key}:"))
    end = at + 1
    while end < len(lines) and lines[end].startswith(f"{indent}- "):
        end += 1
    lines[at:end] = [f"{indent}{key}: {json.dumps(value)}"]
    (run / "config.yaml").write_text("\n".join(lines) + "\n")


def options(*changes: tuple[str, str, object]) -> Change:
    def change(run: Path) -> None:
        for group, key, value in changes:
            option(run, group, key, value)

    return change


def link(name: str, target: str, run: Path) -> None:
    """A link where the run has, or would make, something; to `outside`, three folders up."""
    path = run / name
    path.parent.mkdir(exist_ok=True)
    _remove(path)
    path.symlink_to(os.path.relpath(run.parents[2] / "outside" / target, path.parent))


def absolute(name: str, run: Path) -> None:
    _remove(run / name)
    (run / name).symlink_to(run.parents[2] / "outside")


def hard(name: str, run: Path) -> None:
    """The same file under two names."""
    (run / name).parent.mkdir(exist_ok=True)
    _remove(run / name)
    os.link(run.parents[2] / "outside" / "file", run / name)


def pipe(name: str, run: Path) -> None:
    path = run / name if "NEWEST" not in name else newest(run) / name.partition("/")[2]
    _remove(path)
    os.mkfifo(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(path.name + ".was"))
    else:
        path.unlink(missing_ok=True)


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


def everywhere(change: Callable[[Path], None], run: Path) -> None:
    """Change every checkpoint, best/ included, and have its manifest vouch for it."""
    for folder in (*(run / "checkpoints").glob("step-*"), run / "best"):
        change(folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        for name in manifest["files"]:
            path = folder / name
            if path.is_file():
                data = path.read_bytes()
                manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))


class Payload:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ../outside/canary",)


def pickled(folder: Path) -> None:
    (folder / "policy.safetensors").write_bytes(pickle.dumps(Payload()))


def pickled_json(folder: Path) -> None:
    (folder / "policy.json").write_bytes(pickle.dumps(Payload()))


def tensors(header: dict[str, Any], size: int = 64) -> Change:
    """A file of tensors with this header."""

    def change(folder: Path) -> None:
        text = json.dumps(header).encode()
        (folder / "policy.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))

    return change


def many(folder: Path) -> None:
    """A header of 300,000 tensors."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    tensors({f"t{i}": entry for i in range(300_000)})(folder)


def described(change: Callable[[Any], None]) -> Change:
    """Another description of the policy."""

    def apply(folder: Path) -> None:
        path = folder / "policy.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return apply


def deep(name: str, run: Path) -> None:
    (run / name).write_text("[" * 100_000 + "]" * 100_000)


def long(name: str, run: Path) -> None:
    os.truncate(run / name, 2**31)


def manifest_path(run: Path) -> None:
    """A manifest that vouches for a file outside."""
    for folder in (*(run / "checkpoints").glob("step-*"), run / "best"):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["../../../../../outside/file"] = manifest["files"].pop("policy.json")
        (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))


def text(content: str, run: Path) -> None:
    """A configuration that is no plain YAML."""
    path = run / "config.yaml"
    path.write_text(content + path.read_text())


def rows(run: Path) -> None:
    """A metrics.csv with commands for a terminal and a very long cell."""
    with open(run / "metrics.csv", "a") as file:
        file.write("\x1b]0;owned\x07," * 3 + "x" * 1_000_000 + "\n")


def called(name: str) -> Change:
    """Other names for the run and what is in it."""
    return options(("", "name", name))


def _bomb() -> str:
    levels = ["b0: &b0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join(levels) + "\n"


RAY = ("source", "name", "ray")
PYTHON = {"py_executable": "sh -c 'touch ../outside/canary' #"}
CASES: dict[str, Change] = {
    "ray.runtime_env=py_executable": options(RAY, ("ray", "runtime_env", PYTHON)),
    "ray.runtime_env=pip": options(RAY, ("ray", "runtime_env", {"pip": ["./evil"]})),
    "ray.runtime_env=working_dir": options(RAY, ("ray", "runtime_env", {"working_dir": ".."})),
    "ray.runtime_env=env_vars": options(RAY, ("ray", "runtime_env", {"env_vars": {"PYTHONPATH": "."}})),
    "ray.runtime_env=hook": options(RAY, ("ray", "runtime_env", {"worker_process_setup_hook": "bait.function"})),
    "ray.address": options(RAY, ("ray", "address", "203.0.113.7:6379")),
    "ray.address without ray": options(("ray", "address", "203.0.113.7:6379")),
    "env.id=bait:Bait": options(("env", "id", "bait:Bait")),
    "env.id=bait:Bait-v0": options(("env", "id", "bait:Bait-v0")),
    "env.id=../bait:Bait": options(("env", "id", "../bait:Bait")),
    "env.id=rlkit/Bait": options(("env", "id", "rlkit/../bait:Bait")),
    "env.id=rlkit.envs.toys": options(("env", "id", "rlkit.envs.toys.os:system")),
    "env.id=os:system": options(("env", "id", "os:system"), ("env", "kwargs", {"command": "touch ../outside/canary"})),
    "env.kwargs=text": options(("env", "kwargs", {"entry_point": "bait:Bait"})),
    "agent=bait": options(("agent", "name", "bait")),
    "agent=bait.mod": options(("agent", "name", "bait.mod")),
    "network.encoder=bait": options(("network", "encoder", "bait:function")),
    "network.core=bait": options(("network", "core", "bait:function")),
    "alias=bait": options(("", "alias", "bait")),
    "yaml object": partial(text, '"x": !!python/object/apply:os.system ["touch ../outside/canary"]\n'),
    "yaml name": partial(text, '"x": !!python/name:bait.function ""\n'),
    "yaml module": partial(text, '"x": !!python/module:bait ""\n'),
    "yaml aliases": partial(text, _bomb()),
    "yaml documents": partial(text, "a: 1\n---\n"),
    "hydra defaults": partial(text, "defaults: [{agent: bait}]\nhydra: {searchpath: [file://..]}\n"),
    "interpolation": options(("", "device", "${oc.env:HOME}")),
    "resolver": options(("", "device", "${bait:x}")),
    "dir": options(("", "dir", "../outside")),
    "name": called("../../../outside"),
    "name with a command": called("a;touch ../outside/canary"),
    "name of control characters": called("\u001b[2J\u0007run"),
    "device of control characters": options(("", "device", "\u001b]0;owned\u0007")),
    "env.id of control characters": options(("env", "id", "\u001b[31mCartPole-v1")),
    "threads": options(("", "threads", 100_000)),
    "env.workers": options(("env", "backend", "workers"), ("env", "workers", 4096), ("env", "lanes", 4096)),
    "env.lanes": options(("env", "lanes", 1_000_000_000)),
    "agent.steps": options(("agent", "steps", 1_000_000_000)),
    "network.hidden": options(("network", "hidden", [200_000, 200_000])),
    "network.window": options(("network", "core", "transformer"), ("network", "window", 1_000_000)),
    "learner.workers": options(("learner", "workers", 4096)),
    "checkpoints linked": partial(link, "checkpoints", "checkpoints"),
    "checkpoints linked to nothing": partial(link, "checkpoints", "new"),
    "checkpoints linked absolutely": partial(absolute, "checkpoints"),
    "a checkpoint linked": partial(link, "checkpoints/step-000009999", "."),
    "a checkpoint to come linked": partial(link, "checkpoints/.step-000000300.tmp", "."),
    "metrics.csv linked": partial(link, "metrics.csv", "metrics.csv"),
    "metrics.csv linked to nothing": partial(link, "metrics.csv", "new"),
    "metrics.csv to come linked": partial(link, ".metrics.csv.tmp", "file"),
    "metrics.csv of two names": partial(hard, "metrics.csv"),
    "config.yaml linked": partial(link, "config.yaml", "file"),
    "config.yaml of two names": partial(hard, "config.yaml"),
    "lock linked": partial(link, ".lock", "new"),
    "lock of two names": partial(hard, ".lock"),
    "best linked": partial(link, "best", "."),
    "best to come linked": partial(link, ".best.tmp", "."),
    "best before linked": partial(link, ".best.old", "."),
    "eval linked": partial(link, "eval", "."),
    "eval linked absolutely": partial(absolute, "eval"),
    "videos linked": partial(link, "videos", "."),
    "a film linked": partial(link, "videos/watch-best-seed0.mp4", "file"),
    "a film to come linked": partial(link, "videos/.watch-best-seed0.mp4.part.mp4", "file"),
    "events linked": partial(link, "events.out.tfevents.000009.x", "file"),
    "a link to itself": lambda run: (_remove(run / "best"), (run / "best").symlink_to("best")),
    "metrics.csv a pipe": partial(pipe, "metrics.csv"),
    "config.yaml a pipe": partial(pipe, "config.yaml"),
    "lock a pipe": partial(pipe, ".lock"),
    "state.json a pipe": partial(pipe, "NEWEST/state.json"),
    "manifest.json a pipe": partial(pipe, "NEWEST/manifest.json"),
    "best/policy.json a pipe": partial(pipe, "best/policy.json"),
    "weights pickled": partial(everywhere, pickled),
    "description pickled": partial(everywhere, pickled_json),
    "300,000 tensors": partial(everywhere, many),
    "a tensor of 8 EB": partial(
        everywhere, tensors({"w": {"dtype": "F32", "shape": [2**61], "data_offsets": [0, 2**63 - 1]}})
    ),
    "a tensor before the file": partial(
        everywhere, tensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}})
    ),
    "a header of 8 EB": partial(
        everywhere, lambda folder: (folder / "policy.safetensors").write_bytes(struct.pack("<Q", 2**63 - 1) + bytes(64))
    ),
    "a network of 8 EB": partial(
        everywhere, described(lambda value: value["network"].update(hidden=[10**9, 10**9]))
    ),
    "a network of code": partial(
        everywhere, described(lambda value: value["network"].update(encoder="bait:function"))
    ),
    "a policy of code": partial(everywhere, described(lambda value: value.update(agent="bait", name="bait"))),
    "a policy of text": partial(everywhere, described(lambda value: value.update(weights="\u001b[2J"))),
    "a manifest that leads outside": manifest_path,
    "a deep configuration": partial(deep, "config.yaml"),
    "a deep manifest": lambda run: deep("manifest.json", newest(run)),
    "a deep description": partial(everywhere, partial(deep, "policy.json")),
    "2 GB of configuration": partial(long, "config.yaml"),
    "2 GB of metrics": partial(long, "metrics.csv"),
    "2 GB of manifest": lambda run: long("manifest.json", newest(run)),
    "2 GB of description": lambda run: long("policy.json", run / "best"),
    "rows of control characters": rows,
}  # fmt: skip
