"""Rounds of DAgger: a model is taught on the states to which acting on it leads.

    D <- rows that somebody else has driven
    for round 1 ... R:    learn f from D
                          D <- D + {(s, label(s)) : s visited by acting on f}

(Ross, Gordon and Bagnell, "A reduction of imitation learning and structured prediction to no-regret online learning",
AISTATS 2011, with beta = 0 after the first rows.) A policy that imitates acts itself, and the label is always what the
expert would do. An estimator of the state is acted on by an agent that was trained on the true one (rounds.run), and
the label is the true state. What a round collects is a table in the run's own folder, rounds/1, ...; it follows from
the weights and the seed, so a run that was cut collects the same rows again, or goes on with those that are there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlkit.config import registry, trust
from rlkit.config.rounds import RoundsConfig
from rlkit.config.schema import TaskRun
from rlkit.contracts import Report, Saved
from rlkit.device import Say
from rlkit.files import Place
from rlkit.learn.trainer import Clock, Hook
from rlkit.options import ConfigError, build
from rlkit.perception.collect import CollectConfig, Scene, columns_of, gather, open_scene
from rlkit.perception.drivers import Run
from rlkit.perception.eyes import open_eyes
from rlkit.perception.table import LABEL, Table, TableError, open_table
from rlkit.play.saved import build_policy
from rlkit.run.handover import open_source
from rlkit.space_json import to_json
from rlkit.spaces import describe


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
            f"{typed}: new states need answers, and data={config.data} has what was done ({label}); collect with "
            "labels=[expert], where the environment has one"
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


def agent_of(config: TaskRun, table: Table, label: str, scene: Scene, say: Say) -> Saved:
    """Part `policy` of the run whose agent acts on what a model says. Raises ConfigError where it cannot."""
    name = config.rounds.run
    if not name:
        raise ConfigError(
            f"rounds={config.rounds.number}: a model of task={config.task_name} does not act; type rounds.run=RUN, an "
            "agent's that sees what the model says, or use task=imitate agent=NAME"
        )
    source = open_source(f"rounds.run={name}", name, say)
    space = table.columns[label].space
    assert space is not None, "a label that was chosen has a space"
    spec = source.spec
    if "agent" not in source.parts or to_json(spec.observation) != to_json(space):
        raise ConfigError(
            f"{source.option}: sees {describe(spec.observation)}, and the model says {describe(space)}; type the run "
            "of an agent that was trained on that"
        )
    if to_json(spec.action) != to_json(scene.spec.action):
        raise ConfigError(
            f"{source.option}: acts in {describe(spec.action)}, {scene.env.id} in {describe(scene.spec.action)}"
        )
    return source.parts


class RoundsHook(Hook):
    """Lets somebody act when a share of the run is over, and hands what was done to `learn`.

    describe(): part `policy` of a checkpoint of the model; agent: that of a run which acts on what the model says,
    None: the model is a policy; learn(table): called with the rows of each round, again in a run that is continued.
    """

    def __init__(
        self,
        config: RoundsConfig,
        scene: Scene,
        describe: Callable[[], Saved],
        agent: Saved | None,
        seed: int,
        place: Place,
        learn: Callable[[Table], None],
        say: Say,
    ) -> None:
        self.config, self.scene, self.describe, self.agent = config, scene, describe, agent
        self.seed, self.place, self.learn, self.say = seed, place, learn, say
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
        who = f"{self.config.run} acts on what the model says" if self.agent else "the learner acts"
        self.say(f"round {number} of {self.config.number}: {who}, for {self.config.frames:,} rows")
        policy = build_policy(self.agent or self.describe())
        if self.agent:
            policy.eyes = open_eyes({"source": self.describe(), "gives": "prediction"})
        driver = Run(policy, self.scene.reads, self.config.sample)
        made = self.scene.made({"name": f"the learner in round {number}"}, self._seed(number))
        out = (self.place / "rounds").mkdir() / str(number)
        self.learn(gather(self.scene, driver, made, self.config.frames, out, lambda text: None))

    def _seed(self, number: int) -> int:
        """Of the episodes of a round."""
        return (self.seed + 1_000_003 * number) % 2**32

    def state_dict(self) -> Saved:
        return {"done": self.done, "agent": self.agent}

    def load_state_dict(self, state: Saved) -> None:
        self.done, self.agent = state["done"], state["agent"]
        for number in range(1, self.done + 1):
            path = self.place / "rounds" / str(number)
            try:
                table = open_table(path)
            except TableError as error:
                raise ConfigError(f"the run has learned from rows that are gone: {error}") from error
            self.learn(table)
