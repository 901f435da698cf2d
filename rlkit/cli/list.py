"""rlkit list: what there is."""

from __future__ import annotations

import ast
import fcntl
import json
import shutil
import sys
import textwrap
from pathlib import Path

from rlkit.config import registry
from rlkit.config.compose import options, read_plain
from rlkit.nn.config import cores, encoders
from rlkit.options import ConfigError, nearest, show

Row = tuple[str, ...]
LEAST = 30  # letters that the last column of a table has at least beside the others

USAGE = """usage: rlkit list agents|environments|networks|sources|presets|runs|options [OPTION=VALUE ...]

  agents, environments, networks, sources, presets    names for agent=, env=, network=, source=, preset=
  runs [dir=FOLDER]                                   the runs in runs/, or in another folder
  options [OPTION=VALUE ...]                          every option, its value, what it allows and means"""


def main(argv: list[str]) -> int:
    """Print one table."""
    if "-h" in argv or "--help" in argv:
        print(USAGE)
        return 0
    if not argv:
        raise ConfigError(f"list: what? allowed: {', '.join([*registry.GROUPS, 'runs', 'options'])}")
    group, rest = argv[0], argv[1:]
    if group == "options":
        rows: list[Row] = _options(rest)
    elif group == "runs":
        rows = _runs(_folder(rest))
    elif group in registry.GROUPS:
        if rest:
            raise ConfigError(f"{rest[0]}: one argument too many; rlkit list {group} takes none")
        rows = _agents() if group == "agents" else [_about(group, name) for name in registry.names(group)]
    else:
        remedy = nearest(group, [*registry.GROUPS, "runs", "options"])
        raise ConfigError(f"list {group}: no such list; {remedy}")
    print(columns(rows, wrap=group != "runs"))  # a run is a line
    if group == "agents":
        print(
            "\nEvery agent takes every network, with memory or without (rlkit list networks).\n"
            "agent=my_pkg.mod is one of your own: rlkit.contracts.Algorithm says what is in\nits file."
        )
    if group == "networks":
        for option, names, form in (("encoder", encoders(), "function"), ("core", cores(), "Class")):
            known = f"network.{option}={'|'.join(names)}"
            print(f"\n{known}, or your own: \n    network.{option}=my_pkg.mod:{form}")
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
    return (name, str(read_plain(path).get("id", "")), about) if group == "environments" else (name, about)


def _options(overrides: list[str]) -> list[Row]:
    rows: list[Row] = []
    for option, value in options(overrides):
        same = value in (option.default, [*option.default] if isinstance(option.default, tuple) else None)
        default = "" if same or option.default == "" else f" (default {show(option.default)})"
        about = f"; {option.help}" if option.help else ""
        rows.append((f"{option.name}={show(value)}", f"{option.allowed}{about}{default}"))
    return rows


def _folder(rest: list[str]) -> Path:
    if not rest:
        return Path("runs")
    if len(rest) == 1:
        return Path(rest[0].removeprefix("dir="))
    raise ConfigError(f"{rest[1]}: one argument too many; rlkit list runs dir=FOLDER")


def _runs(folder: Path) -> list[Row]:
    """A line per run folder, newest last."""
    files = sorted(folder.glob("*/config.yaml"), key=lambda file: file.stat().st_mtime)
    if not files:
        return [(f"no runs in {folder}: rlkit train makes one; rlkit list runs dir=FOLDER looks elsewhere",)]
    head = ("run", "agent", "environment", "steps", "return", "state")
    return [head, *(_run(file.parent) for file in files)]


def _run(folder: Path) -> Row:
    from rlkit.metrics import read_metrics

    try:
        plain = read_plain(folder / "config.yaml")
        agent = plain.get("alias") or plain["agent"]["name"]
        env, total = plain["env"]["id"], int(plain["total_steps"])
        metrics = folder / "metrics.csv"
        rows = read_metrics(metrics) if metrics.is_file() else []
    except (ValueError, KeyError, TypeError, OSError) as error:
        return (str(folder), "?", "?", "?", "?", f"unreadable: {' '.join(str(error).split())}"[:80])
    step = int(rows[-1]["step"]) if rows else 0
    returns = [row["return/mean"] for row in rows if "return/mean" in row]
    last = f"{returns[-1]:.1f}" if returns else "-"
    return str(folder), agent, env, f"{step:,} of {total:,}", last, _state(folder, step, total)


def _state(folder: Path, step: int, total: int) -> str:
    """running, complete, or stopped (rlkit resume continues it)."""
    if _locked(folder / ".lock"):
        return "running"
    return "complete" if step >= total or _stop_reason(folder) else "stopped"


def _locked(path: Path) -> bool:
    """Whether a living process holds the run's lock."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _stop_reason(folder: Path) -> str:
    """Why the newest checkpoint's run ended before its last step; "" where it did not."""
    states = sorted(folder.glob("checkpoints/step-*/state.json"))
    try:
        return str(json.loads(states[-1].read_bytes())["clock"]["stop_reason"] or "") if states else ""
    except (ValueError, KeyError, TypeError, OSError):
        return ""
