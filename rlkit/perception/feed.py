"""Batches of a table's training rows.

    epoch e     a permutation of the training rows (of a model with memory: sequences of them) that (seed, e) alone
                decides, cut into batches
    state       two integers: the epoch, and the position in it

So a run that is continued goes on in the middle of an epoch with the rows that would have come. What is drawn for a
batch (noise, augmentations) is a function of (seed, update).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rlkit.config.augment import AugmentConfig
from rlkit.contracts import Feed, Saved, Timing
from rlkit.options import ConfigError
from rlkit.perception.augment import Part, augment, draws
from rlkit.perception.model import Model, Rows
from rlkit.perception.table import FIRST, Index, Table
from rlkit.seeding import uniforms
from rlkit.spaces import Box, describe, leaves
from rlkit.types import EnvSpec, Obs


class Reader:
    """Rows of a table as tensors, for a model of this spec.

    label: its column, "" where the inputs are what is predicted; distance: to the later row of each, 0: none; length:
    of the sequences that a model with memory reads, 1: single rows. Raises ConfigError.
    """

    def __init__(
        self,
        table: Table,
        spec: EnvSpec,
        label: str,
        device: torch.device,
        distance: int = 0,
        length: int = 1,
    ) -> None:
        self.table, self.spec, self.label, self.device, self.distance = table, spec, label, device, distance
        self.length = length
        if length > 1 and FIRST not in table.columns:
            raise ConfigError(
                f"data={table.name}: its rows do not follow each other (no column {FIRST}), so a network has nothing "
                "to remember; type network.core=identity"
            )
        self.starts = table.starts() if spec.stack > 1 or distance else np.zeros(0, np.int64)

    @staticmethod
    def of(table: Table, model: Model, label: str, device: torch.device) -> Reader:
        """What a model reads."""
        return Reader(table, model.spec, label, device, model.distance, model.length)

    def part(self, name: str) -> Index:
        """The rows of a part of the table that have all that is asked for; of sequences, those of whole ones."""
        return self.whole(self.table.part(name))

    def whole(self, index: Index) -> Index:
        """Those of the rows `index` that have all that is asked for; of sequences, those of whole ones."""
        if self.distance:
            return self.table.pairs(index, self.distance, self.starts)
        return index[: len(index) // self.length * self.length]

    def sequences(self, index: Index) -> Index:
        """[B] rows, in the order of the table -> [B / length, length].

        A sequence may have the end of an episode and the beginning of the next one.
        """
        return index.reshape(-1, self.length)

    def thinned(self, index: Index, most: int) -> Index:
        """At most about so many of the rows `index`, evenly from all of them."""
        sequences = self.sequences(index)
        return sequences[:: max(-(-len(index) // most), 1)].ravel()

    def column(self, name: str, index: Index) -> Tensor:
        """[B, ...] of one column, on the device."""
        array = self.table[name][index]
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def obs(self, index: Index) -> Obs:
        """The inputs of the rows `index` [B]: [B, ...], with a stack [B, k, ...]."""
        names = self.table.inputs
        if self.spec.stack > 1:
            frames = self.table.stacked(names[0], index, self.spec.stack, self.starts)
            return torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        if len(names) == 1:
            return self.column(names[0], index)
        return {name: self.column(name, index) for name in names}

    def rows(self, index: Index) -> Rows:
        """Inputs and labels of the rows `index`."""
        rows: Rows = {"obs": self.obs(index)}
        if self.label:
            rows["label"] = self.column(self.label, index)
        if self.distance:
            rows["later"] = self.obs(index + self.distance)
        if self.length > 1:
            rows["first"] = self.column(FIRST, index)
        return rows


def flat(rows: Rows) -> dict[str, Tensor]:
    """A batch as one dict of tensors: entries of obs are called obs.NAME."""
    found: dict[str, Tensor] = {}
    for name, value in rows.items():
        found |= (
            {f"{name}.{key}": x for key, x in value.items()} if isinstance(value, dict) else {name: value}
        )
    return found


def joined(tensors: Mapping[str, Tensor]) -> Rows:
    """Inverse of `flat`."""
    rows: Rows = {}
    for name, x in tensors.items():
        group, dot, key = name.partition(".")
        if dot:
            inner = rows.setdefault(group, {})
            assert isinstance(inner, dict), "a group of entries"
            inner[key] = x
        else:
            rows[name] = x
    return rows


def parts_of(reader: Reader, config: AugmentConfig) -> dict[str, Part]:
    """What augmentation does with each tensor of a `flat` batch. Raises ConfigError where there is no picture."""
    if not config.active:
        return {}
    observation = reader.spec.observation
    found = {}
    for name, leaf in leaves(observation):
        if isinstance(leaf, Box) and leaf.image and not leaf.meaning:
            for group in ("obs", "later") if reader.distance else ("obs",):
                found[f"{group}.{name}" if name else group] = Part.image(leaf)
    if not found:
        raise ConfigError(
            f"augment: changes pictures, and the inputs are {describe(observation)}; leave it out"
        )
    label = reader.spec.action
    if reader.label and isinstance(label, Box) and len(label.shape) == 2 and label.dtype == "uint8":
        found["label"] = Part("mask")
    elif reader.label and isinstance(label, Box):
        found["label"] = Part("numbers", mirrored=config.mirrored)
    return found


def try_augment(reader: Reader, config: AugmentConfig) -> None:
    """Raise ConfigError where a training row cannot be changed as these options say."""
    parts = parts_of(reader, config)
    if parts:
        augment(flat(reader.rows(reader.part("training")[:1])), parts, config, draws(0, 0, 1))


class TableFeed(Feed):
    """Hands out every training row once per epoch, `batch` at a time; what does not fill a batch waits for another one.

    index: the rows of the reader's table; noise: uniforms per row. A model with memory gets batch / length sequences,
    at least one, whose rows follow each other in the batch. Raises ConfigError where pictures are to be augmented and
    there are none.
    """

    def __init__(
        self, reader: Reader, index: Index, batch: int, seed: int, noise: int, augment: AugmentConfig
    ) -> None:
        self.seed, self.noise = seed, noise
        self.augment, self._changed = augment, parts_of(reader, augment)
        self.device, self.length, self._wanted = reader.device, reader.length, max(batch // reader.length, 1)
        self.epoch, self.position, self.update = 0, 0, 0
        self.timing = Timing()
        self._tables: list[tuple[Reader, Index]] = []  # and the sequences of each that are learned from
        self._ends = np.zeros(0, np.int64)  # how many sequences there are up to the end of each
        self.add(reader, index)

    def add(self, reader: Reader, index: Index) -> None:
        """Learn from the rows `index` of another table as well, from the next epoch on, which begins now."""
        self._tables.append((reader, reader.sequences(index)))
        self._ends = np.cumsum([len(sequences) for _, sequences in self._tables])
        self.count = int(self._ends[-1])
        self.batch = min(self._wanted, self.count)
        if self.position:
            self.epoch, self.position = self.epoch + 1, 0
        self._order = self._permuted()

    @property
    def rows(self) -> int:
        """How many rows there are to learn from."""
        return self.count * self.length

    def next(self) -> tuple[Rows, int]:
        begin = time.perf_counter()
        if self.position + self.batch > self.count:
            self.epoch, self.position = self.epoch + 1, 0
            self._order = self._permuted()
        chosen = np.sort(self._order[self.position : self.position + self.batch])  # files are read forwards
        self.position += self.batch
        rows, size = self._read(chosen), self.batch * self.length
        if self.noise:
            numbers = np.arange(size)
            drawn = uniforms(self.seed, numbers, self.update, 1, self.noise)[0]  # [B, K]
            rows["noise"] = torch.from_numpy(drawn).to(self.device)
        if self.augment.active:
            u = draws(self.seed, self.update, size).to(self.device)
            rows = joined(augment(flat(rows), self._changed, self.augment, u))
        self.update += 1
        self.timing.environment += time.perf_counter() - begin
        return rows, size

    def _read(self, chosen: Index) -> Rows:
        """The rows of the sequences `chosen`, numbered through all tables."""
        found, start = [], 0
        for (reader, sequences), end in zip(self._tables, self._ends.tolist(), strict=True):
            here = chosen[(chosen >= start) & (chosen < end)] - start
            if len(here):
                found.append(reader.rows(sequences[here].ravel()))
            start = end
        if len(found) == 1:
            return found[0]
        tensors = [flat(each) for each in found]
        return joined({name: torch.cat([each[name] for each in tensors]) for name in tensors[0]})

    def _permuted(self) -> Index:
        """The order of this epoch."""
        generator = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        return generator.permutation(self.count)

    def learned(self, version: int) -> None:
        pass

    def report(self) -> dict[str, float]:
        return {"epoch": self.epoch + self.position / self.count}

    def lags(self) -> list[int]:
        return []

    def state_dict(self) -> Saved:
        return {"epoch": self.epoch, "position": self.position, "update": self.update, "rows": self.rows}

    def load(self, state: Saved, parts: Mapping[str, Saved]) -> str | None:
        self.epoch, self.position, self.update = state["epoch"], state["position"], state["update"]
        self._order = self._permuted()
        if state.get("rows", self.rows) != self.rows:
            return (
                f"the table has {self.rows:,} training rows, and had {state['rows']:,} when the run was last open: it "
                "continues, but not exactly"
            )
        return None

    def close(self) -> None:
        pass
