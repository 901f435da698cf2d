"""Which of n classes a row belongs to.

    L = -mean log p(y | x),    p categorical, its logits the outputs of the network

Score of a row: 1 if the most likely class is the right one, else 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlkit.distributions import action_head
from rlkit.nn.config import NetworkConfig
from rlkit.options import option
from rlkit.perception import metrics, model
from rlkit.perception.columns import choose_label
from rlkit.perception.model import Rows, answers
from rlkit.perception.table import Table
from rlkit.spaces import Discrete
from rlkit.types import EnvSpec, Obs

DEFAULTS = {
    "optim.lr": 1e-3,
    "optim.lr_schedule": "cosine",
    "network.standardize": True,
    "network.activation": "relu",
    "epochs": 30,
}


@dataclass(frozen=True)
class Config:
    label: str = option("", help="The label to learn; empty: the only one that names classes")
    labels: int = option(0, min=0, help="How many training rows of each class are learned from; 0: all")


class Model(model.Model):
    """A categorical distribution over the classes."""

    METRICS = ("loss/classes", "loss/accuracy")

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        head = action_head(spec.action)
        super().__init__(spec, network, {"label": (head.size, 0.01)})
        self.head, self.labels = head, config.labels

    def loss(self, batch: Rows) -> tuple[Tensor, Tensor]:
        logits, label = self.outputs(batch["obs"]), answers(batch)
        loss = -self.head.distribution(logits).log_prob(label).mean()
        right = (logits.argmax(-1) == label).float().mean()
        return loss, torch.stack([loss, right]).detach()

    def predict(self, obs: Obs) -> dict[str, Tensor]:
        """label [B] int64, the most likely class; probability [B, n]."""
        logits = self.outputs(obs)
        return {"label": logits.argmax(-1), "probability": logits.softmax(-1)}

    def score(self, batch: Rows) -> Tensor:
        return (self.outputs(batch["obs"]).argmax(-1) == answers(batch)).float()

    def summary(
        self, predictions: Mapping[str, npt.NDArray[np.generic]], label: npt.NDArray[np.generic]
    ) -> dict[str, float]:
        probability = np.asarray(predictions["probability"], np.float64)
        return {
            "accuracy": metrics.accuracy(label, predictions["label"]),
            "F1 (mean over classes)": metrics.f1(label, predictions["label"]),
            "AUROC (mean over classes)": metrics.auroc(label, probability),
        }


def label(table: Table, config: Config) -> str:
    """The column that is learned."""
    return choose_label(
        table, config.label, lambda space: isinstance(space, Discrete), "classes (a Discrete label)"
    )
