"""Throughput of PPO on a GPU: batched environment, pixels, and what the update alone does.

    python scripts/bench_gpu.py [--json bench_gpu.json]

Three parts, each with the device's name: training on a batched environment whose rows are born on the device
(lanes x precision); the Nature CNN learner (float32, bfloat16; beside the same on this machine's CPU); and the time
between handing a CPU environment's row to the device and getting its action back.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from rlkit.agents.ppo import Agent, Config, Policy
from rlkit.config.compose import compose
from rlkit.config.schema import OptimConfig
from rlkit.nn.config import NetworkConfig
from rlkit.run.console import Console
from rlkit.run.start import prepare
from rlkit.spaces import Box
from rlkit.types import EnvSpec, Lanes, Rollout


def seconds(function: Any, repeat: int = 5) -> float:
    """Least wall time of `repeat` calls after one warm-up, the device waited for."""
    function()
    times = []
    for _ in range(repeat):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times)


def train_batched(lanes: int) -> dict[str, Any]:
    """Steps per second of whole training updates on the batched toy."""
    values = {
        "env": "rlkit.envs.toys.batched:Quadratic", "preset": "none", "env.backend": "batched", "env.lanes": lanes,
        "agent.steps": 64, "agent.minibatch": lanes * 16, "agent.epochs": 4, "total_steps": 10**9, "device": "cuda",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(compose(values=values).config, Path(folder), Console(10**9, "bench", plain=True))

        def update() -> None:
            batch, _ = run.feed.next()
            run.learner.learn(batch, 0.0)

        rate = 64 * lanes / seconds(update)
    return {"part": "batched training", "lanes": lanes, "steps_per_second": rate}


def learn_pixels(device: str, precision: torch.dtype) -> dict[str, Any]:
    """Samples per second, forward and backward, of the Nature CNN update on 84x84x4."""
    shape, T, N = (84, 84, 4), 64, 32
    spec = EnvSpec("bench", Box(shape, "uint8", 0.0, 255.0), Box((3,), "float32", -1.0, 1.0))
    config = Config(steps=T, minibatch=512, epochs=2)
    policy = Policy(spec, NetworkConfig(), config).to(device).to(memory_format=torch.channels_last)
    agent = Agent(policy, config, OptimConfig(), precision=precision)
    flags = {name: torch.zeros(T + 1, N, dtype=torch.bool, device=device) for name in ("first", "last")}
    rollout = Rollout(
        obs=torch.randint(0, 256, (T + 1, N, *shape), dtype=torch.uint8, device=device), **flags,
        action=torch.randn(T, N, 3, device=device), reward=torch.randn(T, N, device=device),
        terminated=torch.zeros(T, N, dtype=torch.bool, device=device), state=policy.initial_state(Lanes(N), device),
        extra={name: torch.zeros(T, N, device=device) for name in ("log_prob", "value")},
    )  # fmt: skip
    if device == "cuda":
        elapsed = seconds(lambda: agent.learn(rollout, 0.0))
    else:
        agent.learn(rollout, 0.0)
        begin = time.perf_counter()
        agent.learn(rollout, 0.0)
        elapsed = time.perf_counter() - begin
    rate = T * N * config.epochs / elapsed
    return {
        "part": "Nature CNN learner",
        "device": device,
        "precision": str(precision),
        "samples_per_second": rate,
    }


def act_round_trip(lanes: int) -> dict[str, Any]:
    """Microseconds from a CPU row of pixels to its action on the CPU."""
    spec = EnvSpec("bench", Box((84, 84, 4), "uint8", 0.0, 255.0), Box((3,), "float32", -1.0, 1.0))
    policy = Policy(spec, NetworkConfig(), Config()).to("cuda").to(memory_format=torch.channels_last)
    row = torch.randint(0, 256, (lanes, 84, 84, 4), dtype=torch.uint8)
    first = torch.zeros(lanes, dtype=torch.bool, device="cuda")
    noise, state = torch.rand(lanes, 3, device="cuda"), policy.initial_state(Lanes(lanes), "cuda")

    @torch.no_grad()
    def act() -> None:
        policy.act(row.to("cuda"), first, state, noise)[0].cpu()

    return {"part": "act round trip", "lanes": lanes, "microseconds": 1e6 * seconds(act, 50)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("bench_gpu: torch finds no CUDA device; see rlkit doctor")
    name = torch.cuda.get_device_name()
    rows = [train_batched(lanes) for lanes in (64, 1024, 16384)]
    rows += [learn_pixels("cuda", precision) for precision in (torch.float32, torch.bfloat16)]
    rows += [learn_pixels("cpu", torch.float32)]
    rows += [act_round_trip(lanes) for lanes in (8, 64, 512)]
    print(f"{date.today()}, {name}, torch {torch.__version__}")
    for row in rows:
        print(
            ", ".join(
                f"{key}={value:,.0f}" if isinstance(value, float) else f"{value}"
                for key, value in row.items()
            )
        )
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps({"date": str(date.today()), "gpu": name, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
