"""The runtime as one file: rlkit.deploy.runtime and what it imports of this package, one module after the other."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

MODULES = (  # each after those that it imports
    "images", "spaces", "space_json", "reading", "embedded", "deploy.graph", "deploy.operators", "deploy.layers",
    "deploy.program", "deploy.parity", "deploy.runtime",
)  # fmt: skip
HEAD = '''"""Runs the policy in this folder with NumPy alone (made by rlkit {version}; MIT licence).

    from rlkit_runtime import Policy
    policy = Policy.load(FOLDER)
    action, state = policy(obs, state)        # state None opens an episode

python rlkit_runtime.py FOLDER --check replays the steps that were recorded of the agent.
"""

from __future__ import annotations
'''


def bundle(version: str) -> str:
    """The source of rlkit_runtime.py."""
    parts = [HEAD.format(version=version)]
    for name in MODULES:
        spec = importlib.util.find_spec(f"rlkit.{name}")
        assert spec is not None and spec.origin is not None, "a module of this package"
        parts.append(f"# ---------------------------------------------------------------- rlkit.{name}\n")
        parts.append(_body(Path(spec.origin).read_text(encoding="utf-8")))
    return "\n\n".join(parts)


def _body(source: str) -> str:
    """A module without its docstring, and without its imports of this package: those names are there already."""
    tree, lines = ast.parse(source), source.splitlines()
    dropped: set[int] = set()
    for node in tree.body:
        ours = isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "rlkit"
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        text = node is tree.body[0] and isinstance(node, ast.Expr)
        if ours or future or typing_only or text:
            dropped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    kept = [line for number, line in enumerate(lines, 1) if number not in dropped]
    return "\n".join(kept).strip("\n") + "\n"
