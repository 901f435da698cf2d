"""What a run must know of its environment comes from one environment; the table of backends; batched classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.config.compose import compose
from rlkit.envs import EnvConfig, EnvFault, make_env, make_vec, probe
from rlkit.envs.backends.batched import MEMBERS
from rlkit.envs.backends.inprocess import InProcess
from rlkit.envs.driving.exact.car_racing import CarRacing
from rlkit.machine import cores
from rlkit.options import ConfigError
from rlkit.run.check import check
from rlkit.run.probe import probe_env
from rlkit.spaces import Dict, Discrete
from tests.helpers.counted import Counted, ThreadedBlock, Whole

HERE = "tests.helpers.counted:"


@pytest.fixture(autouse=True)
def counters() -> None:
    Counted.clear()
    Whole.built = ()


@pytest.mark.parametrize("render", [False, True])
@pytest.mark.parametrize("backend", ["auto", "inprocess", "workers"])
@pytest.mark.parametrize("mask", ["auto", "none"])
def test_one_environment_tells_everything(backend: str, mask: str, render: bool) -> None:
    found = probe(EnvConfig(id=HERE + "Patient", lanes=3, backend=backend, action_mask=mask), render=render)
    assert (Counted.made, Counted.closed) == (1, 1)
    assert found.spec.observation.shape == (1,)
    assert (found.config.backend, found.config.action_mask) == (
        "workers" if backend == "workers" else "inprocess",
        "none",
    )
    assert bool(found.why) == (backend == "auto" and cores() > 1)


def test_an_environment_says_which_steps_are_slow() -> None:
    found = probe(EnvConfig(id=HERE + "Hasty", lanes=3, workers=2))
    if cores() > 1:
        assert (found.config.backend, found.config.workers) == ("workers", 2)
        assert found.why.startswith(f"environment {HERE}Hasty: ") and "2 worker processes" in found.why
    assert CarRacing.slow_step == 2e-4


def test_what_is_decided_makes_its_lanes_and_nothing_else() -> None:
    found = probe(EnvConfig(id=HERE + "Patient", lanes=3))
    Counted.clear()
    for config in (found.config, replace(found.config, backend="auto", lanes=1)):
        vector = make_vec(config, 0)
        vector.close()
        assert (Counted.made, Counted.resets) == (config.lanes, 0)
        Counted.clear()
    make_vec(EnvConfig(id=HERE + "Patient", lanes=3), 0).close()  # undecided: it probes first
    assert Counted.made == 4


def test_make_env_resets_nothing() -> None:
    for mask in ("auto", "none", "info"):
        make_env(EnvConfig(id=HERE + "Counted", action_mask=mask))
    assert (Counted.made, Counted.resets) == (3, 0)


def run(**options: Any) -> Any:
    fixed = {"agent": "ppo", "env": HERE + "Patient", "preset": "none", "device": "cpu", "env.lanes": 4}
    return compose(values=fixed | options).config


def test_a_run_is_checked_with_one_environment() -> None:
    plan = check(run(**{"video.every": 1000}))
    assert (Counted.made, Counted.closed) == (1, 1)
    assert (plan.config.env.backend, plan.config.env.action_mask) == ("inprocess", "none")
    if cores() > 1:
        assert plan.notes[-1].startswith(f"environment {HERE}Patient: ")
    check(run(source="ray"))
    assert Counted.made == 2


def test_nothing_is_measured_for_workers_of_ray() -> None:
    plan = check(run(source="ray", env=HERE + "Hasty"))
    assert plan.config.env.backend == "inprocess"
    assert not any(note.startswith("environment") for note in plan.notes)
    with pytest.raises(ConfigError, match="no such environment"):
        probe_env(run(source="ray", env="NoSuchThing-v9"), distributed=True)


@pytest.mark.parametrize(
    ("env", "kwargs", "reason"),
    [
        ("Patient", {"blind": True}, r"its render\(\) returned no picture"),
        ("Plain", {}, r"env\.kwargs={'render_mode': 'rgb_array'}: .*Plain refuses them"),
    ],
)
def test_who_draws_nothing_cannot_be_filmed(env: str, kwargs: dict[str, Any], reason: str) -> None:
    config = run(env=HERE + env, **{"env.kwargs": kwargs, "video.every": 1000})
    words = (
        rf"environment {HERE}{env} draws no pictures for a video \({reason}.*\); its constructor must take "
    )
    with pytest.raises(ConfigError, match=words):
        check(config)
    check(replace(config, video=replace(config.video, every=0)))


def test_what_is_wrong_without_pictures_is_told_as_such() -> None:
    for render in (False, True):
        with pytest.raises(ValueError, match="^broken on purpose$"):
            probe(EnvConfig(id=HERE + "Counted", kwargs={"fails": "constructor"}), render=render)
    with pytest.raises(ValueError, match=r"^env\.kwargs=.*refuses them: no speed"):
        probe(EnvConfig(id=HERE + "Counted", kwargs={"speed": 1}), render=True)


@pytest.mark.skipif(cores() == 1, reason="nothing is measured on one core")
def test_a_fault_at_work_stays_one() -> None:
    with pytest.raises(EnvFault, match="raised: environment .*Counted, lane 0"):
        check(run(env=HERE + "Counted", **{"env.kwargs": {"fails": "step"}}))


# ---------------------------------------------------------------- backends


@pytest.mark.parametrize("backend", ["inprocess", "workers"])
def test_rows_per_second_are_the_environments(backend: str) -> None:
    vector = make_vec(EnvConfig(id=HERE + "Counted", lanes=2, workers=1, skip=3, backend=backend), 0)
    assert vector.fps == 4.0  # render_fps=12 of its metadata, three frames a row
    vector.close()


def test_whoever_names_a_block_has_threads() -> None:
    config = EnvConfig(id=HERE + "Threaded", lanes=3, workers=2, backend="threads")
    vector = make_vec(config, 0)
    assert isinstance(vector, InProcess) and isinstance(vector.block, ThreadedBlock)
    assert vector.block.threads == 2
    vector.close()
    with pytest.raises(
        ValueError, match=r"env\.backend=threads: .*given env\.id=tests\.helpers\.counted:Counted"
    ):
        probe(replace(config, id=HERE + "Counted"))
    with pytest.raises(ValueError, match=r"env\.keep=\[0\]: env\.backend=threads"):
        probe(replace(config, keep=(0,)))
    with pytest.raises(ValueError, match=r"env\.action_mask=info: env\.backend=threads draws pictures"):
        probe(replace(config, action_mask="info"))


# ---------------------------------------------------------------- batched classes


def test_a_whole_one_is_used_as_it_is() -> None:
    found = probe(EnvConfig(id=HERE + "Whole", lanes=5, stack=2))
    assert Whole.built == (1,)
    assert (found.config.backend, found.spec.stack, found.why) == ("batched", 2, "")
    vector = make_vec(found.config, 0)
    assert Whole.built == (1, 5)
    assert (vector.exact, vector.fps) == ("replay", 30.0)
    with pytest.raises(ValueError, match="draws no pictures"):
        probe(found.config, render=True)


@pytest.mark.parametrize(("name", "member"), [("Unsaved", "snapshot"), ("Still", "step"), ("Loose", "fps")])
def test_a_part_of_one_is_refused(name: str, member: str) -> None:
    words = rf"^env\.id={HERE}{name}: {name} lacks {member}; .* extends rlkit\.contracts\.VecEnv.*$"
    with pytest.raises(ValueError, match=words):
        probe(EnvConfig(id=HERE + name))


def test_members_are_those_of_the_contract() -> None:
    assert set(MEMBERS) == {
        "spec", "lanes", "device", "exact", "fps", "restore", "step", "snapshot", "load_snapshot", "render", "close",
        "failures", "pictures", "picture_rate", "lost", "memory", "load_memory",
    }  # fmt: skip


def test_agents_are_announced() -> None:
    with pytest.raises(ValueError, match=r"spec\.agents=\('a', 'b'\), but its class says \('agent',\)"):
        probe(EnvConfig(id=HERE + "Unannounced"))


def test_a_vectors_rows_are_torch() -> None:
    row = make_vec(EnvConfig(id=HERE + "Whole", lanes=2), 0).restore(np.zeros(2, np.int64), [np.zeros(0)] * 2)
    assert isinstance(row.obs, torch.Tensor)


@pytest.mark.parametrize(
    ("kwargs", "entry"),
    [
        ({}, ""),
        ({"start": 1e5, "tick": 0.002}, ""),  # float32 holds 1e5 to 0.0078
        ({"start": 1e9, "tick": 1, "dtype": "int64"}, ""),
        ({"nested": True}, " entry a.0"),
        ({"start": 1e5, "tick": 0.1}, None),
        ({"dtype": "float32"}, None),
        ({"start": 0.0}, None),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "inprocess"])
def test_numbers_that_float32_cannot_tell_apart_are_said(kwargs, entry, backend):
    found = probe(EnvConfig(id="tests.helpers.habits:Clock", kwargs=kwargs, lanes=2, backend=backend)).notes
    if entry is None:
        assert found == ()
        return
    (note,) = found
    assert note.startswith(f"warning: observation{entry} changes by less than float32 holds at ")
    if not kwargs:
        assert "at 1.7e+09 (its neighbours there are 128 apart)" in note


def test_an_environment_that_normalizes_is_said():
    for which, what, option in (
        ("NormalizeReward", "rewards", "agent.normalize_reward=true"),
        ("NormalizeObservation", "observations", "network.normalize=true"),
    ):
        config = EnvConfig(id="tests.helpers.habits:normalized", kwargs={"which": which}, backend="inprocess")
        (note,) = probe(config).notes
        assert (
            note.startswith(f"warning: {which} in the environment normalizes its {what} by")
            and option in note
        )
    assert probe(EnvConfig(id="CartPole-v1", backend="inprocess")).notes == ()


def test_keys_of_actions_are_texts() -> None:
    """A saved policy has them as texts."""
    config = EnvConfig(
        id="tests.helpers.habits:keyed", kwargs={"key": 3}, backend="inprocess", action_mask="none"
    )
    with pytest.raises(ValueError, match=r"the key 3 of its action space is no text; write '3'"):
        probe(config)
    assert probe(replace(config, kwargs={"key": "3"})).spec.action == Dict(
        (("0", Dict((("3", Discrete(2)),))),), True
    )
