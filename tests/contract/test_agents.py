"""What every algorithm promises (rlkit.contracts): the registered ones, whatever they are, and one from outside."""

from __future__ import annotations

import copy
import importlib
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlkit import checkpoint
from rlkit.config import registry, trust
from rlkit.config.compose import compose
from rlkit.config.schema import RunConfig
from rlkit.contracts import Policy
from rlkit.options import build as build_options
from rlkit.options import describe
from rlkit.play.saved import build_policy, policy_parts
from rlkit.run.build import Built, build
from rlkit.run.check import check
from rlkit.run.console import Console
from rlkit.spaces import Box, from_gymnasium, native_action
from rlkit.types import EnvSpec, Lanes, tree_leaves, tree_map

AGENTS = [*registry.names("agents"), "outside.a2c"]
CORES = ["identity", "gru"]
SPACES: dict[str, spaces.Space[Any]] = {
    "Discrete": spaces.Discrete(3, start=-1),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32)),
    "Dict": spaces.Dict({"gear": spaces.Discrete(3), "steer": spaces.Box(-2.0, 2.0, (1,), np.float32)}),
}
N = 4  # lanes


@cache
def composed(name: str) -> RunConfig:
    """A small run of the agent, in an environment that it can act in."""
    quick = registry.algorithm(registry.algorithm_of(name)).quick
    values = {f"agent.{key}": value for key, value in quick.items()}
    env = "cartpole" if "Discrete" in acts_in(name) else "pendulum"
    small = [
        "network.hidden=[8]",
        "network.core_size=8",
        f"env.lanes={N}",
        "env.backend=inprocess",
        "threads=1",
    ]
    rest = ["device=cpu", "log.tensorboard=false", "total_steps=10000"]
    return compose([f"agent={name}", f"env={env}", "preset=none", *small, *rest], values).config


def configure(name: str, core: str) -> RunConfig:
    config = composed(name)
    return replace(config, network=replace(config.network, core=core))


def make_policy(name: str, core: str, action: spaces.Space[Any]) -> Policy:
    config = configure(name, core)
    algorithm = registry.algorithm(config.agent_name)
    spec = EnvSpec("test", Box((3,), "float32"), from_gymnasium(action))
    algorithm.check(spec, config.agent)
    torch.manual_seed(0)
    return algorithm.Policy(spec, config.network, config.agent)


def acts_in(name: str) -> tuple[str, ...]:
    return registry.actions(registry.algorithm_of(name))


@pytest.fixture
def rows(policy: Policy) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    first = torch.arange(N) % 2 == 0
    return torch.randn(N, 3, generator=g), first, torch.rand(N, policy.noise_size, generator=g)


@pytest.fixture
def policy(name: str, core: str) -> Policy:
    return make_policy(name, core, SPACES[acts_in(name)[0]])


@pytest.mark.parametrize("name", AGENTS)
def test_it_acts_where_it_says_and_nowhere_else(name: str) -> None:
    assert set(acts_in(name)) <= set(SPACES) and acts_in(name)
    for kind, space in SPACES.items():
        if kind not in acts_in(name):
            with pytest.raises(ValueError, match=f"acts in {', '.join(acts_in(name))}; "):
                make_policy(name, "identity", space)
            continue
        policy = make_policy(name, "identity", space)
        obs, first = torch.randn(N, 3), torch.ones(N, dtype=torch.bool)
        for noise in (None, torch.rand(N, policy.noise_size)):
            action, _, extra = policy.act(obs, first, policy.initial_state(Lanes(N)), noise)
            assert action.shape[0] == N and all(x.shape[0] == N for x in extra.values())
            for row in policy.to_env(action).detach().numpy():
                native = native_action(policy.spec.action, row)
                assert space.contains(native), f"{native} is not in {space}"


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("name", AGENTS)
def test_acting_changes_nothing_and_depends_on_nothing_else(policy: Policy, rows: Any) -> None:
    obs, first, noise = rows
    assert policy.memoryless == (not any(True for _ in tree_leaves(policy.network.initial_state(1)[1:])))
    state = policy.initial_state(Lanes(N, 0, 2 * N))
    _, state, _ = policy.act(obs, torch.ones(N, dtype=torch.bool), state, noise)
    before = copy.deepcopy((policy.state_dict(), obs, first, state, noise))
    for how in (noise, None):
        once, again = (policy.act(obs, first, state, how) for _ in range(2))
        tree_map(lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0), once, again)
    after = (dict(policy.state_dict()), obs, first, state, noise)
    tree_map(
        lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0), after, (dict(before[0]), *before[1:])
    )


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("name", AGENTS)
def test_lanes_act_alone_as_they_do_together(policy: Policy, rows: Any) -> None:
    """Whoever holds which lanes of a run: groups, threads, Ray workers."""
    obs, first, noise = rows
    together, state = [], policy.initial_state(Lanes(N, 0, N))
    for t in range(3):
        action, state, extra = policy.act(obs + t, first, state, noise)
        together.append((action, extra))
    for start in (0, 2):
        piece = slice(start, start + 2)
        state = policy.initial_state(Lanes(2, start, N))
        assert all(leaf.shape[0] == 2 for leaf in tree_leaves(state))
        for t in range(3):
            action, state, extra = policy.act(obs[piece] + t, first[piece], state, noise[piece])
            whole = tree_map(lambda x: x[piece], together[t])  # noqa: B023
            tree_map(
                lambda a, b: torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5), (action, extra), whole
            )


def start(name: str, core: str, folder: Path) -> Built:
    """The beginning of a run."""
    folder.mkdir()
    return build(check(configure(name, core)), folder, Console(10_000, "test", plain=True))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("name", AGENTS)
def test_it_learns_from_what_its_feed_describes_and_continues_exactly(
    name: str, core: str, tmp_path: Path
) -> None:
    """Some updates, then a copy made of the saved state: both learn the same from the same batch, to the last bit."""
    run, other = (start(name, core, tmp_path / each) for each in ("run", "other"))
    try:
        before = {key: x.clone() for key, x in run.model.named_parameters()}
        still = list(before)
        for _ in range(
            20
        ):  # a replay buffer is filled first, and an actor may learn less often than its critics
            batch, steps = run.feed.next()
            assert steps > 0
            metrics = run.learner.learn(batch, 0.1)
            assert all(x.dim() == 0 and x.isfinite() for x in metrics.values()), metrics
            still = [key for key, x in run.model.named_parameters() if torch.equal(x, before[key])]
            if not still:
                break
        assert not still, f"{still} have not changed"
        saved = checkpoint.unpack(*checkpoint.pack(run.learner.state_dict()))
        other.model.load_state_dict(run.model.state_dict())
        other.learner.load_state_dict(saved)
        batch, _ = run.feed.next()
        both = [each.learner.learn(copy.deepcopy(batch), 0.2) for each in (run, other)]
        tree_map(lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0), *both)
        for a, b in zip(run.model.state_dict().values(), other.model.state_dict().values(), strict=True):
            assert torch.equal(a, b) and a.isfinite().all()
    finally:
        run.close()
        other.close()


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("name", AGENTS)
def test_a_saved_policy_is_the_same_policy(policy: Policy, rows: Any, name: str, core: str) -> None:
    obs, first, noise = rows
    config = configure(name, core)
    parts = checkpoint.unpack(*checkpoint.pack(policy_parts(policy, config)))
    trust.remember("outside.a2c")
    again = build_policy(parts)
    assert again.spec == policy.spec or again.spec.to_json() == policy.spec.to_json()
    state = policy.initial_state(Lanes(N, 0, N))
    for how in (noise, None):
        tree_map(
            lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0),
            policy.act(obs, first, state, how),
            again.act(obs, first, again.initial_state(Lanes(N, 0, N)), how),
        )


@pytest.mark.parametrize("name", AGENTS)
def test_its_file_says_what_it_is(name: str) -> None:
    algorithm = registry.algorithm(registry.algorithm_of(name))
    config = build_options(algorithm.Config, {}, "agent")
    kind = type(algorithm.feed(config)).__name__
    assert registry.EXPERIENCE[kind] == registry.learns_from(registry.algorithm_of(name))
    assert set(algorithm.quick) <= {each.name for each in fields(algorithm.Config)}
    build_options(algorithm.Config, dict(algorithm.quick), "agent")
    assert all(each.help for each in describe(algorithm.Config)), "an option says nothing of itself"
    assert registry.shares(registry.algorithm_of(name)) == hasattr(
        importlib.import_module(algorithm.Config.__module__), "shared"
    )
    assert isinstance(algorithm.exempt(config), dict)
