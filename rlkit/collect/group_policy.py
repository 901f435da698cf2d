"""The policies of a game's groups of agents as one: a lane is acted for by the policy of its group.

    lane n       agent n % A of game n // A; a group of k agents has k lanes of every game
    obs          a Dict with an entry per group, of which a lane's own is read
    action       [N, W] float32: columns for the numbers of every group's actions, of which a lane's own are filled
    state        a group's memory for all lanes, of which its own are read and written
    extra        "NAME/entry" of the group NAME

So actors, sources and evaluations know nothing of groups; who learns takes rollouts apart (`part`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from rlkit.contracts import Policy
from rlkit.spaces import MASK, Dict, action_row
from rlkit.types import EnvSpec, Lanes, Obs, Rollout, State, empty_rows, tree_map


@dataclass(frozen=True)
class Member:
    """What belongs to one group in what all share."""

    name: str
    agents: tuple[int, ...]  # their numbers in a game
    columns: slice  # of an action as its policy emits it
    shape: tuple[int, ...]  # ... of that action
    dtype: torch.dtype
    own_columns: slice  # of an action in the environment's units


class GroupPolicy(Policy):
    """policies: of each group of spec.groups, by name. Raises ValueError where these are no groups of its agents."""

    def __init__(self, spec: EnvSpec, policies: Mapping[str, Policy]) -> None:
        super().__init__()
        self.spec, self.agents = spec, len(spec.agents)
        if sorted(i for _, agents in spec.groups for i in agents) != list(range(self.agents)):
            raise ValueError(f"groups {spec.groups} do not hold each of {self.agents} agents once")
        self.policies = nn.ModuleDict(policies)
        self.noise_size = max(each.noise_size for each in policies.values())
        self.memoryless = all(each.memoryless for each in policies.values())
        self.members: list[Member] = []
        self.width = self.own_width = 0
        for name, agents in spec.groups:
            action, own = _emitted(policies[name]), math.prod(action_row(policies[name].spec.action)[0])
            end, own_end = self.width + action.numel(), self.own_width + own
            self.members.append(
                Member(
                    name,
                    agents,
                    slice(self.width, end),
                    tuple(action.shape),
                    action.dtype,
                    slice(self.own_width, own_end),
                )
            )
            self.register_buffer(f"agents_{name}", torch.tensor(agents), persistent=False)
            self.width, self.own_width = end, own_end

    def of(self, name: str) -> Policy:
        """The policy of a group."""
        found = self.policies[name]
        assert isinstance(found, Policy), "made of policies"
        return found

    def take(self, member: Member, x: Tensor, dim: int = 0) -> Tensor:
        """The group's lanes of x, whose axis `dim` is the lanes of whole games."""
        games = _split(x, dim, self.agents)
        return games.index_select(dim + 1, getattr(self, f"agents_{member.name}")).flatten(dim, dim + 1)

    def put(self, member: Member, whole: Tensor, x: Tensor, dim: int = 0) -> Tensor:
        """`whole` with x in the group's lanes."""
        games, own = _split(whole, dim, self.agents), _split(x, dim, len(member.agents))
        index = getattr(self, f"agents_{member.name}")
        return games.index_copy(dim + 1, index, own).flatten(dim, dim + 1)

    def seen(self, member: Member, obs: Obs, dim: int = 0) -> Obs:
        """The group's own observations in those of all lanes."""
        assert isinstance(obs, dict), "an entry per group"
        rows = {
            name.removeprefix(member.name).removeprefix("."): self.take(member, x, dim)
            for name, x in obs.items()
            if name.partition(".")[0] == member.name
        }
        return rows if isinstance(self.of(member.name).spec.observation, Dict) else rows[""]

    def part(self, name: str, rollout: Rollout) -> Rollout:
        """A group's lanes of a rollout, as if its agents were the only ones of their games."""
        number, member = next((i, each) for i, each in enumerate(self.members) if each.name == name)

        def lanes(x: Tensor) -> Tensor:
            return self.take(member, x, 1)

        columns = lanes(rollout.action)[..., member.columns]  # [T, own lanes, numbers]
        return replace(
            rollout,
            obs=self.seen(member, rollout.obs, 1),
            first=lanes(rollout.first),
            last=lanes(rollout.last),
            action=columns.reshape(*columns.shape[:2], *member.shape).to(member.dtype),
            reward=lanes(rollout.reward),
            terminated=lanes(rollout.terminated),
            state=self._inner(number, member, rollout.state),
            extra={
                key.partition("/")[2]: lanes(x)
                for key, x in rollout.extra.items()
                if key.partition("/")[0] == name
            },
        )

    def initial_state(self, lanes: Lanes, device: torch.device | str = "cpu") -> State:
        """Memory before any observation; every leaf is [len(lanes), ...]."""
        games = len(lanes) // self.agents
        states: list[State] = []
        for member in self.members:
            count = len(member.agents)
            first, total = (n // self.agents * count for n in (lanes.first, lanes.total))
            inner = self.of(member.name).initial_state(Lanes(games * count, first, total), device)
            states.append(
                tree_map(
                    lambda x: self.put(member, x.new_zeros((len(lanes), *x.shape[1:])), x),  # noqa: B023
                    inner,
                )
            )
        return ((), *states)

    def _inner(self, number: int, member: Member, state: State) -> State:
        inner: State = tree_map(lambda x: self.take(member, x), cast(State, state[1 + number]))
        return inner

    def act(
        self, obs: Obs, first: Tensor, state: State, noise: Tensor | None
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """obs of N lanes, first [N], noise [N, K] or None -> actions [N, W], state, extra (each [N, ...])."""
        lanes = len(first)
        action = torch.zeros((lanes, self.width), device=first.device)
        states, extra = [], dict[str, Tensor]()
        for number, member in enumerate(self.members):
            policy = self.of(member.name)
            drawn = None if noise is None else self.take(member, noise)[:, : policy.noise_size]
            chosen, inner, told = policy.act(
                self.seen(member, obs), self.take(member, first), self._inner(number, member, state), drawn
            )
            columns = torch.zeros((len(chosen), self.width), device=first.device)
            columns[:, member.columns] = chosen.reshape(len(chosen), -1).float()
            action = self.put(member, action, columns)
            states.append(tree_map(self._putting(member), state[1 + number], inner))
            for name, x in told.items():
                whole = x.new_zeros((lanes, *x.shape[1:]))
                extra[f"{member.name}/{name}"] = self.put(member, whole, x)
        return action, ((), *states), extra

    def _putting(self, member: Member) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda whole, x: self.put(member, whole, x)

    def value(self, obs: Obs, first: Tensor, state: State) -> Tensor:
        """The return expected from rows obs [T, N, ...], first [T, N] on, of each lane's own policy: [T, N]."""
        found = torch.zeros(first.shape, device=first.device)
        for number, member in enumerate(self.members):
            value = self.of(member.name).value(
                self.seen(member, obs, 1), self.take(member, first, 1), self._inner(number, member, state)
            )
            found = self.put(member, found, value, 1)
        return found

    def to_env(self, action: Tensor) -> Tensor:
        """Actions [..., N, W] in the environment's units, [..., N, columns of a Dict of all groups' actions]."""
        dim = action.dim() - 2
        found = action.new_zeros((*action.shape[:-1], self.own_width))
        for member in self.members:
            chosen = self.take(member, action, dim)[..., member.columns]
            lanes = chosen.shape[:-1]
            own = self.of(member.name).to_env(chosen.reshape(*lanes, *member.shape).to(member.dtype))
            columns = action.new_zeros((*lanes, self.own_width))
            columns[..., member.own_columns] = own.reshape(*lanes, -1).to(columns)
            found = self.put(member, found, columns, dim)
        return found


def _split(x: Tensor, dim: int, lanes: int) -> Tensor:
    """The axis `dim` of x as two, [games, lanes of each]."""
    return x.reshape(*x.shape[:dim], -1, lanes, *x.shape[dim + 1 :])


@torch.no_grad()
def _emitted(policy: Policy) -> Tensor:
    """An action of a policy, for its shape and dtype: that of a row of zeros."""
    device = next((x.device for x in policy.parameters()), torch.device("cpu"))
    obs = tree_map(torch.zeros_like, empty_rows(policy.spec.observation, (1,), device))
    if isinstance(obs, dict) and MASK in obs:
        obs[MASK] = torch.ones_like(obs[MASK])
    first = torch.ones(1, dtype=torch.bool, device=device)
    return policy.act(obs, first, policy.initial_state(Lanes(1), device), None)[0][0]
