"""Agents of other runs that play in a league: their own moves, resumed without their folders, refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlkit
from rlkit import checkpoint
from rlkit.cli.main import main
from rlkit.collect.league import Field, league_of
from rlkit.config import trust
from rlkit.envs.boards.board import Board
from rlkit.options import ConfigError
from rlkit.play.saved import build_policy, load
from rlkit.run.resume import resume
from rlkit.types import Lanes, tree_map
from tests.helpers.resumed import interrupted_at
from tests.helpers.runs import digest

TINY: dict[str, Any] = {
    "env": "rlkit/Board", "env.kwargs": {"width": 4, "height": 1, "row": 2}, "agent": "ppo", "agent.steps": 8,
    "agent.minibatch": 32, "agent.epochs": 2, "preset": "none", "env.lanes": 8, "network.encoder": "mlp",
    "network.hidden": [16], "threads": 1, "log.tensorboard": False, "device": "cpu", "evaluate.episodes": 6,
    "evaluate.sample": True,
}  # fmt: skip
LSTM = {"network.core": "lstm", "network.core_size": 8, "agent.sequence": 8}
NEW = {"total_steps": 400, "evaluate.every": 128, "checkpoint.every": 100, "league.newest": 0.2}


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an LSTM that has two checkpoints and a league of its own, with a guest in it."""
    folder = str(tmp_path_factory.mktemp("guests"))
    first = rlkit.train(**TINY, dir=folder, name="first", total_steps=64)
    return rlkit.train(
        **TINY, **LSTM, dir=folder, name="guest", seed=5, total_steps=192, **{"checkpoint.every": 64, "optim.lr": 0.02},
        **{"league.players": ["random", str(first)]},
    )  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guest: Path) -> Path:
    """The current folder, with a copy of the guest's run in runs/."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(guest, tmp_path / "runs" / "guest"))


def test_a_guest_plays_by_its_own_weights_and_memory(here: Path) -> None:
    new = rlkit.train(**TINY, name="new", total_steps=64, **{"league.players": ["random", "guest:last"]})
    policy, its = load(new, "last").policy, load(here, "last").policy
    league = league_of(policy)
    assert league is not None and league.name(2) == "guest:last" and not its.memoryless
    board = Board(2, 0, width=4, height=1, row=2).game
    field = Field(league, policy, board, Lanes(2), torch.device("cpu"))
    games, number = np.arange(2), np.full(2, 2)
    board.open(games, games)
    state = its.initial_state(Lanes(2))
    for begins in (True, False):  # what it remembers of its first move is part of the second
        seen = board.look(games)
        draws = np.full((2, its.noise_size), 0.3, np.float32)
        found = field.move(number, games, seen, np.full(2, begins), lambda size: draws)  # noqa: B023
        obs = {name: torch.from_numpy(x) for name, x in seen.items()}
        action, state, _ = its.act(obs, torch.full((2,), begins), state, torch.from_numpy(draws))
        assert found.tolist() == its.to_env(action).tolist()
        tree_map(lambda x, y: torch.testing.assert_close(x, y), field.states[2], state)
        board.play(games, found)


@pytest.mark.parametrize("more", [{}, {"source": "thread"} | LSTM], ids=["sync", "thread-lstm"])
def test_a_run_with_a_guest_goes_on_exactly_without_its_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = TINY | NEW | more | {"league.players": ["random", "guest"]}
    whole = rlkit.train(**options, name="whole")
    with interrupted_at(monkeypatch, 4), pytest.raises(KeyboardInterrupt):
        rlkit.train(**options, name="part")
    assert "league: guest plays as" in capsys.readouterr().out
    shutil.rmtree(here)
    written = here.with_name("part") / "config.yaml"
    kept = written.read_text()
    written.write_text(kept.replace("- guest\n", "- whole\n"))
    with pytest.raises(
        ConfigError, match=r"league.players=whole: was no player .* \(its checkpoint has guest\)"
    ):
        resume(here.with_name("part"))
    written.write_text(kept)
    resume(here.with_name("part"))
    assert digest(whole) == digest(here.with_name("part"))
    policy = load(whole, "last").policy
    league = league_of(policy)
    # games of training and of evaluations were played against it
    assert league is not None and league.score[2, 0] > 0 and league.games[2, 3:].sum() > 0
    its = league.guests["guest"]
    assert league_of(its) is None and not any(name.startswith("league") for name in its.state_dict())
    assert main(["evaluate", str(whole), "--games", "4"]) == 0
    assert "\nguest " in capsys.readouterr().out


def test_a_damaged_guest_is_taken_from_the_checkpoint_before(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = checkpoint.steps(here / "checkpoints")
    newest = checkpoints[0][1]
    weights = newest / "policy.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    rlkit.train(**TINY, name="new", total_steps=64, **{"league.players": ["guest:last"]})
    said = capsys.readouterr()
    assert (
        f"plays as runs/guest/checkpoints/{checkpoints[1][1].name} (agent=ppo)" in said.out
        and newest.name in said.out + said.err
    )


def test_a_guest_of_code_that_was_never_named_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "tests.contract.outside.a2c"
    options = {name: value for name, value in TINY.items() if name not in ("agent.minibatch", "agent.epochs")}
    rlkit.train(**options | {"agent": code}, name="outside", total_steps=64)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "nobody"))
    monkeypatch.setattr(trust, "_unsaved", set[str]())
    with pytest.raises(ConfigError, match=f"imports code that was never named on this machine: {code}"):
        rlkit.train(**TINY, name="new", total_steps=64, **{"league.players": ["outside"]})
    assert not here.with_name("new").exists()


def test_what_is_no_guest_is_one_line(here: Path, tmp_path: Path) -> None:
    rlkit.train(**TINY | {"env.kwargs": {"width": 5, "height": 1, "row": 2}}, name="wide", total_steps=64)
    shutil.copytree(here, here.with_name("empty"), ignore=shutil.ignore_patterns("step-*", "best"))
    broken = shutil.copytree(here, here.with_name("broken"))
    for path in broken.rglob("policy.json"):
        path.write_text("{}")
    for name, says in (
        ("wide", "league.players=wide: plays another game: its inputs are "),
        ("empty", "league.players=empty: .*holds no checkpoint"),
        ("broken", "league.players=broken: "),
        ("guest:7", "league.players=guest:7: checkpoint 7 is not in .*; allowed: best, last, "),
        (
            "runs/gone",
            "league.players runs/gone: no such player here; allowed: random, .*, or the folder of a run",
        ),
    ):
        with pytest.raises(ConfigError, match=says) as found:
            rlkit.train(**TINY, name="new", total_steps=64, **{"league.players": ["random", name]})
        assert "\n" not in str(found.value) and not here.with_name("new").exists()


def test_a_folder_does_not_take_the_name_of_a_player(here: Path) -> None:
    here.rename(here.with_name("random"))
    new = rlkit.train(**TINY, name="new", total_steps=64)
    league = league_of(load(new, "last").policy)
    assert league is not None and not league.guests


def test_a_guest_that_is_larger_than_its_weights_is_refused(here: Path) -> None:
    parts = checkpoint.newest(here / "checkpoints", "policy", say=print)[2]["policy"]
    ((name, guest),) = parts["guests"].items()
    build_policy(parts)
    wide = guest | {"network": guest["network"] | {"hidden": [8192, 8192]}}
    with pytest.raises(ConfigError, match="a network that is larger than its weights"):
        build_policy(parts | {"guests": {name: wide}})
