"""Every test has a home of its own and no display."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.helpers")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("RAY_worker_niceness", "0")  # as rlkit.sources.ray.fleet starts Ray
# Without compiled files each of hundreds of processes would compile rlkit again, and every worker all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # tests run side by side: one core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def _states(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Iterator[int]]:
    """A folder for the states of all tests, and numbers that name them."""
    return tmp_path_factory.mktemp("states"), itertools.count()


@pytest.fixture(autouse=True)
def _own_state_folder(_states: tuple[Path, Iterator[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What rlkit remembers of the user (rlkit.config.trust) goes to a temporary folder, made where it is needed."""
    folder, numbers = _states
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / str(next(numbers))))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same numbers in any order of tests."""
    import torch

    # torch.manual_seed asks every kind of device that there could be, and takes a thousand times as long
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)


def pytest_collection_finish() -> None:
    """What all modules hold stays: no collection of garbage looks at it again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not any("gpu" in item.keywords for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
