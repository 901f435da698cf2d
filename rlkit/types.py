"""The types that everything speaks: EnvStep (a row), Rollout (experience), Batch (of a replay buffer), State (memory).

Time runs along the first axis, lanes (parallel environments, or agents of one) along the second:

    row      t = 0          1          2     ...      T
    obs      o_0        o_1        o_2       ...  o_T            [T+1, N, ...]
    action        a_0        a_1             ...                 [T, N, ...]
    reward        r_0        r_1             ...                 [T, N]       r_t, of the transition o_t -> o_{t+1}

There is no `done` and no `final_obs`: termination, truncation and "this action is ignored" are separate facts. The
row that closes an episode (`last`) holds its true final observation, its action is ignored, and the next row (`first`)
opens the next episode with reward 0: Gymnasium's NEXT_STEP autoreset. `valid = ~last[:-1]` marks real transitions. A
transition may be terminated and its episode go on: the return is cut where a life was lost.

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

from rlkit.space_json import from_json, to_json
from rlkit.spaces import MASK, Dict, Space, leaves, row_dtype

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
    # (name, numbers of its agents) of groups with a policy each, (): all share one. Observation and action are then
    # Dicts with an entry per group, of which an agent fills and reads its own
    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def inputs(self) -> Space:
        """What a network reads: the observation without masks and labels, a flat Dict where it is a Dict."""
        if not isinstance(self.observation, Dict):
            return self.observation
        return Dict(
            tuple((name, leaf) for name, leaf in leaves(self.observation) if self.role(name) == "input")
        )

    def role(self, leaf: str) -> Role:
        """What a leaf of the observation (a name of `spaces.leaves`) is for."""
        return "label" if leaf in self.labels else "mask" if leaf == MASK else "input"

    def group(self, name: str) -> EnvSpec:
        """What the policy of a group must know: that of a game of its agents alone."""
        assert isinstance(self.observation, Dict) and isinstance(self.action, Dict), "groups have entries"
        agents = tuple(self.agents[i] for i in dict(self.groups)[name])
        return replace(
            self, observation=self.observation[name], action=self.action[name], agents=agents, groups=()
        )

    def to_json(self) -> dict[str, object]:
        """The specification as plain values for a JSON file."""
        return {
            "id": self.id,
            "observation": to_json(self.observation),
            "action": to_json(self.action),
            "stack": self.stack,
            "agents": list(self.agents),
            "labels": list(self.labels),
            **({"groups": {name: list(members) for name, members in self.groups}} if self.groups else {}),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> EnvSpec:
        """Inverse of `to_json`; agents, labels and groups may be missing, as in folders of version 0.1.0."""
        names = {key: tuple(data[key]) for key in ("agents", "labels") if key in data}
        observation, action = from_json(data["observation"]), from_json(data["action"])
        groups = tuple((name, tuple(members)) for name, members in data.get("groups", {}).items())
        return EnvSpec(data["id"], observation, action, data["stack"], **names, groups=groups)


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
    """T transitions of N lanes, as they were collected."""

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


@dataclass(frozen=True)
class Span:
    """R rows of B lanes that follow each other, and the memory just before the first of them."""

    obs: Obs  # [R, B, ...]
    first: Tensor  # [R, B] bool
    last: Tensor  # [R, B] bool
    state: State = ()  # [B, ...]

    @property
    def inputs(self) -> tuple[Obs, Tensor, State]:
        """What a network is called with."""
        return self.obs, self.first, self.state

    def after(self, rows: int, state: State) -> Span:
        """What follows the first `rows` rows, `state` being the memory after them."""
        obs, first, last = tree_map(lambda x: x[rows:], (self.obs, self.first, self.last))
        return Span(obs, first, last, state)


@dataclass(frozen=True)
class Batch:
    """B items of a replay buffer; L rows of each are learned from, towards targets y = reward + discount V(later).

    Without memory an item is a transition: L = 1, `now` is o_t and `later` o_{t+m}, each with its own frame history.
    With memory it is a sequence: `now` begins with W rows that only move the memory (burn-in), and `later` is `now` and
    the row after it, because the memory before the row after another comes from unrolling that other too. So it is the
    last L rows of both that count: `later[-L:]` are the rows after `now[-L:]`.
    """

    now: Span  # [W+L, B]
    later: Span  # [1, B], or with memory [W+L+1, B]
    action: Tensor  # [L, B, ...] as the policy emitted it
    reward: Tensor  # [L, B] f32, of a transition over m steps their discounted sum
    discount: Tensor  # [L, B] f32, gamma^m, and 0 after a termination
    weight: Tensor  # [B] f32, importance weights
    index: Tensor  # [B] int64, what the replay buffer knows the items by

    @property
    def warm(self) -> int:
        """W."""
        return len(self.now.first) - len(self.action)

    @property
    def valid(self) -> Tensor:
        """[L, B] bool: real transitions, as in a rollout."""
        return ~self.now.last[self.warm :]


def closings(last: Tensor) -> Tensor:
    """last [T+1, N] -> [T, N] bool: whether the transition t -> t+1 closes an episode, where `last` rises."""
    return last[1:] & ~last[:-1]


def mask_of(obs: Obs) -> Tensor | None:
    """The action mask in an observation, [..., choices] bool with True for what is allowed; None where it has none."""
    return obs[MASK].bool() if isinstance(obs, dict) and MASK in obs else None


def tree_map(function: Callable[..., object], tree: Tree, *others: object) -> Tree:
    """Apply `function` to every leaf of nested dicts, tuples, Spans and Batches (several trees: to matching leaves)."""
    found: Tree = _mapped(function, tree, *others)
    return found


def _mapped(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`tree_map` without types, which do not follow a tree down to its leaves."""
    if isinstance(tree, dict):
        return {key: _mapped(function, tree[key], *(other[key] for other in others)) for key in tree}
    if isinstance(tree, tuple):
        return tuple(_mapped(function, *parts) for parts in zip(tree, *others, strict=True))
    if isinstance(tree, (Span, Batch)):
        return replace(tree, **_mapped(function, vars(tree), *map(vars, others)))
    return function(tree, *others)


def tree_leaves(tree: Any) -> Iterator[Tensor]:
    """Every leaf of nested dicts and tuples, in order."""
    found: list[Tensor] = []
    _collect(tree, found)
    return iter(found)


def _collect(tree: Any, found: list[Tensor]) -> None:
    """Append the leaves of `tree`; nested generators take three times as long."""
    if isinstance(tree, Tensor):
        found.append(tree)
    elif isinstance(tree, dict):
        for value in tree.values():
            _collect(value, found)
    elif isinstance(tree, tuple):
        for value in tree:
            _collect(value, found)
    elif isinstance(tree, (Span, Batch)):
        _collect(vars(tree), found)
    else:
        found.append(tree)


def empty_rows(space: Space, leading: tuple[int, ...], device: torch.device | str = "cpu") -> Obs:
    """Uninitialised storage [*leading, *shape] for `space`: a tensor, or a flat dict of dotted names for a Dict."""
    rows = {
        name: torch.empty((*leading, *leaf.shape), dtype=getattr(torch, row_dtype(leaf)), device=device)
        for name, leaf in leaves(space)
    }
    return rows if isinstance(space, Dict) else rows[""]
