"""Every option of a run but the agent's, the environment's and the network's own, as frozen dataclasses.

Each option has its default, what is allowed and what it is for (rlkit.options).
rlkit.config.compose makes a RunConfig of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError, option

GENERIC_ENV = "gymnasium"  # the environment configuration that runs any registered id


@dataclass(frozen=True)
class OptimConfig:
    """How gradients become steps."""

    name: str = option("adam", choices=("adam", "adamw", "rmsprop", "sgd"))
    lr: float = option(3e-4, above=0, help="learning rate at the start")
    lr_schedule: str = option(
        "constant", choices=("constant", "linear", "cosine"), help="its way to 0 at total_steps"
    )
    clip_norm: float = option(0.5, min=0, help="largest norm of the gradient; 0: any")
    eps: float = option(1e-5, above=0, help="added to the denominator (adam, adamw, rmsprop)")
    betas: tuple[float, float] = option(
        (0.9, 0.999), min=0, below=1, help="decay of both moments (adam, adamw)"
    )
    momentum: float = option(0.0, min=0, below=1, help="sgd, rmsprop")
    weight_decay: float = option(0.0, min=0)


@dataclass(frozen=True)
class SourceConfig:
    """Where rollouts come from."""

    name: str = option(
        "sync",
        choices=("sync", "thread", "ray"),
        help="sync: collect, then learn; thread: both at once; ray: lanes in Ray actors",
    )
    group: int = option(
        0,
        min=0,
        help="lanes per forward pass of the acting policy (results depend on it); 0: all of an actor",
    )
    workers: int = option(2, min=1, help="ray: actors that env.lanes are dealt out to")
    inference: str = option(
        "local",
        choices=("local", "shared"),
        help="ray: local: a worker steps its environments itself; shared: environment actors do, it acts for them",
    )
    env_actors: int = option(2, min=1, help="ray, shared: environment actors of each worker")
    mode: str = option(
        "sync",
        choices=("sync", "async"),
        help="ray: sync: collect, then learn (lag 0); async: collect while learning",
    )
    max_lag: int = option(
        1, min=1, help="ray, async: batches learned from between collecting a chunk and learning from it"
    )
    rollouts: int = option(
        0,
        min=0,
        help="ray, async, agents with a replay memory: rollouts of agent.steps per chunk; 0: as many as take 50 ms",
    )
    min_workers: int = option(
        0,
        min=0,
        help="ray, async, agents that learn from rollouts: workers that are up when the run begins; 0: all",
    )
    aggregate: int = option(
        64,
        min=0,
        help="ray: with more workers than this, chunks of a node's workers are joined there; 0: never",
    )
    max_restarts: int = option(
        100,
        min=-1,
        help="ray: workers that die (killed, node lost) and are replaced before it is an error; -1: any",
    )
    max_failures: int = option(
        10,
        min=-1,
        help="ray: environments that raise or hang and are replaced before it is an error; -1: any",
    )
    cpus_per_worker: float = option(
        1.0, min=0, help="ray: cores that a worker reserves; its torch has as many threads"
    )
    cpus_per_env_actor: float = option(
        1.0, min=0, help="ray, shared: cores that an environment actor reserves"
    )
    gpus_per_worker: float = option(
        0.0, min=0, help="ray: (part of a) GPU that a worker reserves and acts on; 0: CPU"
    )
    resources: dict[str, float] = field(
        default_factory=dict, metadata={"help": "ray: other resources that a worker reserves, {name: amount}"}
    )
    placement: str = option(
        "spread", choices=("spread", "pack"), help="ray: workers on all nodes evenly, or on few of them"
    )


@dataclass(frozen=True)
class RayConfig:
    """The Ray that source=ray runs on."""

    address: str = option(
        "local",
        help="local: started for this run, on the loopback; auto: the one that runs here; HOST:PORT: that one",
    )
    memory: int = option(
        0,
        min=0,
        help="local: MB of shared memory for rollouts on their way, at least 80; 0: Ray's own choice",
    )
    runtime_env: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Ray's runtime environment of the workers, e.g. {working_dir: .}"},
    )


@dataclass(frozen=True)
class LearnerConfig:
    """Who learns."""

    workers: int = option(1, min=1, help="processes that share every minibatch (GPUs, or groups of cores)")


@dataclass(frozen=True)
class ReplayConfig:
    """What an off-policy agent remembers, and how it learns from it."""

    capacity: int = option(100_000, min=1, help="transitions kept, of all lanes together")
    warmup: int = option(1_000, min=0, help="transitions collected before the first update")
    ratio: float = option(1.0, above=0, help="updates per collected transition; fractions are carried over")
    batch: int = option(256, min=1, help="transitions per update; with memory batch / sequence sequences")
    n_step: int = option(1, min=1, help="rewards summed before the bootstrap")
    sequence: int = option(16, min=1, help="rows that a network with memory learns from at once")
    burn_in: int = option(8, min=0, help="rows before those that only warm its memory up")
    alpha: float = option(0.0, min=0, max=1, help="how far |TD error| decides what is drawn; 0: uniform")
    beta: float = option(0.4, min=0, max=1, help="importance exponent at the start; rises to 1")
    storage: Literal["memory", "disk"] = option(
        "memory", help="disk: memory-mapped files in the run's folder"
    )


@dataclass(frozen=True)
class LogConfig:
    """The rows of metrics.csv and of the console."""

    every: int = option(
        0, min=0, help="environment steps between rows; 0: total_steps / 500, at least one update"
    )
    tensorboard: bool = option(True, help="write the same numbers for TensorBoard")


@dataclass(frozen=True)
class EvaluateConfig:
    """Greedy episodes on seeds that training never sees."""

    every: int = option(0, min=0, help="environment steps between evaluations; 0: total_steps / 10")
    episodes: int = option(10, min=1, help="episodes of an evaluation")
    average: float = option(
        0.0,
        min=0,
        below=1,
        help="decay per update of a moving mean of the weights to evaluate instead; 0: none",
    )


@dataclass(frozen=True)
class CheckpointConfig:
    """What `rlkit resume` continues from."""

    every: int = option(0, min=0, help="environment steps between checkpoints; 0: total_steps / 10")
    keep: int = option(2, min=1, help="how many of the newest stay")


@dataclass(frozen=True)
class VideoConfig:
    """Videos of greedy episodes."""

    every: int = option(0, min=0, help="environment steps between videos; 0: none")


@dataclass(frozen=True)
class StopConfig:
    """Reasons to end before total_steps."""

    reward: float | None = option(None, help="mean return of the last 100 training episodes that is enough")
    minutes: float | None = option(None, above=0, help="wall time that is enough")


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run is made of."""

    agent: Any  # the Config of rlkit.agents.<agent_name>
    env: Any  # rlkit.envs.config.EnvConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    log: LogConfig = field(default_factory=LogConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    name: str = option("", help="of the run's folder; empty: <agent>-<env>-<seed>")
    dir: str = option("runs", help="folder of the run folders")
    seed: int = option(0, min=0, max=2**32 - 1, help="all randomness follows from it")
    total_steps: int = option(100_000, min=1, help="environment steps of all lanes together")
    device: str = option("auto", help="auto (cuda where there is one), cpu, cuda or cuda:N")
    precision: str = option(
        "auto", choices=("auto", "float32", "bfloat16"), help="of the learner's arithmetic"
    )
    compile: bool = option(False, help="torch.compile acting and learning")
    threads: int = option(0, min=0, help="CPU threads of torch, in each learner process; 0: chosen")
    alias: str = option("", help="what agent=... said, where the algorithm's file is called something else")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"device={self.device}: no such device; allowed: auto, cpu, cuda, cuda:N")
        if re.search(r"[/\\\x00]", self.name) or self.name in (".", ".."):
            raise ConfigError(
                f"name={self.name}: not the name of a folder; put the path before it into dir=..."
            )

    @property
    def run_name(self) -> str:
        """The name of the run's folder."""
        env = self.env.id if self.env.name in ("", GENERIC_ENV) else self.env.name
        return (
            self.name
            or f"{self.alias or self.agent_name}-{re.sub(r'[^A-Za-z0-9._-]+', '-', env).strip('-')}-{self.seed}"
        )

    @property
    def agent_name(self) -> str:
        """The file of rlkit.agents that `agent` configures, or the module of one's own: "ppo", "my_pkg.mod"."""
        return type(self.agent).__module__.removeprefix("rlkit.agents.")
