"""A test that never ends, even in machine code where no signal is looked at, ends its process and not the suite."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
STUCK = "def test_before(): pass\ndef test_stuck(): sum(iter(int, 1))\ndef test_after(): pass\n"


def test_a_test_that_hangs_is_ended_and_named(tmp_path: Path) -> None:
    """With the project's own options, of which the limit is a second here; in a worker, as the suite runs."""
    options = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert 0 < options["faulthandler_timeout"] <= 600 and options["faulthandler_exit_on_timeout"] is True
    (tmp_path / "test_stuck.py").write_text(STUCK)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfaulthandler_timeout = 1\nfaulthandler_exit_on_timeout = true\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "1", "--max-worker-restart=1", "."]
    plain = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # quicker
    done = subprocess.run(
        command, cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "crashed while running 'test_stuck.py::test_stuck'" in done.stdout
    assert "in test_stuck" in done.stderr + done.stdout  # the stack says where
    assert "1 failed, 2 passed" in done.stdout  # the others are run
