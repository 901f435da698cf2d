"""rlkit probe: what a linear map reads from a run's features."""

from __future__ import annotations

import sys

from rlkit.cli.common import run_parser
from rlkit.cli.words import find_run
from rlkit.options import ConfigError
from rlkit.text import clean


def main(argv: list[str]) -> int:
    """Fit the linear maps and print how well they read."""
    parser = run_parser(
        "probe",
        "What a linear map reads from the features of a run's encoder, beside a random encoder and the input itself: "
        "rlkit probe RUN data=DATA label=NAME.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="data=DATA label=NAME", help="the table, and a label of it"
    )
    arguments = parser.parse_args(argv)
    given = dict(word.partition("=")[::2] for word in arguments.words)
    unknown = [word for word in given if word not in ("data", "label")]
    if unknown or not {"data", "label"} <= given.keys():
        raise ConfigError(f"probe {' '.join(arguments.words)}: allowed: rlkit probe RUN data=DATA label=NAME")
    import torch

    from rlkit.config import trust
    from rlkit.config.registry import open_eyes
    from rlkit.device import choose_threads
    from rlkit.perception.probe import probe
    from rlkit.perception.sets import open_data
    from rlkit.run.handover import open_source

    trust.remember(*arguments.trust, *trust.requests({"data": given["data"]}))
    torch.set_num_threads(choose_threads(0, pixels=True))
    run = str(find_run(arguments.run))
    source = open_source(run, run, lambda text: print(clean(text), file=sys.stderr))
    eyes = open_eyes({"source": source.parts, "gives": "features"})
    table = open_data(given["data"])
    what, found = probe(eyes, table, given["label"], torch.device("cpu"))
    print(f"{given['label']} from the features of {source.about}, by a linear map ({what} of the test rows)")
    for each in found:
        print(f"  {each.name:<18} {each.width:>6} numbers  {what} {each.score:.3f}")
    return 0
