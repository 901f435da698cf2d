"""rlkit collect: rows of an environment, with what it says of them, as a table."""

from __future__ import annotations

import sys
from dataclasses import asdict

from rlkit.text import clean, quoted

USAGE = """usage: rlkit collect env=NAME out=FOLDER [OPTION=VALUE ...]

Play episodes and write what is seen, done and known into a table, for rlkit train task=NAME data=FOLDER. The same
command continues a table that was cut; a larger frames= makes it longer.

  env=carracing env.gray=false     the environment and its options, as in rlkit train
  labels=[mask,pose]               what the environment says of each row (docs/labels.md)
  driver=random                    who acts: random, expert (or its own name, such as pursuit), a run's folder, or
                                   A+B: one of them per episode
  driver.noise=0.3                 how much the actions are disturbed, as a share of half their range
  driver.sample=false              a run's policy takes its most likely actions
  frames=10_000  seed=0  out=data/NAME
"""


def main(argv: list[str]) -> int:
    """Collect, say how far it is, and name the next useful command."""
    if not argv or "-h" in argv or "--help" in argv:
        print(USAGE)
        return 0
    from rlkit.config import trust
    from rlkit.config.edits import lists
    from rlkit.perception.collect import collect, typed

    config = typed(argv)
    trust.remember(*trust.requests({"env": lists(asdict(config.env))}))
    try:
        table = collect(config, say=lambda text: print(clean(text), flush=True))
    except KeyboardInterrupt:
        print(
            f"\nstopped: {clean(config.out)} has the episodes that were whole; the same command goes on",
            file=sys.stderr,
        )
        return 130
    groups = len(set(table.groups.tolist()))
    size = sum(column.bytes for column in table.columns.values()) * table.rows
    print(
        f"table:       {clean(config.out)}: {table.rows:,} rows of {groups:,} episodes, {size / 2**20:.1f} MB"
    )
    print(f"columns:     {', '.join(table.columns)}")
    print(f"look at it:  rlkit data check {quoted(config.out)}")
    return 0
