"""The README of an exported folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

from rlkit.embedded import Info
from rlkit.space_json import from_json
from rlkit.spaces import describe, leaves, row_dtype, without
from rlkit.text import clean

PYTHON = """\
```python
from rlkit_runtime import Policy                  # this folder's; needs numpy alone
policy = Policy.load(".")                         # or another path of this folder
state = None                                      # opens an episode
action, state = policy(obs, state)                # obs: as the environment in training gives it
```
"""
ONNX = """\
```python
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("policy.onnx")
names, memory = [each.name for each in session.get_outputs()], {{{zeros}}}
out = dict(zip(names, session.run(None, {{{feed}, "first": np.array([True]), **memory}})))
memory = {{name: out[name.replace("memory", "memory_out")] for name in memory}}  # for the next step
action = out["action"][0]
```
"""
JAVASCRIPT = """\
```js
import * as ort from "onnxruntime-web"            // npm install onnxruntime-web
const session = await ort.InferenceSession.create("policy.onnx")
const memory = {{{zeros}}}
const out = await session.run({{{feed}, "first": new ort.Tensor("bool", [1], [1]), ...memory}})
for (const name in memory) memory[name] = out[name.replace("memory", "memory_out")]  // for the next step
const action = out.action.data
```
"""
ARRAYS = {  # of JavaScript, for numbers of these types
    "float32": "Float32Array", "float64": "Float64Array", "int8": "Int8Array", "int16": "Int16Array",
    "int32": "Int32Array", "int64": "BigInt64Array", "uint8": "Uint8Array", "bool": "Uint8Array",
}  # fmt: skip


def _key(name: str) -> str:
    """A name from a file as a literal, the same one in Python and JavaScript."""
    return json.dumps(clean(name))


def _tensor(dtype: str, data: str, shape: Iterable[object]) -> str:
    return f'new ort.Tensor("{dtype}", {data}, [{", ".join(map(str, (1, *shape)))}])'


def text(info: Info, names: list[str]) -> str:
    """The README of a folder whose policy.json says `info`; names: of the inputs that are observations."""
    space = without(from_json(info["observation"]), info["labels"])
    action = from_json(info["action"])
    rows = [
        (name, f"[lanes{''.join(f', {n}' for n in leaf.shape)}]", row_dtype(leaf), describe(leaf))
        for name, (_, leaf) in zip(names, leaves(space), strict=True)
    ]
    rows.append(("first", "[lanes]", "bool", "whether an episode opens: its memory is cleared"))
    of_sample = ("noise", f"[lanes, {info['noise']}]", "float32", "sample.onnx alone: uniforms in (0, 1)")
    memory = [
        (
            each["name"],
            f"[lanes{''.join(f', {n}' for n in each['shape'])}]",
            each["dtype"],
            "zeros at the start",
        )
        for each in info["memory"]
    ]
    table = "\n".join(f"| {' | '.join(clean(cell) for cell in row)} |" for row in (*rows, of_sample, *memory))
    kept = info["graphs"]["policy.onnx"]
    shapes = {each["name"]: (each["shape"], each["dtype"]) for each in info["memory"]}
    zeros, tensors = [], []
    for name in kept:
        shape, dtype = shapes[name]
        zeros.append(f'"{name}": np.zeros(({", ".join(map(str, (1, *shape)))}), "{dtype}")')
        tensors.append(f'"{name}": {_tensor(dtype, f"new {ARRAYS[dtype]}({math.prod(shape)})", shape)}')
    feed, sent = [], []
    for name, (entry, leaf) in zip(names, leaves(space), strict=True):
        seen = f"obs[{_key(entry)}]" if entry else "obs"
        feed.append(f'{_key(name)}: np.asarray({seen}, "{row_dtype(leaf)}")[None]')
        sent.append(f"{_key(name)}: {_tensor(row_dtype(leaf), seen, leaf.shape)}")
    outputs = ", ".join(["action", *(name.replace("memory.", "memory_out.") for name in kept)])
    licence = f"\nLicence: {clean(info['licence'])}." if info["licence"] else ""
    return f"""# {clean(info["run"])}: a policy of rlkit {info["rlkit"]}

Agent {clean(info["agent"])}, step {info["step"]}, environment {clean(info["environment"])}.
Action: {clean(describe(action))}.{licence}
`policy.onnx` takes the most likely actions, `sample.onnx` draws them. ONNX opset {info["opset"]}.

| input | shape | dtype | |
|---|---|---|---|
{table}

Outputs: {outputs}{", value" if info["value"] else ""}. Actions are in the environment's units; choices count from 0
(`start` in policy.json is added by rlkit_runtime.py). Feed `memory_out.i` as `memory.i` in the next step.

Python, with NumPy alone (`python rlkit_runtime.py . --check` replays the recorded steps):

{PYTHON}
Python, with ONNX Runtime, the first step (`first` is False afterwards; choices count from 0):

{ONNX.format(zeros=", ".join(zeros), feed=", ".join(feed))}
JavaScript, with onnxruntime-web (typed arrays: `first` is `[0]` afterwards):

{JAVASCRIPT.format(zeros=", ".join(tensors), feed=", ".join(sent))}
ONNX Runtime's APIs for C++, C# and Java take the same inputs by name.
"""
