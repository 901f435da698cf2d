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
from typing import Any

import numpy as np
import torch

from rlkit import checkpoint
from rlkit.collect.league import league_of, with_league
from rlkit.config import registry, trust
from rlkit.config.league import LeagueConfig
from rlkit.config.legacy import modern
from rlkit.config.schema import RunConfig
from rlkit.contracts import Policy, Saved
from rlkit.device import Budget, TooLarge
from rlkit.files import Place, named, run_named
from rlkit.machine import gib
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError, build
from rlkit.spaces import (
    MASK,
    Box,
    Dict,
    MultiBinary,
    MultiDiscrete,
    describe,
    leaf_values,
    leaves,
    native_action,
    row_dtype,
    start_of,
    text_row,
    to_rows,
    without,
)
from rlkit.tensorfile import MALFORMED
from rlkit.text import clean
from rlkit.types import EnvSpec, Lanes, Obs, State, tree_map

SPARE = 2**26  # bytes that a policy may take beside its weights: masks, tables of positions


class AgentPolicy:
    """A policy for one simulation: single observations in, single actions out, memory as a value."""

    def __init__(self, policy: Policy, path: Path) -> None:
        self.policy, self.path = policy, path
        network = getattr(policy, "network", None)
        self.privileged: tuple[str, ...] = getattr(
            network, "privileged", ()
        )  # entries that no action depends on
        # what it reads, through its eyes where it has some
        self.spec = (
            policy.spec if policy.eyes is None else replace(policy.eyes.spec, action=policy.spec.action)
        )

    @torch.no_grad()
    def __call__(self, obs: Any, state: State | None = None, *, greedy: bool = True) -> tuple[Any, State]:
        """One decision.

        obs: as the (wrapped) environment gives it, with the entry action_mask where one was there in training; state:
        what the last call returned, None to open an episode. greedy=False samples (with torch's global generator).
        Returns the action in the environment's units and structure, and state.
        """
        first, eyes = torch.tensor([state is None]), self.policy.eyes
        if state is None:
            state = self.policy.initial_state(Lanes(1))
            state = state if eyes is None else (state, eyes.memory(1, torch.device("cpu")))
        noise = None if greedy else torch.rand(1, self.policy.noise_size).clamp(1e-7, 1 - 1e-7)
        if eyes is None:
            action, state, _ = self.policy.act(self._row(obs), first, state, noise)
        else:  # the memory of both, side by side
            inner, frames = state
            assert isinstance(inner, tuple) and isinstance(frames, torch.Tensor), "a state of this policy"
            seen, frames = eyes(self._row(obs), first, frames)
            action, inner, _ = self.policy.act(seen, first, inner, noise)
            state = inner, frames
        return native_action(self.spec.action, self.policy.to_env(action)[0].numpy()), state

    def _row(self, obs: Any) -> Obs:
        """One observation as a row of one lane: [1, ...]."""
        rows = {}
        # nobody knows labels and what only the value function reads where the policy is used
        unknown = (*self.spec.labels, *self.privileged)
        space = without(self.spec.observation, unknown)
        try:
            values = leaf_values(space, obs)
        except (KeyError, IndexError, AttributeError) as error:
            raise ValueError(
                f"the observation has no {error}; this policy reads a {describe(space)}"
            ) from error
        for (name, leaf), value in zip(leaves(space), values, strict=True):
            if name == MASK and isinstance(value, (tuple, list)):  # one part per component
                value = np.concatenate([np.ravel(part) for part in value])
            if isinstance(leaf, Box) and leaf.meaning == "text" and isinstance(value, str):
                value = text_row(value, leaf.shape[0])
            array = np.asarray(value)
            if isinstance(leaf, (MultiDiscrete, MultiBinary)):
                array = array.ravel()
            if array.shape != leaf.shape:
                what = f"entry {name}" if name else "observation"
                raise ValueError(
                    f"{what} has shape {array.shape}; this policy reads shape {leaf.shape}: make the environment "
                    f"as in training, rlkit.envs.make_env(rlkit.run.folder.run_config(RUN).env)"
                )
            row = to_rows(array, leaf.shape, start_of(leaf))
            rows[name] = torch.from_numpy(np.array(row, row_dtype(leaf)))[None]
        for name, leaf in leaves(self.spec.observation):
            if name in self.privileged:  # the value that is computed beside the action is not told
                rows[name] = torch.zeros(1, *leaf.shape, dtype=getattr(torch, row_dtype(leaf)))
        return rows if isinstance(space, Dict) else rows[""]


def policy_parts(policy: Policy, config: RunConfig) -> Saved:
    """A policy as a tree of tensors and plain values from which `build_policy` makes it again; copied."""
    return {
        "agent": config.agent_name,
        "agent_config": asdict(config.agent),
        "network": asdict(config.network),
        "spec": policy.spec.to_json(),
        "weights": {name: value.detach().clone() for name, value in policy.state_dict().items()},
        **({"eyes": policy.eyes.parts} if policy.eyes is not None else {}),
        **({"league": asdict(config.league)} if league_of(policy) else {}),
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
    trust.require(*trust.requests({"agent": {"name": parts["agent"]}, "network": parts["network"]}))
    algorithm = registry.algorithm(parts["agent"])
    config = build(algorithm.Config, modern("agent", parts["agent_config"]), "agent")
    network = build(NetworkConfig, modern("network", parts["network"]), "network")
    size = sum(x.numel() * x.element_size() for x in parts["weights"].values())
    try:
        with Budget(2 * size + SPARE):  # whoever wrote the widths may have meant to fill the memory
            policy = algorithm.Policy(EnvSpec.from_json(parts["spec"]), network, config)
            if "league" in parts:
                policy = with_league(policy, build(LeagueConfig, parts["league"], "league"))
    except TooLarge as error:
        raise ConfigError(
            f"policy.json describes a network that is larger than its weights ({gib(size)}): it is not the saved one"
        ) from error
    policy.load_state_dict(tree_map(torch.Tensor.contiguous, parts["weights"]))
    if parts.get("eyes"):
        policy.eyes = registry.open_eyes(parts["eyes"])
    return policy.eval()


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
    folder: str | Path | Place, which: str = "", *, say: Callable[[str], None] = warnings.warn
) -> Any:
    """What a run has learned: the policy of an agent (`load`), or the model of a task (rlkit.perception.saved).

    which, say, and what is raised: as of `load`.
    """
    path, parts = checkpoint.first_whole(find(folder, which), "policy", say=say)
    if "agent" in parts["policy"]:
        return AgentPolicy(build_policy(parts["policy"]), path)
    return registry.task_models().open_model(parts["policy"], path)


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
