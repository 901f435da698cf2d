"""Supervised training throughput beside a plain PyTorch loop: `python scripts/bench_perception.py`.

The same work on both sides: 64x64x3 uint8 pictures from memory, Nature CNN, ten classes, batches of 64, Adam, one
thread. Ours is what `rlkit train task=classify` runs between two evaluations: TableFeed, TaskLearner, precision as
`auto` chooses it, and the same in float32. The plain loop is what one writes by hand: index, to float32, divide by 255,
forward, cross-entropy, backward, torch.optim.Adam. The sides take turns, so a busy machine slows both; the median of
the turns is reported.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rlkit.config.tasks import compose
from rlkit.perception.columns import spec_of
from rlkit.perception.feed import Reader, TableFeed
from rlkit.perception.learner import TaskLearner
from rlkit.perception.saved import new_model
from rlkit.perception.table import Table, from_arrays
from rlkit.run.probe import tested_precision
from rlkit.spaces import Box, Discrete

ROWS, BATCH, CLASSES = 4096, 64, 10


def pictures() -> Table:
    """Random pictures and classes."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (ROWS, 64, 64, 3), np.uint8)
    label = random.integers(0, CLASSES, ROWS)
    return from_arrays(
        "pictures",
        {"image": (image, Box((64, 64, 3), "uint8", 0.0, 255.0)), "label.class": (label, Discrete(CLASSES))},
    )


def ours(table: Table, compile: bool, precision: str) -> tuple[str, Callable[[], None]]:
    """One update of a task's run."""
    pairs = [
        ("task", "classify"),
        ("data", "pictures"),
        ("network.encoder", "nature_cnn"),
        ("precision", precision),
    ]
    config = compose(pairs)
    spec = spec_of(table, table.columns["label.class"], 1)
    device = torch.device("cpu")
    chosen = tested_precision(config, spec, device, [])
    model = new_model(spec, config)
    learner = TaskLearner(model, config.optim, precision=chosen, compile=compile)
    reader = Reader(table, spec, "label.class", device)
    feed = TableFeed(reader, table.part("training"), BATCH, 0, 0, config.augment)

    def update() -> None:
        batch, _ = feed.next()
        learner.learn(batch, 0.0)

    return f"rlkit, {str(chosen).removeprefix('torch.')}{', compiled' if compile else ''}", update


def plain(table: Table) -> tuple[str, Callable[[], None]]:
    """The loop that one writes by hand."""
    images = torch.from_numpy(table["image"]).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(table["label.class"])
    net = nn.Sequential(
        nn.Conv2d(3, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 16, 512), nn.ReLU(), nn.Linear(512, CLASSES),
    )  # fmt: skip
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    order = torch.randperm(ROWS)
    position = [0]

    def update() -> None:
        index = order[position[0] : position[0] + BATCH]
        position[0] = (position[0] + BATCH) % (ROWS - BATCH)
        loss = F.cross_entropy(net(images[index].float() / 255), labels[index])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return "plain PyTorch, float32", update


def main() -> None:
    """Let the sides take turns, and print samples per second and the ratios to the plain loop."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--updates", type=int, default=20, help="of a turn")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = pictures()
    made = [
        plain(table),
        ours(table, False, "float32"),
        ours(table, True, "float32"),
        ours(table, False, "auto"),
        ours(table, True, "auto"),
    ]
    sides = list(dict(made).items())  # without bfloat16 in hardware, auto is float32
    rates: dict[str, list[float]] = {name: [] for name, _ in sides}
    for _, update in sides:  # caches, compilation
        for _ in range(5):
            update()
    for _ in range(arguments.turns):
        for name, update in sides:
            begin = time.perf_counter()
            for _ in range(arguments.updates):
                update()
            rates[name].append(arguments.updates * BATCH / (time.perf_counter() - begin))
    first = np.median(rates[sides[0][0]])
    for name, values in rates.items():
        print(f"{name:<28} {np.median(values):>8,.0f} samples/s   {np.median(values) / first:.2f}")


if __name__ == "__main__":
    main()
