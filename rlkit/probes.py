"""Does an agent's algorithm work? Probe environments with known answers, from the value of a constant to memory.

Each probe (rlkit.envs.toys.probes) trains a fresh small agent for seconds and compares its value estimates
(`Policy.value`) or its greedy actions with what they must be. It needs one more part of an algorithm than the probe
before it, so the first failure says which part to look at (after Andy Jones, "Debugging RL, without the agonizing
pain", 2021). gamma is part of a probe: with 0 neither discount nor bootstrap matters.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.config.schema import Common, RunConfig
from rlkit.contracts import Policy
from rlkit.learn.trainer import fit
from rlkit.options import ConfigError
from rlkit.run.console import Console
from rlkit.run.start import prepare
from rlkit.spaces import Box
from rlkit.types import Lanes

MODULE = "rlkit.envs.toys.probes"
OWN = ("env", "preset", "agent.gamma", "total_steps")  # options that are the probes'
QUICK = {  # small and fast, with the QUICK of the algorithm's file; what is typed goes over it
    "network.hidden": "[32,32]",
    "network.core_size": "16",
    "network.window": "8",
    "optim.lr": "5e-3",
    "optim.lr_schedule": "linear",
    "env.lanes": "8",
    "env.backend": "inprocess",
    "device": "cpu",
    "threads": "1",
    "log.tensorboard": "false",
}
Rows = tuple[tuple[float, bool], ...]  # observation, and whether it opens an episode


@dataclass(frozen=True)
class Expectation:
    """What an agent that has seen `rows` of one lane must say of the last of them."""

    what: str
    rows: Rows
    answer: float  # a value; the right number of a Box, whose sign says which of two choices is right


@dataclass(frozen=True)
class Probe:
    """One environment, what is expected after training in it, and what is broken if that is not so."""

    name: str
    env: str  # a class of rlkit.envs.toys.probes
    asks: Literal["value", "action"]
    expected: tuple[Expectation, ...]
    part: str  # what a failure points at
    gamma: float = 0.0
    kwargs: dict[str, object] = field(default_factory=dict)
    steps: int = 1_600  # of training
    memory: bool = False  # only a network that remembers can pass


@dataclass(frozen=True)
class Result:
    """How a probe ended; `text` is one line for people."""

    probe: Probe
    verdict: Literal["PASS", "FAIL", "SKIP"]
    text: str


def _rows(*obs: float) -> Rows:
    """The rows of one episode from its opening."""
    return tuple((x, i == 0) for i, x in enumerate(obs))


PROBES = (
    Probe(
        "constant", "Constant", "value", (Expectation("V", _rows(0.0), 1.0),),
        "the value's loss, its target or its optimiser: reward 1 in every episode of one step is not learned",
    ),
    Probe(
        "observation", "Seen", "value",
        (Expectation("V(-1)", _rows(-1.0), -1.0), Expectation("V(1)", _rows(1.0), 1.0)),
        "the way of observations: to the network, through its layers, or which row belongs to which reward",
    ),
    Probe(
        "termination", "Constant", "value", (Expectation("V = 1 / (1 - gamma / 2)", _rows(0.0), 4 / 3),),
        "the termination mask: a terminated episode has no future, so nothing may be bootstrapped",
        gamma=0.5, kwargs={"stop": 0.5},
    ),
    Probe(
        "truncation", "Constant", "value", (Expectation("V = 1 / (1 - gamma)", _rows(0.0), 2.0),),
        "the bootstrap at time limits: a truncated episode goes on, so gamma V of its last row counts",
        gamma=0.5, kwargs={"stop": 0.5, "end": "truncated"},
    ),
    Probe(
        "discount", "TwoSteps", "value",
        (Expectation("V(second row)", _rows(-1.0, 1.0), 1.0), Expectation("V(first row) = gamma", _rows(-1.0), 0.5)),
        "the discount, or how reward comes back over a step: gamma in targets or returns",
        gamma=0.5,
    ),
    Probe(
        "action", "Choice", "action", (Expectation("action", _rows(1.0), 1),),
        "how actions are improved: sign of the advantage or of the actor's gradient, exploration, argmax",
    ),
    Probe(
        "policy", "Choice", "action",
        (Expectation("action after -1", _rows(-1.0), -0.5), Expectation("action after 1", _rows(1.0), 0.5)),
        "the policy's way from the observation, or advantages that belong to other rows",
        kwargs={"seen": True}, steps=3_200,
    ),
    Probe(
        "memory", "Recall", "action",
        (
            Expectation("action after -1, 0", _rows(-1.0, 0.0), -0.5),
            Expectation("action after 1, 0", _rows(1.0, 0.0), 0.5),
        ),
        "memory: the core, its state when acting or learning, or gradients through it",
        steps=3_200, memory=True,
    ),
    Probe(
        "reset", "Forget", "value",
        tuple(
            Expectation(f"V of {text}", (*_rows(sign, 0.0), *ends), answer)
            for sign in (-1.0, 1.0)
            for text, ends, answer in (
                (f"0 after {sign:.0f}", (), sign),
                (f"0 that opens an episode after one of {sign:.0f}", ((0.0, True),), 0.0),
            )
        ),
        "memory is not cleared where an episode opens (`first`), when acting or when learning",
        steps=4_800, memory=True,
    ),
)  # fmt: skip
CLOSE = 0.25  # how far a value may be from the answer; a number from the right action


def run_all(overrides: Sequence[str]) -> Iterator[Result]:
    """The results of all probes, one by one.

    overrides: as on the command line, agent=NAME among them. Raises ConfigError before anything is trained.
    """
    for text in overrides:
        key = text.partition("=")[0].lstrip("+")
        if key.partition(".")[0] in OWN or key in OWN:
            raise ConfigError(f"{text}: the probes choose {key} themselves; leave it out")
    configs = [configure(probe, overrides) for probe in PROBES]
    for probe, config in zip(PROBES, configs, strict=True):
        yield run_probe(probe, config)


def configure(probe: Probe, overrides: Sequence[str]) -> RunConfig:
    """The run of a probe: quick settings, over them what was typed, over that what the probe is. Raises ConfigError."""
    base = _of_agent(compose([*overrides, "preset=none"], {"env": f"{MODULE}:{probe.env}"}).config)
    algorithm = registry.algorithm(base.agent_name)
    quick = [f"{name}={value}" for name, value in (QUICK | _dotted(algorithm.quick, "agent.")).items()]
    continuous = "Discrete" not in algorithm.actions
    values = {
        "env": f"{MODULE}:{probe.env}",
        "env.kwargs": {"continuous": continuous, **probe.kwargs},
        "agent.gamma": probe.gamma,
        "total_steps": probe.steps,
        "preset": "none",
    }
    return _of_agent(compose([*quick, *overrides], values).config)


def _of_agent(config: Common) -> RunConfig:
    assert isinstance(config, RunConfig), "probes are of agents"
    return config


def _dotted(options: Mapping[str, object], path: str) -> dict[str, str]:
    """Nested options under dotted names: {"replay": {"batch": 8}} -> {"agent.replay.batch": "8"}."""
    found: dict[str, str] = {}
    for name, value in options.items():
        found |= (
            _dotted(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": str(value)}
        )
    return found


def run_probe(probe: Probe, config: RunConfig) -> Result:
    """Train on one probe, and compare what the agent says with the known answers."""
    if probe.memory and config.network.core == "identity":
        return Result(probe, "SKIP", "this network remembers nothing; network=lstm probes one that does")
    exempt = registry.algorithm(config.agent_name).exempt(config.agent)
    if probe.name in exempt:
        return Result(probe, "SKIP", exempt[probe.name])
    try:
        found = measure(probe, config)
    except NoValueError as reason:
        return Result(probe, "SKIP", str(reason))
    texts = [f"{each.what} is {value:.2f}" for each, (value, _) in zip(probe.expected, found, strict=True)]
    wrong = [
        f"{text}, expected {answer:.2f}"
        for text, (value, answer) in zip(texts, found, strict=True)
        if not abs(value - answer) <= CLOSE  # not a number is wrong too
    ]
    if wrong:
        return Result(probe, "FAIL", f"{'; '.join(wrong)} -> look at {probe.part}")
    return Result(probe, "PASS", "; ".join(texts))


class NoValueError(ValueError):
    """The agent estimates no values."""


def measure(probe: Probe, config: RunConfig) -> list[tuple[float, float]]:
    """Train, then what the agent says and what it should, of each expectation. Raises NoValueError."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(config, Path(folder), _Silent(config.total_steps, probe.name, plain=True))
        policy = run.model
        assert isinstance(policy, Policy), "an agent's model is its policy"
        try:
            if probe.asks == "value":
                _value(policy, probe.expected[0].rows)
            fit(run.learner, run.feed, [], run.clock)
        finally:
            run.close()
    if probe.asks == "value":
        return [(_value(policy, each.rows), each.answer) for each in probe.expected]
    box = isinstance(policy.spec.action, Box)
    return [
        (_action(policy, each.rows), each.answer if box else float(each.answer > 0))
        for each in probe.expected
    ]


class _Silent(Console):
    """A console for runs that nobody watches."""

    def say(self, text: str) -> None:
        """Say nothing."""


@torch.no_grad()
def _value(policy: Policy, rows: Rows) -> float:
    """The agent's value of the last row. Raises NoValueError where it has none."""
    obs, first = _tensors(rows)
    try:
        value: Tensor = policy.value(obs, first, policy.initial_state(Lanes(1)))  # [T, 1]
    except ValueError as reason:
        raise NoValueError(str(reason)) from reason
    return float(value[-1, 0])


@torch.no_grad()
def _action(policy: Policy, rows: Rows) -> float:
    """The greedy action in the last row, in the environment's units."""
    obs, first = _tensors(rows)
    state = policy.initial_state(Lanes(1))
    for t in range(len(rows)):
        action, state, _ = policy.act(obs[t], first[t], state, None)
    return float(policy.to_env(action).flatten()[0])


def _tensors(rows: Rows) -> tuple[Tensor, Tensor]:
    """obs [T, 1, 1] and first [T, 1] of T rows of one lane."""
    return torch.tensor([[[x]] for x, _ in rows]), torch.tensor([[opens] for _, opens in rows])
