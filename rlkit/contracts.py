"""What the roles of a run must offer: the engine asks for nothing that is not written here.

    Algorithm    a file of agents/: options, policy, agent, what it learns from
    Policy       acts: (obs, first, state, noise) -> (action, state, extra), without side effects
    Learner      learns from batches: an agent, or a supervised task
    Task         a file of perception/tasks/: what is predicted, its loss, its score
    VecEnv       N lanes of environments stepped together
    RolloutSource, Feed     where rollouts come from, and what the learner eats

A class offers a role by having its members; extending it (`class Mine(VecEnv)`) also inherits the defaults.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rlkit.spaces import Array
from rlkit.types import EnvSpec, EnvStep, Lanes, Obs, Rollout, State

if TYPE_CHECKING:
    from rlkit.collect.eyes import Eyes
    from rlkit.config.schema import ReplayConfig
    from rlkit.nn.config import NetworkConfig

MAX_STEPS = 20_000  # of one episode; a greedy policy may never end one
# a tree of tensors, arrays, numbers, texts, lists and dicts: what a checkpoint can hold
Saved: TypeAlias = dict[str, Any]
# numbers about an update, by name; tensors (0-dim) stay on their device until a row is logged
Report: TypeAlias = dict[str, "float | Tensor"]
AgentConfig: TypeAlias = object  # an instance of the Config of an algorithm's file
BatchT = TypeVar("BatchT", contravariant=True)


class Stateful(Protocol):
    """Something that a checkpoint saves and a resumed run continues."""

    def state_dict(self) -> Saved:
        """Everything that its future depends on, copied."""

    def load_state_dict(self, state: Saved, /) -> object:
        """Continue from `state_dict`'s value."""


# ---------------------------------------------------------------- environments


class VecEnv(Protocol):
    """N lanes stepped together. Episode e of lane n starts from a seed that (seed, n, e) alone determine.

    With A = len(spec.agents) agents in every game, lane n is agent n % A of game n // A. The class then has an
    attribute `agents`, equal to spec.agents: how many lanes make a game must be known before one is made.
    """

    spec: EnvSpec
    lanes: int  # N
    device: torch.device  # where rows are, and actions are expected
    # how a lane in mid-episode comes back: its actions are replayed, it saves itself, or not at all
    exact: Literal["replay", "snapshot", "none"] = "replay"
    fps: float = 30.0  # rows per second at which the environment plays at its natural speed
    picture_rate: float = 0.0  # pictures per second that `pictures` hands out at that speed; 0: one per row

    @property
    def failures(self) -> int:
        """How many episodes were cut because the environment failed in them."""
        return 0

    def restore(self, episode: npt.NDArray[np.int64], actions: list[Array]) -> EnvStep:
        """Bring lane n to episode[n] after the environment actions actions[n] ([k_n, ...], k_n may be 0).

        With no actions this is the reset that opens a run; with actions it rebuilds a checkpoint's environments
        (exact="replay" alone is asked for that).
        """

    def step(self, action: Tensor) -> EnvStep:
        """Apply one action per lane ([N, ...], in the environment's units).

        A lane whose previous row was `last` ignores its action and opens its next episode, or, where its game has
        several agents and is not over, repeats its row.
        """

    def snapshot(self) -> Saved:
        """The state of all lanes, copied (exact="snapshot")."""
        raise TypeError(f"exact={self.exact!r}: {type(self).__name__} saves no snapshot")

    def load_snapshot(self, state: Saved) -> None:
        """Continue from `snapshot`'s value (exact="snapshot")."""
        raise TypeError(f"exact={self.exact!r}: {type(self).__name__} loads no snapshot")

    def memory(self) -> Saved:
        """What rows depend on beside the environments, copied: the frames that eyes have seen."""
        return {}

    def load_memory(self, state: Saved) -> None:
        """Continue from `memory`'s value; called before `restore` or `load_snapshot`."""
        return

    def render(self, lane: int = 0) -> npt.NDArray[np.uint8] | None:
        """An [H, W, 3] picture for people, or None where the environment draws none."""

    def pictures(self, lane: int = 0) -> list[npt.NDArray[np.uint8]]:
        """The pictures [H, W, 3] from after the last row to this one, oldest first: what a film shows of a step."""
        picture = self.render(lane)
        return [] if picture is None else [picture]

    def lost(self) -> Exception | None:
        """The fault of a step in another thread that will not return; whoever asks raises it and ends the run."""
        return None

    def close(self) -> None:
        """Free processes and memory; idempotent."""


EnvOptions: TypeAlias = Any  # rlkit.envs.config.EnvConfig, which the engine reaches by name alone


@dataclass(frozen=True)
class Probe:
    """What `rlkit.envs.make.probe` found out from one environment."""

    spec: EnvSpec
    config: EnvOptions  # in which backend, workers and action_mask are decided
    why: str  # why env.backend=auto became what it is, in a line; "" where nothing was measured
    notes: tuple[str, ...] = ()  # what else a run should know of the environment, a line each


class Environments(Protocol):
    """What the package of environments offers the engine (`rlkit.envs.make`)."""

    def probe(self, config: EnvOptions, *, render: bool = False) -> Probe:
        """The spaces of an environment, and its options with everything decided. Raises ValueError."""

    def make_vec(
        self,
        config: EnvOptions,
        seed: int,
        *,
        evaluation: bool = False,
        first_lane: int = 0,
        device: str | torch.device = "cpu",
        render: bool = False,
    ) -> VecEnv:
        """config.lanes environments behind the VecEnv protocol. Raises ValueError."""

    def is_batched(self, config: EnvOptions) -> bool:
        """Whether the environment steps all lanes at once by itself."""

    def unknown(self, id: str) -> str:
        """What to say of an environment that other processes cannot make; "" where they can."""

    def expert(self, config: EnvOptions) -> str | None:
        """The name of whose action the label `expert` is, None: nobody's. Raises ValueError for an unknown id."""

    def no_picture(self, id: str, reason: str = "its render() returned no picture") -> str:
        """What to say of an environment that cannot be filmed."""


class EndlessEpisode(ValueError):
    """An episode that does not end."""


# ---------------------------------------------------------------- acting


class Policy(nn.Module, ABC):
    """Acts. Its parameters and buffers are all that acting depends on: the same arguments give the same action."""

    spec: EnvSpec
    noise_size: int  # K, uniforms per lane and step
    memoryless: bool  # whether an action depends on the observation (and the frames stacked with it) alone
    eyes: Eyes | None = None  # what it sees the environment through; no part of its weights

    @abstractmethod
    def initial_state(self, lanes: Lanes, device: torch.device | str = "cpu") -> State:
        """Memory of these lanes before any observation; every leaf is [len(lanes), ...].

        Its first entry is the frame stack's, () where nothing is stacked; the others are the policy's own.
        """

    @abstractmethod
    def act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor | None
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """obs [N, ...], first [N], noise [N, K] or None for greedy -> action [N, ...], state, extra (each [N, ...])."""

    @abstractmethod
    def value(self, obs: Obs, first: Tensor, state: State) -> Tensor:
        """The return expected from rows obs [T, N, ...], first [T, N] on: [T, N]. ValueError where none is learned."""

    @abstractmethod
    def to_env(self, action: Tensor) -> Tensor:
        """The action in the environment's units."""


@dataclass
class Episodes:
    """Finished episodes of a rollout, in time order."""

    returns: list[float] = field(default_factory=list)  # undiscounted, in the environment's own reward
    lengths: list[int] = field(default_factory=list)
    lanes: list[int] = field(default_factory=list)  # whose they are, counted in the actor that played them


@dataclass
class Timing:
    """Seconds spent since the last reset of these counters."""

    environment: float = 0.0
    policy: float = 0.0
    waiting: float = 0.0  # of the learner, for workers elsewhere


class RolloutSource(Stateful, Protocol):
    """Hands out rollouts, is told of new weights, and says what a checkpoint needs to continue it."""

    timing: Timing  # seconds spent in the environments and in the policy so far

    def get(self) -> tuple[Rollout, Episodes]:
        """The next rollout and the episodes that ended in it. Its tensors may be read-only memory."""

    def publish(self, version: int) -> None:
        """The learner's policy now has the weights of this version."""

    def close(self) -> None:
        """Stop collecting and free the environments; idempotent."""

    def report(self) -> dict[str, float]:
        """Numbers about the source's own work; {} where there is nothing to tell."""

    def lags(self) -> list[int]:
        """Updates between the weights that acted and those that learned, of what was handed out since the last call."""

    def state_dict(self) -> Saved:
        """Everything that the next `get` depends on except the learner's policy, copied."""

    def load_state_dict(self, state: Saved, /) -> str | None:
        """Continue from there; a warning if the environments are not quite what they were."""


# ---------------------------------------------------------------- learning


class Learner(Stateful, Protocol[BatchT]):
    """An agent or a supervised task, as `fit` sees it."""

    def learn(self, batch: BatchT, progress: float) -> dict[str, Tensor]:
        """Learn from one batch at `progress` = step / total_steps; metrics as 0-dim tensors, not read here."""


class Feed(Protocol):
    """Batches for `fit`, and how far their consumption is."""

    timing: Timing  # seconds spent on getting batches

    @property
    def urgent(self) -> bool:
        """Whether the next batch destroys what the latest `state_dict` only refers to."""
        return False

    def next(self) -> tuple[Any, int]:
        """A batch, of the type that the learner learns from, and how many steps of the run's clock it is worth."""

    def learned(self, version: int) -> None:
        """The learner has now made `version` calls of learn."""

    def report(self) -> dict[str, float]:
        """Numbers about the experience so far."""

    def lags(self) -> list[int]:
        """Updates between acting and learning, one per chunk since the last call; [] where nothing lags."""

    def state_dict(self) -> Saved:
        """Everything that the next batches depend on, copied, except what `parts` adds to it."""

    def parts(self, state: Saved) -> dict[str, Saved]:
        """Large parts of a checkpoint that this `state_dict` value only refers to, by their names."""
        return {}

    def load(self, state: Saved, parts: Mapping[str, Saved]) -> str | None:
        """Continue from both; a warning if the environments are not quite what they were."""

    def close(self) -> None:
        """End what hands out experience, and free what lies on disk; idempotent."""


# ---------------------------------------------------------------- algorithms, tasks, kinds of runs


@dataclass(frozen=True)
class Rollouts:
    """An algorithm that learns from each rollout of `steps` transitions per lane, once."""

    steps: int


@dataclass(frozen=True)
class WholeEpisodes:
    """An algorithm that learns from whole episodes, once, at least `minimum` of them at a time.

    They are collected in rollouts of `steps` transitions per lane.
    """

    steps: int
    minimum: int


@dataclass(frozen=True)
class Replayed:
    """An algorithm that learns from a replay buffer, into which rollouts of `steps` transitions per lane go."""

    steps: int
    config: ReplayConfig
    gamma: float  # discount of the n-step transitions that the memory hands out


Experience: TypeAlias = Rollouts | WholeEpisodes | Replayed


@dataclass(frozen=True)
class Minibatches:
    """How learner.workers ranks share `learn`: every minibatch of `rows` transitions, in sequences of `length` rows."""

    rows: int
    length: int


@dataclass(frozen=True)
class LaneShares:
    """How learner.workers ranks share `learn`: each takes as many lanes of the batch."""


Sharing: TypeAlias = Minibatches | LaneShares | None
Share: TypeAlias = Callable[[Policy, AgentConfig], Sharing]


@dataclass(frozen=True)
class Algorithm:
    """What a file of agents/, or a module of one's own (agent=my_pkg.mod), offers under these names.

    Config           frozen dataclass of `option(...)`s, defined in the file; `gamma` is what `rlkit doctor` sets
    Policy           Policy(spec, network, config) extends `contracts.Policy`
    Agent            Agent(policy, config, optim, *, seed, precision, compile) is a `Learner`
    ACTIONS          literal: the action spaces it acts in, of "Discrete", "MultiDiscrete", "MultiBinary", "Box", and
                     "Dict" for Dict and Tuple spaces made of the others
    feed(config)     what it learns from; the return type is read without running the file
    check(spec, config)     raise ValueError where it cannot act in an environment
    QUICK            optional literal: options {"minibatch": 64} of a small, fast run, for `rlkit doctor agent=NAME`
    shared(policy, config)  optional: how learner.workers ranks share `learn`; without it they cannot
    exempt(config)   optional: probes of `rlkit doctor` that do not hold with these options, {name: why}
    """

    name: str
    Config: type[AgentConfig]
    Policy: Callable[[EnvSpec, NetworkConfig, AgentConfig], Policy]
    Agent: Callable[..., Learner[Any]]
    actions: tuple[str, ...]
    feed: Callable[[AgentConfig], Experience]
    check: Callable[[EnvSpec, AgentConfig], None]
    quick: Mapping[str, object]
    shared: Share
    exempt: Callable[[AgentConfig], Mapping[str, str]]


@dataclass(frozen=True)
class Task:
    """What a file of rlkit/perception/tasks/, or a module of one's own (task=my_pkg.mod), offers under these names.

    Config           frozen dataclass of `option(...)`s, defined in the file
    Model            Model(spec, network, config) extends `rlkit.perception.model.Model`: loss, prediction, score
    label(table, config)    the column that is learned, "" where that is the input; raises ConfigError where none fits
    DEFAULTS         optional literal: options {"optim.lr": 1e-3} that a run of the task begins with
    AGENT            optional literal, True: it trains a policy: Model(spec, network, config, algorithm, agent_config)
    """

    name: str
    Config: type[AgentConfig]
    Model: Callable[..., Any]
    label: Callable[[Any, Any], str]
    defaults: Mapping[str, object]
    agent: bool


class Kind(Protocol):
    """What a kind of runs offers (rlkit.run.kinds). continued: part `policy` of the checkpoint that it goes on from."""

    def check(self, config: Any, continued: Saved | None = None, /) -> Any:
        """A plan: `config` with every choice made, and `notes` about them. Raises ConfigError; makes no file."""

    def build(self, plan: Any, folder: Any, console: Any, /) -> Any:
        """What a session trains, saves and continues (rlkit.run.build.Built)."""

    def part_names(self, config: Any, /) -> tuple[str, ...]:
        """The parts of a checkpoint beside `policy` and `state`."""
