"""rlkit export: a trained policy as a folder that runs without torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlkit.cli.common import Parser, open_run, positive, run_parser
from rlkit.cli.words import find_run
from rlkit.files import Place, at, named
from rlkit.options import ConfigError
from rlkit.text import clean, quoted

LICENCE = 200  # characters of a licence's name


def _parser() -> Parser:
    parser = run_parser(
        "export",
        "Write a run's policy as a folder (ONNX, recorded steps, a runtime of one file that needs NumPy alone) and "
        "verify that it does what the agent does.",
    )
    parser.add_argument("--to", metavar="FOLDER", help="where (default: RUN/export, RUN/export-GROUP)")
    parser.add_argument(
        "--format",
        choices=("onnx", "c", "fmu"),
        default="onnx",
        help="onnx (default); c: C files, too; fmu: an FMI 2.0 co-simulation unit, too",
    )
    parser.add_argument(
        "--which", default="", metavar="X", help="best (default where there is one), last, or a step"
    )
    parser.add_argument(
        "--group",
        default="",
        metavar="NAME",
        help="whose policy, where a game's groups of agents have one each",
    )
    parser.add_argument(
        "--value", action="store_true", help="the graph also says the return that is expected"
    )
    parser.add_argument(
        "--steps",
        type=positive,
        default=1000,
        metavar="N",
        help="how many steps are recorded (default: 1000)",
    )
    parser.add_argument(
        "--licence",
        type=_licence,
        metavar="TEXT",
        help="under which licence the policy is passed on, for policy.json and README.md: MIT, CC-BY-4.0, a sentence",
    )
    parser.add_argument("--no-verify", action="store_true", help="compare nothing")
    parser.add_argument("--check", action="store_true", help="verify the folder that is there")
    return parser


def _licence(text: str) -> str:
    """One line of text that a person can read."""
    if not text.strip() or text != clean(text) or len(text) > LICENCE:
        allowed = f"one line of 1 to {LICENCE} printable characters"
        raise argparse.ArgumentTypeError(f"{clean(text, 40)!r}; allowed: {allowed}")
    return text.strip()


def main(argv: list[str]) -> int:
    """Write the folder and verify it, or verify one that is there."""
    arguments = _parser().parse_args(argv)
    arguments.run = str(find_run(arguments.run))
    arguments.checkpoint, arguments.env, arguments.eyes = arguments.which, [], None
    inner = f"export-{arguments.group}" if arguments.group else "export"
    shown = Path(arguments.to or Path(arguments.run) / inner)
    if arguments.check and arguments.licence:
        raise ConfigError("--licence: nothing is written with --check; leave one of them out")
    if arguments.check:
        return _check(arguments.run, arguments.which, shown, arguments.format)
    from rlkit.deploy.export import export, origin, require_packages
    from rlkit.play.saved import AgentPolicy, one_group

    require_packages(arguments.format)
    folder, config, agent = open_run(arguments)
    policy = one_group(agent.policy, arguments.group, arguments.run, "--group ")
    agent = AgentPolicy(policy, agent.path)
    place = at(arguments.to) if arguments.to else folder / inner
    _require_ours(place)
    where = origin(agent, config, folder.path.name, arguments.licence or "")
    info = export(
        agent,
        config,
        place,
        where,
        steps=arguments.steps,
        value=arguments.value,
        verify=not arguments.no_verify,
        form=arguments.format,
        say=lambda line: print(clean(line)),
    )
    print(f"exported:    {clean(shown)} ({clean(agent.path.name)}, step {info['step']:,})")
    print(f"run it:      python {quoted(shown / 'rlkit_runtime.py')} {quoted(shown)} --check")
    return 0


def _require_ours(place: Place) -> None:
    """Raise ConfigError where a folder would be replaced that no export has made."""
    if place.exists() and not (place.is_folder() and {"policy.json", "manifest.json"} <= set(place.list())):
        raise ConfigError(
            f"--to {place}: there is something else than an exported policy; choose another folder"
        )


def _check(run: str, which: str, shown: Path, form: str) -> int:
    """Replay the steps of a folder, and say whether the run has a newer checkpoint."""
    from rlkit.deploy.export import check
    from rlkit.deploy.runtime import Folder

    try:
        place = named(shown)
    except OSError as error:
        raise ConfigError(f"{shown}: {error.strerror}; rlkit export {quoted(run)} makes it") from error
    folder, wanted = Folder(place.path), {"c": "policy.c", "fmu": "policy.fmu"}.get(form, "policy.onnx")
    if wanted not in folder.sums:
        raise ConfigError(f"{shown} holds no {wanted}; rlkit export {quoted(run)} --format {form} writes it")
    check(place, lambda line: print(clean(line)))
    info = folder.json("policy.json")
    print(f"exported:    {clean(shown)} (step {clean(info.get('step'))})")
    newer = _newer(run, which, info)
    if newer:
        print(f"the run has a newer one: {clean(newer)}; rlkit export {quoted(run)} writes it")
    return 0


def _newer(run: str, which: str, info: dict[str, object]) -> str:
    """The checkpoint that an export would take now, where that is another one than the folder's; else ""."""
    import hashlib

    from rlkit.play.saved import find

    place = find(run, which)[0]
    digest = hashlib.sha256((place / "manifest.json").read(1 << 20)).hexdigest()
    return str(place) if digest != info.get("checkpoint") else ""
