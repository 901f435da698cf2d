"""The README of an exported folder."""

from __future__ import annotations

from rlkit.embedded import Info
from rlkit.space_json import from_json
from rlkit.spaces import describe, leaves, row_dtype, without
from rlkit.text import clean

PYTHON = """\
```python
from rlkit_runtime import Policy                  # this folder's; needs numpy alone
policy = Policy.load(FOLDER)
state = None                                      # opens an episode
action, state = policy(obs, state)                # obs: as the environment in training gives it
```
"""
ONNX = """\
```python
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("policy.onnx")
memory = [{zeros}]
action, *memory = session.run(None, {{{feed}}})
```
"""


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
    zeros = ", ".join(f'np.zeros((1, {", ".join(map(str, shapes[n][0]))}), "{shapes[n][1]}")' for n in kept)
    feed = ", ".join(
        [
            *(f'"{clean(name)}": obs' if len(names) == 1 else f'"{clean(name)}": ...' for name in names),
            '"first": np.array([True])',
            *(f'"{name}": memory[{place}]' for place, name in enumerate(kept)),
        ]
    )
    outputs = ", ".join(["action", *(name.replace("memory.", "memory_out.") for name in kept)])
    licence = f"\nLicence: {clean(info['licence'])}" if info["licence"] else ""
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
Python, with ONNX Runtime, the first step (`first` is False afterwards):

{ONNX.format(zeros=zeros, feed=feed)}"""
