"""Rows of an environment, with what it says of them, as a table.

What an episode holds depends on its number and the seed alone: number n is played by lane n % lanes, opened with the
seed that training would open it with, and its driver's randomness is counted by (number, step). Episodes are written
whole, in the order of their numbers. So the same seed gives the same bytes whatever steps the environments, and a
table that was cut, by a kill or a full disk, goes on with the episode after the last whole one.

The row that closes an episode is left out: nobody acts in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from rlkit import __version__
from rlkit.config import registry
from rlkit.config.compose import compose, to_plain
from rlkit.config.edits import lists, parse, put
from rlkit.contracts import MAX_STEPS, EndlessEpisode, Environments, VecEnv
from rlkit.files import Place
from rlkit.options import ConfigError, build, option, show
from rlkit.perception.drivers import Driver, DriverConfig, make_driver
from rlkit.perception.table import ACTION, FIRST, GROUP, Array, Column, Table, Writer, open_table
from rlkit.seeding import Seeds, uniforms
from rlkit.spaces import Box, Dict, Space, action_row, leaves
from rlkit.types import EnvSpec, EnvStep

BLOCK = 64  # steps of an episode whose noise is drawn at once
_BESIDE = (
    "name",
    "backend",
    "workers",
    "deadline",
    "check",
    "stack",
    "action_mask",
    "channels",
)  # no bytes of rows


@dataclass(frozen=True)
class CollectConfig:
    """What is collected, and by whom."""

    env: Any  # rlkit.envs.config.EnvConfig
    driver: DriverConfig = field(default_factory=DriverConfig)
    labels: tuple[str, ...] = option((), help="What the environment says of each row (env.labels)")
    frames: int = option(10_000, min=1, help="How many rows the table has in the end")
    seed: int = option(0, min=0, max=2**32 - 1, help="All randomness follows from this number")
    out: str = option("", help="The folder of the table, which is made or continued")


def typed(words: Sequence[str]) -> CollectConfig:
    """What `rlkit collect WORDS` asks for. Raises ConfigError."""
    own: dict[str, object] = {}
    env: list[str] = []
    for word, (key, value) in zip(words, parse(words), strict=True):
        group = key.partition(".")[0]
        if group == "env":
            env.append(word)
        elif group in ("agent", "network", "task", "total_steps", "data"):
            raise ConfigError(
                f"{key}={show(value)}: nothing is trained here; rlkit collect -h shows what is read"
            )
        elif key == "driver" and not isinstance(value, dict):
            put(own, "driver.name", value)
        else:
            put(own, key, value)
    if not any(word.startswith("env=") for word in env):
        raise ConfigError("env: missing; type env=NAME (rlkit list environments shows what there is)")
    plain = to_plain(compose([*env, "preset=none"]).config)["env"]
    return build(CollectConfig, {"env": plain, **own}, types={"env": registry.env_config()})


def collect(config: CollectConfig, say: Callable[[str], None] = print) -> Table:
    """Collect until the table has `frames` rows. Raises ConfigError for what cannot be, TableError for a full disk."""
    if not config.out:
        raise ConfigError("out: missing; type out=data/NAME, the folder of the table")
    scene = open_scene(replace(config.env, labels=tuple(config.labels) or config.env.labels))
    driver = make_driver(config.driver, scene.spec, scene.own, scene.expert)
    made = scene.made(asdict(config.driver), config.seed)
    return gather(scene, driver, made, config.frames, config.out, say)


@dataclass(frozen=True)
class Scene:
    """An environment that can be collected from."""

    env: Any  # rlkit.envs.config.EnvConfig, as it was probed
    typed: Any  # the same, as it was asked for
    spec: EnvSpec  # with its labels
    own: Space  # what it shows without them
    expert: str | None  # what people call its expert

    @property
    def reads(self) -> str:
        """The leaf of the observation that a policy sees, "" for all that are no labels."""
        if isinstance(self.own, Dict) or not self.spec.labels:
            return ""
        return next(name for name, _ in leaves(self.spec.observation) if name not in self.spec.labels)

    def made(self, driver: dict[str, Any], seed: int) -> dict[str, Any]:
        """Where rows come from, as table.json says it."""
        return {"env": _plain(self.typed), "driver": driver, "seed": seed, "rlkit": __version__}


def open_scene(env: Any) -> Scene:
    """Look at an environment once. Raises ConfigError."""
    package = registry.env_package()
    env = replace(env, stack=1, reward_scale=1.0)  # tables hold single frames, and no rewards
    try:
        probe = package.probe(env)
        plain = package.probe(replace(env, labels=())).spec if env.labels else probe.spec
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if len(probe.spec.agents) > 1:
        raise ConfigError(f"env.id={env.id}: has {len(probe.spec.agents)} agents; a table has rows of one")
    return Scene(probe.config, env, probe.spec, plain.observation, _expert(package, env))


def gather(
    scene: Scene,
    driver: Driver,
    made: dict[str, Any],
    frames: int,
    out: str | Place,
    say: Callable[[str], None],
) -> Table:
    """Let a driver act until the table `out` has `frames` rows. made: of `Scene.made`; raises as `collect`."""
    columns, seed = columns_of(scene.spec), made["seed"]
    there = _compare(out, made)
    if there is not None and there.rows >= frames:
        say(f"{out}: has {there.rows:,} rows already")
        return there
    writer = Writer(out, columns, made)
    env = registry.env_package().make_vec(scene.env, seed)
    try:
        begun, shown = time.monotonic(), time.monotonic()
        before = writer.rows
        if before:
            say(f"{out}: goes on after {before:,} rows of whole episodes")
        if before < frames:
            for rows in _episodes(env, driver, columns, seed, _whole_episodes(out)):
                room = frames - writer.rows
                length = len(rows[FIRST])
                writer.append({name: array[:room] for name, array in rows.items()}, whole=length <= room)
                if writer.rows >= frames:
                    break
                if time.monotonic() - shown > 10:
                    shown = time.monotonic()
                    rate = (writer.rows - before) / (shown - begun)
                    say(f"row {writer.rows:,}/{frames:,}  {rate:,.0f} rows/s")
    finally:
        writer.close()
        env.close()
    return open_table(out)


def columns_of(spec: EnvSpec) -> dict[str, Column]:
    """The columns of an environment's rows: what it shows (`image` or `obs` where it is no Dict), labels, action."""
    found = {}
    for name, leaf in leaves(spec.observation):
        if spec.role(name) == "mask":
            continue
        shown = name or ("image" if isinstance(leaf, Box) and leaf.image else "obs")
        found[shown] = Column.of(leaf)
    shape, dtype = action_row(spec.action)
    found[ACTION] = Column(dtype, shape, None if isinstance(spec.action, Dict) else spec.action)
    return found | {FIRST: Column("bool", ()), GROUP: Column("uint64", ())}


def _whole_episodes(out: str | Place) -> int:
    """How many whole episodes a table holds."""
    table = open_table(out)
    return int(table[FIRST][: table.whole].sum()) if table.whole else 0


def _episodes(
    env: VecEnv, driver: Driver, columns: dict[str, Column], seed: int, done: int
) -> Iterator[dict[str, Array]]:
    """The rows of episodes `done`, done + 1, ..., in this order."""
    lanes = env.lanes
    numbers = done + (np.arange(lanes) - done) % lanes  # the next episode of each lane
    seeds = Seeds(seed, False, 0, lanes)
    row = env.restore(numbers // lanes, [np.zeros(0)] * lanes)
    state = driver.initial_state(lanes)
    noise = _Noise(seed, driver.noise_size, numbers)
    kept: list[list[dict[str, Array]]] = [[] for _ in range(lanes)]
    finished: dict[int, dict[str, Array]] = {}
    due = done
    while True:
        shown = _columns(row)
        with torch.no_grad():
            action, state = driver.act(row.obs, row.first, state, torch.from_numpy(noise.next()))
        moves = ~row.last.numpy()
        acted = action.numpy()
        for lane in np.flatnonzero(moves):
            one = {name: np.array(array[lane]) for name, array in shown.items() if name in columns}
            one |= {ACTION: np.array(acted[lane]), FIRST: np.array(row.first[lane].item())}
            kept[lane].append(one)
            if len(kept[lane]) > MAX_STEPS:
                raise EndlessEpisode(
                    f"an episode of {env.spec.id} did not end in {MAX_STEPS:,} steps; give it a time limit, for "
                    "example env.time_limit=1000"
                )
        row = env.step(action.to(env.device))
        for lane in np.flatnonzero(row.last.numpy() & moves):
            number = int(numbers[lane])
            rows = {name: np.stack([each[name] for each in kept[lane]]) for name in columns if name != GROUP}
            rows[GROUP] = np.full(len(kept[lane]), seeds.of(int(lane), number // lanes), np.uint64)
            finished[number], kept[lane] = rows, []
            numbers[lane] += lanes
            noise.open(int(lane), int(numbers[lane]))
        while due in finished:
            yield finished.pop(due)
            due += 1


def _columns(row: EnvStep) -> dict[str, Array]:
    """What an environment shows, by the names of columns."""
    if isinstance(row.obs, dict):
        return {name: x.numpy() for name, x in row.obs.items()}
    array = row.obs.numpy()
    return {"image": array, "obs": array}  # one of them is a column


class _Noise:
    """Uniforms of each lane's driver, counted by (number of the episode, step in it)."""

    def __init__(self, seed: int, size: int, numbers: Array) -> None:
        self.seed, self.size = seed, size
        self.numbers, self.step = numbers.copy(), np.zeros(len(numbers), np.int64)
        self.blocks = [self._block(lane) for lane in range(len(numbers))]

    def open(self, lane: int, number: int) -> None:
        """The lane's next row opens this episode, after one more that closes the one before."""
        self.numbers[lane], self.step[lane] = number, -1
        self.blocks[lane] = self._block(lane)

    def next(self) -> Array:
        """[lanes, size] for the present row."""
        found = np.empty((len(self.numbers), self.size), np.float32)
        for lane, step in enumerate(self.step.tolist()):
            if step > 0 and step % BLOCK == 0:
                self.blocks[lane] = self._block(lane)
            found[lane] = self.blocks[lane][max(step, 0) % BLOCK]
        self.step += 1
        return found

    def _block(self, lane: int) -> Array:
        start = max(int(self.step[lane]), 0)
        return uniforms(self.seed, np.array([self.numbers[lane]]), start, BLOCK, self.size)[:, 0]


def _plain(env: Any) -> dict[str, Any]:
    """The options of an environment that decide what its rows are."""
    return {name: value for name, value in lists(asdict(env)).items() if name not in _BESIDE}


def _compare(out: str | Place, made: dict[str, Any]) -> Table | None:
    """The table that is there. Raises ConfigError where it was made with other options."""
    try:
        there = open_table(out)
    except ConfigError:
        return None  # none, or damaged: the writer says so
    before = there.made
    # an option that did not exist yet had the value that it has by default
    usual = {"env": _plain(registry.env_config()()), "driver": asdict(DriverConfig())}
    for group in ("env", "driver", "seed"):
        old, new = before.get(group), made[group]
        pairs = (
            [(f"{group}.{name}", {**usual[group], **old}.get(name), new[name]) for name in new]
            if isinstance(old, dict) and isinstance(new, dict)
            else [(group, old, new)]
        )
        for name, was, now in pairs:
            if was != now:
                raise ConfigError(
                    f"out={out}: its rows were collected with {name}={show(was)}, not {show(now)}; choose another "
                    "folder, or type the same options to go on"
                )
    return there


def _expert(package: Environments, env: Any) -> str | None:
    """What people call the environment's expert, None where it has none."""
    try:
        return package.expert(env)
    except ValueError:
        return None
