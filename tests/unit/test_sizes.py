"""Counts that are too large for this machine are refused before anything is started or allocated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit import machine
from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.envs.make import settled
from rlkit.options import ConfigError
from rlkit.run import sizes
from rlkit.run.check import check
from rlkit.spaces import Box, Discrete
from rlkit.types import EnvSpec

SMALL = 2**26  # bytes of memory, for tests
COMMON = ["env=cartpole", "env.backend=inprocess", "preset=none", "device=cpu"]
SPEC = EnvSpec("x", Box((4,), "float32"), Discrete(2))


def bounded(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    monkeypatch.setattr(sizes, "available", lambda folder: (memory, memory))


def policy(*words: str, spec: EnvSpec = SPEC) -> Any:
    config = compose([*COMMON, *words]).config
    algorithm = registry.algorithm(config.agent_name)
    return sizes.fitting_policy(config, algorithm, spec, torch.device("cpu")), config, algorithm


def largest(error: pytest.ExceptionInfo[ConfigError]) -> str:
    """What the message says to type."""
    return str(error.value).rpartition("; type ")[2].removesuffix(" or less")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["agent=ppo", "network.hidden=[64,3000000]"], "network.hidden"),
        (["agent=ppo", "network.hidden=[10000000000000]"], "network.hidden"),
        (["agent=ppo", "agent.steps=1000000000000000"], "agent.steps"),
        (["agent=reinforce", "env.lanes=60000", "agent.steps=500"], "env.lanes"),
        (["agent=dqn", "agent.quantiles=3000000"], "agent.quantiles"),
        (["agent=dqn", "agent.replay.batch=1000000000"], "agent.replay.batch"),
        (["agent=ppo", "network=transformer", "network.window=20000000"], "network.window"),
        (["agent=ppo", "network=lstm", "network.core_size=100000"], "network.core_size"),
    ],
)
def test_the_largest_count_that_fits_is_named_and_fits(
    monkeypatch: pytest.MonkeyPatch, words: list[str], name: str
) -> None:
    bounded(monkeypatch, SMALL)
    with pytest.raises(
        ConfigError, match=f"^{name}=.*: the run takes .* MiB may be used; type {name}="
    ) as error:
        policy(*words)
    monkeypatch.setattr(torch.nn.init, "orthogonal_", lambda x, gain=1.0: x)  # which takes long at that size
    fitting, config, algorithm = policy(*words, largest(error))
    needed = sizes.needed(fitting, config, algorithm)
    assert 0.8 * 0.9 * SMALL < needed <= 0.9 * SMALL


def test_what_a_run_takes_is_counted_from_its_weights_rows_and_layers() -> None:
    made, config, algorithm = policy("agent=reinforce", "agent.steps=9", "env.lanes=3", "network.hidden=[16]")
    weights = sum(x.numel() * x.element_size() for x in made.state_dict().values())
    rows = 10 * 3
    assert sizes.needed(made, config, algorithm) == 8 * weights + rows * 4 * 4 + 2 * 4 * rows * 16
    twice = compose([*COMMON, "agent=reinforce", "agent.steps=9", "env.lanes=3", "source=thread"]).config
    assert sizes.needed(made, twice, algorithm) == 8 * weights + 2 * rows * 4 * 4 + 2 * 4 * rows * 16


def test_an_observation_that_is_too_large_is_said_without_a_culprit(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded(monkeypatch, SMALL)
    spec = EnvSpec("huge", Box((10**8,), "float32"), Discrete(2))
    with pytest.raises(ConfigError, match=r"^agent=ppo, env=huge: .*type fewer env.lanes"):
        policy("agent=ppo", "env.lanes=1", spec=spec)


def test_a_policy_that_fails_by_itself_says_why() -> None:
    def fail(*given: object) -> Any:
        raise RuntimeError("of its own")

    algorithm = replace(registry.algorithm("ppo"), Policy=fail)
    config = compose([*COMMON, "agent=ppo", "agent.steps=1000"]).config
    with pytest.raises(RuntimeError, match="of its own"):
        sizes.fitting_policy(config, algorithm, SPEC, torch.device("cpu"))


def test_quantiles_are_compared_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlkit.agents.dqn.available", lambda folder: (SMALL, 0))
    words = ["agent.replay.batch=32", "agent.quantiles=5000"]
    config = compose([*COMMON, "agent=dqn", *words]).config
    algorithm = registry.algorithm("dqn")
    limit = int((0.9 * SMALL / 32 / 24) ** 0.5)
    with pytest.raises(ValueError, match=f"^agent.quantiles=5000: .*; type agent.quantiles={limit} or less"):
        algorithm.check(SPEC, config.agent)
    algorithm.check(SPEC, replace(config.agent, quantiles=limit))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["threads=100000"], r"^threads=100000: more than this machine carries; type threads=64 or less$"),
        (
            ["threads=40", "learner.workers=2"],
            r"^threads=40: more than this machine carries in each of learner.workers=2; type threads=32 or less$",
        ),
        (["learner.workers=65"], r"^learner.workers=65: .*; type learner.workers=64 or less$"),
        (
            ["source=ray", "source.workers=100", "env.lanes=100"],
            r"^source.workers=100: this machine carries 64 actors; type source.workers=64 or less, or ray.address",
        ),
        (
            [
                "source=ray",
                "source.workers=20",
                "source.inference=shared",
                "source.env_actors=5",
                "env.lanes=100",
            ],
            r"^source.workers=20 with source.env_actors=5 each: .* type source.workers=10 or less",
        ),
    ],
)
def test_more_threads_and_processes_than_the_machine_carries(
    monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    with pytest.raises(ConfigError, match=message):
        check(compose([*COMMON, "agent=ppo", *words]).config)


@pytest.mark.parametrize(("backend", "kind"), [("workers", "processes"), ("envpool", "threads")])
def test_workers_are_as_many_as_lanes_and_at_most_as_the_machine_carries(
    monkeypatch: pytest.MonkeyPatch, backend: str, kind: str
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    env = compose(["env=cartpole", f"env.backend={backend}", "env.workers=4096", "env.lanes=8"]).config.env
    assert settled(env).workers == 8
    env = compose(["env=cartpole", f"env.backend={backend}", "env.workers=4096", "env.lanes=4096"]).config.env
    with pytest.raises(
        ValueError, match=f"^env.workers=4096: .* carries 64 {kind}; type env.workers=64 or less$"
    ):
        settled(env)


def test_memory_bounds_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 10)
    assert machine.most() == 80
    monkeypatch.setattr(machine, "available", lambda folder: (10**9, 0))
    assert machine.most(10**8) == 9  # of 900 MB
    assert machine.most(10**10) == 1
    assert machine.most(10**6) == 80
