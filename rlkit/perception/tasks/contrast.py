"""Which frame comes next: features that tell times and places apart, learned without labels.

    z = P f(o) / |...|,   z' = P' f(o') / |...|,   s_ij = z_i . z'_j / tau,   o' the frame `distance` rows later
    L = -mean_i [ log softmax_j(s_ij)_{j=i} + log softmax_j(s_ji)_{j=i} ] / 2

(van den Oord, Li and Vinyals, "Representation learning with contrastive predictive coding", 2018, arXiv:1807.03748;
the cosine and projections P of two layers as in SimCLR, Chen et al., 2020, arXiv:2002.05709. P and P' are two: with one
a frame would be most similar to itself, and it is among the later frames where the row `distance` before it is.)

Score of a row: 1 if among the later frames of 256 rows its own is the most similar one, else 0; by chance 0.004.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError, option
from rlkit.perception import model
from rlkit.perception.model import Rows
from rlkit.perception.table import FIRST, Table
from rlkit.types import EnvSpec, Obs

DEFAULTS = {"optim.lr": 1e-3, "optim.lr_schedule": "cosine", "epochs": 10, "batch": 256}


@dataclass(frozen=True)
class Config:
    distance: int = option(4, min=1, help="How many rows later the frame is that belongs to one")
    temperature: float = option(
        0.1, above=0, help="tau: the smaller, the more the nearest wrong frames count"
    )
    size: int = option(128, min=1, help="The width of z")


class Model(model.Model):
    """A projection of the features in which frames of one time are near."""

    METRICS = ("loss/contrast", "loss/accuracy")

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        super().__init__(spec, network, {"label": None})
        self.distance, self.temperature = config.distance, config.temperature
        width = self.network.width("label")

        def projection() -> nn.Module:
            return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.size))

        self.now, self.later = projection(), projection()

    def project(self, obs: Obs, by: nn.Module) -> Tensor:
        """obs [B, ...] -> z [B, size], of length 1."""
        return F.normalize(by(self.encode(obs)["label"]).float(), dim=-1)

    def similarities(self, batch: Rows) -> Tensor:
        """[B, B] of each row with each later frame."""
        return self.project(batch["obs"], self.now) @ self.project(batch["later"], self.later).T

    def loss(self, batch: Rows) -> tuple[Tensor, Tensor]:
        s = self.similarities(batch) / self.temperature
        own = torch.arange(len(s), device=s.device)
        loss = (F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2
        right = (s.argmax(1) == own).float().mean()
        return loss, torch.stack([loss, right]).detach()

    def predict(self, obs: Obs) -> dict[str, Tensor]:
        """z [B, size]."""
        return {"z": self.project(obs, self.now)}

    def score(self, batch: Rows) -> Tensor:
        s = self.similarities(batch)
        return (s.argmax(1) == torch.arange(len(s), device=s.device)).float()


def label(table: Table, config: Config) -> str:
    """There is none; rows must follow each other."""
    if FIRST not in table.columns:
        raise ConfigError(
            f"data={table.name}: its rows do not follow each other (no column {FIRST}); this task learns from "
            "episodes: rlkit collect makes them"
        )
    return ""
