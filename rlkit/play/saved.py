"""A trained policy outside training: load it, call it.

    policy = rlkit.load("runs/ppo-cartpole-0")
    action, state = policy(obs, state)        # state None opens an episode

What is read is safetensors and JSON. The agent is one of the installed ones; where it, its encoder or its core is code
of one's own, that code is imported only if its name was typed on this machine before (rlkit.config.trust).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from rlkit import checkpoint
from rlkit.collect.group_policy import GroupPolicy
from rlkit.collect.league import league_of, with_league, without_league
from rlkit.config import registry, trust
from rlkit.config.compose import of_group
from rlkit.config.edits import read_plain
from rlkit.config.league import LeagueConfig
from rlkit.config.legacy import modern
from rlkit.config.schema import RunConfig
from rlkit.contracts import Policy, Saved
from rlkit.device import Budget, TooLarge
from rlkit.embedded import Embedded, Part
from rlkit.files import Place, named, run_named
from rlkit.machine import gib
from rlkit.nn.config import NetworkConfig
from rlkit.nn.norm import StandardUnits
from rlkit.options import ConfigError, build, show
from rlkit.reading import Frames, Reader, frames_of
from rlkit.spaces import Array, Dict, leaves, row_dtype
from rlkit.tensorfile import MALFORMED
from rlkit.text import clean
from rlkit.types import EnvSpec, Lanes, Obs, State, tree_leaves, tree_map

PREPROCESSING = {
    "skip": 1,
    "gray": False,
    "size": 0,
    "keep": [],
    "stack": 1,
    "action_mask": "none",
}  # of env.*
AS_IN_TRAINING = (
    "make the environment as in training, rlkit.envs.make_env(rlkit.run.folder.run_config(RUN).env)"
)
SPARE = 2**26  # bytes that a policy may take beside its weights: masks, tables of positions


class AgentPolicy(Embedded[State]):
    """A policy computed by torch: observations in, actions out, memory as a value."""

    def __init__(self, policy: Policy, path: Path) -> None:
        self.policy, self.path = policy, path
        # what it reads, through its eyes where it has some
        self.spec = (
            policy.spec if policy.eyes is None else replace(policy.eyes.spec, action=policy.spec.action)
        )
        # entries that nobody knows where the policy is used: labels, and what only the value function reads
        privileged: tuple[str, ...] = getattr(getattr(policy, "network", None), "privileged", ())
        self.unknown = (*self.spec.labels, *privileged)
        self._privileged = {
            name: (leaf.shape, getattr(torch, row_dtype(leaf)))
            for name, leaf in leaves(self.spec.observation)
            if name in privileged
        }
        gaps = any(isinstance(each, StandardUnits) for each in policy.modules())
        self.reader = Reader(
            self.spec.observation, self.spec.action, self.unknown, gaps=gaps, remedy=AS_IN_TRAINING
        )

    def opening(self, lanes: int) -> State:
        state = self.policy.initial_state(Lanes(lanes))
        eyes = self.policy.eyes
        return state if eyes is None else (state, eyes.memory(lanes, torch.device("cpu")))

    def act(self, obs: Obs, first: Tensor, state: State, noise: Tensor | None) -> tuple[Tensor, State]:
        """One row: obs [N, ...], first [N], noise [N, K] or None -> actions in the environment's units, memory.

        The memory of eyes stands beside the policy's own.
        """
        if isinstance(
            obs, dict
        ):  # no action depends on these; the value that is computed beside it is not told
            obs = obs | {
                name: torch.zeros((first.shape[0], *shape), dtype=dtype, device=first.device)
                for name, (shape, dtype) in self._privileged.items()
            }
        eyes = self.policy.eyes
        if eyes is None:
            action, state, _ = self.policy.act(obs, first, state, noise)
            return self.policy.to_env(action), state
        inner, frames = cast(tuple[State, Tensor], state)
        seen, frames = eyes(obs, first, frames)
        action, inner, _ = self.policy.act(seen, first, inner, noise)
        return self.policy.to_env(action), (inner, frames)

    @torch.no_grad()
    def step(self, rows: dict[str, Array], first: Array, state: State, greedy: bool) -> tuple[Array, State]:
        """Sampling takes torch's global generator."""
        tensors = {name: torch.from_numpy(row) for name, row in rows.items()}
        obs = tensors if isinstance(self.reader.space, Dict) else tensors[""]
        noise = None if greedy else torch.rand(len(first), self.policy.noise_size).clamp(1e-7, 1 - 1e-7)
        action, state = self.act(obs, torch.tensor(first), state, noise)
        return action.numpy(), state

    def shapes(self, state: Any) -> list[Part]:
        return [(x.shape, x.dtype) for x in tree_leaves(state)]

    def to_arrays(self, state: State) -> list[Array]:
        return [x.numpy() for x in tree_leaves(state)]

    def from_arrays(self, arrays: list[Array]) -> State:
        """Raises ValueError where these are not as many as this policy remembers."""
        opening = self.opening(1)
        if len(arrays) != sum(1 for _ in tree_leaves(opening)):
            raise ValueError(f"{len(arrays)} parts of a memory")
        left = iter(arrays)
        return tree_map(lambda _: torch.from_numpy(next(left)), opening)

    def prepare(self, frame: Any) -> Array:
        """As `config.yaml` beside the checkpoint says. Raises ConfigError where there is none."""
        if self._frames is None:
            self._frames = frames_of(self.spec.observation, preprocessing(self.path))
        return self._frames(frame)

    _frames: Frames | None = None


def preprocessing(path: Path) -> dict[str, Any]:
    """What the environment of the run with this checkpoint did to observations. Raises ConfigError."""
    folder = next((each for each in path.absolute().parents[:2] if (each / "config.yaml").is_file()), None)
    if folder is None:
        raise ConfigError(
            f"{path} lies in no run folder, whose config.yaml says what its environment did to frames; load the run"
        )
    found = read_plain(folder / "config.yaml").get("env", {})
    return {name: found.get(name, default) for name, default in PREPROCESSING.items()}


def policy_parts(policy: Policy, config: RunConfig) -> Saved:
    """A policy as a tree of tensors and plain values from which `build_policy` makes it again; copied."""
    league = league_of(policy)
    return {
        "agent": config.agent_name,
        "agent_config": asdict(config.agent),
        "network": asdict(config.network),
        "spec": policy.spec.to_json(),
        "weights": {name: value.detach().clone() for name, value in policy.state_dict().items()},
        **({"eyes": policy.eyes.parts} if policy.eyes is not None else {}),
        **({"league": asdict(config.league), "guests": dict(league.invited)} if league else {}),
        **({"groups": _group_parts(policy, config)} if isinstance(policy, GroupPolicy) else {}),
    }


def guest_parts(parts: Saved) -> Saved:
    """What makes a policy again that plays in another one's league: without a league of its own."""
    left = {name: value for name, value in parts.items() if name not in ("league", "guests")}
    return left | {"weights": without_league(parts["weights"])}


def _group_parts(policy: GroupPolicy, config: RunConfig) -> Saved:
    """The options of each group's policy."""
    own = {member.name: of_group(config, policy.spec, member.name) for member in policy.members}
    return {
        name: {"agent_config": asdict(each.agent), "network": asdict(each.network)}
        for name, each in own.items()
    }


def build_policy(parts: Saved) -> Policy:
    """The policy that `policy_parts` took apart.

    Raises ConfigError where that would import code that nobody named on this machine, where its network is larger than
    its weights, and where the parts are not those of a policy.
    """
    try:
        return _build_policy(parts)
    except ConfigError:
        raise
    except (*MALFORMED, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"no policy can be made of policy.json: {type(error).__name__}: {reason}"
        ) from error


def _build_policy(parts: Saved) -> Policy:
    spec = EnvSpec.from_json(parts["spec"])
    guests = {name: guest_parts(each) for name, each in parts.get("guests", {}).items()}
    size = sum(_bytes_of(each["weights"]) for each in (parts, *guests.values()))
    try:
        with Budget(2 * size + SPARE):  # whoever wrote the widths may have meant to fill the memory
            if spec.groups:
                described = {name: {**parts, **parts["groups"][name]} for name, _ in spec.groups}
                policy: Policy = GroupPolicy(
                    spec, {name: _untrained(each, spec.group(name)) for name, each in described.items()}
                )
            else:
                policy = _untrained(parts, spec)
            if "league" in parts:
                policy = with_league(policy, build(LeagueConfig, parts["league"], "league"))
            league = league_of(policy)
            if league is not None:
                league.invite(guests)
    except TooLarge as error:
        raise ConfigError(
            f"policy.json describes a network that is larger than its weights ({gib(size)}): it is not the saved one"
        ) from error
    policy.load_state_dict(tree_map(torch.Tensor.contiguous, parts["weights"]))
    if parts.get("eyes"):
        policy.eyes = registry.open_eyes(parts["eyes"])
    return policy.eval()


def _untrained(parts: Saved, spec: EnvSpec) -> Policy:
    """The policy that parts describe, with new weights."""
    trust.require(*trust.requests({"agent": {"name": parts["agent"]}, "network": parts["network"]}))
    algorithm = registry.algorithm(parts["agent"])
    config = build(algorithm.Config, modern("agent", parts["agent_config"]), "agent")
    network = build(NetworkConfig, modern("network", parts["network"]), "network")
    return algorithm.Policy(spec, network, config)


def _bytes_of(weights: dict[str, Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in weights.values())


def find(folder: str | Path | Place, which: str = "") -> list[Place]:
    """The checkpoint folders meant by a run folder or a checkpoint folder: one, and those that may stand in for it.

    which: "best", "last" or a step number; "" is best where there is one, else last. A bare name that is no folder here
    is looked for in runs/. Raises ConfigError.
    """
    try:
        folder = folder if isinstance(folder, Place) else named(run_named(folder))
    except OSError as error:
        what = "does not exist" if isinstance(error, FileNotFoundError) else "is not a folder"
        raise ConfigError(f"{folder} {what}; rlkit list runs shows what there is") from error
    if (folder / "manifest.json").exists() and not which:
        return [folder]
    steps = checkpoint.saved_steps(folder / "checkpoints")
    best, saved = checkpoint.standing(folder / checkpoint.BEST), [path for _, path in steps]
    found = {"": best + saved, "best": best, "last": saved} | {str(step): [path] for step, path in steps}
    if found.get(which):
        return found[which]
    have = [name for name, paths in found.items() if name and paths]
    if not have:
        raise ConfigError(
            f"{folder} holds no checkpoint (a run makes its first one after checkpoint.every steps)"
        )
    raise ConfigError(f"checkpoint {which} is not in {folder}; allowed: {', '.join(have)}")


def load_any(
    folder: str | Path | Place,
    which: str = "",
    group: str = "",
    *,
    say: Callable[[str], None] = warnings.warn,
) -> Any:
    """What a run has learned: the policy of an agent (`load`), or the model of a task (rlkit.perception.saved).

    group: whose policy, where a game's groups of agents have one each. which, say, and what is raised: as of `load`.
    """
    path, parts = checkpoint.first_whole(find(folder, which), "policy", say=say)
    if "agent" not in parts["policy"]:
        if group:
            raise ConfigError(
                f"group={group}: {folder} holds the model of a task, which has no groups; leave it out"
            )
        return registry.task_models().open_model(parts["policy"], path)
    policy = build_policy(parts["policy"])
    return AgentPolicy(one_group(policy, group, str(folder)), path)


def one_group(policy: Policy, group: str, what: str, typed: str = "group=") -> Policy:
    """The policy of a group by its name, or the only one there is.

    what: whose groups; typed: how a group is named there. Raises ConfigError where there is none of that name, or one
    must be named.
    """
    names = [name for name, _ in policy.spec.groups]
    if not isinstance(policy, GroupPolicy):
        if group:
            raise ConfigError(f"{typed}{show(group)}: {what} has one policy for all; leave it out")
        return policy
    if group not in names:
        given = f"{typed}{show(group)}: no such group" if group else "its groups of agents have a policy each"
        raise ConfigError(f"{what}: {given}; type {' or '.join(typed + name for name in names)}")
    return policy.of(group)


def load(
    folder: str | Path | Place, which: str = "", *, say: Callable[[str], None] = warnings.warn
) -> AgentPolicy:
    """The policy of a run folder (its best one, by default) or of a checkpoint folder.

    which: "best", "last" or a step number. Where "" or "last" finds a damaged one, `say` hears of it and the one
    before is used. Raises ConfigError where there is none, or where it needs code that was never named on this machine
    (`rlkit.config.trust.remember("my_pkg.mod")` allows it), and CheckpointError where all are damaged.
    """
    path, parts = checkpoint.first_whole(find(folder, which), "policy", say=say)
    if "agent" not in parts["policy"]:
        task = clean(parts["policy"].get("task"), 60)
        raise ConfigError(f"{folder} holds the model of task={task}, and no policy; rlkit.load reads it")
    return AgentPolicy(build_policy(parts["policy"]), path)
