"""Data sets by name: what `data=` means.

data=data/cr            a table in a folder (rlkit.perception.table)
data=digits             a small set that comes with scikit-learn (pip install rlkit[perception]): digits, iris,
                        wine, breast_cancer, diabetes
data=carracing          a table that is collected into the folder data/carracing on first use (configs/data/*.yaml)
data=my_pkg.mod:rows    a function of one's own that returns {column: array [rows, ...]}; a label's column is
                        called label.NAME, and whole numbers there are classes
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlkit import own
from rlkit.config import registry
from rlkit.config.edits import read_plain
from rlkit.options import ConfigError, nearest
from rlkit.perception.table import LABEL, Array, Table, TableError, from_arrays, open_table
from rlkit.spaces import Box, Discrete, Space
from rlkit.text import clean

SETS = {
    "digits": "1,797 handwritten digits of 8 x 8 pixels, ten classes",
    "iris": "150 flowers in 4 lengths, three kinds",
    "wine": "178 wines in 13 measurements, three growers",
    "breast_cancer": "569 tumours in 30 measurements, two diagnoses",
    "diabetes": "442 patients in 10 measurements, the disease's progress a year later",
}


def open_data(name: str) -> Table:
    """The table that `data=name` means. Raises ConfigError."""
    if own.is_function(name) and not Path(name).exists():
        try:
            found = own.find_function(name, f"data={name}")()
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return _own(name, found)
    if name in SETS:
        return _scikit(name)
    collected = registry.names("data")
    if name in collected:
        return _collected(name)
    known = [*SETS, *collected]
    if not name:
        raise ConfigError(
            f"data: missing; allowed: the folder of a table, {', '.join(known)}, or module:function"
        )
    if not Path(name).exists():
        raise ConfigError(
            f"data={name}: no such folder or data set; {nearest(name, known)} (rlkit list data shows what there is, "
            "rlkit collect makes a table)"
        )
    return open_table(name)


def _collected(name: str) -> Table:
    """The table of configs/data/NAME.yaml, of which episodes that are missing are collected first."""
    from rlkit.perception.collect import collect, typed

    words = read_plain(registry.config_folder() / "data" / f"{name}.yaml")["collect"].split()
    folder = (Path("data") / name).absolute()
    return collect(
        typed([*words, f"out={folder}"]), say=lambda text: print(f"data: {clean(text)}", flush=True)
    )


def _own(name: str, found: object) -> Table:
    """A table of the arrays that a function of one's own returned."""
    if isinstance(found, Table):
        return found
    if not isinstance(found, Mapping) or not found:
        raise TableError(
            f"data={name}: returned a {type(found).__name__}; allowed: {{column: array}} with an array of as many rows "
            "each"
        )
    columns = {str(key): np.asarray(value) for key, value in found.items()}
    return from_arrays(name, {key: (array, _space(key, array)) for key, array in columns.items()})


def _space(name: str, array: Array) -> Space | None:
    """What a column of numbers is: whole numbers of a label are classes, uint8 of rank 2 and more images."""
    if name.startswith(LABEL) and array.ndim == 1 and array.dtype.kind in "iu" and len(array):
        if array.min() < 0:
            raise TableError(f"{name}: {array.min()} in row {int(array.argmin())}: classes count from 0")
        return Discrete(int(array.max()) + 1)
    if array.ndim == 0:
        return None
    low, high = (0.0, 255.0) if array.dtype == np.uint8 else (-np.inf, np.inf)
    return Box(array.shape[1:], array.dtype.name, low, high)


def _scikit(name: str) -> Table:
    """A set of scikit-learn's wheel, which needs no network."""
    try:
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ConfigError(
            f"data={name}: comes with scikit-learn, which is not installed: pip install 'rlkit[perception]'"
        ) from error
    bunch = getattr(datasets, f"load_{name}")()
    target = bunch.target
    label: tuple[Array, Space]
    if name == "diabetes":
        values = target.astype(np.float32)[:, None]
        label = (values, Box((1,), "float32"))
        kind = "progress"
    else:
        label = (target.astype(np.int64), Discrete(int(target.max()) + 1))
        kind = "class"
    if name == "digits":
        images = bunch.images.astype(np.uint8)  # 0 to 16
        return from_arrays(
            name, {"image": (images, Box((8, 8), "uint8", 0.0, 16.0)), f"{LABEL}{kind}": label}, [name]
        )
    numbers = bunch.data.astype(np.float32)
    space = Box(numbers.shape[1:], "float32")
    return from_arrays(name, {"obs": (numbers, space), f"{LABEL}{kind}": label}, [name])
