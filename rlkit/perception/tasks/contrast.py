"""Which frames belong together: features that tell times and places apart, learned without labels.

o_i is the frame of row i, o'_i the one `distance` rows later, f the encoder.

    kind=nce      z_i = P f(o_i) / |...|,   z'_i = P' f(o'_i) / |...|,   s_ij = z_i . z'_j / tau
                  L = -mean_i [ log softmax_j(s_ij)_{j=i} + log softmax_j(s_ji)_{j=i} ] / 2
    kind=pairs    z_i = P f(o_i),   z'_i = P f(o'_i),   d_ij = |z_i - z'_j|
                  L = mean_i d_ii^2 / 2 + mean_{i != j} max(0, margin - d_ij)^2 / 2

(nce: van den Oord, Li and Vinyals, "Representation learning with contrastive predictive coding", 2018,
arXiv:1807.03748; the cosine and projections P of two layers as in SimCLR, Chen et al., 2020, arXiv:2002.05709. pairs:
Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an invariant mapping", 2006.)

Score of a row: nce: 1 if among the later frames of 256 rows its own is the most similar one, else 0; by chance 0.004.
P and P' are two: with one a frame would be most similar to itself, and it is among the later frames where the row
`distance` before it is. pairs has one P, and d has no direction: a frame is nearest to itself, and the frames of
`distance` rows before and after are equally near, and any of them may be among the 256. So not the nearest frame counts
but the order: the score is the share of the other rows' later frames that are farther away than its own, 0.5 by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError, option
from rlkit.perception import model
from rlkit.perception.model import Rows
from rlkit.perception.table import FIRST, Table
from rlkit.types import EnvSpec, Obs

DEFAULTS = {
    "optim.lr": 1e-3,
    "optim.lr_schedule": "cosine",
    "network.standardize": True,
    "epochs": 10,
    "batch": 256,
}
SMALL = 1e-6  # added to a squared distance: a frame that is there twice has a distance of 0, whose root has no slope


@dataclass(frozen=True)
class Config:
    kind: Literal["nce", "pairs"] = option(
        "nce",
        help="nce: the later frame is found among those of the batch; pairs: near ones near, others apart",
    )
    distance: int = option(4, min=1, help="How many rows later the frame is that belongs to one")
    temperature: float = option(
        0.1, above=0, help="nce: tau: the smaller, the more the nearest wrong frames count"
    )
    margin: float = option(1.0, above=0, help="pairs: how far apart is far enough")
    size: int = option(128, min=1, help="The width of z")


class Model(model.Model):
    """A projection of the features in which frames of one time are near."""

    METRICS = ("loss/contrast", "loss/accuracy")

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        super().__init__(spec, network, {"label": None})
        self.distance, self.temperature, self.margin = config.distance, config.temperature, config.margin
        self.pairs = config.kind == "pairs"
        width = self.network.width("label")

        def projection() -> nn.Module:
            return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.size))

        self.now = projection()
        self.later = None if self.pairs else projection()

    def project(self, obs: Obs, later: bool = False) -> Tensor:
        """obs [B, ...] -> z [B, size], with nce of length 1; later: z' of later frames."""
        by = self.later if later and self.later is not None else self.now
        z: Tensor = by(self.encode(obs)["label"]).float()
        return z if self.pairs else F.normalize(z, dim=-1)

    def similarities(self, batch: Rows) -> Tensor:
        """[B, B] of each row with each later frame: the cosine, or -d^2 of pairs."""
        z, later = self.project(batch["obs"]), self.project(batch["later"], later=True)
        if not self.pairs:
            return z @ later.T
        with torch.autocast(z.device.type, enabled=False):  # differences of large numbers
            return -(z.square().sum(1)[:, None] + later.square().sum(1) - 2 * z @ later.T).clamp(min=0)

    def loss(self, batch: Rows) -> tuple[Tensor, Tensor]:
        s = self.similarities(batch)
        own = torch.arange(len(s), device=s.device)
        if self.pairs:
            others = ~torch.eye(len(s), dtype=torch.bool, device=s.device)
            short = (self.margin - (SMALL - s).sqrt()).clamp(min=0).square() * others
            loss = (short.sum() / others.sum().clamp(min=1) - s.diagonal().mean()) / 2
        else:
            s = s / self.temperature
            loss = (F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2
        return loss, torch.stack([loss, self._right(s).mean()]).detach()

    def _right(self, s: Tensor) -> Tensor:
        """The score of each row, [B]."""
        if self.pairs:
            return (s < s.diagonal()[:, None]).float().sum(1) / max(len(s) - 1, 1)
        return (s.argmax(1) == torch.arange(len(s), device=s.device)).float()

    def predict(self, obs: Obs) -> dict[str, Tensor]:
        """z [B, size]."""
        return {"z": self.project(obs)}

    def score(self, batch: Rows) -> Tensor:
        return self._right(self.similarities(batch))


def label(table: Table, config: Config) -> str:
    """There is none; rows must follow each other."""
    if FIRST not in table.columns:
        raise ConfigError(
            f"data={table.name}: its rows do not follow each other (no column {FIRST}); this task learns from "
            "episodes: rlkit collect makes them"
        )
    return ""
