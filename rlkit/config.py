"""From `agent=ppo env=cartpole agent.clip=0.1` to one frozen, checked RunConfig; to YAML and back.

Hydra composes the YAML groups of rlkit.configs (agent, env, network, source, then the tuned preset of the
pair of names if there is one); the given options are laid over them; `rlkit.options.build` checks everything against
the dataclasses that stand beside the code which reads them. YAML holds only what differs from their defaults.
Nothing is instantiated by name, no interpolation is resolved, and whatever is wrong becomes one line
(ConfigError).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from rlkit import registry
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError, Option, UnknownOption, build, describe, nearest, option, show

CHOICES = {  # option that chooses a YAML file -> (what `rlkit list` calls them, one of them)
    "agent": ("agents", "agent"),
    "env": ("environments", "environment"),
    "network": ("networks", "network"),
    "source": ("sources", "source"),
    "preset": ("presets", "preset"),
}
GENERIC_ENV = "gymnasium"  # the configuration that runs any registered id
OF_TRAINING = ("env.stack", "env.reward_scale", "env.patience")  # read in training only, or kept by the agent
_ID = re.compile(r"[\w.\-]*[:/].+|[\w.\-]+-v\d+")  # CartPole-v1, ALE/Pong-v5, my_pkg.mod:MyEnv, module:Id-v0
_KEY = re.compile(r"[A-Za-z_][\w\-]*(\.[\w\-]+)*")


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
        """The file of rlkit.agents that `agent` configures."""
        return type(self.agent).__module__.rpartition(".")[2]


@dataclass(frozen=True)
class Composed:
    """A configuration and where it came from."""

    config: RunConfig
    plain: dict[str, Any]  # the same as nested dicts and lists, as to_yaml writes it
    preset: str | None  # the preset that was applied


def compose(overrides: Iterable[str] = (), values: Mapping[str, Any] | None = None) -> Composed:
    """The run that `overrides` ("key=value") describe.

    values: the same as Python values, applied after them; keys may be dotted ("agent.clip"), values may be
    dicts. Raises ConfigError.
    """
    plain, preset = _compose_plain(overrides, values or {})
    config = _typed(plain)
    return Composed(config, to_plain(config), preset)


def options(overrides: Iterable[str] = ()) -> list[tuple[Option, Any]]:
    """Every option of the run that `overrides` describe, with its value there."""
    composed = compose(overrides)
    found = [
        each for each in describe(RunConfig, types=_types(composed.config.agent_name)) if each.name != "alias"
    ]
    return [(each, _get(composed.plain, each.name)) for each in found]


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested dicts, lists and scalars; inverse of what `from_yaml` does after
    reading."""
    plain: dict[str, Any] = _lists(asdict(config))
    return plain | {"agent": {"name": config.agent_name} | plain["agent"]}


def to_yaml(config: RunConfig) -> str:
    """The text of a run's config.yaml: every option, defaults included."""
    text: str = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=110)
    return text


def from_yaml(path: str | Path) -> RunConfig:
    """The configuration saved in a run folder, checked as strictly as a typed one.

    Raises ConfigError (not YAML, unknown options, values out of range) and OSError.
    """
    plain = read_plain(path)
    try:
        return _typed(plain)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def with_env(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """`config` in another environment: overrides are `env=NAME` and `env.KEY=VALUE`.

    Raises ConfigError, also for what changes training only.
    """
    plain = to_plain(config)
    pairs = _parse(overrides)
    for key, value in pairs:
        if key != "env" and not key.startswith("env."):
            raise ConfigError(
                f"{key}={show(value)}: the agent is as it was trained; allowed: env=NAME and env.KEY=VALUE"
            )
        if key in OF_TRAINING:
            raise ConfigError(
                f"{key}={show(value)}: changes nothing once the agent is trained; allowed: env=NAME and env.KEY=VALUE "
                f"other than {', '.join(OF_TRAINING)}"
            )
    chosen = [str(value) for key, value in pairs if key == "env"]
    if chosen:
        plain["env"] = to_plain(compose(values={"env": chosen[-1], "preset": "none"}).config)["env"]
    if any(key == "env.id" for key, _ in pairs) and plain["env"]["backend"] not in ("native", "envpool"):
        # they were decided for the run's own id
        plain["env"] |= {"backend": "auto", "workers": 0, "action_mask": "auto"}
    for key, value in pairs:
        if key != "env":
            _set(plain, key, value)
    _refuse_placeholders(plain)
    return _typed(plain)


def agent_config(name: str, plain: Mapping[str, Any]) -> Any:
    """The options of the agent `name` alone, checked."""
    return build(registry.agent_module(name).Config, plain, "agent")


def network_config(plain: Mapping[str, Any]) -> NetworkConfig:
    """The options of a network alone, checked."""
    return build(NetworkConfig, plain, "network")


def read_plain(path: str | Path) -> dict[str, Any]:
    """The values in a YAML file, unchecked. Raises ConfigError where it is no YAML mapping, and OSError."""
    try:
        plain = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path}: no configuration in it")
    return plain


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML that also reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and holds every value once."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few of them can stand for billions of values
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _compose_plain(overrides: Iterable[str], values: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The YAML groups with all edits laid over them, unchecked; and the preset's name."""
    choices: dict[str, str] = {}
    edits: list[tuple[str, Any]] = []
    for key, value in [*_parse(overrides), *values.items()]:
        if key in CHOICES and not isinstance(value, Mapping):
            choices[key] = str(value)
        elif key in ("agent.name", "alias"):
            raise ConfigError(f"{key}={show(value)}: agents are chosen whole; type agent={show(value)}")
        else:
            edits.append((key, value))
    first: list[tuple[str, Any]] = []
    env = choices.get("env", "")
    if env and env not in registry.names("environments") and _ID.fullmatch(env):
        choices["env"], first = GENERIC_ENV, [("env.id", env)]
    chosen = _defaults() | choices
    if chosen["preset"] == "auto":
        pair = f"{chosen['agent']}-{chosen['env']}"
        chosen["preset"] = pair if pair in registry.names("presets") else "none"
    for key, choice in chosen.items():
        group, noun = CHOICES[key]
        if choice not in registry.names(group) and (key, choice) != ("preset", "none"):
            extra = ["none", "auto"] if key == "preset" else []
            remedy = nearest(choice, registry.names(group) + extra)
            raise ConfigError(f"{key}={show(choice)}: no such {noun}; {remedy}")
    typed = [
        f"{key}={choice}" for key, choice in choices.items() if key != "preset"
    ]  # stronger than a preset's
    plain = _compose_groups([*typed, f"preset={chosen['preset']}"])
    for key, value in first + edits:
        _set(plain, key, value)
    if chosen["agent"] != registry.algorithm_of(chosen["agent"]):
        plain["alias"] = chosen["agent"]
    _refuse_placeholders(plain)
    return plain, None if chosen["preset"] == "none" else chosen["preset"]


def _parse(overrides: Iterable[str]) -> list[tuple[str, Any]]:
    """(dotted key, value) of each "key=value", read by Hydra's grammar, and as text where that fails."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    pairs = []
    for text in overrides:
        key, equals, raw = text.partition("=")
        key = key.lstrip("+")  # Hydra's sign for adding a key; here every key exists
        if not equals or not _KEY.fullmatch(key):
            if text.startswith("-"):
                bare = text.lstrip("-").partition("=")[0]
                raise ConfigError(f"{text}: options have no dashes; type {bare}=VALUE")
            raise ConfigError(f"{text}: not KEY=VALUE, for example agent=ppo env=cartpole agent.clip=0.1")
        try:
            parsed = parser.parse_override(f"{key}={raw}")
            value = raw if parsed.is_sweep_override() else parsed.value()
        except HydraException:
            value = raw
        pairs.append((key, value))
    return pairs


def _defaults() -> dict[str, str]:
    """What config.yaml chooses; its preset is "auto": the one of the pair, where there is one."""
    defaults = read_plain(registry.config_folder() / "config.yaml")["defaults"]
    entries = [entry for entry in defaults if isinstance(entry, dict)]
    chosen = {key: name for entry in entries for key, name in entry.items()}
    return {key: chosen[key] for key in CHOICES if key != "preset"} | {"preset": "auto"}


def _compose_groups(choices: Sequence[str]) -> dict[str, Any]:
    """Hydra's composition of config.yaml with these choices."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    outer = GlobalHydra.instance().hydra  # a program that uses Hydra itself keeps its state
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(registry.config_folder()), version_base="1.3"):
            composed = hydra_compose("config", overrides=[*choices])
        plain: dict[str, Any] = OmegaConf.to_container(composed, resolve=False)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{' '.join(choices)}: {' '.join(str(error).split())}") from error
    finally:
        GlobalHydra.instance().hydra = outer
    plain.pop("preset", None)
    return plain


def _typed(plain: Mapping[str, Any]) -> RunConfig:
    """The checked dataclasses. The agent's own options come last: its module imports torch."""
    agent = plain.get("agent")
    name = agent.get("name") if isinstance(agent, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(f"agent={show(agent)}: no agent; allowed: {', '.join(registry.names('agents'))}")
    torch_free = {"agent": dict[str, Any], "env": registry.env_config()}
    with contextlib.suppress(UnknownOption):  # refused below, where all names are known
        _check_env(build(RunConfig, plain, types=torch_free))
    types = _types(name)
    if "name" not in types["agent"].__dataclass_fields__:
        plain = {**plain, "agent": {key: value for key, value in agent.items() if key != "name"}}  # type: ignore[union-attr]
    found = {*RunConfig.__dataclass_fields__, *(each.name for each in describe(RunConfig, types=types))}
    known = sorted(found - {"alias"})  # nobody types it
    hint = f"rlkit list options agent={name} shows all"
    return _check_env(build(RunConfig, plain, types=types, known=known, hint=hint))


def _check_env(config: RunConfig) -> RunConfig:
    """The rules between the environment's options, which are its own."""
    try:
        config.env.validate()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return config


def _types(agent: str) -> dict[str, Any]:
    return {"agent": registry.agent_module(agent).Config, "env": registry.env_config()}


def _set(plain: dict[str, Any], key: str, value: Any) -> None:
    """plain[a][b][c] = value for the key "a.b.c"; a dict is laid over the one that is there."""
    *path, last = key.split(".")
    for part in path:
        inner = plain.get(part)
        plain[part] = plain = dict(inner) if isinstance(inner, dict) else {}
    if isinstance(value, Mapping) and isinstance(plain.get(last), dict):
        for name, each in value.items():
            _set(plain, f"{last}.{name}", each)
    else:
        plain[last] = value


def _get(plain: Mapping[str, Any], key: str) -> Any:
    value: Any = plain
    for part in key.split("."):
        value = value[part]
    return value


def _lists(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _refuse_placeholders(value: Any, path: str = "") -> None:
    """Hydra's ??? (a value that must be given) and ${...} (one that would be looked up)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_placeholders(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _refuse_placeholders(inner, path)
    elif value == "???":
        raise ConfigError(f"{path}: missing; type {path}=VALUE")
    elif isinstance(value, str) and "${" in value:
        raise ConfigError(f"{path}={show(value)}: ${{...}} is not looked up here; write the value itself")
