"""docs/architecture.md counts the code that a reader of PPO reads, and names files: both are what lies there."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTLY = {
    "rlkit/returns.py": ("reverse_scan", "gae", "_masks")
}  # of which only these functions are on the way
LAYOUT = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


def lines(text: str, only: tuple[str, ...] = ()) -> tuple[int, int]:
    """Lines of code, without docstrings, comments and blank lines, and all lines; only: of these functions."""
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    strings: set[int] = set()
    read: set[int] = set() if only else set(range(1, len(text.splitlines()) + 1))
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            strings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        if isinstance(node, ast.FunctionDef) and node.name in only:
            read.update(range(node.lineno, (node.end_lineno or 0) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    return len((code - strings) & read), len(read)


def test_lines_are_counted() -> None:
    text = '"""A module."""\n\n# a comment\nx = [\n    1,  # one\n]\n\n\n'
    text += 'def f():\n    """Says."""\n    return """a\nb"""\n'
    assert lines(text) == (6, 12)  # x = [, 1, ], def, and the string of two lines
    assert lines(text, ("f",)) == (3, 4)


def test_the_path_of_ppo_is_as_long_as_it_says() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    said = re.search(
        r"in this order: ([\d,]+) lines of code.*?\(([\d,]+) lines with everything\)", document, re.S
    )
    assert said is not None
    table = document[said.end() :].split("| `", 1)[1].split("\n\n")[0]
    files: list[str] = []
    for row in ("| `" + table).splitlines():
        for name in re.findall(r"`([\w/]+\.py)`", row.split("|")[1]):
            folder = (
                "" if "/" in name else files[-1].rpartition("/")[0] + "/"
            )  # a bare name: beside the one before
            files.append(folder + name)
    read = [
        lines((ROOT / name).read_text(encoding="utf-8"), PARTLY.get(name, ()))
        for name in files
        if "steps.py" not in name
    ]
    assert len(files) > 15 and PARTLY.keys() <= set(files)
    for total, text in zip(map(sum, zip(*read, strict=True)), said.groups(), strict=True):
        claimed = int(text.replace(",", ""))
        assert claimed - 50 < total <= claimed, (
            f"docs/architecture.md says {text} lines of PPO, {total} are there"
        )


def test_every_file_that_is_named_exists() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    there = [f"/{path.relative_to(ROOT)}" for path in ROOT.rglob("*.py")]
    named = set(re.findall(r"`([\w/]+\.py)`", document))
    assert len(named) > 30
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in there)]
