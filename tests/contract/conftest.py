"""The contract tests run in this folder, where `outside` is a package of one's own: agent=outside.a2c."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # rlkit.own adds the current folder
    monkeypatch.chdir(Path(__file__).parent)
