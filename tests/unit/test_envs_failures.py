"""Episodes in which an environment fails are cut, counted and told, as many as env.max_failures allows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlkit
from rlkit.collect.account import Account
from rlkit.contracts import VecEnv
from rlkit.envs import EnvConfig, EnvFault, make_vec
from rlkit.metrics import read_metrics
from rlkit.seeding import episode_seed

FAULTY = "rlkit.envs.toys:Faulty"
ROWS = ("obs", "reward", "terminated", "first", "last")


def make(kind: str, limit: int, backend: str = "inprocess", episode: int = 1, **options: Any) -> VecEnv:
    """Two lanes whose episodes have 4 steps; lane 1 fails in step 2 of `episode`."""
    kwargs = {"kind": kind, "at": 2, "seed": episode_seed(9, 1, episode), "length": 4}
    config = EnvConfig(
        id=FAULTY,
        kwargs=kwargs,
        lanes=2,
        backend=backend,
        workers=2,
        max_failures=limit,
        action_mask="none",
        check="space",
        **options,
    )
    return make_vec(config, 9)


def play(env: VecEnv, steps: int) -> list[dict[str, torch.Tensor]]:
    """Rows 0 to `steps`, copied."""
    row = env.restore(np.zeros(2, np.int64), [np.zeros(0, np.int64)] * 2)
    found = [{name: getattr(row, name).clone() for name in ROWS}]
    for _ in range(steps):
        row = env.step(torch.ones(2, dtype=torch.int64))
        found.append({name: getattr(row, name).clone() for name in ROWS})
    env.close()
    return found


@pytest.mark.parametrize(
    "kind", ["raised", "quit", "exited", "hung", "loop", "nan", "reward", "shape", "dtype", "space"]
)
def test_a_step_that_fails_closes_its_episode(kind: str) -> None:
    """Row 7 is the failed step of lane 1: paid nothing, the observation before or a valid one, then a new episode."""
    env = make(kind, 1, deadline=0.3)
    with pytest.warns(RuntimeWarning, match=r"lane 1, episode 1 .*step 2.* \(1 of 1, env.max_failures\)"):
        rows = play(env, 10)
    assert [row["last"][1].item() for row in rows] == [t in (4, 7) for t in range(11)]
    assert [row["first"][1].item() for row in rows] == [t in (0, 5, 8) for t in range(11)]
    assert rows[7]["reward"][1] == 0 and not rows[7]["terminated"][1]
    assert torch.isfinite(rows[7]["obs"]).all() and rows[7]["obs"].abs().max() <= 100
    if kind in ("raised", "quit"):
        assert torch.equal(rows[7]["obs"][1], rows[6]["obs"][1])
    assert [row["reward"][1].item() for row in rows[8:]] == [0, 1, 1]
    assert env.failures == 1
    healthy = play(make("raised", 0, episode=99), 10)
    for row, other in zip(rows, healthy, strict=True):  # the other lane notices nothing
        assert all(torch.equal(row[name][0], other[name][0]) for name in ROWS)


def test_a_reset_that_fails_is_an_episode_without_steps() -> None:
    with pytest.warns(RuntimeWarning, match="episode 1 .*, step 0: reset"):
        rows = play(make("reset", -1), 7)
    assert [row["first"][1].item() for row in rows] == [t in (0, 5, 6) for t in range(8)]
    assert [row["last"][1].item() for row in rows] == [t in (4, 5) for t in range(8)]
    # numbers of episodes stay those of the lane, and one without steps is no finished episode
    account, stacked = Account(2), {name: torch.stack([row[name] for row in rows]) for name in ROWS}
    rollout = type("R", (), {**stacked, "reward": stacked["reward"][1:]})
    assert account.take(rollout, 0).lengths == [4, 4] and account.episode.tolist() == [1, 2]


def test_a_budget_that_is_used_up_ends_the_run_as_none_does() -> None:
    with pytest.raises(EnvFault, match="broken on purpose"):
        play(make("raised", 0), 10)
    every = EnvConfig(
        id=FAULTY, kwargs={"at": 2}, lanes=2, backend="inprocess", max_failures=3, action_mask="none"
    )
    env = make_vec(every, 9)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(EnvFault, match="lane 1, episode 1"):
            play(env, 10)
    assert [str(each.message).rpartition("(")[2] for each in told] == [
        f"{count} of 3, env.max_failures)" for count in (1, 2, 3)
    ]


@pytest.mark.parametrize("kind", ["raised", "hung", "exited"])
def test_workers_share_one_budget_and_count(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    env = make(kind, 1, "workers", deadline=0.5)
    same = make("raised", 1)
    with pytest.warns(RuntimeWarning):
        expected = play(same, 8)
    rows = play(env, 8)
    for row, other in zip(rows, expected, strict=True):
        assert all(torch.equal(row[name], other[name]) for name in ROWS)
    assert env.failures == 1
    assert "the episode is cut there (1 of 1, env.max_failures)" in capfd.readouterr().err
    both = EnvConfig(id=FAULTY, kwargs={"at": 2}, lanes=2, backend="workers", workers=2, max_failures=1)
    with pytest.raises(EnvFault, match="broken on purpose"):
        play(make_vec(both, 9), 3)


@pytest.mark.parametrize(
    ("kind", "backend"), [("raised", "inprocess"), ("hung", "inprocess"), ("hung", "workers")]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_episode_that_was_cut_comes_back_as_it_was(kind: str, backend: str) -> None:
    rows = play(make(kind, -1, backend, deadline=0.5), 7)
    again = make(kind, -1, backend, deadline=0.5)
    row = again.restore(np.array([1, 1]), [np.ones(2, np.int64)] * 2)
    assert (
        again.failures == 1
        and torch.equal(row.obs, rows[7]["obs"])
        and torch.equal(row.last, rows[7]["last"])
    )
    again.close()


def test_a_run_passes_what_fails_every_time(tmp_path: Path) -> None:
    options = {
        "total_steps": 60, "agent.steps": 10, "env.lanes": 2, "dir": str(tmp_path), "preset": "none", "threads": 1,
        "env.backend": "inprocess", "evaluate.episodes": 1, "log.tensorboard": False, "env.kwargs": {"at": 3},
    }  # fmt: skip
    with pytest.raises(EnvFault) as caught:
        rlkit.train("ppo", FAULTY, name="a", **options)
    assert not getattr(caught.value, "__notes__", ()) or "max_failures" in str(caught.value.__notes__)
    with pytest.warns(RuntimeWarning, match="env.max_failures"):
        run = rlkit.train("ppo", FAULTY, name="b", **{**options, "env.max_failures": -1})
    assert read_metrics(run / "metrics.csv")[-1]["source/failures"] >= 15


def block(lane: int, limit: int, kind: str = "killed", **options: Any) -> VecEnv:
    """Lanes 0 and 1 in a process, 2 and 3 in another one, episodes of 4 steps; `lane` fails in step 2 of episode 1."""
    config = EnvConfig(
        id=FAULTY, kwargs={"kind": kind, "at": 2, "seed": episode_seed(9, lane, 1), "length": 4}, lanes=4,
        backend="workers", workers=2, max_failures=limit, action_mask="none", check="space", **options,
    )  # fmt: skip
    return make_vec(config, 9)


def told(env: VecEnv, steps: int) -> dict[str, np.ndarray]:
    """Rows 0 to `steps` of four lanes, [steps + 1, 4, ...] by name."""
    row = env.restore(np.zeros(4, np.int64), [np.zeros(0, np.int64)] * 4)
    rows = [{name: getattr(row, name).numpy().copy() for name in ROWS}]
    for _ in range(steps):
        row = env.step(torch.ones(4, dtype=torch.int64))
        rows.append({name: getattr(row, name).numpy().copy() for name in ROWS})
    env.close()
    return {name: np.stack([each[name] for each in rows]) for name in ROWS}


@pytest.mark.parametrize("kind", ["killed", "stuck"])
@pytest.mark.parametrize("lane", [2, 3])
def test_a_process_that_dies_is_replaced(kind: str, lane: int) -> None:
    """Row 7 is the failed step: the lane after the failed one did not step, the one before it did; both begin anew."""
    env = block(lane, 2, kind, deadline=0.3 if kind == "stuck" else 60.0)
    with pytest.warns(RuntimeWarning, match=rf"lane {lane}, episode 1 .*step 2.*; its process is replaced, and 2 "
                      r"episodes are cut there \(2 of 2, env.max_failures\)"):  # fmt: skip
        rows = told(env, 12)
    assert env.failures == 2
    healthy = told(block(lane, 0, "raised", deadline=60.0), 0)
    whole = play(make("raised", 0, episode=99), 12)
    for name in ROWS:  # the other process notices nothing
        wanted = np.stack([row[name].numpy() for row in whole])
        np.testing.assert_array_equal(rows[name][:, :2], wanted, err_msg=name)
    assert np.array_equal(healthy["obs"][0], rows["obs"][0])
    for each in (2, 3):
        assert [t for t in range(13) if rows["last"][t, each]] == [4, 7, 12]
        assert [t for t in range(13) if rows["first"][t, each]] == [0, 5, 8]
        assert [float(r) for r in rows["reward"][5:10, each]] == [0, 1, float(each < lane), 0, 1]
        assert rows["obs"][7, each, 0] == (2 if each < lane else 1) and not rows["terminated"][:, each].any()


def test_a_process_that_dies_where_episodes_open_is_replaced() -> None:
    """Restored lanes stand at their endings; a lane that waits for its next episode loses nothing."""
    env = block(3, -1)
    with pytest.warns(RuntimeWarning, match=r"and 2 episodes are cut there \(number 2, env.max_failures\)"):
        row = env.restore(np.ones(4, np.int64), [np.ones(2, np.int64)] * 4)
    assert row.last.tolist() == [False, False, True, True] and row.first.tolist() == [False] * 4
    assert row.reward.tolist() == [1, 1, 1, 0]
    row = env.step(torch.ones(4, dtype=torch.int64))
    assert row.first.tolist() == [False, False, True, True] and row.obs[2:, 0].tolist() == [0, 0]
    # killed from outside while nothing is asked of it, and lane 2 waits for its next episode
    for _ in range(4):
        row = env.step(torch.ones(4, dtype=torch.int64))
    assert row.last[2:].all()
    env.workers[1].process.kill()  # type: ignore[attr-defined]
    with pytest.warns(RuntimeWarning, match="its process is replaced, and 1 episodes are cut there"):
        row = env.step(torch.ones(4, dtype=torch.int64))
    assert row.last.tolist()[2:] == [True, True] and row.reward.tolist()[2:] == [0, 0]
    row = env.step(torch.ones(4, dtype=torch.int64))
    assert row.first.tolist()[2:] == [True, True]
    env.close()


def test_a_process_that_dies_without_a_budget_ends_the_run() -> None:
    with pytest.raises(EnvFault, match="killed by SIGKILL"):
        told(block(2, 0), 12)
    with pytest.raises(EnvFault, match="killed by SIGKILL"):
        told(block(2, 1), 12)
