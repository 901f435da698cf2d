"""Exported folders made by hand, and servers of them.

The policy adds up the first number of its observations since the episode began, and chooses 1 where the sum is above a
threshold. What it draws is 1 where the noise is above one half.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import uvicorn
from onnx import TensorProto, helper, numpy_helper

from rlkit.checkpoint import sealed
from rlkit.serve.app import Application
from rlkit.serve.models import Model, Version
from rlkit.serve.protocol import Http, WebSocket
from rlkit.serve.server import listen

VECTOR = {"kind": "Box", "shape": [2], "dtype": "float32", "low": "-inf", "high": "inf"}


def graph(threshold: float, sampled: bool, numbers: int = 2) -> bytes:
    """policy.onnx, or sample.onnx."""
    nodes = [
        helper.make_node("Cast", ["first"], ["opens"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "opens"], ["keeps"]),
        helper.make_node("Unsqueeze", ["keeps", "last"], ["column"]),
        helper.make_node("Mul", ["memory.0", "column"], ["before"]),
        helper.make_node("Slice", ["obs", "zero", "end", "last"], ["number"]),
        helper.make_node("Add", ["before", "number"], ["memory_out.0"]),
        helper.make_node("Greater", ["noise" if sampled else "memory_out.0", "threshold"], ["above"]),
        helper.make_node("Cast", ["above"], ["choice"], to=TensorProto.INT64),
        helper.make_node("Squeeze", ["choice", "last"], ["action"]),
    ]
    values = {"one": np.float32(1), "last": [1], "zero": [0], "end": [1], "threshold": np.float32(threshold)}
    shapes = {"obs": (1, numbers), "first": (9,), "memory.0": (1, 1)} | ({"noise": (1, 1)} if sampled else {})
    made = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, kind, ["lanes", *rest])
            for name, (kind, *rest) in shapes.items()
        ],
        [
            helper.make_tensor_value_info("action", TensorProto.INT64, ["lanes"]),
            helper.make_tensor_value_info("memory_out.0", TensorProto.FLOAT, ["lanes", 1]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def export(
    folder: Path,
    threshold: float = 1.0,
    step: int = 1,
    recorded: float | None = None,
    numbers: int = 2,
    **info: Any,
) -> Path:
    """An exported folder, in the stead of one that is there. recorded: the threshold of the recorded steps, where it
    is another one."""
    obs = np.random.default_rng(0).uniform(-1, 1, (30, numbers)).astype(np.float32)
    first, total = np.arange(30) % 10 == 0, np.float32(0)
    actions, memory = [], []
    for x, opens in zip(obs[:, 0], first, strict=True):
        total = x if opens else total + x
        actions.append(int(total > (threshold if recorded is None else recorded)))
        memory.append([total])
    noise = np.random.default_rng(1).random((30, 1), np.float32)
    parity, npz = io.BytesIO(), np.savez
    npz(parity, obs=obs, first=first, action=np.array(actions), memory_steps=np.array([9, 29]),
        **{"memory.0": np.array(memory, np.float32)[[9, 29]]}, noise=noise,
        sampled=(noise[:, 0] > 0.5).astype(np.int64))  # fmt: skip
    described = {
        "format": 1, "run": "hand", "agent": "none", "step": step, "observation": VECTOR | {"shape": [numbers]},
        "labels": [], "gaps": False,
        "action": {"kind": "Discrete", "n": 2, "start": 0}, "preprocessing": {}, "noise": 1, "value": False,
        "memory": [{"name": "memory.0", "shape": [1], "dtype": "float32"}],
        "graphs": {"policy.onnx": ["memory.0"], "sample.onnx": ["memory.0"]},
    }  # fmt: skip
    files = {
        "policy.onnx": graph(threshold, False, numbers),
        "sample.onnx": graph(0.5, True, numbers),
        "policy.json": json.dumps(described | info).encode(),
        "parity.npz": parity.getvalue(),
    }
    new = folder.with_name(f"{folder.name}.new")
    new.mkdir(parents=True)
    for name, data in files.items():
        (new / name).write_bytes(data)
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    (new / "manifest.json").write_text(json.dumps(sealed({"format": 1, "files": sums})))
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}.old"))
        shutil.rmtree(folder.with_name(f"{folder.name}.old"))
    new.rename(folder)
    return folder


def application(folder: Path, **options: Any) -> Application:
    return Application({"hand": Model("hand", folder, Version(folder))}, **options)


@contextmanager
def serving(app: Application, protocol: type[Http] = Http) -> Iterator[int]:
    """The port of a server in a thread of this process."""
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws=WebSocket,
        lifespan="off",
        log_config=None,
        log_level="critical",
        ws_max_size=2**21,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)


class Client:
    """One connection of HTTP."""

    def __init__(self, port: int, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.headers = headers

    def raw(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in (self.headers | headers).items()}
        self.connection.request(method, path, body, named)
        answer = self.connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def post(self, path: str, value: Any) -> tuple[int, dict[str, Any]]:
        status, _, body = self.raw("POST", path, json.dumps(value), content_type="application/json")
        return status, json.loads(body)

    def get(self, path: str) -> tuple[int, Any]:
        status, headers, body = self.raw("GET", path)
        return status, json.loads(body) if "json" in headers["content-type"] else body.decode()


def until(condition: Any, seconds: float = 20) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not become true"
        time.sleep(0.02)
