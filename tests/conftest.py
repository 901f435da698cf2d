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
LONGEST = (  # files that take minutes on slow cores: those that mostly wait for Ray between those that compute
    "test_ray_shared", "test_probes", "test_resume_agents", "test_ddpg_learns", "test_environments", "test_ray_tree",
    "test_resume", "test_ppo_learns", "test_driving_exact", "test_ray_equal", "test_dqn_learns", "test_commands",
    "test_learners", "test_ray_faults", "test_reinforce_learns", "test_ray_commands", "test_vector_faults",
    "test_ray_source",
)  # fmt: skip
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


def pytest_configure(config: pytest.Config) -> None:
    """pytest-xdist deals files out as they are ordered here; by itself, those with the fewest tests come last."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_finish() -> None:
    """What all modules hold stays: no collection of garbage looks at it again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that no worker is left with one. What needs a GPU is skipped where none is."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
    if not any("gpu" in item.keywords for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
