"""Who acts while a table is collected.

    driver=random       actions drawn evenly
    driver=expert       what the environment's label `expert` says; its own name (pursuit, bot, ...) means the same
    driver=RUN          the policy of a run; where it was trained on a label's space (vector), it reads the label
    driver=A+B          each episode is driven by one of them, drawn evenly

driver.noise disturbs whoever drives, so that a table shows how to come back:

    numbers    a + sigma h n_t,   n_t = rho n_{t-1} + sqrt(1 - rho^2) e_t,   e_t ~ N(0, 1),   h half the action's range
    choices    with probability sigma one that is drawn evenly

(Laskey, Lee, Fox, Dragan and Goldberg, "DART: noise injection for robust imitation learning", CoRL 2017.)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlkit.contracts import Policy
from rlkit.distributions import action_head
from rlkit.files import run_named
from rlkit.options import ConfigError, option
from rlkit.perception.table import LABEL
from rlkit.play.saved import load
from rlkit.space_json import to_json
from rlkit.spaces import MASK, Array, Box, Dict, Space, columns, describe, leaves, row_dtype
from rlkit.types import EnvSpec, Lanes, Obs, State

RHO = 0.9  # how much of the noise of a step is left in the next one


@dataclass(frozen=True)
class DriverConfig:
    """Who acts."""

    name: str = option(
        "random", help="random, expert (or the expert's own name), a run's folder, or A+B of these"
    )
    noise: float = option(
        0.0, min=0, max=2, help="How much the actions are disturbed, as a share of half their range"
    )
    sample: bool = option(True, help="A run's policy draws its actions; false: it takes the most likely ones")


class Driver(ABC):
    """Chooses actions in the environment's units."""

    noise_size: int  # uniforms per lane and step

    def initial_state(self, lanes: int) -> State:
        """Memory of so many lanes, every leaf [lanes, ...]."""
        return ()

    @abstractmethod
    def act(self, obs: Obs, first: Tensor, state: State, noise: Tensor) -> tuple[Tensor, State]:
        """obs [N, ...], first [N], noise [N, noise_size] -> action [N, ...], state."""


class Random(Driver):
    """Every action of a space with the same probability, of those that a mask allows."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.parts = [(leaf, 1 if isinstance(leaf, Box) else 0) for _, leaf in leaves(space)]
        self.noise_size = sum(columns(leaf) for _, leaf in leaves(space))

    def act(self, obs: Obs, first: Tensor, state: State, noise: Tensor) -> tuple[Tensor, State]:
        mask = obs.get(MASK) if isinstance(obs, dict) else None
        found, start = [], 0
        for _, leaf in leaves(self.space):
            u = noise[:, start : start + columns(leaf)]
            start += columns(leaf)
            if isinstance(leaf, Box):
                low, high = (torch.as_tensor(np.broadcast_to(b, leaf.shape).copy()) for b in _ends(leaf))
                action = low + (high - low) * u.view(-1, *leaf.shape)
                found.append(action.to(getattr(torch, row_dtype(leaf))))
            else:
                head = action_head(leaf)
                even = head.distribution(torch.zeros(len(u), head.size), None, mask)
                found.append(head.to_env(even.sample(u)))
        if not isinstance(self.space, Dict):
            return found[0], state
        return torch.cat(
            [each.flatten(1).float() if each.dim() > 1 else each[:, None].float() for each in found], 1
        ), state


class Expert(Driver):
    """The action that the environment itself recommends."""

    noise_size = 1

    def act(self, obs: Obs, first: Tensor, state: State, noise: Tensor) -> tuple[Tensor, State]:
        assert isinstance(obs, dict), "labels are entries of a Dict"
        return obs[f"{LABEL}expert"].clone(), state


class Run(Driver):
    """The policy of a run. reads: the leaf of the observation that it sees, "" for all that are no labels."""

    def __init__(self, policy: Policy, reads: str, sample: bool) -> None:
        self.policy, self.reads, self.sample = policy, reads, sample
        self.noise_size = policy.noise_size

    def initial_state(self, lanes: int) -> State:
        eyes = self.policy.eyes
        frames = torch.zeros(lanes, 0) if eyes is None else eyes.memory(lanes, torch.device("cpu"))
        return self.policy.initial_state(Lanes(lanes)), frames

    def act(self, obs: Obs, first: Tensor, state: State, noise: Tensor) -> tuple[Tensor, State]:
        if isinstance(obs, dict):
            seen = {name: x for name, x in obs.items() if not name.startswith(LABEL)}
            obs = obs[self.reads] if self.reads else seen
        own, frames = state
        assert isinstance(own, tuple) and isinstance(frames, Tensor), "the policy's memory, and its eyes'"
        if self.policy.eyes is not None:
            obs, frames = self.policy.eyes(obs, first, frames)
        action, own, _ = self.policy.act(obs, first, own, noise if self.sample else None)
        return self.policy.to_env(action), (own, frames)


class Mixture(Driver):
    """One of several drivers per episode, drawn when it opens."""

    def __init__(self, drivers: list[Driver]) -> None:
        self.drivers = drivers
        self.noise_size = 1 + sum(each.noise_size for each in drivers)

    def initial_state(self, lanes: int) -> State:
        return (torch.zeros(lanes, dtype=torch.int64), *(each.initial_state(lanes) for each in self.drivers))

    def act(self, obs: Obs, first: Tensor, state: State, noise: Tensor) -> tuple[Tensor, State]:
        drawn = (noise[:, 0] * len(self.drivers)).long()
        assert isinstance(state[0], Tensor), "the driver of each lane"
        chosen, start, states, action = torch.where(first, drawn, state[0]), 1, [], None
        for number, (driver, memory) in enumerate(zip(self.drivers, state[1:], strict=True)):
            assert isinstance(memory, tuple), "a driver's memory"
            own, memory = driver.act(obs, first, memory, noise[:, start : start + driver.noise_size])
            start += driver.noise_size
            states.append(memory)
            here = (chosen == number).view(-1, *[1] * (own.dim() - 1))
            action = own if action is None else torch.where(here, own, action)
        assert action is not None, "a mixture has drivers"
        return action, (chosen, *states)


class Noisy(Driver):
    """A driver whose actions are disturbed."""

    def __init__(self, driver: Driver, space: Space, sigma: float) -> None:
        self.driver, self.space, self.sigma = driver, space, sigma
        self.numbers = isinstance(space, Box)
        self.random = Random(space)
        self.size = self.random.noise_size
        self.noise_size = driver.noise_size + self.size + 1

    def initial_state(self, lanes: int) -> State:
        return torch.zeros(lanes, self.size), self.driver.initial_state(lanes)

    def act(self, obs: Obs, first: Tensor, state: State, noise: Tensor) -> tuple[Tensor, State]:
        before, memory = state
        assert isinstance(before, Tensor) and isinstance(memory, tuple), "noise, and the driver's memory"
        own, rest = noise[:, : self.driver.noise_size], noise[:, self.driver.noise_size :]
        action, memory = self.driver.act(obs, first, memory, own)
        if not isinstance(self.space, Box):
            other, _ = self.random.act(obs, first, (), rest[:, : self.size])
            swap = (rest[:, -1] < self.sigma).view(-1, *[1] * (action.dim() - 1))
            return torch.where(swap, other, action), (before, memory)
        # e_t of uniforms; an episode opens with noise of its own
        drawn = math.sqrt(2) * torch.erfinv(2 * rest[:, : self.size] - 1)
        n = torch.where(first[:, None], drawn, RHO * before + math.sqrt(1 - RHO**2) * drawn)
        low, high = (torch.as_tensor(np.broadcast_to(b, self.space.shape).copy()) for b in _ends(self.space))
        moved = action + self.sigma * (high - low) / 2 * n.view(action.shape)
        return moved.clamp(low, high).to(action.dtype), (n, memory)


def _ends(box: Box) -> tuple[Array, Array]:
    """Bounds of an action's numbers as float32; -1 and 1 where there are none."""
    low, high = np.asarray(box.low, np.float32), np.asarray(box.high, np.float32)
    return (
        np.where(np.isfinite(low), low, np.float32(-1.0)),
        np.where(np.isfinite(high), high, np.float32(1.0)),
    )


def make_driver(config: DriverConfig, spec: EnvSpec, own: Space, expert: str | None) -> Driver:
    """The driver of an environment with this spec. own: its observation without labels; expert: its expert's name.

    Raises ConfigError.
    """
    drivers = [_one(name, config, spec, own, expert) for name in config.name.split("+")]
    driver = drivers[0] if len(drivers) == 1 else Mixture(drivers)
    if not config.noise:
        return driver
    kinds = {isinstance(leaf, Box) for _, leaf in leaves(spec.action)}
    if isinstance(spec.action, Dict):
        raise ConfigError(
            f"driver.noise={config.noise:g}: actions of {spec.id} are {describe(spec.action)}; allowed: 0 where they "
            "have several parts"
        )
    assert len(kinds) == 1, "a leaf is numbers or choices"
    return Noisy(driver, spec.action, config.noise)


def _one(name: str, config: DriverConfig, spec: EnvSpec, own: Space, expert: str | None) -> Driver:
    if name == "random":
        return Random(spec.action)
    if name in ("expert", expert):
        if f"{LABEL}expert" not in spec.labels:
            raise ConfigError(
                f"driver={name}: {spec.id} says what an expert does in its label expert; type labels=[expert,...]"
                if expert
                else f"driver={name}: {spec.id} has no expert; type driver=random or driver=RUN"
            )
        return Expert()
    if not ("/" in name or name.startswith(".") or run_named(name).exists()):
        known = ["random", *([expert] if expert else [])]
        raise ConfigError(
            f"driver={name}: no such driver or run; allowed: {', '.join(known)}, or a run's folder (runs/NAME)"
        )
    agent = load(name)
    policy = agent.policy
    if to_json(policy.spec.action) != to_json(spec.action):
        raise ConfigError(
            f"driver={name}: acts in {describe(policy.spec.action)}, and {spec.id} in {describe(spec.action)}"
        )
    wanted = to_json(agent.spec.observation)
    fitting = [label for label in spec.labels if to_json(dict(leaves(spec.observation))[label]) == wanted]
    if to_json(own) == wanted:
        entries = [leaf for leaf, _ in leaves(spec.observation) if leaf not in spec.labels]
        return Run(policy, "" if isinstance(own, Dict) else entries[0], config.sample)
    if fitting:
        return Run(policy, fitting[0], config.sample)
    raise ConfigError(
        f"driver={name}: sees {describe(agent.spec.observation)}; {spec.id} shows {describe(own)}"
        + (
            f" and says {', '.join(spec.labels)}"
            if spec.labels
            else "; a label may be what it sees: labels=[...]"
        )
    )
