"""What an expert does: behaviour cloning of an agent's own policy (Pomerleau, 1991).

    L = -mean log pi(a* | s),    a* the expert's action

The model is the policy of an agent (task=imitate agent=ppo), its weights are saved as that agent's are: `rlkit evaluate
RUN env=NAME` plays it, and `init_from=RUN` lets the agent go on from there. Score of a row: 1 if the most likely action
is the expert's, else 0; for continuous actions the negative mean squared error, in halves of their range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rlkit.contracts import Algorithm
from rlkit.distributions import ActionHead, Distribution
from rlkit.nn.config import NetworkConfig
from rlkit.nn.network import Network
from rlkit.options import ConfigError, option
from rlkit.perception import model
from rlkit.perception.model import Rows, answers
from rlkit.perception.table import ACTION, LABEL, Table
from rlkit.types import EnvSpec, Lanes, Obs, State, tree_map

AGENT = True
DEFAULTS = {"optim.lr": 1e-3, "optim.lr_schedule": "cosine", "epochs": 10}
EXPERT = "expert"


@dataclass(frozen=True)
class Config:
    label: str = option(
        "", help="The label that is imitated; empty: expert, or what was done (action) where there is none"
    )
    length: int = option(
        32,
        min=2,
        help="With a memory (network.core): how many rows a sequence has, at whose start it is empty",
    )


class Taught(Protocol):
    """What imitation needs of an agent's policy."""

    head: ActionHead
    network: Network

    def evaluate(self, obs: Obs, first: Tensor, state: State) -> tuple[Distribution, Tensor, State]:
        """obs [T, N, ...], first [T, N] -> pi(. | s), V(s) [T, N], next state."""


class Model(model.Model):
    """A policy that is taught."""

    METRICS = ("loss/actions", "loss/score")

    def __init__(
        self, spec: EnvSpec, network: NetworkConfig, config: Config, algorithm: Algorithm, agent: Any
    ) -> None:
        nn.Module.__init__(self)
        self.spec = spec
        algorithm.check(spec, agent)
        self.policy = algorithm.Policy(spec, network, agent)
        if not hasattr(self.policy, "evaluate") or not hasattr(self.policy, "head"):
            raise ConfigError(
                f"agent={algorithm.name}: its policy has no probabilities of actions to learn; allowed: ppo, reinforce"
            )
        self.perfect = 0.0 if self.taught.head.log_std_size else 1.0
        self.length = 1 if self.policy.memoryless else config.length

    @property
    def taught(self) -> Taught:
        """The policy, as what is needed of it."""
        return cast(Taught, self.policy)

    @property
    def body(self) -> nn.Module:
        return self.policy

    def pi(self, obs: Obs, first: Tensor, length: int) -> Distribution:
        """obs [B, ...], first [B], sequences of `length` one after the other -> pi(. | s), [length, B / length]."""
        lanes = Lanes(len(first) // length)
        state = ((), *self.policy.initial_state(lanes, first.device)[1:])  # frames are stacked already
        rows = tree_map(lambda x: by_time(x, length), obs)
        found: Distribution = self.taught.evaluate(rows, by_time(first, length), state)[0]
        return found

    def _taught(self, batch: Rows) -> tuple[Distribution, Tensor]:
        """pi(. | s) of a batch, and the expert's actions, both [T, N, ...]."""
        label, first = answers(batch), batch.get("first")
        if first is None:
            first = torch.ones(len(label), dtype=torch.bool, device=label.device)
        assert isinstance(first, Tensor), "a column of booleans"
        action = self.taught.head.from_env(label)
        return self.pi(batch["obs"], first, self.length), by_time(action, self.length)

    def prepare(self, obs: Obs, label: Tensor | None) -> None:
        self.taught.network.observe(obs)

    def loss(self, batch: Rows) -> tuple[Tensor, Tensor]:
        pi, action = self._taught(batch)
        loss = -pi.log_prob(action).mean()
        return loss, torch.stack([loss, self._scores(pi, action).mean()]).detach()

    def _scores(self, pi: Distribution, action: Tensor) -> Tensor:
        """[T, N] how well the most likely actions agree with the expert's."""
        mode = pi.mode()
        if self.taught.head.log_std_size:
            wrong: Tensor = self.taught.head.to_env(mode) - self.taught.head.to_env(action)
            return -wrong.square().flatten(2).mean(2)
        return (mode == action).reshape(*action.shape[:2], -1).all(2).float()

    def predict(self, obs: Obs) -> dict[str, Tensor]:
        """label [B, ...], the most likely action in the environment's units; with a memory: at an episode's start."""
        rows = len(next(iter(obs.values()))) if isinstance(obs, dict) else len(obs)
        first = torch.ones(rows, dtype=torch.bool, device=next(self.parameters()).device)
        return {"label": self.policy.to_env(self.pi(obs, first, 1).mode()[0])}

    def answer(self, batch: Rows) -> dict[str, Tensor]:
        """label [B, ...], the most likely action, after the rows before it in its sequence."""
        pi, _ = self._taught(batch)
        return {"label": self.policy.to_env(by_row(pi.mode()))}

    def score(self, batch: Rows) -> Tensor:
        return by_row(self._scores(*self._taught(batch)))

    def summary(
        self, predictions: Mapping[str, npt.NDArray[np.generic]], label: npt.NDArray[np.generic]
    ) -> dict[str, float]:
        if self.taught.head.log_std_size:
            said, true = np.asarray(predictions["label"], np.float64), np.asarray(label, np.float64)
            wrong = np.abs(said - true).mean(0).ravel()
            return {f"mean error of number {i}": float(x) for i, x in enumerate(wrong)}
        return {}


def by_time(rows: Tensor, length: int) -> Tensor:
    """[B, ...], sequences one after the other -> [length, B / length, ...]."""
    return rows.reshape(-1, length, *rows.shape[1:]).transpose(0, 1)


def by_row(rows: Tensor) -> Tensor:
    """Inverse of `by_time`."""
    return rows.transpose(0, 1).flatten(0, 1)


def label(table: Table, config: Config) -> str:
    """The column that is imitated."""
    name = config.label or (EXPERT if EXPERT in table.labels else ACTION)
    column = name if name == ACTION else LABEL + name
    if column not in table.columns or table.columns[column].space is None:
        there = ", ".join([*table.labels, *([ACTION] if ACTION in table.columns else [])]) or "none"
        raise ConfigError(f"data={table.name}: has no actions {name} to imitate; its labels: {there}")
    return column
