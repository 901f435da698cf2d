"""Interpreters that rlkit starts: what they import, and from where."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import rlkit.sources.ray
from rlkit import processes

TRAP = "import os\nos._exit(66)\n"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder in which files have the names of packages, beside a module of the user's."""
    for name in ("json", "torch", "numpy", "gymnasium", "random"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    (tmp_path / "echo_numbers.py").write_text(
        "import json, random\ndef main(*numbers): print(json.dumps(numbers), random.__file__)\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("entry", ["", "HERE", "nowhere"])
def test_a_started_interpreter_finds_own_code_here_and_packages_elsewhere(
    trap: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """Whether this process looks here first (as interactive Python and scripts do) or last."""
    others = [each for each in sys.path if each]
    here = str(trap)
    monkeypatch.setattr(
        sys, "path", [*others, here] if entry == "nowhere" else [entry.replace("HERE", here), *others]
    )
    assert processes.search_path() == [*others, here]
    done = subprocess.run(processes.command("echo_numbers", 3, 4), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[3, 4] ") and here not in done.stdout


def test_nothing_is_added_that_was_not_looked_in(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [each for each in sys.path if each]
    monkeypatch.setattr(sys, "path", others)
    assert processes.search_path() == others


def test_the_folder_that_rlkit_comes_from_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(processes.HOME)
    monkeypatch.setattr(sys, "path", ["", "/elsewhere"])
    assert processes.search_path() == [processes.HOME, "/elsewhere"]


@pytest.mark.parametrize(
    ("program", "moved"), [("/x/ray/_private/workers/default_worker.py", True), ("mine.py", False)]
)
def test_a_worker_of_ray_looks_in_the_current_folder_last(
    trap: Path, monkeypatch: pytest.MonkeyPatch, program: str, moved: bool
) -> None:
    """Ray has put it in front; in the process of the user it stays where Python put it."""
    others = [each for each in sys.path if each]
    monkeypatch.setattr(sys, "path", [str(trap), *others])
    monkeypatch.setattr(sys, "argv", [program])
    importlib.reload(rlkit.sources.ray)
    assert sys.path == ([*others, str(trap)] if moved else [str(trap), *others])


def test_python_m_rlkit_looks_in_the_current_folder_last(trap: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['rlkit', '--version']; runpy.run_module('rlkit', run_name='__main__')"
    )
    path = [str(trap), *(each for each in sys.path if each)]
    boot = f"import sys; sys.path[:] = {path!r}; {code}"
    done = subprocess.run([sys.executable, "-P", "-c", boot], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("rlkit "), done.stderr
