"""rlkit train: a new agent from a configuration."""

from __future__ import annotations

from rlkit.cli.common import run_to_end

USAGE = """usage: rlkit train [OPTION=VALUE ...]

Train an agent, or with task=NAME data=DATA a model of a supervised task. Options are KEY=VALUE; `rlkit list options`
shows all of them.

  agent=ppo              the algorithm             (rlkit list agents), or a module of your own (agent=my_pkg.mod)
  env=carracing          a named configuration     (rlkit list environments), a Gymnasium id (env=LunarLander-v3),
                         module:Id, or a class of your own (env=my_pkg.mod:MyEnv)
  network=cnn            the network               (rlkit list networks)
  source=thread          collect while learning    (sync, thread, ray)
  task=segment           what a model learns from a table (rlkit list tasks), or a module of your own
  data=data/cr           the table                 (rlkit collect makes one; rlkit list data shows some with a name)
  network.encoder_from=RUN, init_from=RUN, eyes=RUN    what an agent takes over from another run (docs/perception.md)
  total_steps=1e6  seed=3  device=auto  name=first-try  preset=none  stop.reward=475  agent.clip=0.1  optim.lr=1e-4

Ctrl-C saves the run; `rlkit resume RUN` continues it exactly.
"""


def main(argv: list[str]) -> int:
    """Compose, say what was chosen, train, and name the next useful command."""
    if "-h" in argv or "--help" in argv:
        print(USAGE)
        return 0
    from rlkit.config.compose import compose
    from rlkit.config.registry import configuration_of

    composed = compose(argv)
    config = composed.config
    if composed.id:
        name = configuration_of(composed.id)
        print(
            f"env: {composed.id} is described by env={name} (env=gymnasium env.id={composed.id} takes it raw)"
        )
    if composed.preset:
        print(f"preset: {composed.preset} (tuned options for this pair; preset=none turns it off)")
    from rlkit.run.start import start

    return run_to_end(lambda: start(config))
