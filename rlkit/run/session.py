"""A run: trained, saved and continued, whatever it is that learns.

runs/<name>/  config.yaml  metrics.csv  events.out.tfevents.*  checkpoints/step-.../  best/  videos/  eval/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from rlkit import checkpoint
from rlkit.config.schema import RunConfig
from rlkit.contracts import Saved
from rlkit.learn.signals import Interrupted, interruptible
from rlkit.learn.trainer import fit
from rlkit.options import ConfigError
from rlkit.run.build import Built
from rlkit.run.console import Console
from rlkit.run.hooks import CheckpointHook
from rlkit.types import tree_map


class Diverged(RuntimeError):
    """The weights are no longer numbers."""

    complete = True  # the message says everything: the command line offers no traceback


class Session:
    """A run that was built, in its folder. `train` runs it to its end; a signal saves it and raises Interrupted."""

    def __init__(self, built: Built, config: RunConfig, folder: Path, console: Console) -> None:
        self.built, self.config, self.folder, self.console = built, config, folder, console
        self.model, self.learner, self.feed, self.clock = built.model, built.learner, built.feed, built.clock
        self.saving = CheckpointHook(config.checkpoint.every or max(config.total_steps // 10, 1), self)
        self.hooks = [*built.hooks, self.saving]

    def train(self) -> None:
        """Train until the clock is finished; whatever ends it, the last completed update is saved.

        An error leaves with a note that says how to continue.
        """
        with interruptible():
            try:
                self.saving.begin()
                self.console.update(self.clock.step, {})
                fit(self.learner, self.feed, self.hooks, self.clock)
            except Interrupted as stop:
                stop.folder = self.folder
                raise
            except Exception as error:
                saved = checkpoint.steps(self.folder / "checkpoints")
                if saved:
                    error.add_note(
                        f"the run is saved: rlkit resume {self.folder} continues from step {saved[0][0]:,}"
                    )
                    if hasattr(error, "episode"):  # an environment's fault, which may come again
                        error.add_note(
                            f"if it fails there again, env: {{max_failures: 10}} in {self.folder / 'config.yaml'} "
                            "cuts and replaces such episodes"
                        )
                raise
            finally:
                self.close()

    def close(self) -> None:
        """End the processes of the run and free its environments; idempotent."""
        self.built.close()

    @property
    def urgent(self) -> bool:
        """Whether the next update destroys what the latest `state_dict` only refers to."""
        return self.feed.urgent

    def state_dict(self) -> dict[str, Saved]:
        """Everything that the run is, copied: parts `policy` and `state` of a checkpoint.

        Raises Diverged where that is not worth keeping.
        """
        if not torch.stack([torch.isfinite(p).all() for p in self.model.parameters()]).all():
            raise Diverged(
                f"at step {self.clock.step:,} the policy's weights are no longer finite numbers. "
                f"To resume would repeat it; type a smaller optim.lr (it was {self.config.optim.lr:g}) or "
                f"optim.clip_norm (it was {self.config.optim.clip_norm:g}), or change them in the run's config.yaml "
                "and resume"
            )
        state = {name: each.state_dict() for name, each in self.built.state.items()}
        state |= {"feed": self.feed.state_dict(), "stop": asdict(self.config.stop)}
        return {"policy": self.built.describe(), "state": state}

    def load_state_dict(self, parts: Mapping[str, Saved]) -> None:
        """Continue from the parts of a checkpoint."""
        device = next(self.model.parameters()).device
        try:
            self.model.load_state_dict(tree_map(lambda x: x.to(device), parts["policy"]["weights"]))
        except RuntimeError as error:
            raise ConfigError(
                f"{self.folder / 'config.yaml'} describes another network or environment than the run's checkpoints "
                "hold; take back what was changed in it"
            ) from error
        state = parts["state"]
        for name, each in self.built.state.items():
            if name in state:  # a hook that was turned on since then begins anew
                each.load_state_dict(state[name])
        warning = self.feed.load(state["feed"], parts)
        if warning:
            self.console.say(f"warning: {warning}")
        for hook in self.hooks:
            hook.resume(self.clock)

    def save(self, parts: Mapping[str, Saved]) -> None:
        """Write a checkpoint of `state_dict`'s value."""
        state = parts["state"]
        parts = {**parts, **self.feed.parts(state["feed"])}
        checkpoint.save_step(
            self.folder / "checkpoints", parts, state["clock"]["step"], self.config.checkpoint.keep
        )
