"""Numbers: a position, a speed, an environment's true state.

    L = -mean log N(z | mu(x), s),    z = (y - m) / d the label in standard units, s learned, the same for all rows

m and d are the mean and the standard deviation of each number over the training rows. Score of a row: the negative mean
of (z - mu)^2, so that 0 is perfect and -1 what the mean of all labels would get.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rlkit.distributions import Gaussian
from rlkit.nn.config import NetworkConfig
from rlkit.options import option
from rlkit.perception import metrics, model
from rlkit.perception.columns import choose_label
from rlkit.perception.model import Rows, answers
from rlkit.perception.table import Table
from rlkit.spaces import Box, Space, row_dtype
from rlkit.types import EnvSpec, Obs

DEFAULTS = {
    "optim.lr": 1e-3,
    "optim.lr_schedule": "cosine",
    "network.standardize": True,
    "network.activation": "relu",
    "epochs": 20,
}


@dataclass(frozen=True)
class Config:
    label: str = option("", help="The label to learn; empty: the only one that is a vector of numbers")


class Model(model.Model):
    """A Gaussian with a mean per row and one deviation for all."""

    METRICS = ("loss/numbers", "loss/deviation")
    perfect = 0.0
    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        assert isinstance(spec.action, Box), "a label of numbers is a Box"
        self.size = spec.action.shape[0]
        super().__init__(spec, network, {"label": (self.size, 0.01)})
        self.log_std = nn.Parameter(torch.zeros(self.size))
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("deviation", torch.ones(self.size))

    def prepare(self, obs: Obs, label: Tensor | None) -> None:
        super().prepare(obs, label)
        assert label is not None, "a regressor has labels"
        self.mean.copy_(label.float().mean(0))
        # a number that never changes is predicted by its mean
        spread = label.float().std(0, correction=0)
        self.deviation.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def loss(self, batch: Rows) -> tuple[Tensor, Tensor]:
        mu, z = self.outputs(batch["obs"]), self._units(batch)
        loss = -Gaussian(mu, self.log_std).log_prob(z).mean() / self.size
        return loss, torch.stack([loss, self.log_std.exp().mean()]).detach()

    def _units(self, batch: Rows) -> Tensor:
        """The labels in standard units, [B, d]."""
        return (answers(batch).float() - self.mean) / self.deviation

    def predict(self, obs: Obs) -> dict[str, Tensor]:
        """label [B, d], in the label's units."""
        return {"label": self.outputs(obs) * self.deviation + self.mean}

    def score(self, batch: Rows) -> Tensor:
        return -(self.outputs(batch["obs"]) - self._units(batch)).square().mean(-1)

    def summary(
        self, predictions: Mapping[str, npt.NDArray[np.generic]], label: npt.NDArray[np.generic]
    ) -> dict[str, float]:
        found = {}
        for i in range(self.size):
            name = f" of number {i}" if self.size > 1 else ""
            found[f"R2{name}"] = metrics.r2(label[:, i], predictions["label"][:, i])
            found[f"RMSE{name}"] = metrics.rmse(label[:, i], predictions["label"][:, i])
        return found


def label(table: Table, config: Config) -> str:
    """The column that is learned."""
    return choose_label(table, config.label, _numbers, "numbers (a vector of floats)")


def _numbers(space: Space) -> bool:
    return isinstance(space, Box) and row_dtype(space) == "float32" and len(space.shape) == 1
