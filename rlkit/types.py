"""The types that everything speaks: EnvStep (one row), Rollout (all experience), State (memory as a value).

Time runs along the first axis, lanes (parallel environments, or agents of one) along the second:

    row      t = 0          1          2     ...      T
    obs      o_0        o_1        o_2       ...  o_T            [T+1, N, ...]
    action        a_0        a_1             ...                 [T, N, ...]
    reward        r_0        r_1             ...                 [T, N]       r_t, of the transition o_t -> o_{t+1}

There is no `done` and no `final_obs`: termination, truncation and "this action is ignored" are separate facts. The
row that closes an episode (`last`) holds its true final observation, its action is ignored, and the next row (`first`)
opens the next episode with reward 0: Gymnasium's NEXT_STEP autoreset. `valid = ~last[:-1]` marks real transitions.

Several agents of one game are lanes: lane n is agent n % A of game n // A. A lane that is out of its game before the
others repeats its `last` row until the game is over; rows after the first `last` one are no transitions and close
nothing, so an episode closes where `last` rises (`closings`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from rlkit.spaces import MASK, Dict, Space, from_json, leaves, row_dtype, to_json

Obs: TypeAlias = "Tensor | dict[str, Tensor]"
State: TypeAlias = "tuple[Tensor | State, ...]"  # () for a memoryless network; every leaf is [N, ...]
Role: TypeAlias = Literal["input", "mask", "label"]
Tree = TypeVar("Tree")  # a tensor, or nested dicts and tuples of tensors


@dataclass(frozen=True)
class EnvSpec:
    """What a policy must know of its environment; saved with the policy."""

    id: str
    observation: Space
    action: Space
    stack: int = 1  # frames that the policy sees at once; the environment emits one
    agents: tuple[str, ...] = ("agent",)  # of one game, by name; lane n is agent n % A of game n // A
    labels: tuple[str, ...] = ()  # leaves of the observation that are answers to learn, never an input

    def role(self, leaf: str) -> Role:
        """What a leaf of the observation (a name of `spaces.leaves`) is for."""
        return "label" if leaf in self.labels else "mask" if leaf == MASK else "input"

    def to_json(self) -> dict[str, object]:
        """The specification as plain values for a JSON file."""
        return {
            "id": self.id,
            "observation": to_json(self.observation),
            "action": to_json(self.action),
            "stack": self.stack,
            "agents": list(self.agents),
            "labels": list(self.labels),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> EnvSpec:
        """Inverse of `to_json`; agents and labels may be missing, as in folders of version 0.1.0."""
        names = {key: tuple(data[key]) for key in ("agents", "labels") if key in data}
        return EnvSpec(
            data["id"], from_json(data["observation"]), from_json(data["action"]), data["stack"], **names
        )


@dataclass(frozen=True)
class Lanes:
    """Lanes number `first` to first + count - 1 of the `total` lanes of a run."""

    count: int
    first: int = 0
    total: int = 0  # 0: there are no others

    def __len__(self) -> int:
        """The number of these lanes."""
        return self.count

    @property
    def share(self) -> Tensor:
        """[count] float32: n / (total - 1) of lane number n, from 0 for the first lane of the run to 1 for the last."""
        numbers = torch.arange(self.first, self.first + self.count, dtype=torch.float64)
        return (numbers / max((self.total or self.count) - 1, 1)).float()


@dataclass
class EnvStep:
    """One row of N lanes. A vector environment may hand out the same tensors again with new contents."""

    obs: Obs  # [N, ...] native dtype: pixels stay uint8 until the device
    reward: Tensor  # [N] f32, of the transition INTO obs
    terminated: Tensor  # [N] bool, that transition ended the MDP: no bootstrap
    first: Tensor  # [N] bool, obs opens an episode: memory is cleared before it is read
    last: Tensor  # [N] bool, obs closes an episode: the next action is ignored


@dataclass
class Rollout:
    """T transitions of N lanes: the one container of experience."""

    obs: Obs  # [T+1, N, ...]
    first: Tensor  # [T+1, N] bool
    last: Tensor  # [T+1, N] bool
    action: Tensor  # [T, N, ...] as the policy emitted it
    reward: Tensor  # [T, N] f32
    terminated: Tensor  # [T, N] bool, of the transition t -> t+1
    state: State = ()  # [N, ...] memory just before obs[0]
    extra: dict[str, Tensor] = field(default_factory=dict)  # [T, N, ...] what the policy reported
    version: int = 0  # of the weights that acted

    @property
    def valid(self) -> Tensor:
        """[T, N] bool: rows whose action reached the environment."""
        return ~self.last[:-1]

    @property
    def size(self) -> tuple[int, int]:
        """The numbers of transitions and of lanes: (T, N)."""
        return self.reward.shape[0], self.reward.shape[1]

    def map(self, function: Callable[[Tensor], Tensor]) -> Rollout:
        """The rollout with `function` applied to every tensor (a copy, a move to a device)."""
        return replace(
            self,
            obs=tree_map(function, self.obs),
            first=function(self.first),
            last=function(self.last),
            action=function(self.action),
            reward=function(self.reward),
            terminated=function(self.terminated),
            state=tree_map(function, self.state),
            extra=tree_map(function, self.extra),
        )


def closings(last: Tensor) -> Tensor:
    """last [T+1, N] -> [T, N] bool: whether the transition t -> t+1 closes an episode, where `last` rises."""
    return last[1:] & ~last[:-1]


def mask_of(obs: Obs) -> Tensor | None:
    """The action mask in an observation, [..., choices] bool with True for what is allowed; None where it has none."""
    return obs[MASK].bool() if isinstance(obs, dict) and MASK in obs else None


def tree_map(function: Callable[..., object], tree: Tree, *others: object) -> Tree:
    """Apply `function` to every leaf of nested dicts and tuples (several trees: to their matching leaves)."""
    found: Tree = _mapped(function, tree, *others)
    return found


def _mapped(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`tree_map` without types, which do not follow a tree down to its leaves."""
    if isinstance(tree, dict):
        return {key: _mapped(function, tree[key], *(other[key] for other in others)) for key in tree}
    if isinstance(tree, tuple):
        return tuple(_mapped(function, *parts) for parts in zip(tree, *others, strict=True))
    return function(tree, *others)


def tree_leaves(tree: Any) -> Iterator[Tensor]:
    """Every leaf of nested dicts and tuples, in order."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from tree_leaves(value)
    elif isinstance(tree, tuple):
        for value in tree:
            yield from tree_leaves(value)
    else:
        yield tree


def empty_rows(space: Space, leading: tuple[int, ...], device: torch.device | str = "cpu") -> Obs:
    """Uninitialised storage [*leading, *shape] for `space`: a tensor, or a flat dict of dotted names for a Dict."""
    rows = {
        name: torch.empty((*leading, *leaf.shape), dtype=getattr(torch, row_dtype(leaf)), device=device)
        for name, leaf in leaves(space)
    }
    return rows if isinstance(space, Dict) else rows[""]
