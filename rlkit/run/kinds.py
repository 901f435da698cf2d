"""The two kinds of runs: an agent in an environment, a supervised task on a table."""

from __future__ import annotations

from rlkit.config import registry
from rlkit.config.compose import learns
from rlkit.config.schema import Common, RunConfig, TaskRun
from rlkit.contracts import Kind
from rlkit.learn.make import part_names as feed_parts
from rlkit.run.build import build
from rlkit.run.check import check


class Agents:
    """Runs of agents."""

    check = staticmethod(check)
    build = staticmethod(build)

    @staticmethod
    def part_names(config: RunConfig) -> tuple[str, ...]:
        """The parts of a checkpoint beside `policy` and `state`."""
        groups = [name for name in config.env.groups if learns(config, name)]
        return feed_parts(registry.algorithm(config.agent_name).feed(config.agent), groups)


def kind_of(config: Common) -> Kind:
    """What checks and builds runs of this configuration."""
    return registry.task_package() if isinstance(config, TaskRun) else Agents()
