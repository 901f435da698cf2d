"""What every environment promises (rlkit.contracts.VecEnv): each named configuration, and one from outside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.contracts import VecEnv
from rlkit.envs.backends.games import agents_in
from rlkit.envs.config import EnvConfig
from rlkit.envs.lookup import plays_games
from rlkit.envs.make import is_batched, make_vec, probe
from rlkit.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space, action_row, leaves, row_dtype
from rlkit.types import EnvSpec, EnvStep, mask_of, tree_map

N, STEPS, LIMIT = 2, 10, 3  # lanes, steps, actions per episode at most
IDS = registry.environment_ids()
FAMILIES = {
    "minigrid": "MiniGrid-Empty-5x5-v0",
    "babyai": "BabyAI-GoToRedBall-v0",
    "atari": "ALE/Seaquest-v5",
    "minatar": "MinAtar/Freeway-v1",
}
# those of one environment, of the Atari games one, and of the configurations of many an example
GAMES = [name for name in IDS if "atari" in registry.lineage(name) and name != "pong"]
CONFIGS = [name for name, id in IDS.items() if name not in (*FAMILIES, *GAMES, "gymnasium")]


def configure(name: str) -> EnvConfig:
    """Small: few lanes in this process, and episodes that end within the test where that can be chosen."""
    typed = ["env=gymnasium", f"env.id={name}"] if ":" in name else [f"env={FAMILIES.get(name, name)}"]
    config: EnvConfig = replace(compose([*typed, "preset=none"]).config.env, lanes=N)
    if is_batched(config):
        return config
    if plays_games(config):
        config = replace(config, kwargs={"max_cycles": LIMIT}, backend="inprocess")
        return replace(config, lanes=len(agents_in(config)))
    skip = 1 if config.id.startswith("ALE/") else config.skip  # the emulator skips by itself, within a step
    return replace(config, backend="inprocess", time_limit=LIMIT * skip)


def sample(space: Space, mask: npt.NDArray[Any] | None, g: np.random.Generator) -> npt.NDArray[Any]:
    """A random allowed action in the environment's units, as a row."""
    numbers: list[npt.NDArray[Any]] = []
    used = 0
    for _, leaf in leaves(space):
        for n in {Discrete: lambda x: [x.n], MultiDiscrete: lambda x: x.nvec}.get(type(leaf), lambda x: [])(
            leaf
        ):
            allowed = np.arange(n) if mask is None else np.flatnonzero(mask[used : used + n])
            numbers.append(g.choice(allowed, 1))
            used += n
        if isinstance(leaf, MultiBinary):
            numbers.append(g.integers(0, 2, leaf.n))
        if isinstance(leaf, Box):
            numbers.append(g.uniform(np.maximum(leaf.low, -1), np.minimum(leaf.high, 1), leaf.shape).ravel())
    shape, dtype = action_row(space)
    return np.concatenate(numbers).astype(dtype).reshape(shape)


def actions(env: VecEnv, row: EnvStep, g: np.random.Generator) -> npt.NDArray[Any]:
    masks = mask_of(row.obs)
    return np.stack(
        [sample(env.spec.action, None if masks is None else masks[n].numpy(), g) for n in range(env.lanes)]
    )


def check_row(spec: EnvSpec, row: EnvStep, before: EnvStep | None) -> None:
    """Shapes, dtypes and bounds; what `first`, `last`, `reward` and `terminated` may be after the row before."""
    flat, lanes = row.obs if isinstance(row.obs, dict) else {"": row.obs}, len(row.reward)
    assert list(flat) == [name for name, _ in leaves(spec.observation)]
    for name, leaf in leaves(spec.observation):
        x = flat[name]
        assert x.shape == (lanes, *leaf.shape) and x.dtype == getattr(torch, row_dtype(leaf)), name
        if isinstance(leaf, Box):
            assert x.float().isfinite().all(), f"{name} is not finite"
            low, high = (np.broadcast_to(np.float32(bound), leaf.shape) for bound in (leaf.low, leaf.high))
            assert (x.numpy() >= low).all() and (x.numpy() <= high).all(), f"{name} is out of its bounds"
        if isinstance(leaf, Discrete):
            assert ((x >= 0) & (x < leaf.n)).all()
    masks = mask_of(row.obs)
    assert masks is None or masks.any(-1).all(), "a mask allows nothing"
    assert row.reward.dtype == torch.float32 and row.reward.isfinite().all()
    assert all(x.dtype == torch.bool and x.shape == (lanes,) for x in (row.terminated, row.first, row.last))
    assert torch.equal(row.first, torch.ones(lanes, dtype=torch.bool) if before is None else before.last)
    assert not row.reward[row.first].any() and not row.terminated[row.first].any()
    assert not (row.terminated & ~row.last).any(), "what is terminated closes its episode"


def same(a: EnvStep, b: EnvStep) -> None:
    tree_map(lambda x, y: torch.testing.assert_close(x, y, rtol=0, atol=0), vars(a), vars(b))


def copied(row: EnvStep) -> EnvStep:
    return EnvStep(**tree_map(torch.clone, vars(row)))


@pytest.mark.parametrize("name", [*CONFIGS, *FAMILIES, "outside.line:Line"])
def test_lanes_follow_the_row_rule_and_come_back(name: str) -> None:
    try:
        config, g = configure(name), np.random.default_rng(0)
        spec = probe(config).spec
    except ValueError as error:
        if "pip install" in str(error):
            pytest.skip(str(error))
        raise
    env, other = (make_vec(config, 3) for _ in range(2))
    lanes = env.lanes
    try:
        assert env.spec == spec or env.spec.to_json() == spec.to_json()
        shape, dtype = action_row(spec.action)
        nothing = np.zeros((0, *shape), dtype)
        row = env.restore(np.zeros(lanes, np.int64), [nothing] * lanes)
        check_row(spec, row, None)
        episode, since = (
            np.zeros(lanes, np.int64),
            [[] for _ in range(lanes)],
        )  # of each lane: number, actions so far
        for _ in range(STEPS):
            before, action = copied(row), actions(env, row, g)
            row = env.step(torch.from_numpy(action))
            check_row(spec, row, before)
            for n in range(lanes):
                if before.last[n]:
                    episode[n], since[n] = episode[n] + 1, []
                else:
                    since[n].append(action[n])
        assert is_batched(config) or episode.min() >= 2, "no episode ended"
        row = copied(row)
        if env.exact == "replay":
            history = [np.stack(each) if each else nothing for each in since]
            same(other.restore(episode, history), row)
        elif env.exact == "snapshot":
            other.restore(np.zeros(lanes, np.int64), [nothing] * lanes)
            other.load_snapshot(env.snapshot())
        if env.exact != "none":
            for _ in range(2):  # and both go on alike
                action = torch.from_numpy(actions(env, row, g))
                row = copied(env.step(action))
                same(other.step(action), row)
    finally:
        env.close()
        other.close()
