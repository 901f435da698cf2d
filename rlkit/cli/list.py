"""rlkit list: what there is."""

from __future__ import annotations

import ast
import contextlib
import shutil
import sys
import textwrap
from pathlib import Path

from rlkit.config import registry
from rlkit.config.compose import options
from rlkit.config.edits import read_plain
from rlkit.files import Place, named
from rlkit.nn.config import cores, encoders
from rlkit.options import ConfigError, nearest, show
from rlkit.text import clean

Row = tuple[str, ...]
MORE = ("tasks", "data")  # what there is beside YAML files
LEAST = 30  # letters that the last column of a table has at least beside the others

USAGE = """usage: rlkit list GROUP [OPTION=VALUE ...]

  agents, environments, networks, sources, explorations, presets, tasks, data
                       names for agent=, env=, network=, source=, exploration=,
                       preset=, task= and data=
  runs [dir=FOLDER]    the runs in runs/, or in another folder
  options [OPTION=VALUE ...]
                       every option, its value, what it allows and means"""


def main(argv: list[str]) -> int:
    """Print one table."""
    if "-h" in argv or "--help" in argv:
        print(USAGE)
        return 0
    if not argv:
        raise ConfigError(f"list: what? allowed: {', '.join([*registry.GROUPS, *MORE, 'runs', 'options'])}")
    group, rest = argv[0], argv[1:]
    if group == "options":
        rows: list[Row] = _options(rest)
    elif group == "runs":
        rows = _runs(_folder(rest))
    elif group == "data":
        rows = _data(_folder(rest, "data"))
    elif group in registry.GROUPS or group == "tasks":
        if rest:
            raise ConfigError(f"{rest[0]}: one argument too many; rlkit list {group} takes none")
        named = {"agents": _agents, "tasks": _tasks}.get(group)
        rows = named() if named else [_about(group, name) for name in registry.names(group)]
    else:
        remedy = nearest(group, [*registry.GROUPS, *MORE, "runs", "options"])
        raise ConfigError(f"list {group}: no such list; {remedy}")
    print(columns(rows, wrap=group != "runs"))  # a run is a line
    if group == "tasks":
        print("\ntask=my_pkg.mod is one of your own: rlkit.contracts.Task says what is in its file.")
    if group == "agents":
        print(
            "\nEvery agent takes every network, with memory or without (rlkit list networks).\n"
            "agent=my_pkg.mod is one of your own: rlkit.contracts.Algorithm says what is in\nits file."
        )
    if group == "networks":
        for option, names, form in (("encoder", encoders(), "function"), ("core", cores(), "Class")):
            known = f"{', '.join(names)}, or your own: my_pkg.mod:{form}"
            print("\n" + columns([(f"network.{option}=NAME", known)]))
    return 0


def columns(rows: list[Row], wrap: bool = True) -> str:
    """The rows as left-aligned columns; wrap: the last one to the width of the terminal, or 80 where there is none."""
    *widths, final = (max(map(len, column)) for column in zip(*rows, strict=True))
    room = shutil.get_terminal_size((80, 24)).columns if wrap else sys.maxsize
    indent = sum(widths) + 2 * len(widths)
    if indent + final > room and indent > room - LEAST:  # the last column goes below the others
        indent = 4
    lines = []
    for *cells, text in rows:
        head = "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))
        wrapped = textwrap.wrap(text, max(room - indent, LEAST), break_on_hyphens=False) or [""]
        if len(head) > indent:
            lines += [head] if text else []
            head = "" if text else head
        lines += [f"{head:<{indent}}{wrapped[0]}", *(" " * indent + line for line in wrapped[1:])]
    return "\n".join(line.rstrip() for line in lines)


def _agents() -> list[Row]:
    """What each agent can do; of an algorithm's own name the docstring tells, of others their YAML's comment."""
    rows: list[Row] = [("agent", "acts in", "learns from", "")]
    for name in registry.names("agents"):
        algorithm = registry.algorithm_of(name)
        source = registry.agent_file(algorithm).read_text(encoding="utf-8")
        about = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        if name != algorithm:
            about = _about("agents", name)[1]
        rows.append((name, " ".join(registry.actions(algorithm)), registry.learns_from(algorithm), about))
    return rows


def _about(group: str, name: str) -> Row:
    """A name and one line about it: the first comment of its YAML file."""
    path = registry.config_folder() / registry.GROUPS[group] / f"{name}.yaml"
    comments = [line.partition("#")[2].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    about = next((text for text in comments if text and not text.startswith("@package")), "")
    return (name, registry.environment_id(name), about) if group == "environments" else (name, about)


def _tasks() -> list[Row]:
    """The first sentence of each task's file."""
    found: list[Row] = []
    for name in registry.tasks():
        text = registry.task_file(name).read_text(encoding="utf-8")
        found.append((name, (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]))
    return found


def _data(folder: Path) -> list[Row]:
    """The sets that come with rlkit, and the tables in a folder."""
    from rlkit.perception.sets import SETS
    from rlkit.perception.table import open_table

    rows: list[Row] = [*SETS.items(), *(_about("data", name) for name in registry.names("data"))]
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not (path / "table.json").is_file():
            continue
        try:
            table = open_table(path)
            about = f"{table.rows:,} rows: {', '.join(table.columns)}"
        except ConfigError as error:
            about = f"unreadable: {error}"
        rows.append((clean(path), clean(about, 200)))
    return rows


def _options(overrides: list[str]) -> list[Row]:
    rows: list[Row] = []
    for option, value in options(overrides):
        same = value in (option.default, [*option.default] if isinstance(option.default, tuple) else None)
        default = "" if same or option.default == "" else f" (default {show(option.default)})"
        about = f"; {option.help}" if option.help else ""
        rows.append((f"{option.name}={show(value)}", f"{option.allowed}{about}{default}"))
    return rows


def _folder(rest: list[str], usual: str = "runs") -> Path:
    if not rest:
        return Path(usual)
    if len(rest) == 1:
        return Path(rest[0].removeprefix("dir="))
    raise ConfigError(f"{rest[1]}: one argument too many; rlkit list {usual} dir=FOLDER")


def _runs(folder: Path) -> list[Row]:
    """A line per run folder, newest last."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        with contextlib.suppress(OSError):  # no folder, or one that is not to be read
            found.append(named(path))
    runs = [run for run in found if (run / "config.yaml").exists()]
    if not runs:
        return [
            (
                f"no runs in {clean(folder)}: rlkit train makes one; rlkit list runs dir=FOLDER looks elsewhere",
            )
        ]
    head = ("run", "agent", "environment", "steps", "return", "state")
    return [head, *map(_run, sorted(runs, key=lambda run: (run / "config.yaml").modified()))]


def _run(folder: Place) -> Row:
    """What is known of one run; whatever somebody else's folder holds, the other lines are shown."""
    from rlkit.metrics import last_rows

    try:
        plain = read_plain(folder / "config.yaml")
        if "task" in plain:
            agent, env = f"task {plain['task']['name']}", plain["data"]
        else:
            agent, env = plain.get("alias") or plain["agent"]["name"], plain["env"]["id"]
        total = int(plain["total_steps"])
        metrics = folder / "metrics.csv"
        rows = last_rows(metrics) if metrics.exists() else []
        step = int(rows[-1]["step"]) if rows else 0
        key, digits = ("evaluate/mean", 3) if "task" in plain else ("return/mean", 1)
        returns = [row[key] for row in rows if key in row]
        last = f"{returns[-1]:.{digits}f}" if returns else "-"
        state = _state(folder, step, total)
    except Exception as error:
        words = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        return (clean(folder), "?", "?", "?", "?", clean(" ".join(f"unreadable: {words}".split()), 80))
    steps = f"{step:,}" if step >= total else f"{step:,} of {total:,}"
    cells = (agent, env, steps, last)
    return (clean(folder), *(clean(cell, 40) for cell in cells), state)


def _state(folder: Place, step: int, total: int) -> str:
    """running, complete, or stopped (rlkit resume continues it)."""
    if _locked(folder / ".lock"):
        return "running"
    return "complete" if step >= total or _stop_reason(folder) else "stopped"


def _locked(place: Place) -> bool:
    """Whether a living process holds the run's lock."""
    try:
        file = place.lock(shared=True)
    except OSError:
        return False
    if file is not None:
        file.close()
    return file is None


def _stop_reason(folder: Place) -> str:
    """Why the newest checkpoint's run ended before its last step; "" where it did not."""
    from rlkit import checkpoint

    for _, place in checkpoint.saved_steps(folder / "checkpoints"):
        with contextlib.suppress(checkpoint.CheckpointError):
            return str(checkpoint.read_values(place, "state")["clock"]["stop_reason"] or "")
    return ""
