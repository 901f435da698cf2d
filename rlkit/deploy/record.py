"""Steps of an agent, recorded so that whatever runs its policy can be compared with it (rlkit.deploy.parity)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rlkit.config import registry
from rlkit.config.schema import RunConfig
from rlkit.contracts import VecEnv
from rlkit.deploy.trace import expected
from rlkit.options import ConfigError
from rlkit.play.saved import AgentPolicy
from rlkit.space_json import to_json
from rlkit.spaces import (
    MASK,
    Array,
    Box,
    Dict,
    Space,
    component_starts,
    leaves,
    limits_of,
    open_components,
    row_dtype,
    without,
)
from rlkit.types import Obs, State, tree_leaves

SEED = 2_000_000  # of the environment and the noise: neither training's nor an evaluation's
SAMPLED = 200  # steps of which sampled actions are recorded, too
PLACES = 10  # where the memory is
EPISODE = 50  # steps of an episode of random observations

Rows = dict[str, Array]  # [T, ...] by entry


def record(
    agent: AgentPolicy,
    config: RunConfig,
    steps: int,
    kept: Collection[int],
    say: Callable[[str], None],
    value: bool = False,
) -> dict[str, Array]:
    """What parity.npz holds.

    kept: the parts of the memory that are recorded; say: hears where no environment was; value: record the returns that
    the agent expects, too.
    """
    rows, first = observed(agent, config, steps, say)
    found: dict[str, Array] = {f"obs.{name}" if name else "obs": x for name, x in rows.items()}
    places = np.unique(np.linspace(0, steps - 1, min(PLACES, steps)).astype(np.int64))
    actions, memories, values = _played(agent, rows, first, None, value)
    found |= {"first": first, "action": actions, "memory_steps": places}
    for index in sorted(kept):
        found[f"memory.{index}"] = np.stack([memories[step][index] for step in places])
    if value:
        found["value"] = np.array(values, np.float32)
    few = min(SAMPLED, steps)
    uniforms = np.random.default_rng(SEED).random((few, agent.policy.noise_size), np.float32)
    noise = uniforms.clip(1e-7, 1 - 1e-7)
    sampled, _, _ = _played(agent, rows, first[:few], noise)
    return found | {"noise": noise, "sampled": sampled}


@torch.no_grad()
def _played(
    agent: AgentPolicy, rows: Rows, first: Array, noise: Array | None, value: bool = False
) -> tuple[Array, list[list[Array]], list[float]]:
    """The actions [T, ...] of a closed loop over the rows, the memory after each, and the values (none: not asked)."""
    state, actions, memories, values = agent.opening(1), [], [], list[float]()
    for step in range(len(first)):
        drawn = None if noise is None else torch.from_numpy(noise[step][None])
        obs, opens = _obs(agent, rows, step), torch.from_numpy(first[step][None])
        if value:
            values.append(expected(agent, obs, opens, state).item())
        action, state = agent.act(obs, opens, state, drawn)
        actions.append(action[0].numpy())
        memories.append([part[0].numpy() for part in tree_leaves(state) if part[0].numel()])
    return np.stack(actions), memories, values


def _obs(agent: AgentPolicy, rows: Rows, step: int) -> Obs:
    obs = {name: torch.from_numpy(x[step : step + 1].copy()) for name, x in rows.items()}
    return obs if isinstance(agent.reader.space, Dict) else obs[""]


def observed(
    agent: AgentPolicy, config: RunConfig, steps: int, say: Callable[[str], None]
) -> tuple[Rows, Array]:
    """What an agent sees in `steps` steps of its environment, in which it draws its actions: rows, first [T].

    Where that environment cannot be made here, observations are random numbers of its space.
    """
    try:
        env = _environment(agent, config)
    except Exception as error:  # of whoever wrote the environment
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        say(
            f"{config.env.id} cannot be used here ({reason}): the steps that are compared are of random observations"
        )
        return _random(agent.reader.space, agent.spec.action, steps)
    try:
        return _walked(agent, env, steps)
    finally:
        env.close()


def _environment(agent: AgentPolicy, config: RunConfig) -> VecEnv:
    """One game. Raises ConfigError where it shows something else than the agent reads."""
    if config.env.groups and not agent.policy.spec.groups:
        raise ConfigError("one group of its agents does not play it alone")
    options = replace(config.env, lanes=len(agent.policy.spec.agents), reward_scale=1.0)
    env: VecEnv = registry.env_package().make_vec(options, SEED, evaluation=True)
    shown = without(env.spec.observation, agent.unknown)
    if to_json(shown) != to_json(agent.reader.space):
        env.close()
        raise ConfigError("it shows something else than the agent reads")
    return env


@torch.no_grad()
def _walked(agent: AgentPolicy, env: VecEnv, steps: int) -> tuple[Rows, Array]:
    lanes, names = env.lanes, [name for name, _ in leaves(agent.reader.space)]
    each = -(-steps // lanes)
    row = env.restore(np.zeros(lanes, np.int64), [np.zeros(0)] * lanes)
    state: State = agent.opening(lanes)
    seen: list[dict[str, Tensor]] = []
    starts: list[Tensor] = []
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(each):
        parts = row.obs if isinstance(row.obs, dict) else {"": row.obs}
        obs = {name: parts[name].cpu().clone() for name in names}
        seen.append(obs)
        starts.append(row.first.cpu().clone())
        noise = torch.rand(lanes, agent.policy.noise_size, generator=generator).clamp(1e-7, 1 - 1e-7)
        given: Obs = obs if isinstance(agent.reader.space, Dict) else obs[""]
        action, state = agent.act(given, starts[-1], state, noise)
        row = env.step(action.to(env.device))
    # one lane after the other
    rows = {
        name: torch.stack([obs[name] for obs in seen]).transpose(0, 1).flatten(0, 1)[:steps].numpy()
        for name in seen[0]
    }
    first = torch.stack(starts).t().clone()
    first[:, 0] = True
    return rows, first.flatten()[:steps].numpy()


def _random(space: Space, action: Space, steps: int) -> tuple[Rows, Array]:
    generator, rows = np.random.default_rng(SEED), {}
    for name, leaf in leaves(space):
        shape, dtype = (steps, *leaf.shape), np.dtype(row_dtype(leaf))
        if dtype.kind == "f":
            x = generator.standard_normal(shape)
            if isinstance(leaf, Box):  # within bounds, where there are
                low, high = (np.broadcast_to(bound, leaf.shape) for bound in (leaf.low, leaf.high))
                known = np.isfinite(low) & np.isfinite(high)
                inside = generator.uniform(np.where(known, low, 0), np.where(known, high, 1), shape)
                x = np.where(known, inside, np.clip(x, low, high))
            rows[name] = x.astype(np.float32) if name != MASK else np.ones(shape, np.float32)
            continue
        limits = limits_of(leaf)
        least, most = limits or (np.array(np.iinfo(dtype).min), np.array(np.iinfo(dtype).max))
        rows[name] = generator.integers(least, most.astype(np.int64), shape, endpoint=True).astype(dtype)
        if name == MASK:  # some choices are forbidden, but never all of a component
            allowed = open_components(rows[name], component_starts(action)).all(-1)
            rows[name][~allowed] = 1
    return rows, np.arange(steps) % EPISODE == 0
