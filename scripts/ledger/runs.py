"""Small runs to be damaged, and what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlkit import checkpoint
from scripts.ledger.trial import Task, apart
from tests.helpers.runs import hash_tree

SMALL = [
    "preset=none", "env=cartpole", "env.lanes=2", "env.backend=inprocess", "device=cpu", "threads=1", "total_steps=240",
    "network.hidden=[8]", "evaluate.episodes=1", "evaluate.every=80", "checkpoint.every=60", "checkpoint.keep=3",
    "log.every=40", "env.time_limit=30",
]  # fmt: skip
AGENTS: Mapping[str, list[str]] = {
    "ppo": ["agent=ppo", "agent.steps=10", "agent.minibatch=10", "network.normalize=true"],
    "dqn": ["agent=dqn", "agent.replay.warmup=40", "agent.replay.capacity=100", "agent.replay.ratio=0.1",
            "agent.replay.batch=8", "agent.replay.alpha=0.6"],
}  # fmt: skip
RESUME = ("policy", "state")  # the parts of a checkpoint that every run needs to go on


def trained(task: Task, agent: str, *more: str) -> Path:
    """The folder of a complete run."""
    folder = task.folder()
    done = apart(lambda: command("train", *SMALL, *AGENTS[agent], *more, "name=run"), folder)
    if done.status:
        raise RuntimeError(f"the run to be damaged could not be trained:\n{done.output}")
    return folder / "runs" / "run"


def command(*words: str) -> int:
    """What `rlkit WORDS` does, in this process."""
    from rlkit.cli.main import main

    return main(words)


def checkpoint_hash(parts: Mapping[str, object], *names: str) -> str:
    return hash_tree({name: parts[name] for name in names})


def checkpoint_hashes(run: Path, *names: str) -> dict[int, str]:
    """What each checkpoint of a run holds, by its step."""
    found = checkpoint.steps(run / "checkpoints")
    return {step: checkpoint_hash(checkpoint.read(path, *names), *names) for step, path in found}
