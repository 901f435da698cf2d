"""The run of a supervised task: checked, then put together from a table, a model, and what every run has."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlkit.checkpoint import BEST
from rlkit.config import registry
from rlkit.config.compose import to_yaml
from rlkit.config.schema import TaskRun
from rlkit.contracts import Report, Saved, Stateful, Task
from rlkit.device import choose_device, choose_threads, keep_memory
from rlkit.files import Place, at
from rlkit.learn.trainer import Clock, Hook
from rlkit.metrics import MetricsWriter
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError
from rlkit.own import is_function
from rlkit.perception.collect import Scene
from rlkit.perception.columns import spec_of
from rlkit.perception.feed import Reader, TableFeed, try_augment
from rlkit.perception.few import training_rows
from rlkit.perception.learner import TaskLearner
from rlkit.perception.model import Model
from rlkit.perception.rounds import RoundsHook, agent_of, scene_of
from rlkit.perception.saved import Scorer, model_parts, new_model
from rlkit.perception.sets import SETS, open_data
from rlkit.perception.table import PARTS, Array, Index, Table
from rlkit.play.evaluate import Episode
from rlkit.run.build import Built
from rlkit.run.console import Console
from rlkit.run.early import EarlyStopHook
from rlkit.run.handover import Source, hand_over, sources
from rlkit.run.health import require_finite
from rlkit.run.hooks import Best, EvaluateHook, LogHook, StopHook
from rlkit.run.probe import has_pixels, tested_precision
from rlkit.spaces import Discrete, limits_of
from rlkit.types import EnvSpec

PIECE = 4096  # rows whose labels are looked at at once
SEEN = 10_000  # training rows from which a model takes means and deviations before it learns


@dataclass(frozen=True)
class TaskPlan:
    """A run of a task that can be started."""

    config: TaskRun  # every choice made: device, precision, threads, how many rows are learned from
    spec: EnvSpec
    task: Task
    table: Table
    label: str  # its column, "" where there is none
    device: torch.device
    precision: torch.dtype
    notes: tuple[str, ...]  # what was chosen and why, a line each
    sources: tuple[Source, ...] = ()  # runs whose weights it begins with
    scene: Scene | None = None  # where rounds are played
    agent: Saved | None = None  # who acts in them on what the model says


def check(config: TaskRun, continued: Saved | None = None) -> TaskPlan:
    """Raise ConfigError where a run of this configuration cannot be; makes no file.

    continued: part `policy` of the checkpoint that the run goes on from.
    """
    if config.network.augment != "none":
        raise ConfigError(
            f"network.augment={config.network.augment}: is for agents; a task changes pictures and labels together: "
            "type network.augment=none augment.shift=4"
        )
    notes: list[str] = []
    device = choose_device(config.device, notes.append)
    task, table = registry.task(config.task_name), open_data(config.data)
    label = task.label(table, config.task)
    spec = spec_of(table, table.columns[label] if label else None, config.stack)
    model = new_model(spec, config)  # whether this network can be built for it
    reader = Reader.of(table, model, label, device)
    parts = {name: len(reader.part(name)) for name in PARTS}
    empty = [name for name, rows in parts.items() if not rows]
    if empty:
        raise ConfigError(
            f"data={config.data}: of {table.rows:,} rows in {len(np.unique(table.groups)):,} groups none is for "
            f"{' and '.join(empty)}; a table needs more groups (episodes): rlkit collect goes on with a larger frames="
        )
    notes += check_inputs(table, config.network)
    if label:
        check_labels(table, label, spec)
    scene, agent = None, None
    if config.rounds.number:
        scene = scene_of(table, label, config)
        if not task.agent and continued is None:
            agent = agent_of(config, table, label, scene, notes.append)
    found = sources(config, spec, continued, notes.append)
    try_augment(reader, config.augment)
    precision = tested_precision(config, spec, device, notes)
    rows = len(training_rows(reader, model, config.seed))
    total = config.total_steps or max(
        round(config.epochs * (rows + config.rounds.number * config.rounds.frames)), 1
    )
    notes.append(
        f"data: {parts['training']:,} rows to learn from, {parts['validation']:,} for validation, "
        f"{parts['test']:,} for the test, in groups that are never shared; {total / rows:.3g} epochs"
    )
    if model.labels:
        notes.append(
            f"task.labels={model.labels}: rows per class whose label is used; an epoch has {rows:,} rows"
        )
    path = Path(table.name)
    config = replace(
        config,
        data=str(path.absolute()) if path.exists() and config.data not in SETS else config.data,
        total_steps=total,
        device=str(device),
        precision=str(precision).removeprefix("torch."),
        threads=choose_threads(config.threads, has_pixels(spec)),
        compile=False if config.compile == "auto" else config.compile,  # auto is for agents
    )
    return TaskPlan(
        config, spec, task, table, label, device, precision, tuple(notes), tuple(found), scene, agent
    )


def check_inputs(table: Table, network: NetworkConfig) -> list[str]:
    """A line for each input of which numbers are missing (NaN).

    Raises ConfigError where the network reads none such, and for infinite numbers.
    """
    found = []
    for name in table.inputs:
        values: Array = table[name]
        if values.dtype.kind != "f":
            continue
        wrong = np.isinf(values).reshape(len(values), -1).any(1)
        if wrong.any():
            row = int(wrong.argmax())
            raise ConfigError(
                f"data={table.name}: {name} has an infinite number in row {row:,}; what is missing is NaN"
            )
        gaps = np.isnan(values)
        if gaps.any():
            row = int(gaps.reshape(len(values), -1).any(1).argmax())
            if not network.standardize or is_function(network.encoder):
                raise ConfigError(
                    f"data={table.name}: {name} has missing numbers (NaN), the first in row {row:,}; type "
                    "network.standardize=true, with which rlkit's own encoders fill and tell them, or leave these rows "
                    "out"
                )
            found.append(
                f"data: {gaps.mean():.1%} of the numbers of {name} are missing: the mean of the training rows stands "
                "for them, and the network is told which they are"
            )
    return found


def check_labels(table: Table, label: str, spec: EnvSpec) -> None:
    """Raise ConfigError for labels that are out of range or no numbers, and where all rows have the same one."""
    values: Array = table[label]
    if values.dtype.kind == "f":
        wrong = ~np.isfinite(values).reshape(len(values), -1).all(1)
        if wrong.any():
            row = int(wrong.argmax())
            raise ConfigError(
                f"data={table.name}: {label} is {values[row]} in row {row:,}, and {wrong.sum():,} rows are not finite"
            )
    elif (limits := limits_of(spec.action)) is not None:
        low, high = limits
        for start in range(0, len(values), PIECE):
            piece = values[start : start + PIECE]
            beyond = (piece < low) | (piece > high)
            if beyond.any():
                row = start + int(np.argwhere(beyond)[0, 0])
                raise ConfigError(
                    f"data={table.name}: {label} is {piece[beyond][0]} in row {row:,}; allowed: {np.min(low)} to "
                    f"{np.max(high)}"
                )
    if isinstance(spec.action, Discrete) and len(values) and (values == values[0]).all():
        raise ConfigError(
            f"data={table.name}: {label} is {values[0]} in all rows: there is nothing to tell apart"
        )


def part_names(config: TaskRun) -> tuple[str, ...]:
    """The parts of a checkpoint beside `policy` and `state`."""
    return ()


class RowEvaluator:
    """Scores of held-out rows, as `EvaluateHook` asks an evaluator for episodes: a row's score is its return."""

    greedy = True

    def __init__(self, model: Model, judged: dict[str, Any]) -> None:
        self.model, self.judged = model, judged
        self._tables: list[tuple[Scorer, Index]] = []

    def add(self, reader: Reader, most: int) -> None:
        """Score validation rows of a table as well, at most so many."""
        self._tables.append((Scorer(self.model, reader), reader.thinned(reader.part("validation"), most)))

    def play(self, greedy: bool | None = None) -> list[Episode]:
        """One entry per row: its number in its table, its group, its score."""
        return [
            Episode(int(row), int(group), float(score), 1)
            for scorer, index in self._tables
            for row, group, score in zip(
                index, scorer.reader.table.groups[index], scorer.scores(index), strict=True
            )
        ]

    def worth(self, episodes: list[Episode], step: int, report: Report) -> float:
        """The mean score."""
        return sum(each.result for each in episodes) / len(episodes)

    def close(self) -> None:
        """Nothing is held open."""


def build(plan: TaskPlan, folder: Path | Place, console: Console) -> Built:
    """The run of a task: its model from the configuration's seed, its batches, and what happens beside learning."""
    place, config = at(folder), plan.config
    torch.set_num_threads(config.threads)
    keep_memory()
    torch.manual_seed(config.seed)
    model = new_model(plan.spec, config).to(plan.device)
    hand_over(list(plan.sources), model, config, console.say)
    reader = Reader.of(plan.table, model, plan.label, plan.device)
    training = reader.part("training")
    # numbers are taken in exactly, pictures have nothing of which all rows are needed
    seen = training[:: -(-len(training) // SEEN)] if has_pixels(plan.spec) else training
    rows = reader.rows(seen)
    label = rows.get("label")
    with torch.no_grad():
        model.prepare(rows["obs"], label if isinstance(label, torch.Tensor) else None)
    learner = TaskLearner(model, config.optim, precision=plan.precision, compile=config.compile)
    learned = training_rows(reader, model, config.seed)
    feed = TableFeed(reader, learned, config.batch, config.seed, model.noise_size, config.augment)
    clock = Clock(config.total_steps)

    def describe() -> Saved:
        return model_parts(model, config, plan.label)

    judge = RowEvaluator(model, {"data": config.data, "rows": config.evaluate.rows})
    judge.add(reader, config.evaluate.rows)
    evaluation = EvaluateHook(
        config.evaluate.every or max(config.total_steps // 10, 1),
        judge,
        Best(place / BEST, describe),
        console.say,
        lambda step: require_finite(model, step, config.optim),
    )
    early = EarlyStopHook(config.stop.score, config.stop.patience)
    writer = MetricsWriter(place, config.log.tensorboard, console.say)
    writer.text("config", f"```\n{to_yaml(config)}```")
    hooks: list[Hook] = [
        StopHook(None, config.stop.minutes),
        evaluation,
        early,
        LogHook(config.log.every or max(config.total_steps // 500, 1), writer, console, feed),
    ]
    state: dict[str, Stateful] = {"clock": clock, "agent": learner}
    if plan.scene is not None:

        def learn(table: Table) -> None:
            """Learn from the rows of a round, too; what is best is then judged on them as well."""
            reader = Reader.of(table, model, plan.label, plan.device)
            feed.add(reader, reader.part("training"))
            judge.add(reader, config.evaluate.rows)
            evaluation.best, early.best, early.since = None, -math.inf, 0

        rounds = RoundsHook(
            config.rounds, plan.scene, describe, plan.agent, config.seed, place, learn, console.say
        )
        hooks.insert(0, rounds)
        state["rounds"] = rounds  # before what it resets
    state |= {"evaluation": evaluation, "early": early}
    return Built(model.body, describe, learner, feed, clock, hooks, state, lambda: None)
