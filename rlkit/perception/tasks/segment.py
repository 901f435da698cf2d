"""What each pixel shows.

    L = -mean over rows and pixels of log p(y_ij | x),    p categorical over the classes of the mask

The mask is decoded from the encoder's features alone, without shortcuts from its layers: so the features, which an
agent takes over, must say where things are. Score of a row: the mean over the classes that its mask or the prediction
holds of

    IoU = |pixels where both say the class| / |pixels where one of them does|
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.nn.config import NetworkConfig
from rlkit.options import option
from rlkit.perception import metrics, model
from rlkit.perception.columns import choose_label
from rlkit.perception.decoders import Decoder
from rlkit.perception.model import Rows, answers
from rlkit.perception.table import Table
from rlkit.spaces import Box, Space
from rlkit.types import EnvSpec, Obs

DEFAULTS = {"optim.lr": 1e-3, "optim.lr_schedule": "cosine", "network.standardize": True, "epochs": 6}


@dataclass(frozen=True)
class Config:
    label: str = option("", help="The mask to learn; empty: the only one")


class Model(model.Model):
    """Class probabilities of every pixel."""

    METRICS = ("loss/pixels", "loss/accuracy")

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        super().__init__(spec, network, {"label": None})
        assert isinstance(spec.action, Box), "a mask is a Box"
        height, width = spec.action.shape
        self.classes = int(np.max(spec.action.high)) + 1
        self.decoder = Decoder(self.network.width("label"), (height, width), self.classes)

    def logits(self, obs: Obs) -> Tensor:
        """obs [B, ...] -> [B, classes, H, W]."""
        return self.decoder(self.encode(obs)["label"])  # type: ignore[no-any-return]

    def loss(self, batch: Rows) -> tuple[Tensor, Tensor]:
        logits, label = self.logits(batch["obs"]), answers(batch).long()
        loss = F.cross_entropy(logits.float(), label)
        right = (logits.argmax(1) == label).float().mean()
        return loss, torch.stack([loss, right]).detach()

    def predict(self, obs: Obs) -> dict[str, Tensor]:
        """label [B, H, W] uint8, the most likely class of every pixel."""
        return {"label": self.logits(obs).argmax(1).to(torch.uint8)}

    def score(self, batch: Rows) -> Tensor:
        said = F.one_hot(self.logits(batch["obs"]).argmax(1), self.classes).flatten(1, 2).bool()  # [B, HW, K]
        true = F.one_hot(answers(batch).long(), self.classes).flatten(1, 2).bool()
        both, either = (said & true).sum(1), (said | true).sum(1)  # [B, K]
        there = (either > 0).float()
        return (both / either.clamp(min=1)).sum(1) / there.sum(1)

    def summary(
        self, predictions: Mapping[str, npt.NDArray[np.generic]], label: npt.NDArray[np.generic]
    ) -> dict[str, float]:
        found = metrics.iou(label, predictions["label"], self.classes)
        each = {f"IoU of class {i}": float(x) for i, x in enumerate(found) if not np.isnan(x)}
        return each | {"pixels right": metrics.accuracy(label.ravel(), predictions["label"].ravel())}


def label(table: Table, config: Config) -> str:
    """The column that is learned."""
    return choose_label(table, config.label, _mask, "masks (an image of codes)")


def _mask(space: Space) -> bool:
    return isinstance(space, Box) and space.dtype == "uint8" and len(space.shape) == 2
