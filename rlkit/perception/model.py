"""What the models of all tasks have in common: a network over the inputs of a table, a loss, a prediction, a score.

    batch   {"obs": [B, ...] (with a stack [B, k, ...]), "label": [B, ...]}, and where a model asks for them "noise",
            uniforms [B, K], and "later", the inputs some rows later; of a model with memory B / length sequences one
            after the other, and "first" [B], which rows open an episode
    loss(batch)      -> the loss and the vector of METRICS that is reported
    predict(obs)     -> what the model says of rows, by name, [B, ...]
    score(batch)     -> [B] one number per row, larger is better: evaluation, best/ and early stopping are made of it

A model's spec is that of a policy whose action is the label: a classifier's loss is -log p(label) of the categorical
distribution that acts in Discrete(n), a regressor's that of a Gaussian.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.network import Head, Network
from rlkit.options import ConfigError
from rlkit.perception.table import Index
from rlkit.types import EnvSpec, Obs, tree_map

Rows: TypeAlias = "dict[str, Obs]"  # a batch


def answers(batch: Rows) -> Tensor:
    """The labels of a batch, [B, ...]."""
    label = batch["label"]
    assert isinstance(label, Tensor), "a label is one tensor"
    return label


class Model(nn.Module, ABC):
    """Base of the models of tasks. Weights of its encoder lie as in every policy, at network.encoders.0."""

    METRICS: ClassVar[tuple[str, ...]] = ()  # names of what `loss` reports
    noise_size = 0  # uniforms per row of a batch, and of what is scored
    perfect: float | None = 1.0  # the best score that a row can have; None: there is none
    distance = 0  # rows to the later frame that a batch has for each row, in `later`; 0: none
    length = 1  # rows of the sequences that a model with memory learns from
    labels = 0  # training rows per class whose label may be used; 0: all. What is not told is -1

    def __init__(self, spec: EnvSpec, network: NetworkConfig, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.spec = spec
        self.network = Network(spec, network, heads)
        if not self.network.memoryless:
            raise ConfigError(
                f"network.core={network.core}: this task learns from single rows; type network.core=identity"
            )

    @property
    def body(self) -> nn.Module:
        """Whose weights are saved: the model's own, or those of the policy that it trains."""
        return self

    def encode(self, obs: Obs) -> dict[str, Tensor]:
        """obs [B, ...] -> what each head reads, [B, D]."""
        rows = len(next(iter(obs.values()))) if isinstance(obs, dict) else len(obs)
        device = next(self.parameters()).device
        first = torch.ones(1, rows, dtype=torch.bool, device=device)
        state = ((), *self.network.initial_state(rows, device)[1:])
        features, _ = self.network.features(tree_map(lambda x: x[None], obs), first, state)
        return {name: x[0] for name, x in features.items()}

    def outputs(self, obs: Obs) -> Tensor:
        """obs [B, ...] -> the outputs of the head `label`, [B, size] float32."""
        return self.network.head("label", self.encode(obs)["label"])

    def prepare(self, obs: Obs, label: Tensor | None) -> None:
        """See training rows once, before the first update: means and deviations that travel with the weights."""
        self.network.observe(obs)

    def epoch(self, known: Index, others: Index) -> Index:
        """The rows that an epoch has, of those whose label may be used and the others; only where `labels` is set."""
        return known

    @abstractmethod
    def loss(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch, and METRICS, detached."""

    @abstractmethod
    def predict(self, obs: Obs) -> dict[str, Tensor]:
        """What the model says of rows [B, ...], by name; each [B, ...]."""

    def answer(self, batch: Rows) -> dict[str, Tensor]:
        """`predict` of the rows of a batch, by a model with memory of the rows before each as well."""
        return self.predict(batch["obs"])

    @abstractmethod
    def score(self, batch: Rows) -> Tensor:
        """[B] one number per row, larger is better."""

    def summary(
        self, predictions: Mapping[str, npt.NDArray[np.generic]], label: npt.NDArray[np.generic]
    ) -> dict[str, float]:
        """Numbers about all held-out rows together, by name: predictions and labels [rows, ...]."""
        return {}
