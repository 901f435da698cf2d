"""What one decision costs: rlkit.load (torch), the runtime with NumPy alone, with ONNX Runtime, and in C (gcc -O2).

    python scripts/bench_embed.py [NAME ...]

One thread; the least time of many short series, so that other work on the machine counts little. Policies have random
weights. The last line is a new interpreter: seconds of CPU until the first action, and its memory.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and NumPy are loaded

import numpy as np
import torch

from rlkit.agents import ppo
from rlkit.config.compose import compose
from rlkit.deploy.export import Origin, export
from rlkit.deploy.kernel import generator
from rlkit.deploy.native import compiler
from rlkit.files import at
from rlkit.nn.config import NetworkConfig
from rlkit.play.saved import AgentPolicy
from rlkit.runtime import Policy
from rlkit.spaces import Box, Discrete, Space
from rlkit.types import EnvSpec

VECTOR, STEER = Box((8,), "float32"), Box((3,), "float32", -1.0, 1.0)
WINDOW = {"core": "transformer", "core_size": 64, "window": 32}
FRAMES = Box((64, 64), "uint8", 0.0, 255.0)
KINDS: dict[str, tuple[Space, Space, int, dict[str, Any]]] = {  # observation, action, frames, network
    "MLP 64x64": (VECTOR, Discrete(4), 1, {"hidden": (64, 64)}),
    "LSTM 64": (VECTOR, Discrete(4), 1, {"hidden": (64,), "core": "lstm", "core_size": 64}),
    "GRU 64": (VECTOR, Discrete(4), 1, {"hidden": (64,), "core": "gru", "core_size": 64}),
    "transformer, window 32": (VECTOR, Discrete(4), 1, {"hidden": (64,), **WINDOW}),
    "CNN 64x64x4": (FRAMES, STEER, 4, {"encoder": "nature_cnn"}),
    "IMPALA and transformer": (FRAMES, Discrete(4), 1, {"encoder": "impala_cnn", **WINDOW}),
}  # fmt: skip
TIMER = """\
#include "policy.h"
#include <stdio.h>
#include <time.h>
static rlkit_policy_t policy;
static rlkit_obs_t obs[RLKIT_OBS_SIZE];
int main(void) {
    rlkit_action_t action[RLKIT_ACTION_SIZE];
    unsigned drawn = 1;
    double best = 1e9;
    rlkit_policy_reset(&policy);
    for (const clock_t begin = clock(); clock() - begin < CLOCKS_PER_SEC;) {
        const clock_t start = clock();
        for (int i = 0; i < 50; ++i) {
            drawn = drawn * 1664525u + 1013904223u;
            obs[0] = (rlkit_obs_t)(drawn >> 25); /* another one in every step */
            rlkit_policy_act(&policy, obs, action);
        }
        const double each = (double)(clock() - start) / CLOCKS_PER_SEC / 50 * 1e6;
        best = each < best ? each : best;
    }
    printf("%.1f us\\n", best);
    return 0;
}
"""
SERIES, SECONDS = 5, 1.5  # calls of one series; how long series are tried
START = (
    "import time; t = time.process_time(); import re, sys; from rlkit.runtime import Policy; import numpy as np; "
    "p = Policy.load(sys.argv[1], sys.argv[2]); p(np.zeros(8)); "
    "print(time.process_time() - t, int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)"
)


def least(call: Callable[[], object]) -> float:
    """Microseconds of one call."""
    best, end = math.inf, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(SERIES):
            call()
        best = min(best, (time.perf_counter() - start) / SERIES)
    return best * 1e6


def in_c(place: Path) -> str:
    """CPU microseconds of one decision of a folder's policy.c; "" where it has none."""
    if not (place / "policy.c").exists():
        return ""
    (place / "timer.c").write_text(TIMER)
    subprocess.run(
        ["cc", "-std=c11", "-O2", "timer.c", "policy.c", "-lm", "-o", "timer"], cwd=place, check=True
    )
    return subprocess.run(["./timer"], cwd=place, capture_output=True, text=True, check=True).stdout.strip()


def exported(name: str, folder: Path) -> AgentPolicy:
    """The agent of a kind, and its policy in `folder`."""
    observation, action, stack, network = KINDS[name]
    torch.manual_seed(0)
    made = ppo.Policy(EnvSpec("none", observation, action, stack), NetworkConfig(**network), ppo.Config())
    agent = AgentPolicy(made.eval(), Path("none"))
    config = compose(["env=cartpole"]).config
    config = replace(config, env=replace(config.env, id="none"))  # observations are random numbers
    form = "c" if compiler() and generator() else "onnx"
    export(agent, config, at(folder), Origin(name, "ppo", 0, ""), steps=60, form=form, say=lambda line: None)
    return agent


def main(names: list[str]) -> None:
    """Print a row of the table for every kind."""
    torch.set_num_threads(1)
    print("| | rlkit.load | NumPy alone | ONNX Runtime | C |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names or KINDS):
            place = Path(folder) / str(number)
            agent = exported(name, place)
            space = KINDS[name][0]
            assert isinstance(space, Box)
            generator = np.random.default_rng(0)
            obs = generator.integers(0, 256, space.shape).astype(space.dtype)
            cells = []
            for policy in (agent, Policy.load(place, "numpy"), Policy.load(place, "onnxruntime")):
                _, state = policy(obs)
                cells.append(f"{least(partial(policy, obs, state)):,.1f} us")
            print(f"| {name} | {' | '.join([*cells, in_c(place)])} |", flush=True)
        if not names:
            cells = []
            for backend in ("numpy", "onnxruntime"):
                words = [sys.executable, "-c", START, str(Path(folder) / "0"), backend]
                told = [
                    subprocess.run(words, capture_output=True, text=True, check=True).stdout for _ in range(3)
                ]
                seconds, size = min(tuple(map(float, each.split())) for each in told)
                cells.append(f"{seconds:.2f} s, {size:.0f} MB")
            print(f"| load and first call | | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
