"""A task's model outside training: load it, call it, score it.

    model = rlkit.load("runs/seg")
    model({"image": frame})["mask"]

What is read is safetensors and JSON. A task, an encoder or a core of one's own is imported only if its name was typed
on this machine before (rlkit.config.trust).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlkit.config import registry, trust
from rlkit.config.schema import TaskRun
from rlkit.config.tasks import agent_name
from rlkit.contracts import Saved
from rlkit.device import Budget, TooLarge
from rlkit.machine import SHARE, available, gib
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError, build
from rlkit.perception.feed import Reader
from rlkit.perception.model import Model
from rlkit.perception.table import LABEL, Array, Index
from rlkit.run.sizes import COPIES
from rlkit.seeding import uniforms
from rlkit.spaces import Dict, describe, leaf_values, leaves, row_dtype
from rlkit.tensorfile import MALFORMED
from rlkit.types import EnvSpec, Obs, tree_map

SPARE = 2**26  # bytes that a model may take beside its weights
PIECE = 256  # rows that are predicted at once


def new_model(spec: EnvSpec, config: TaskRun) -> Model:
    """The model of a run, with new weights. Raises ConfigError where it cannot be, or does not fit into memory."""
    free = int(SHARE * available(Path(config.dir).absolute())[0])
    try:
        with Budget(free // COPIES):
            return _made(
                config.task_name, spec, config.network, config.task, agent_name(config), config.agent
            )
    except ConfigError:
        raise
    except (TooLarge, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise ConfigError(
            f"task={config.task_name}, data={config.data}: a model of {describe(spec.observation)} that says "
            f"{describe(spec.action)} takes more than the {gib(free)} of memory that may be used; type smaller counts "
            "of network, or another label"
        ) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _made(
    task: str, spec: EnvSpec, network: NetworkConfig, config: Any, agent: str, agent_config: Any
) -> Model:
    found = registry.task(task)
    more = (registry.algorithm(agent), agent_config) if found.agent else ()
    made: Model = found.Model(spec, network, config, *more)
    return made


def model_parts(model: Model, config: TaskRun, label: str) -> Saved:
    """A model as a tree of tensors and plain values from which `build_model` makes it again; copied."""
    parts = {
        "task": config.task_name,
        "task_config": asdict(config.task),
        "network": asdict(config.network),
        "spec": model.spec.to_json(),
        "label": label,
        "weights": {name: value.detach().clone() for name, value in model.body.state_dict().items()},
    }
    if config.agent is not None:  # a policy, which whatever reads policies reads
        parts |= {"agent": agent_name(config), "agent_config": asdict(config.agent)}
    return parts


def build_model(parts: Saved) -> Model:
    """The model that `model_parts` took apart.

    Raises ConfigError where that would import code that nobody named on this machine, where its network is larger than
    its weights, and where the parts are not those of a model.
    """
    try:
        asked = {"task": {"name": parts["task"]}, "network": parts["network"]}
        asked |= {"agent": {"name": parts["agent"]}} if "agent" in parts else {}
        trust.require(*trust.requests(asked))
        task = build(registry.task(parts["task"]).Config, parts["task_config"], "task")
        network = build(NetworkConfig, parts["network"], "network")
        agent = parts.get("agent", "")
        options = build(registry.algorithm(agent).Config, parts["agent_config"], "agent") if agent else None
        size = sum(x.numel() * x.element_size() for x in parts["weights"].values())
        with Budget(2 * size + SPARE):  # whoever wrote the widths may have meant to fill the memory
            model = _made(parts["task"], EnvSpec.from_json(parts["spec"]), network, task, agent, options)
        model.body.load_state_dict(tree_map(torch.Tensor.contiguous, parts["weights"]))
        return model.eval()
    except ConfigError:
        raise
    except TooLarge as error:
        raise ConfigError(
            f"policy.json describes a network that is larger than its weights ({gib(size)}): it is not the saved one"
        ) from error
    except (*MALFORMED, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"no model can be made of policy.json: {type(error).__name__}: {reason}") from error


class SavedModel:
    """A model for one row at a time: numbers in, numbers out."""

    def __init__(self, model: Model, path: Path, label: str) -> None:
        self.model, self.path, self.label = model, path, label.removeprefix(LABEL)
        self.spec = model.spec

    @torch.no_grad()
    def __call__(self, obs: Any) -> dict[str, Any]:
        """What the model says of one row, by the label's name (and "probability" of each class, ...).

        obs: the input itself, or a dict of the table's columns. With a stack of k frames the last k of them,
        [k, ...]. Raises ValueError where something else comes.
        """
        said = self.model.predict(self._row(obs))
        return {self.label if name == "label" else name: x[0].numpy() for name, x in said.items()}

    def _row(self, obs: Any) -> Obs:
        """One row as a batch of one."""
        space = self.spec.observation
        if not isinstance(space, Dict) and isinstance(obs, dict):
            if len(obs) != 1:
                raise ValueError(
                    f"this model reads one input, {describe(space)}; got {', '.join(map(str, obs))}"
                )
            obs = next(iter(obs.values()))
        try:
            values = leaf_values(space, obs)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise ValueError(f"the row has no {error}; this model reads a {describe(space)}") from error
        rows = {}
        for (name, leaf), value in zip(leaves(space), values, strict=True):
            array = np.asarray(value)
            wanted = (self.spec.stack, *leaf.shape) if self.spec.stack > 1 else leaf.shape
            if array.shape != wanted:
                what = f"entry {name}" if name else "the row"
                raise ValueError(f"{what} has shape {array.shape}; this model reads shape {wanted}")
            rows[name] = torch.from_numpy(np.array(array, row_dtype(leaf)))[None]
        return rows if isinstance(space, Dict) else rows[""]


def open_model(parts: Saved, path: Path) -> SavedModel:
    """The model of part `policy` of the checkpoint at `path`. Raises ConfigError as `build_model`."""
    return SavedModel(build_model(parts), path, str(parts["label"]))


class Scorer:
    """Scores and predictions of a model over rows of a table; a model with memory reads whole sequences of them.

    Rows are scored PIECE at a time, in an order that is always the same and not the table's: a score may depend on
    which rows are there beside it (rlkit.perception.tasks.contrast), and rows of one episode are alike.
    """

    def __init__(self, model: Model, reader: Reader) -> None:
        self.model, self.reader = model, reader

    def _pieces(self, index: Index) -> Iterator[Index]:
        step = max(PIECE // self.reader.length, 1)
        return (index[start : start + step] for start in range(0, len(index), step))

    @torch.no_grad()
    def scores(self, index: Index) -> Array:
        """[rows] the score of each."""
        sequences = self.reader.sequences(index)  # [S, length]
        order = np.random.default_rng(0).permutation(len(sequences))
        found = np.empty(sequences.shape, np.float32)
        for number, piece in enumerate(self._pieces(order)):
            rows, size = self.reader.rows(sequences[piece].ravel()), sequences[piece].size
            if self.model.noise_size:
                drawn = uniforms(0, np.arange(size), number, 1, self.model.noise_size)[0]
                rows["noise"] = torch.from_numpy(drawn).to(self.reader.device)
            found[piece] = self.model.score(rows).float().cpu().numpy().reshape(-1, self.reader.length)
        return found.ravel()

    @torch.no_grad()
    def predictions(self, index: Index) -> dict[str, Array]:
        """What the model says of the rows, by name, [rows, ...]."""
        pieces = self._pieces(self.reader.sequences(index))
        found = [self.model.answer(self.reader.rows(piece.ravel())) for piece in pieces]
        return {name: torch.cat([each[name].cpu() for each in found]).numpy() for name in found[0]}
