"""A run: trained, saved and continued, whatever it is that learns.

runs/<name>/  config.yaml  metrics.csv  events.out.tfevents.*  checkpoints/step-.../  best/  videos/  eval/
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict

from rlkit import checkpoint
from rlkit.config.compose import remembered
from rlkit.config.schema import Common
from rlkit.contracts import Saved
from rlkit.files import Place
from rlkit.learn.signals import Interrupted, interruptible
from rlkit.learn.trainer import fit
from rlkit.options import ConfigError
from rlkit.run.build import Built
from rlkit.run.console import Console
from rlkit.run.health import require_finite
from rlkit.run.hooks import CheckpointHook
from rlkit.text import quoted
from rlkit.types import tree_map


class Session:
    """A run that was built, in its folder. `train` runs it to its end; a signal saves it and raises Interrupted.

    written: what the folder's config.yaml says, by which a later session tells what was changed in it since.
    """

    def __init__(
        self, built: Built, config: Common, folder: Place, console: Console, written: Common
    ) -> None:
        self.written = remembered(written)
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
                stop.folder = self.folder.shown
                raise
            except Exception as error:
                saved = []
                with suppress(OSError):
                    saved = checkpoint.steps(self.folder / "checkpoints")
                if saved:
                    error.add_note(
                        f"the run is saved: rlkit resume {quoted(self.folder)} continues from step {saved[0][0]:,}"
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
        require_finite(self.model, self.clock.step, self.config.optim)
        state: Saved = {name: each.state_dict() for name, each in self.built.state.items()}
        state |= {"feed": self.feed.state_dict(), "stop": asdict(self.config.stop), "config": self.written}
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
