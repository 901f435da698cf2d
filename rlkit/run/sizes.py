"""Whether a run fits into this machine, found out before anything of it is allocated.

Tensors are counted as a policy asks for them, before they are filled; rollouts and what layers make of them follow from
the widths of the policy's layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rlkit.config.schema import RunConfig
from rlkit.contracts import Algorithm, Policy, Replayed
from rlkit.device import Budget, TooLarge
from rlkit.machine import SHARE, available, gib, most
from rlkit.options import ConfigError, show
from rlkit.spaces import leaves, row_dtype
from rlkit.turns import seated
from rlkit.types import EnvSpec, Lanes, tree_leaves

# of the weights: themselves, a target or a collector, gradients, two moments, and what is kept for the next checkpoint
COPIES = 8


@dataclass(frozen=True)
class Count:
    """An option that decides how large a run is: its name, its value (an int or a tuple of them), and its default."""

    name: str
    value: Any
    default: Any

    def set(self, config: RunConfig, limit: int) -> RunConfig:
        """The configuration in which no number of this option is above `limit`."""
        value = tuple(min(n, limit) for n in self.value) if isinstance(self.value, tuple) else limit
        *path, last = self.name.split(".")

        def put(part: Any, names: list[str]) -> Any:
            return (
                replace(part, **{names[0]: put(getattr(part, names[0]), names[1:])})
                if names
                else replace(part, **{last: value})
            )

        found: RunConfig = put(config, path)
        return found

    def of(self, config: RunConfig) -> Any:
        """Its value in a configuration."""
        found: Any = config
        for name in self.name.split("."):
            found = getattr(found, name)
        return found


def check_threads(config: RunConfig) -> None:
    """Raise ConfigError where the run would have more threads or processes than this machine carries."""
    for name, count, others in (
        ("threads", config.threads, config.learner.workers),
        ("learner.workers", config.learner.workers, 1),
    ):
        limit = most() // others
        if count > max(limit, 1):
            beside = f" in each of learner.workers={others}" if others > 1 else ""
            raise ConfigError(
                f"{name}={count}: more than this machine carries{beside}; type {name}={max(limit, 1)} or less"
            )


def fitting_policy(config: RunConfig, algorithm: Algorithm, spec: EnvSpec, device: torch.device) -> Policy:
    """The policy of a run that fits into memory.

    Raises ConfigError, with the largest value that fits, where a count makes it too large, and what the policy raises.
    """
    cuda = device.type == "cuda"
    memory = torch.cuda.mem_get_info(device)[0] if cuda else available(Path(config.dir).absolute())[0]
    free = int(SHARE * memory)
    try:
        with Budget(free // COPIES):
            policy = algorithm.Policy(spec, config.network, config.agent)
            with suppress(AttributeError):  # of a policy that lacks what is asked for next
                if needed(policy, config, algorithm) > free:
                    raise TooLarge
        return policy
    except ValueError:
        raise
    except Exception as error:  # too large, or anything that the policy's own code does
        if refuse(config, algorithm, spec, free) or isinstance(error, TooLarge):
            raise ConfigError(
                f"agent={config.agent_name}, env={spec.id}: the run takes more than the {gib(free)} of memory that may "
                "be used; type fewer env.lanes, or smaller counts of agent and network"
            ) from error
        raise


def needed(policy: Policy, config: RunConfig, algorithm: Algorithm) -> int:
    """Bytes of a run: weights and their copies, rollouts, memory, and what the widest layer makes of its rows."""
    experience, lanes = algorithm.feed(config.agent), config.env.lanes
    device = next((x.device for x in policy.parameters()), "cpu")
    state = lanes * _bytes(policy.initial_state(Lanes(1), device))
    # a row's dtype and shape, times as many as there are
    row = lanes * sum(
        math.prod(leaf.shape) * np.dtype(row_dtype(leaf)).itemsize
        for _, leaf in leaves(policy.spec.observation)
    )
    layers = [each for each in policy.modules() if isinstance(each, nn.Linear)]
    widest = max((max(each.in_features, each.out_features) for each in layers), default=0)
    # a replay buffer's batch has the rows before and after its transitions; a rollout's values are computed at once
    rows = 2 * experience.config.batch if isinstance(experience, Replayed) else (experience.steps + 1) * lanes
    rollout = (experience.steps + 1) * row * (2 if config.source.name == "thread" else 1)
    weights = _bytes(policy.state_dict())
    league = 2 * config.league.size * weights if seated(policy.spec) else 0  # and a policy for each snapshot
    total: int = COPIES * weights + league + 4 * state + rollout + 2 * 4 * rows * widest
    return total


def refuse(config: RunConfig, algorithm: Algorithm, spec: EnvSpec, free: int) -> bool:
    """Raise ConfigError for the count that makes a run take more than `free` bytes.

    Where it is no count returns whether the run takes more than that, as far as can be told.
    Policies are made on the device "meta" here, whose tensors have shapes and no memory.
    """

    def size(tried: RunConfig) -> float:
        try:
            with torch.device("meta"), torch.no_grad():
                policy = algorithm.Policy(spec, tried.network, tried.agent).to("meta")
                return needed(policy, tried, algorithm)
        except Exception:  # more than torch can count, or a policy that reads its tensors
            return math.inf

    taken, counts = size(config), list(_counts(config))
    smaller = {count: size(count.set(config, _low(count))) for count in counts}
    if taken <= free or min(smaller.values(), default=math.inf) == math.inf:
        return free < taken < math.inf
    culprit = min(counts, key=lambda count: smaller[count])
    low, high = _low(culprit), max(_numbers(culprit.value))  # low fits, or is where to begin
    while smaller[culprit] <= free and high - low > max(low // 64, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if size(culprit.set(config, middle)) <= free else (low, middle)
    amount = "more memory than can be counted" if taken == math.inf else f"{gib(taken)} of memory"
    raise ConfigError(
        f"{culprit.name}={show(culprit.value)}: the run takes {amount}, and {gib(free)} may be used; type "
        f"{culprit.name}={show(culprit.of(culprit.set(config, low)))} or less"
    )


def _bytes(tree: Any) -> int:
    total: int = sum(x.numel() * x.element_size() for x in tree_leaves(tree))
    return total


def _counts(config: RunConfig) -> Iterator[Count]:
    """The options above their defaults that can make a run large."""
    yield from _inside("network", config.network)
    yield from _inside("agent", config.agent)
    if config.env.lanes > 1:
        yield Count("env.lanes", config.env.lanes, 1)


def _inside(path: str, group: Any) -> Iterator[Count]:
    for part in fields(group):
        name, value, default = f"{path}.{part.name}", getattr(group, part.name), part.default
        if is_dataclass(value):
            yield from _inside(name, value)
        elif isinstance(value, tuple) and value and all(type(n) is int for n in value) and max(value) > 64:
            yield Count(name, value, (64,))
        elif type(value) is int and type(default) is int and value > default:
            yield Count(name, value, default)


def _numbers(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _low(count: Count) -> int:
    return max(_numbers(count.default))
