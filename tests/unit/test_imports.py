"""Whoever stands on one floor imports from the floors below or from its own room, and never in a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOORS = (  # from the ground up; rooms of one floor do not know one another
    ("own", "text", "files", "images", "jit"),
    ("engine", "options", "spaces", "ranks", "metrics", "machine", "tensorfile", "processes"),
    ("space_json", "reading"),
    ("types", "device", "seeding", "embedded"),
    ("compile", "returns", "turns", "contracts"),
    ("nn", "distributions", "checkpoint", "envs"),
    ("buffers", "config"),
    ("collect", "replay"),
    ("learn", "sources", "play"),
    ("agents", "run"),
    ("probes", "perception", "deploy"),
    ("runtime", "serve"),
    ("cli", "client"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def files() -> dict[str, Path]:
    """Every module of the package, by name."""
    found = {}
    for package, folder in (("rlkit", "rlkit"), ("rlkit.agents", "agents"), ("rlkit.envs", "envs")):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if package != "rlkit" or parts[0] not in ("agents", "envs", "configs"):  # these are links
                found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


FILES = files()


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, at its top or inside a function; not those for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & FILES.keys()


def room(module: str) -> str:
    """The part of a module's name that says on which floor it stands; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def test_nobody_imports_from_above_or_beside() -> None:
    wrong = []
    for module, path in FILES.items():
        here = room(module)
        if here not in ("", "__main__"):
            there = {other: room(other) for other in imports(path) - {"rlkit"}}
            wrong += [
                f"{module} imports {other}"
                for other, where in there.items()
                if where != here and FLOOR[where] >= FLOOR[here]
            ]
    assert not wrong, wrong


def test_no_circle_of_imports() -> None:
    TopologicalSorter({module: imports(path) - {module} for module, path in FILES.items()}).prepare()


def test_every_room_is_on_a_floor() -> None:
    assert {room(module) for module in FILES} - {"", "__main__"} == FLOOR.keys()


def test_files_and_functions_stay_short() -> None:
    wrong = []
    for module, path in FILES.items():
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            wrong.append(f"{module}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    wrong.append(f"{module}: {node.name} has {length} lines")
    assert not wrong, wrong
