"""rlkit resume: continue a run as if nothing had happened."""

from __future__ import annotations

from rlkit.cli.common import run_parser, run_to_end
from rlkit.cli.words import find_run


def main(argv: list[str]) -> int:
    """Continue the run and report like train."""
    parser = run_parser(
        "resume", "Continue a run from its newest whole checkpoint, with its own configuration."
    )
    arguments = parser.parse_args(argv)
    from rlkit.config import trust
    from rlkit.run.resume import resume

    trust.remember(*arguments.trust)
    return run_to_end(lambda: resume(find_run(arguments.run)))
