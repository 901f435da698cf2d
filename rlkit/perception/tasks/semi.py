"""Which of n classes a row belongs to, learned from few labels and many rows without one.

M2 of Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models", 2014
(arXiv:1406.5298): a row x is made of its class y and of what else there is about it, z,

    p(y) = 1 / n,    p(z) = N(0, I),    p(x | y, z) = N(g(y, z), s^2),    q(z | x, y) = N(mu(x, y), sigma(x, y)^2)

    -L(x, y) = E_q(z|x,y) log p(x | y, z) + log p(y) - KL(q(z | x, y) || p(z))          a bound of log p(x, y)
    -U(x) = sum_y q(y | x) (-L(x, y)) + H(q(y | x))                                     a bound of log p(x)
    loss = mean of [L(x, y) where there is a label, else U(x)] + alpha mean of -log q(y | x) where there is one

per number of x. q(y | x) is the classifier; its encoder is read by q(z | x, y) too. One sample of the noise of z serves
all y. How x, g and s are made: `rlkit.perception.likelihood`.

Score of a row: 1 if the most likely class is the right one, else 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.options import option
from rlkit.perception.likelihood import Describing, kl, normals
from rlkit.perception.model import Rows, answers
from rlkit.perception.table import Index
from rlkit.perception.tasks import classify
from rlkit.perception.tasks.classify import label as label
from rlkit.spaces import Discrete
from rlkit.types import EnvSpec, Obs

DEFAULTS = {
    "optim.lr": 3e-3,
    "optim.lr_schedule": "cosine",
    "network.activation": "relu",
    "network.standardize": True,
    "epochs": 30,
}
HIDDEN = 128  # the width of the layer between (x, y) and z
START = (
    0.25  # s of pixels at first: from 1 it would take long to come down, and little be asked of g until then
)


@dataclass(frozen=True)
class Config:
    label: str = option("", help="The label to learn; empty: the only one that names classes")
    labels: int = option(
        10, min=0, help="Of how many training rows per class the label is used; 0: of all rows"
    )
    size: int = option(
        10, min=1, help="How many numbers z has; with many of them a row is described without y"
    )
    alpha: float = option(10.0, min=0, help="The weight of the classifier's own loss")
    share: float = option(
        0.5,
        above=0,
        below=1,
        help="The part of an epoch that rows with a label are; they are repeated for it",
    )


class Model(Describing):
    """q(y | x), q(z | x, y) and p(x | y, z)."""

    METRICS = ("loss/bound", "loss/classes", "loss/accuracy", "loss/deviation")
    summary = classify.Model.summary

    def __init__(self, spec: EnvSpec, network: NetworkConfig, config: Config) -> None:
        assert isinstance(spec.action, Discrete), "classes"
        self.classes, self.z = spec.action.n, config.size
        super().__init__(spec, network, {"label": (self.classes, 0.01)}, self.classes + config.size)
        self.labels, self.noise_size = config.labels, config.size
        self.alpha, self.share = config.alpha, config.share
        if self.pixels is not None:
            self.log_s.data.fill_(math.log(START))
        self.posterior = nn.Sequential(
            nn.Linear(self.network.width("label") + self.classes, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, 2 * config.size),
        )

    def epoch(self, known: Index, others: Index) -> Index:
        """Rows with a label are repeated until they are `share` of the epoch."""
        wanted = self.share / (1 - self.share) * len(others)
        return np.concatenate([others, np.tile(known, max(round(wanted / len(known)), 1))])

    def bounds(self, obs: Tensor, features: Tensor, noise: Tensor) -> Tensor:
        """-L(x, y) for each class y of each row, [B, n]."""
        n, rows = self.classes, len(features)
        y = torch.eye(n, device=features.device).repeat_interleave(
            rows, 0
        )  # [n B, n], one class after the other
        outputs = self.posterior(torch.cat([features.repeat(n, 1), y], 1)).float()
        mean, log_std = outputs[:, : self.z], outputs[:, self.z :].clamp(-10, 10)
        z = mean + log_std.exp() * normals(noise).repeat(n, 1)
        many = obs.repeat(n, *[1] * (obs.dim() - 1))
        bound = self.log_likelihood(many, torch.cat([y, z], 1)) - math.log(n) - kl(mean, log_std)
        return bound.view(n, rows).T

    def loss(self, batch: Rows) -> tuple[Tensor, Tensor]:
        obs, noise, label = batch["obs"], batch["noise"], answers(batch)
        assert isinstance(obs, Tensor) and isinstance(noise, Tensor), "a single input, and uniforms"
        features = self.encode(obs)["label"]
        log_q = self.network.head("label", features).log_softmax(1)
        bounds = self.bounds(obs, features, noise)
        known, own = label >= 0, label.clamp(min=0)[:, None]
        with_label = bounds.gather(1, own)[:, 0]
        without = (log_q.exp() * (bounds - log_q)).sum(1)  # sum_y q (-L) + H(q)
        bound = torch.where(known, with_label, without).mean() / self.numbers
        count = known.sum().clamp(min=1)
        wrong = -(log_q.gather(1, own)[:, 0] * known).sum() / count
        right = ((log_q.argmax(1) == label) & known).sum() / count
        loss = self.alpha / self.numbers * wrong - bound
        return loss, torch.stack([-bound, wrong, right, self.log_s.exp()]).detach()

    def predict(self, obs: Obs) -> dict[str, Tensor]:
        """label [B] int64, the most likely class; probability [B, n]."""
        logits = self.outputs(obs)
        return {"label": logits.argmax(-1), "probability": logits.softmax(-1)}

    def score(self, batch: Rows) -> Tensor:
        return (self.outputs(batch["obs"]).argmax(-1) == answers(batch)).float()
