"""Every option of a run but the agent's, the task's, the environment's and the network's own, as frozen dataclasses.

Each option has its default, what is allowed and what it is for (rlkit.options). rlkit.config.compose makes a RunConfig
of them, the run of an agent, and rlkit.config.tasks a TaskRun, that of a supervised task. A step of a run is a
transition of an environment, or a row of a table.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

from rlkit.config.augment import AugmentConfig
from rlkit.config.league import LeagueConfig
from rlkit.config.rounds import RoundsConfig
from rlkit.config.seen import EyesConfig, RowsConfig
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError, Plain, option

GENERIC_ENV = "gymnasium"  # the environment configuration that runs any registered id


@dataclass(frozen=True)
class OptimConfig:
    """How gradients become steps."""

    name: str = option("adam", choices=("adam", "adamw", "rmsprop", "sgd"), help="The optimiser")
    lr: float = option(3e-4, above=0, help="The learning rate at the start of the run")
    lr_schedule: str = option(
        "constant",
        choices=("constant", "linear", "cosine"),
        help="How the learning rate falls to 0 at total_steps; constant: it stays",
    )
    clip_norm: float = option(
        0.5, min=0, help="Gradients whose norm is larger are scaled down to it; 0: none are"
    )
    eps: float = option(
        1e-5, above=0, help="A small number added to the denominator of a step (adam, adamw, rmsprop)"
    )
    betas: tuple[float, float] = option(
        (0.9, 0.999), min=0, below=1, help="The decay rates of both moments (adam, adamw)"
    )
    momentum: float = option(0.0, min=0, below=1, help="The momentum (sgd, rmsprop)")
    weight_decay: float = option(0.0, min=0, help="The weight decay per step")


@dataclass(frozen=True)
class SourceConfig:
    """Where rollouts come from."""

    name: str = option(
        "sync",
        choices=("sync", "thread", "ray"),
        help="sync: collect a rollout, then learn from it; thread: collect the next one while learning; "
        "ray: collect in Ray actors",
    )
    group: int = option(
        0,
        min=0,
        help="How many lanes the acting policy sees in one forward pass (results depend on it in their "
        "last bits); 0: all",
    )
    workers: int = option(2, min=1, help="ray: how many actors env.lanes are dealt out to")
    inference: str = option(
        "local",
        choices=("local", "shared"),
        help="ray: local: a worker steps its environments itself; shared: environment actors step them "
        "and the worker acts for them",
    )
    env_actors: int = option(2, min=1, help="ray, shared: how many environment actors each worker has")
    mode: str = option(
        "sync",
        choices=("sync", "async"),
        help="ray: sync: collect, then learn, so the lag is 0; async: collect while learning",
    )
    max_lag: int = option(
        1,
        min=1,
        help="ray, async: the largest lag, in batches learned from between collecting a chunk and "
        "learning from it",
    )
    rollouts: int = option(
        0,
        min=0,
        help="ray, async, agents with a replay buffer: how many rollouts a worker sends at once; 0: as "
        "many as take 50 ms",
    )
    min_workers: int = option(
        0,
        min=0,
        help="ray, async, agents that learn from rollouts: the run begins when so many workers are up; "
        "0: all",
    )
    aggregate: int = option(
        64,
        min=0,
        help="ray: with more workers than this, the chunks of a node's workers are joined on that node; "
        "0: never",
    )
    max_restarts: int = option(
        100,
        min=-1,
        help="ray: how many workers may die (killed, node lost) and be replaced before the run ends with "
        "an error; -1: any number",
    )
    max_failures: int = option(
        10,
        min=-1,
        help="ray: how many workers are replaced because an environment raised or hung in them before the run "
        "ends with an error; -1: any number (env.max_failures cuts the episode instead)",
    )
    cpus_per_worker: float = option(
        1.0, min=0, help="ray: how many cores a worker reserves; its torch has as many threads"
    )
    cpus_per_env_actor: float = option(
        1.0, min=0, help="ray, shared: how many cores an environment actor reserves"
    )
    gpus_per_worker: float = option(
        0.0, min=0, help="ray: how many GPUs, or which part of one, a worker reserves and acts on; 0: the CPU"
    )
    resources: dict[str, float] = field(
        default_factory=dict, metadata={"help": "ray: other resources that a worker reserves, {name: amount}"}
    )
    placement: str = option(
        "spread",
        choices=("spread", "pack"),
        help="ray: spread: workers lie evenly on all nodes; pack: on few of them",
    )


@dataclass(frozen=True)
class RayConfig:
    """The Ray that source=ray runs on."""

    address: str = option(
        "local",
        help="Which Ray the run uses; local: one of its own, on the loopback interface; auto: the one "
        "that runs here; HOST:PORT: that one",
    )
    memory: int = option(
        0,
        min=0,
        help="address=local: megabytes of shared memory for rollouts on their way, at least 80; 0: Ray's "
        "own choice",
    )
    runtime_env: Plain = field(
        default_factory=dict,
        metadata={"help": "Ray's runtime environment of the workers, for example {working_dir: .}"},
    )


@dataclass(frozen=True)
class LearnerConfig:
    """How many processes learn."""

    workers: int = option(
        1,
        min=1,
        help="How many processes share every minibatch, each on a GPU or on a group of cores of its own",
    )


@dataclass(frozen=True)
class ReplayConfig:
    """What an off-policy agent remembers, and how it learns from it."""

    capacity: int = option(100_000, min=1, help="How many transitions are kept, of all lanes together")
    warmup: int = option(1_000, min=0, help="How many transitions are collected before the first update")
    ratio: float = option(
        1.0, above=0, help="How many updates are made per collected transition; fractions are carried over"
    )
    batch: int = option(
        256,
        min=1,
        help="How many transitions an update learns from; a network with memory: batch / sequence sequences",
    )
    n_step: int = option(
        1, min=1, help="How many rewards are summed before the value of the state after them is added"
    )
    sequence: int = option(16, min=1, help="How many rows a network with memory learns from at once")
    burn_in: int = option(8, min=0, help="How many rows before those only renew the hidden state")
    alpha: float = option(
        0.0,
        min=0,
        max=1,
        help="How far the size of the TD error decides what is drawn; 0: everything is equally likely",
    )
    beta: float = option(
        0.4, min=0, max=1, help="The exponent of the importance weights at the start; it rises to 1"
    )
    storage: Literal["memory", "disk"] = option(
        "memory", help="disk: the replay buffer lies in memory-mapped files in the run's folder"
    )


@dataclass(frozen=True)
class ExplorationConfig:
    """Rewards for what is new, beside those of the environment (rlkit.learn.exploration)."""

    name: str = option(
        "none",
        choices=("none", "count", "rnd"),
        help="count: 1 / sqrt(visits) of an observation in its episode; rnd: the error of predicting the features of "
        "a random network; none: no such rewards",
    )
    scale: float = option(0.01, above=0, help="What these rewards are multiplied by")
    rnd_lr: float = option(1e-4, above=0, help="rnd: the learning rate of the predicting network")
    rnd_batch: int = option(1024, min=1, help="rnd: how many rows one of its gradient steps learns from")
    rnd_gamma: float = option(
        0.99, min=0, below=1, help="rnd: the discount of the sums whose deviation scales the errors"
    )


@dataclass(frozen=True)
class LogConfig:
    """The rows of metrics.csv and of the console."""

    every: int = option(
        0,
        min=0,
        help="How many steps lie between two rows; 0: total_steps / 500, and at least one update",
    )
    tensorboard: bool = option(True, help="Write the same numbers for TensorBoard")


@dataclass(frozen=True)
class EvaluateConfig:
    """Episodes on seeds that training never sees."""

    every: int = option(
        0, min=0, help="How many environment steps lie between two evaluations; 0: total_steps / 10"
    )
    episodes: int = option(
        10, min=1, help="How many episodes an evaluation has, in a league against each member"
    )
    sample: bool = option(
        False, help="Draw actions, in films too, as training does; false: take the most likely ones (greedy)"
    )
    average: float = option(
        0.0,
        min=0,
        below=1,
        help="Evaluate and keep a moving mean of the weights with this decay per update; 0: the weights "
        "themselves",
    )


@dataclass(frozen=True)
class CheckpointConfig:
    """What `rlkit resume` continues from."""

    every: int = option(0, min=0, help="How many steps lie between two checkpoints; 0: total_steps / 10")
    keep: int = option(2, min=1, help="How many of the newest checkpoints are kept")


@dataclass(frozen=True)
class VideoConfig:
    """Videos of episodes on seeds that training never sees."""

    every: int = option(0, min=0, help="How many environment steps lie between two videos; 0: there are none")


@dataclass(frozen=True)
class StopConfig:
    """What ends a run before total_steps."""

    reward: float | None = option(
        None, help="The run ends when the mean return of the last 100 training episodes reaches this"
    )
    minutes: float | None = option(None, above=0, help="The run ends after so many minutes")
    score: float | None = option(
        None, help="The run ends when an evaluation's mean (in a league its Elo rating) reaches this"
    )
    patience: int = option(
        0,
        min=0,
        help="The run ends after so many evaluations in a row whose mean is not above the best before; 0: it does not",
    )


@dataclass(frozen=True, kw_only=True)
class Common(ABC):
    """What the runs of agents and of supervised tasks have in common."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    log: LogConfig = field(default_factory=LogConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    name: str = option(
        "", help="The name of the run's folder; empty: <agent>-<env>-<seed>, <task>-<data>-<seed>"
    )
    dir: str = option("runs", help="The folder in which run folders are made")
    seed: int = option(0, min=0, max=2**32 - 1, help="All randomness follows from this number")
    total_steps: int = option(
        100_000, min=1, help="How many environment steps the run has, of all lanes together"
    )
    device: str = option(
        "auto", help="Where torch computes: auto (cuda where there is one), cpu, cuda or cuda:N"
    )
    precision: str = option(
        "auto", choices=("auto", "float32", "bfloat16"), help="The precision of the learner's arithmetic"
    )
    compile: bool | Literal["auto", "engine", "inductor"] = option(
        "auto", help="Machine code: engine (rlkit's), inductor or true, false; auto: engine where it pays"
    )
    threads: int = option(
        0, min=0, help="How many CPU threads torch has in each learner process; 0: rlkit chooses"
    )

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
        return self.name or "-".join(
            re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-") for part in self._about
        )

    @property
    @abstractmethod
    def _about(self) -> tuple[str, ...]:
        """The parts of a name that was not typed."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(Common):
    """Everything that the run of an agent is made of."""

    agent: Any  # the Config of rlkit.agents.<agent_name>
    env: Any  # rlkit.envs.config.EnvConfig
    source: SourceConfig = field(default_factory=SourceConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    eyes: EyesConfig = field(default_factory=EyesConfig)
    league: LeagueConfig = field(default_factory=LeagueConfig)
    groups: Plain = field(
        default_factory=dict,
        metadata={
            "help": "What is different for a group of a game's agents (env.groups): groups.NAME.agent.OPTION, "
            "groups.NAME.network.OPTION, groups.NAME.optim.OPTION; groups.NAME.learn=false: it keeps its weights"
        },
    )
    init_from: str = option(
        "",
        help="A run, RUN, RUN:best, RUN:last or RUN:STEP, whose weights this one begins with: of the same agent, "
        "network and spaces, or of task=imitate; empty: new weights",
    )
    alias: str = option("", help="What agent=... said, where the algorithm's file is called something else")

    @property
    def _about(self) -> tuple[str, ...]:
        env = self.env.id if self.env.name in ("", GENERIC_ENV) else self.env.name
        return self.alias or self.agent_name, env, str(self.seed)

    @property
    def agent_name(self) -> str:
        """The file of rlkit.agents that `agent` configures, or the module of one's own: "ppo", "my_pkg.mod"."""
        return type(self.agent).__module__.removeprefix("rlkit.agents.")


@dataclass(frozen=True, kw_only=True)
class TaskRun(Common):
    """Everything that the run of a supervised task is made of."""

    task: Any  # the Config of rlkit.perception.tasks.<task_name>
    data: str = option("", help="A table's folder, a data set's name (rlkit list data), or module:function")
    stack: int = option(
        1, min=1, max=64, help="How many frames of a table of episodes the model sees at once"
    )
    batch: int = option(64, min=1, help="How many rows an update learns from")
    epochs: float = option(10.0, above=0, help="How often each training row is learned from")
    total_steps: int = option(
        0, min=0, help="How many rows are learned from, each as often as it comes; 0: as epochs says"
    )
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    evaluate: RowsConfig = field(default_factory=RowsConfig)
    agent: Any = None  # of task=imitate: the agent whose policy learns, {"name": ..., its options}

    @property
    def _about(self) -> tuple[str, ...]:
        name = self.data.rstrip("/").rpartition("/")[2]
        return self.task_name.rpartition(".")[2], name, str(self.seed)

    @property
    def task_name(self) -> str:
        """The file of rlkit.perception.tasks that `task` configures, or the module of one's own."""
        return type(self.task).__module__.removeprefix("rlkit.perception.tasks.")
