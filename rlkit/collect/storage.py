"""Memory for the rows of a rollout, allocated once and written again and again."""

from __future__ import annotations

import torch
from torch import Tensor

from rlkit.types import EnvSpec, EnvStep, Rollout, State, empty_rows, tree_map


class Storage:
    """Memory for T+1 rows of N lanes on `device`; T is `steps`, N is `lanes`."""

    def __init__(self, spec: EnvSpec, steps: int, lanes: int, device: torch.device) -> None:
        rows = (steps + 1, lanes)
        self.obs = empty_rows(spec.observation, rows, device)
        self.reward = torch.zeros(rows, device=device)  # of the transition INTO the row
        self.terminated, self.first, self.last = (
            torch.zeros(rows, dtype=torch.bool, device=device) for _ in range(3)
        )
        self.action: Tensor | None = None  # made when the policy has shown its action's shape and dtype
        self.command: Tensor | None = None  # the same in the environment's units, as it was told
        self.extra: dict[str, Tensor] = {}
        self.rows = [
            EnvStep(
                tree_map(lambda x: x[t], self.obs),  # noqa: B023
                self.reward[t],
                self.terminated[t],
                self.first[t],
                self.last[t],
            )
            for t in range(steps + 1)
        ]
        self.steps = steps
        self._actions: list[Tensor] = []
        self._commands: list[Tensor] = []
        self._extras: list[dict[str, Tensor]] = []

    def write(self, t: int, step: EnvStep) -> None:
        """Copy one row (pixels as bytes) to its place."""
        row = self.rows[t]
        if isinstance(step.obs, dict):
            for name, value in step.obs.items():
                row.obs[name].copy_(value)  # type: ignore[index]
        else:
            row.obs.copy_(step.obs)  # type: ignore[union-attr]
        row.reward.copy_(step.reward)
        row.terminated.copy_(step.terminated)
        row.first.copy_(step.first)
        row.last.copy_(step.last)

    def write_action(self, t: int, action: Tensor, command: Tensor, extra: dict[str, Tensor]) -> None:
        """Copy the action chosen in row t, [N, ...], the same for the environment, and what the policy reports."""
        if self.action is None:
            self.action, self.command = (x.new_empty((self.steps, *x.shape)) for x in (action, command))
            self.extra = {name: x.new_empty((self.steps, *x.shape)) for name, x in extra.items()}
            self._actions, self._commands = list(self.action), list(self.command)
            self._extras = [{name: x[i] for name, x in self.extra.items()} for i in range(self.steps)]
        self._actions[t].copy_(action)
        self._commands[t].copy_(command)
        for name, value in extra.items():
            self._extras[t][name].copy_(value)

    def rollout(self, state: State) -> Rollout:
        """The rows as a rollout that shares their memory; state: the policy's before row 0."""
        assert self.action is not None, "rollout before any action"
        return Rollout(
            obs=self.obs,
            first=self.first,
            last=self.last,
            action=self.action,
            reward=self.reward[1:],
            terminated=self.terminated[1:],
            state=state,
            extra=self.extra,
        )
