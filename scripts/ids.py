"""Trains every agent that acts there on thirty environments, by id as a newcomer types it, and tells what ended early.

    python scripts/ids.py                     20,000 steps of each pair, about an hour
    python scripts/ids.py --steps 1000 --only MiniGrid

A pair that ends before its steps are done, warns of a fault or takes longer than its time is a row of the table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.envs.make import probe
from rlkit.spaces import kinds

IDS = (
    "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1",
    "LunarLander-v3", "BipedalWalker-v3", "BipedalWalkerHardcore-v3", "CarRacing-v3",
    "Blackjack-v1", "Taxi-v3", "CliffWalking-v1", "FrozenLake-v1", "FrozenLake8x8-v1",
    "HalfCheetah-v5", "Hopper-v5", "Ant-v5", "InvertedPendulum-v5", "Humanoid-v5", "Reacher-v5", "Swimmer-v5",
    "MiniGrid-Empty-8x8-v0", "MiniGrid-DoorKey-6x6-v0", "MiniGrid-GoToDoor-5x5-v0", "BabyAI-GoToLocal-v0",
    "ALE/Pong-v5", "ALE/Breakout-v5", "ALE/Freeway-v5", "MinAtar/Breakout-v1", "rlkit/Maze", "rlkit/Driving",
)  # fmt: skip


def agents_of(id: str) -> list[str]:
    """The agents that act in an environment."""
    action = probe(compose([f"env={id}"]).config.env).spec.action
    return [
        name
        for name in registry.names("agents")
        if kinds(action) <= set(registry.actions(registry.algorithm_of(name)))
    ]


def run(id: str, agent: str, steps: int, limit: float) -> str:
    """Train a pair in a folder of its own; "" where nothing went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "rlkit",
            "train",
            f"agent={agent}",
            f"env={id}",
            f"total_steps={steps}",
        ]
        command += [
            "name=a",
            f"evaluate.every={10 * steps}",
            "evaluate.episodes=1",
            "env.lanes=8",
            "log.tensorboard=false",
        ]
        if agent in ("dqn", "ddpg", "td3"):
            command += ["agent.replay.capacity=20000", f"agent.replay.warmup={min(1000, steps // 2)}"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return f"longer than {limit:.0f} s"
        said = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        if done.returncode or not (Path(folder) / "runs" / "a" / "metrics.csv").is_file():
            return f"ended with {done.returncode}: {said[-1] if said else ''}"
        return next(
            (line for line in said if line.startswith("warning") and "learns nothing" not in line), ""
        )


def main() -> None:
    """Print a line per pair, and a count at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds that a pair may take")
    parser.add_argument("--only", default="", help="a part of the ids that are run")
    parser.add_argument("--agents", default="", help="agents, with commas between; all that act there")
    arguments = parser.parse_args()
    pairs = failed = 0
    for id in IDS:
        if arguments.only not in id:
            continue
        for agent in agents_of(id):
            if arguments.agents and agent not in arguments.agents.split(","):
                continue
            began = time.monotonic()
            problem = run(id, agent, arguments.steps, arguments.limit)
            pairs, failed = pairs + 1, failed + bool(problem)
            print(f"{id:28} {agent:10} {time.monotonic() - began:6.0f} s  {problem or 'ok'}", flush=True)
    print(f"{pairs} pairs, {failed} with something to tell")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
