"""Few labels: a model may use the labels of some training rows of each class, and learns from the others without."""

from __future__ import annotations

import numpy as np

from rlkit.perception.feed import Reader
from rlkit.perception.model import Model
from rlkit.perception.table import Index, Table, hashed

HIDDEN = -1  # the label of a row whose class is not told


def training_rows(reader: Reader, model: Model, seed: int) -> Index:
    """The rows of an epoch. Labels that the model may not use are hidden from the reader before."""
    index = reader.part("training")
    if not model.labels:
        return index
    reader.table = with_few_labels(reader.table, reader.label, model.labels, seed)
    known = reader.table[reader.label][index] != HIDDEN
    return model.epoch(index[known], index[~known])


def with_few_labels(table: Table, label: str, per_class: int, seed: int) -> Table:
    """The table, in which all but `per_class` training rows of each class have the label HIDDEN.

    Which ones have theirs: those whose numbers, mixed with the seed, have the smallest hashes. So it is the same rows
    for every task and every time. Labels of rows that are not for training stay.
    """
    rows = table.part("training")
    rows = rows[
        np.argsort(hashed(rows.astype(np.uint64) ^ hashed(np.array([seed], np.uint64))), kind="stable")
    ]
    told = np.array(table[label], np.int64)
    classes = told[rows]
    known = np.concatenate([rows[classes == each][:per_class] for each in np.unique(classes)])
    told[np.setdiff1d(rows, known)] = HIDDEN
    return Table(table.name, table.columns, {**table.data, label: told}, table.made, table.whole)
