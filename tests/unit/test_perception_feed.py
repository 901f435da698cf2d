"""Batches of a table: every row once per epoch, and where a run is continued those that would have come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rlkit.config.augment import AugmentConfig
from rlkit.options import ConfigError
from rlkit.perception.columns import spec_of
from rlkit.perception.feed import Reader, TableFeed, flat, joined, parts_of
from rlkit.perception.table import Table, from_arrays
from rlkit.spaces import Box, Discrete
from tests.helpers.sights import sights

CPU = torch.device("cpu")
PLAIN = AugmentConfig()
SHAKEN = AugmentConfig(shift=2, flip=True, gain=0.3)


def numbered(rows: int = 23) -> Table:
    """A table whose rows hold their number."""
    numbers = np.arange(rows)
    return from_arrays(
        "t",
        {
            "x": (numbers[:, None].astype(np.float32), Box((1,), "float32")),
            "label.y": (numbers % 3, Discrete(3)),
        },
    )


def feed(
    table: Table, batch: int, seed: int = 0, augment: AugmentConfig = PLAIN, noise: int = 0
) -> TableFeed:
    label = next(name for name in table.columns if name.startswith("label."))
    reader = Reader(table, spec_of(table, table.columns[label], 1), label, CPU)
    return TableFeed(reader, np.arange(table.rows), batch, seed, noise, augment)


def epoch(source: TableFeed) -> list[int]:
    """The rows of the batches of one epoch."""
    batches = [source.next()[0]["obs"][:, 0] for _ in range(source.rows // source.batch)]
    return torch.cat(batches).long().tolist()


def test_every_row_comes_once_per_epoch() -> None:
    source = feed(numbered(24), 6)
    for _ in range(3):
        assert sorted(epoch(source)) == [*range(24)]
    assert source.report() == {"epoch": 3.0} and source.epoch == 2


def test_what_does_not_fill_a_batch_waits() -> None:
    """Nothing comes twice in an epoch; those that are left out are others each time."""
    source, seen = feed(numbered(23), 6), []
    for _ in range(20):
        rows = epoch(source)
        assert len(set(rows)) == 18
        seen.append(set(rows))
    assert len({frozenset(each) for each in seen}) > 10 and set().union(*seen) == set(range(23))


def test_rows_and_labels_belong_together() -> None:
    rows, count = feed(numbered(), 7).next()
    assert count == 7 and torch.equal(rows["label"], rows["obs"][:, 0].long() % 3)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    one, two, other = (feed(numbered(24), 24, seed) for seed in (3, 3, 4))
    orders = [[source._order.tolist() for _ in range(3) if epoch(source)] for source in (one, two, other)]
    assert orders[0] == orders[1] != orders[2] and orders[0][0] != orders[0][1]
    late = feed(numbered(24), 24, 3)
    late.load({"epoch": 2, "position": 0, "update": 7}, {})
    assert late._order.tolist() == orders[0][2]  # without the epochs before


def test_a_batch_larger_than_the_table_is_the_table() -> None:
    source = feed(numbered(5), 64)
    assert source.next()[1] == 5 and source.next()[1] == 5 and source.epoch == 1


def equal(one: Any, two: Any) -> bool:
    ours, theirs = flat(one[0]), flat(two[0])
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("augment", [PLAIN, SHAKEN])
@pytest.mark.parametrize("at", [0, 1, 5, 9])
def test_a_run_that_is_continued_gets_the_same_batches(at: int, augment: AugmentConfig) -> None:
    """At any batch, at the end of an epoch too; pictures changed at random, and noise, as they would have been."""
    table = sights(9)  # 5 batches per epoch
    whole = feed(table, 12, 1, augment, noise=2)
    for _ in range(at):
        whole.next()
    other = feed(table, 12, 1, augment, noise=2)
    other.load(whole.state_dict(), {})
    for _ in range(7):
        assert equal(whole.next(), other.next())


def test_what_is_drawn_depends_on_seed_and_update_alone() -> None:
    """The same rows are changed in another way in another update, and with another seed."""
    table = sights(9)
    plain, *shaken = (
        feed(table, table.rows, seed, each) for seed, each in ((0, PLAIN), (0, SHAKEN), (1, SHAKEN))
    )
    one, two = shaken[0].next()[0], shaken[0].next()[0]
    bare = plain.next()[0]
    assert not torch.equal(one["label"], bare["label"])  # masks move with their pictures
    assert not torch.equal(one["obs"], two["obs"]) and not torch.equal(one["obs"], bare["obs"])
    assert not torch.equal(one["obs"], shaken[1].next()[0]["obs"])
    assert one["obs"].dtype == torch.uint8 and one["label"].dtype == torch.uint8


def test_columns_may_be_called_anything() -> None:
    """As parts of the feed, of a batch, or of a group of entries."""
    names = ("next", "report", "state_dict", "obs", "noise", "label", "later", "update", "a.b", "obs.obs")
    rows = np.arange(8)[:, None].astype(np.float32)
    columns = {name: (rows + i, Box((1,), "float32")) for i, name in enumerate(names)}
    table = from_arrays("t", columns | {"label.y": (np.arange(8) % 2, Discrete(2))})
    source = feed(table, 8, noise=3)
    found = source.next()[0]
    assert set(found) == {"obs", "label", "noise"} and tuple(found["obs"]) == names
    for i, name in enumerate(names):
        assert torch.equal(found["obs"][name][:, 0], torch.arange(8.0) + i), name
    again = joined(flat(found))
    assert tuple(again["obs"]) == names and all(torch.equal(again["obs"][n], found["obs"][n]) for n in names)
    assert source.report()["epoch"] == 1 and source.state_dict()["position"] == 8


def test_numbers_have_no_pictures_to_change() -> None:
    with pytest.raises(ConfigError, match=r"augment: changes pictures, and the inputs are .*; leave it out"):
        feed(numbered(), 4, augment=SHAKEN)


def test_stacks_and_later_rows_of_a_reader() -> None:
    """A model of 3 frames sees no frame of another episode; a row whose episode ends before has no later one."""
    table = sights(5)
    spec = spec_of(table, None, 3)
    reader = Reader(table, spec, "", CPU, distance=2)
    rows = np.concatenate([reader.part("training"), reader.part("validation"), reader.part("test")])
    shaken = parts_of(reader, SHAKEN)
    assert shaken.keys() == {"obs", "later"}
    found = reader.rows(rows)
    assert found["obs"].shape == (len(rows), 3, 8, 8)
    groups, image = table.groups, table["image"]
    for i, row in enumerate(rows):
        assert groups[row + 2] == groups[row]
        for back in range(3):
            frame = (
                row - back if row - back >= 0 and groups[row - back] == groups[row] else reader.starts[row]
            )
            np.testing.assert_array_equal(found["obs"][i, 2 - back], image[frame])
        np.testing.assert_array_equal(found["later"][i, 2], image[row + 2])
    counts = np.bincount(groups.astype(int))
    assert len(rows) == int(np.maximum(counts - 2, 0).sum())
