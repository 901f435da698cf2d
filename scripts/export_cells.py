"""Exports small untrained policies of every kind and compares them with the agent: does every cell of the table hold?

    python scripts/export_cells.py            all cells, one line each; exit code 1 if any fails
    python scripts/export_cells.py 3 17       these alone
    python scripts/export_cells.py --format c [3 17]      with the C files, compiled and compared, too

The cells are a pairwise choice: any two values of agent, network and spaces that fit together meet in one of them.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.deploy.export import FORMS, Origin, export
from rlkit.files import at
from rlkit.nn.config import NetworkConfig
from rlkit.options import build
from rlkit.play.saved import AgentPolicy
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from rlkit.types import EnvSpec

UNIT = Box((3,), "float32", -1.0, 1.0)
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> algorithm, options
    "ppo": ("ppo", {}),
    "ppo-tanh": ("ppo", {"distribution": "tanh"}),
    "reinforce": ("reinforce", {}),
    "dqn": ("dqn", {}),
    "dqn-rainbow": ("dqn", {"dueling": True, "noisy": True, "quantiles": 5}),
    "dqn-spread": ("dqn", {"epsilon_spread": 7.0}),
    "ddpg-ou": ("ddpg", {"noise": "ou"}),
    "td3": ("ddpg", {"critics": 2, "smoothing": 0.2}),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {}, "lstm": {"core": "lstm"}, "gru": {"core": "gru", "core_layers": 2},
    "transformer": {"core": "transformer"},
    "normalize": {"normalize": True, "activation": "relu"}, "gelu": {"activation": "gelu"},
    "nature": {"encoder": "nature_cnn"}, "impala": {"encoder": "impala_cnn"}, "small": {"encoder": "small_cnn"},
    "impala-lstm": {"encoder": "impala_cnn", "core": "lstm"}, "resnet": {"encoder": "resnet"},
}  # fmt: skip
PIXELS = {"nature", "impala", "small", "impala-lstm", "resnet"}
ACTIONS: dict[str, Any] = {
    "discrete": Discrete(4, 1),
    "multidiscrete": MultiDiscrete((3, 2), (0, 0)),
    "multibinary": MultiBinary(3),
    "box": Box((2,), "float32", -2.0, 3.0),
    "unbounded": Box((2, 2), "float32"),
    "dict": Dict((("turn", Box((1,), "float32", -1.0, 1.0)), ("gear", Discrete(3)))),
}
OBSERVATIONS = ("vector", "dict", "mask", "stack", "choices")


@dataclass(frozen=True)
class Cell:
    """One kind of policy."""

    agent: str
    network: str
    action: str
    observation: str

    def __str__(self) -> str:
        return f"{self.agent} {self.network} {self.action} {self.observation}"


def fits(cell: Cell) -> bool:
    """Whether there is such a policy."""
    algorithm, _ = AGENTS[cell.agent]
    continuous = {"box", "unbounded", "dict"}
    if cell.agent == "ppo-tanh" and cell.action not in ("box", "dict"):
        return False
    if algorithm == "dqn" and cell.action in continuous:
        return False
    if algorithm == "ddpg" and cell.action != "box":
        return False
    if cell.observation == "mask" and cell.action not in ("discrete", "multidiscrete"):
        return False
    return not (cell.network in PIXELS and cell.observation == "choices")


def cells() -> list[Cell]:
    """A choice in which any two values of different columns meet, if they can."""
    every = [
        cell
        for parts in itertools.product(AGENTS, NETWORKS, ACTIONS, OBSERVATIONS)
        if fits(cell := Cell(*parts))
    ]
    left = {pair for cell in every for pair in _pairs(cell)}
    chosen: list[Cell] = []
    while left:
        best = max(every, key=lambda cell: len(left.intersection(_pairs(cell))))
        chosen.append(best)
        left.difference_update(_pairs(best))
    return chosen


def _pairs(cell: Cell) -> Iterator[tuple[str, str]]:
    values = [f"{place}{value}" for place, value in enumerate(vars(cell).values())]
    return itertools.combinations(values, 2)


def policy(cell: Cell) -> AgentPolicy:
    """A small one with random weights."""
    torch.manual_seed(0)
    name, options = AGENTS[cell.agent]
    algorithm = registry.algorithm(name)
    if cell.network in PIXELS:
        side = 36 if cell.network == "nature" else 12
        seen: Any = Box((side, side, 3), "uint8", 0.0, 255.0)
    else:
        seen = MultiDiscrete((4, 3), (1, 0)) if cell.observation == "choices" else UNIT
    action, stack = ACTIONS[cell.action], 1
    if cell.observation == "stack":
        stack = 3
    elif cell.observation == "dict":
        seen = Dict((("a", seen), ("b.c", Dict((("d", Discrete(3)),)))))
    elif cell.observation == "mask":
        size = 4 if cell.action == "discrete" else 5
        seen = Dict((("a", seen), ("action_mask", MultiBinary(size))))
    small = {"hidden": [8, 8], "core_size": 8, "core_heads": 2, "window": 4}
    network = build(NetworkConfig, small | NETWORKS[cell.network], "network")
    made = algorithm.Policy(
        EnvSpec("none", seen, action, stack), network, build(algorithm.Config, options, "agent")
    )
    for parameter in made.parameters():  # actions that differ, also where heads start at zero
        inputs = max(parameter.numel() // len(parameter), 1) if parameter.dim() else 1
        parameter.data += 0.3 * torch.randn_like(parameter) / inputs**0.5
    return AgentPolicy(made.eval(), Path("none"))


def compare(cell: Cell, folder: Path, steps: int = 60, form: str = "onnx") -> str:
    """What is wrong with the exported policy of a cell; "" where nothing is."""
    config = compose(["agent=ppo", "env=cartpole"]).config
    config = _elsewhere(config)
    try:
        export(
            policy(cell),
            config,
            at(folder),
            Origin("none", cell.agent, 0, ""),
            steps=steps,
            form=form,
            say=lambda line: None,
        )
    except ValueError as error:
        return str(error)
    return ""


def _elsewhere(config: Any) -> Any:
    """With an environment that nobody can make: observations are random numbers of the policy's space."""
    from dataclasses import replace

    return replace(config, env=replace(config.env, id="none"))


def main(words: list[str]) -> int:
    """Compare the cells that are named by number, all of them by default."""
    form = "onnx"
    if words[:1] == ["--format"]:
        form, words = words[1], words[2:]
        if form not in FORMS:
            sys.exit(f"--format {form}: no such format; allowed: {', '.join(FORMS)}")
    chosen = list(enumerate(cells()))
    chosen = [chosen[int(word)] for word in words] or chosen
    failed = 0
    for number, cell in chosen:
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            wrong = compare(cell, Path(folder) / "export", form=form)
        failed += bool(wrong)
        print(f"{number:3} {cell!s:45} {time.process_time() - start:6.1f} s  {wrong or 'equal'}", flush=True)
    print(f"{len(chosen)} cells, {failed} of them wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
