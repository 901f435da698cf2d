"""Does a task work? Four questions with known answers, on pictures made here (`rlkit doctor task=NAME`).

    overfits     a model learns one batch by heart
    leak         held-out rows are predicted well, and by chance where the labels were shuffled
    alone        what is said of a row does not depend on the rows beside it
    repeats      the same seed gives the same weights, bit for bit

The pictures show a bright square that moves over dark noise. Its place is a label of numbers, the quarter in which it
is a class and an action, its pixels are a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlkit.config import registry
from rlkit.config.schema import TaskRun
from rlkit.config.tasks import compose
from rlkit.perception.columns import spec_of
from rlkit.perception.feed import Reader, TableFeed
from rlkit.perception.few import HIDDEN, training_rows
from rlkit.perception.learner import TaskLearner
from rlkit.perception.model import Model
from rlkit.perception.saved import Scorer, new_model
from rlkit.perception.table import ACTION, FIRST, GROUP, LABEL, Index, Table, from_arrays
from rlkit.spaces import Box, Discrete
from rlkit.types import tree_map

SIDE, SQUARE, LENGTH, EPISODES = 16, 6, 8, 60
UPDATES = 120
BY_HEART = 300  # updates in which a batch is learned by heart


@dataclass(frozen=True)
class Answer:
    """What one question came to."""

    name: str
    passed: bool
    measured: str
    expected: str


def squares(seed: int = 0) -> Table:
    """The table of moving squares."""
    random = np.random.default_rng(seed)
    rows = EPISODES * LENGTH
    room = SIDE - SQUARE
    place = (
        random.uniform(0, room, (EPISODES, 1, 2))
        + random.uniform(-2, 2, (EPISODES, 1, 2)) * np.arange(LENGTH)[None, :, None]
    )
    place = np.clip(place, 0, room).reshape(rows, 2)
    corner = place.round().astype(int)
    image = random.integers(0, 60, (rows, SIDE, SIDE)).astype(np.uint8)
    mask = np.zeros((rows, SIDE, SIDE), np.uint8)
    for row, (x, y) in enumerate(corner):
        image[row, y : y + SQUARE, x : x + SQUARE] = 160 + row % 96
        mask[row, y : y + SQUARE, x : x + SQUARE] = 1
    quarter = ((corner[:, 0] > room / 2) + 2 * (corner[:, 1] > room / 2)).astype(np.int64)
    first = np.zeros((EPISODES, LENGTH), bool)
    first[:, 0] = True
    group = np.repeat(np.arange(EPISODES, dtype=np.uint64), LENGTH)
    picture = Box((SIDE, SIDE), "uint8", 0.0, 255.0)
    return from_arrays(
        "squares",
        {
            "image": (image, picture),
            f"{LABEL}class": (quarter, Discrete(4)),
            f"{LABEL}pose": (place.astype(np.float32), Box((2,), "float32")),
            f"{LABEL}mask": (mask, Box((SIDE, SIDE), "uint8", 0.0, 1.0, meaning="codes")),
            ACTION: (quarter, Discrete(4)),
            FIRST: (first.ravel(), None),
            GROUP: (group, None),
        },
    )


class Bench:
    """A task's model and its rows."""

    def __init__(self, config: TaskRun, table: Table) -> None:
        self.config, self.table = config, table
        torch.manual_seed(config.seed)
        task = registry.task(config.task_name)
        self.label = task.label(table, config.task)
        spec = spec_of(table, table.columns[self.label] if self.label else None, config.stack)
        self.model: Model = new_model(spec, config)
        self.reader = Reader.of(table, self.model, self.label, torch.device("cpu"))
        self.training = training_rows(self.reader, self.model, config.seed)
        self.held_out = np.concatenate([self.reader.part("validation"), self.reader.part("test")])
        rows = self.reader.rows(self.reader.part("training"))
        label = rows.get("label")
        with torch.no_grad():
            self.model.prepare(rows["obs"], label if isinstance(label, Tensor) else None)

    def train(self, index: Index, updates: int) -> Model:
        """Learn from these rows."""
        config = self.config
        learner = TaskLearner(self.model, config.optim, precision=torch.float32, compile=False)
        feed = TableFeed(self.reader, index, config.batch, config.seed, self.model.noise_size, config.augment)
        for update in range(updates):
            batch, _ = feed.next()
            learner.learn(batch, update / updates)
        return self.model

    def score(self, index: Index) -> float:
        """The mean score of rows."""
        return float(Scorer(self.model, self.reader).scores(index).mean())


def ask(task: str, words: dict[str, object] | None = None) -> Iterator[Answer]:
    """The four questions of a task, one after the other. Raises ConfigError."""
    table = squares()
    own = registry.task(task)
    torch.set_num_threads(1)
    pairs: list[tuple[str, object]] = [("task", task), ("data", "squares"), ("network.hidden", [64])]
    pairs += [("agent", "ppo")] if own.agent else []
    config = compose([*pairs, *(words or {}).items()])
    yield _overfits(config, table)
    shuffled = _shuffled(table)
    if Bench(config, table).label:
        yield _leak(config, table, shuffled)
    yield _alone(config, table)
    yield _repeats(config, table)


def _overfits(config: TaskRun, table: Table) -> Answer:
    bench = Bench(config, table)
    few = bench.training
    if bench.model.labels:
        few = np.unique(few)
        few = few[bench.reader.table[bench.label][few] != HIDDEN]
    few = bench.reader.thinned(few, 32)
    before = bench.score(few)
    bench.train(few, BY_HEART)
    after, best = bench.score(few), bench.model.perfect
    if best is None:  # how good a score can be is not known
        return Answer("overfits", after > before + 0.5, f"{before:.3g} to {after:.3g}", "at least 0.5 more")
    wanted = best - 0.1 * max(best - before, 0.1)
    return Answer("overfits", after >= wanted, f"{before:.3g} to {after:.3g}", f"at least {wanted:.3g}")


def _shuffled(table: Table) -> Table:
    """The table with the labels of its rows exchanged at random."""
    order = np.random.default_rng(1).permutation(table.rows)
    moved = {
        name: array[order] if name.startswith(LABEL) or name == ACTION else array
        for name, array in table.data.items()
    }
    return Table(table.name, table.columns, moved, table.made)


def _leak(config: TaskRun, table: Table, shuffled: Table) -> Answer:
    scores = []
    for each in (table, shuffled):
        bench = Bench(config, each)
        chance, best = bench.score(bench.held_out), bench.model.perfect or 0.0  # of new weights
        bench.train(bench.training, UPDATES)
        scores.append(bench.score(bench.held_out))
    middle = (chance + best) / 2
    said = f"{scores[1]:.3g} with shuffled labels, {scores[0]:.3g} with true ones"
    return Answer("leak", scores[1] < middle < scores[0], said, f"below and above {middle:.3g}")


@torch.no_grad()
def _alone(config: TaskRun, table: Table) -> Answer:
    bench = Bench(config, table)
    obs = bench.reader.obs(bench.held_out[:16])
    together = bench.model.predict(obs)
    worst = 0.0
    for row in range(16):
        single = bench.model.predict(tree_map(lambda x: x[row : row + 1], obs))  # noqa: B023
        for name, value in single.items():
            away = (value[0].float() - together[name][row].float()).abs().max()
            worst = max(worst, float(away) / (1 + float(together[name][row].float().abs().max())))
    return Answer("alone", worst < 1e-4, f"differs by {worst:.2g}", "below 0.0001")


def _repeats(config: TaskRun, table: Table) -> Answer:
    found = []
    for _ in range(2):
        bench = Bench(config, table)
        bench.train(bench.training, 10)
        found.append({name: x.clone() for name, x in bench.model.body.state_dict().items()})
    different = [name for name, x in found[0].items() if not torch.equal(x, found[1][name])]
    return Answer("repeats", not different, ", ".join(different[:3]) or "equal", "equal weights")
