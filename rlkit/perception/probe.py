"""What a linear map reads from an encoder's features: how much of a label is there to be taken.

    W = argmin |Y - X W|^2 + lambda |W|^2        X: features in standard units and a column of ones, [rows, F+1]

Y are the numbers of a label in standard units, or one column per class. lambda is the best of LAMBDAS on the validation
rows; what is reported is of the test rows: R2 (mean over the numbers), or the share of right classes. Beside the
encoder: the same encoder with random weights, and the pixels themselves (Alain and Bengio, 2017, arXiv:1610.01644).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.collect.eyes import Eyes
from rlkit.nn.config import NetworkConfig
from rlkit.nn.encoders import make_encoder
from rlkit.options import ConfigError, build
from rlkit.perception import metrics
from rlkit.perception.feed import Reader
from rlkit.perception.saved import PIECE
from rlkit.perception.table import LABEL, PARTS, Index, Table
from rlkit.space_json import to_json
from rlkit.spaces import Box, Discrete, describe, row_dtype
from rlkit.types import Obs

LAMBDAS = (1e-2, 1.0, 1e2, 1e4)
MOST = 10_000  # training rows that are read
PIXELS = 1024  # numbers that a picture is reduced to
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Read:
    """What was read from one kind of features."""

    name: str
    width: int
    score: float  # of the test rows


def probe(eyes: Eyes, table: Table, label: str, device: torch.device) -> tuple[str, list[Read]]:
    """What is reported ("R2" or "accuracy"), and for the encoder, a random one and the pixels. Raises ConfigError."""
    column = LABEL + label
    if column not in table.columns:
        raise ConfigError(f"label={label}: {table.name} has {', '.join(table.labels) or 'no labels'}")
    space = table.columns[column].space
    classes = isinstance(space, Discrete)
    if not classes and not (
        isinstance(space, Box) and row_dtype(space) == "float32" and len(space.shape) == 1
    ):
        what = describe(space) if space is not None else "no space"
        raise ConfigError(f"label={label}: it is {what}; allowed: classes, or a vector of numbers")
    inputs = [table.columns[name].space for name in table.inputs]
    if len(inputs) != 1 or inputs[0] is None or to_json(inputs[0]) != to_json(eyes.spec.observation):
        raise ConfigError(f"data={table.name}: shows something else than {describe(eyes.spec.observation)}")
    reader = Reader(table, eyes.spec, column, device)
    index = {name: table.part(name) for name in PARTS}
    index["training"] = index["training"][:: -(-len(index["training"]) // MOST)]
    network = build(NetworkConfig, eyes.parts["source"]["network"], "network")
    torch.manual_seed(0)
    random = make_encoder(eyes.spec.inputs, eyes.spec.stack, network).to(device)
    random.observe(reader.obs(index["training"]))  # its numbers are scaled like the other's
    kinds: list[tuple[str, Callable[[Obs], Tensor]]] = [
        ("the run's encoder", eyes.look),
        ("a random encoder", random),
        ("the input itself", _flat),
    ]
    found = []
    y = {name: reader.column(column, rows).cpu().numpy() for name, rows in index.items()}
    for name, look in kinds:
        x = {part: _features(look, reader, rows) for part, rows in index.items()}
        width = x["test"].shape[1]
        found.append(Read(name, width, _score(x, y, space.n if isinstance(space, Discrete) else 0)))
    return "accuracy" if classes else "R2", found


@torch.no_grad()
def _features(look: Callable[[Obs], Tensor], reader: Reader, index: Index) -> Floats:
    pieces = [look(reader.obs(index[start : start + PIECE])) for start in range(0, len(index), PIECE)]
    return torch.cat([piece.float().cpu() for piece in pieces]).numpy().astype(np.float64)


def _flat(obs: Obs) -> Tensor:
    """Rows as numbers, 0 where one is missing: pictures are averaged down to at most PIXELS of them."""
    assert isinstance(obs, Tensor), "a single input"
    x = obs.float().nan_to_num(0.0)
    while x.dim() >= 3 and x[0].numel() > PIXELS:
        flat = x.flatten(1, -3) if x.dim() > 4 else x
        last = flat.dim() == 4 and flat.shape[-1] in (1, 3, 4)
        flat = flat.permute(0, 3, 1, 2) if last else flat if flat.dim() == 4 else flat[:, None]
        x = F.avg_pool2d(flat, 2)
    return x.flatten(1)


def _score(x: dict[str, Floats], y: dict[str, npt.NDArray[np.generic]], classes: int) -> float:
    """Of the test rows, with the best lambda on the validation rows; classes: 0 for numbers."""
    mean, spread = x["training"].mean(0), x["training"].std(0)
    used = spread > 1e-9
    rows = {
        part: np.column_stack([(each[:, used] - mean[used]) / spread[used], np.ones(len(each))])
        for part, each in x.items()
    }
    if classes:
        target = np.eye(classes)[np.asarray(y["training"], np.int64)]
    else:
        numbers = np.asarray(y["training"], np.float64)
        centre, width = numbers.mean(0), np.where(numbers.std(0) > 1e-9, numbers.std(0), 1.0)
        target = (numbers - centre) / width
    gram, moment = rows["training"].T @ rows["training"], rows["training"].T @ target

    def judged(weights: Floats, part: str) -> float:
        said = rows[part] @ weights
        if classes:
            return metrics.accuracy(y[part], said.argmax(1))
        true = np.asarray(y[part], np.float64)
        there = true.std(0) > 1e-9
        values = [metrics.r2(true[:, i], said[:, i] * width[i] + centre[i]) for i in np.flatnonzero(there)]
        return float(np.mean(values))

    ways = [np.linalg.solve(gram + each * np.eye(len(gram)), moment) for each in LAMBDAS]
    best = max(ways, key=lambda weights: judged(weights, "validation"))
    return judged(best, "test")
