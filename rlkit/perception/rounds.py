"""Rounds of DAgger: a learner that imitates is taught on the states to which it leads itself.

    D <- rows of the expert
    for round 1 ... R:    learn pi from D
                          D <- D + {(s, a*(s)) : s visited by pi}

(Ross, Gordon and Bagnell, "A reduction of imitation learning and structured prediction to no-regret online learning",
AISTATS 2011, with beta = 0 after the first rows.) What a round collects is a table in the run's own folder,
rounds/1, ..., and its label is always the expert's. It follows from the weights and the seed, so a run that was cut
collects the same rows again, or goes on with those that are there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from rlkit.config import registry, trust
from rlkit.config.rounds import RoundsConfig
from rlkit.config.schema import TaskRun
from rlkit.contracts import Policy, Report, Saved
from rlkit.device import Say
from rlkit.files import Place
from rlkit.learn.trainer import Clock, Hook
from rlkit.options import ConfigError, build
from rlkit.perception.collect import CollectConfig, Scene, columns_of, gather, open_scene
from rlkit.perception.drivers import Run
from rlkit.perception.table import LABEL, Table, TableError, open_table


def scene_of(table: Table, label: str, config: TaskRun) -> Scene:
    """The environment from which a table of an expert's rows is, to be played again. Raises ConfigError."""
    typed = f"rounds={config.rounds.number}"
    made = table.made.get("env")
    if not isinstance(made, dict):
        raise ConfigError(
            f"{typed}: data={config.data} does not say from which environment it is; a table of rlkit collect does"
        )
    if not label.startswith(LABEL):
        raise ConfigError(
            f"{typed}: the learner's states need an expert's answers, and data={config.data} has what was done "
            f"({label}); collect with labels=[expert], where the environment has one"
        )
    trust.require(*trust.requests({"env": made}))
    plain = {**made, "labels": [label.removeprefix(LABEL)]}
    env: Any = build(CollectConfig, {"env": plain}, types={"env": registry.env_config()}).env
    scene = open_scene(env)
    shown = {name: column.to_json() for name, column in columns_of(scene.spec).items()}
    different = [name for name in (*table.inputs, label) if shown.get(name) != table.columns[name].to_json()]
    if different:
        raise ConfigError(
            f"{typed}: {env.id} does not show {' and '.join(different)} as the rows of data={config.data} do"
        )
    return scene


class RoundsHook(Hook):
    """Lets the learner act when a share of the run is over, and hands what it did to `learn`.

    learn(table): called with the rows of each round, again in a run that is continued.
    """

    def __init__(
        self,
        config: RoundsConfig,
        scene: Scene,
        policy: nn.Module,
        seed: int,
        place: Place,
        learn: Callable[[Table], None],
        say: Say,
    ) -> None:
        self.config, self.scene, self.policy, self.seed = config, scene, policy, seed
        self.place, self.learn, self.say = place, learn, say
        self.done = 0

    def after_update(self, clock: Clock, report: Report) -> None:
        # round r of R comes when the share r / (R + 1) of the run is over
        while (
            self.done < self.config.number
            and clock.step * (self.config.number + 1) >= (self.done + 1) * clock.total_steps
        ):
            with clock.pausing():
                self._play(self.done + 1)
            self.done += 1
        report["round"] = self.done

    def _play(self, number: int) -> None:
        """Collect the rows of a round, and learn from them."""
        self.say(
            f"round {number} of {self.config.number}: the learner acts for {self.config.frames:,} rows, and the "
            "expert says what it would do"
        )
        policy: Policy = copy.deepcopy(self.policy).cpu().eval()  # type: ignore[assignment]
        driver = Run(policy, self.scene.reads, self.config.sample)
        made = self.scene.made({"name": f"the learner in round {number}"}, self._seed(number))
        out = (self.place / "rounds").mkdir() / str(number)
        self.learn(gather(self.scene, driver, made, self.config.frames, out, lambda text: None))

    def _seed(self, number: int) -> int:
        """Of the episodes of a round."""
        return (self.seed + 1_000_003 * number) % 2**32

    def state_dict(self) -> Saved:
        return {"done": self.done}

    def load_state_dict(self, state: Saved) -> None:
        self.done = state["done"]
        for number in range(1, self.done + 1):
            path = self.place / "rounds" / str(number)
            try:
                table = open_table(path)
            except TableError as error:
                raise ConfigError(f"the run has learned from rows that are gone: {error}") from error
            self.learn(table)
