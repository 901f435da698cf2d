"""Self-play: the league's numbers by hand, its members' moves, runs that resume to the last bit, and matches."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlkit
from rlkit import checkpoint
from rlkit.cli.main import main
from rlkit.collect.league import FLOOR, League, league_of, seat, with_league
from rlkit.collect.make import make_actor
from rlkit.collect.ratings import ratings
from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.config.league import LeagueConfig
from rlkit.contracts import Policy
from rlkit.envs.boards.board import Board
from rlkit.metrics import read_metrics
from rlkit.options import ConfigError
from rlkit.play.evaluate import run_episodes
from rlkit.play.matches import wilson
from rlkit.play.people import play_person
from rlkit.play.saved import load
from rlkit.run.folder import run_config
from rlkit.run.resume import resume
from rlkit.turns import OPPONENT, SEAT
from rlkit.types import EnvSpec, Lanes, Rollout
from tests.helpers.resumed import interrupted_at
from tests.helpers.runs import digest

# who takes one of the middle cells first wins: the other can close only one end
LINE = {"env": "rlkit/Board", "env.kwargs.width": 4, "env.kwargs.height": 1, "env.kwargs.row": 2}
TINY: dict[str, Any] = {
    **LINE, "preset": "none", "env.lanes": 8, "network.encoder": "mlp", "network.hidden": [16], "seed": 3, "threads": 1,
    "log.tensorboard": False, "device": "cpu", "evaluate.episodes": 8, "evaluate.sample": True,
}  # fmt: skip


def policy_of(**options: Any) -> tuple[Policy, Any]:
    config = compose(values={"agent": "ppo", **TINY, **options}).config
    spec: EnvSpec = registry.env_package().probe(config.env).spec
    algorithm = registry.algorithm(config.agent_name)
    torch.manual_seed(0)
    return with_league(algorithm.Policy(spec, config.network, config.agent), config.league), config


def test_ratings_by_hand() -> None:
    """Two players: R = 400 log10(p / (1 - p)), p with one more win of either side. A chain adds up."""
    points, games = np.zeros((4, 4)), np.zeros((4, 4))
    games[0, 1] = games[1, 0] = games[1, 2] = games[2, 1] = 100
    points[1, 0], points[0, 1] = 75, 25
    points[2, 1], points[1, 2] = 90, 10
    found = ratings(points, games)
    first, second = (400 * np.log10((w + 1) / (l + 1)) for w, l in ((75, 25), (90, 10)))
    assert found[:3] == pytest.approx([0, first, first + second], abs=1e-6) and np.isnan(found[3])
    points[2, 1], points[1, 2] = 100, 0
    assert ratings(points, games)[2] == pytest.approx(first + 400 * np.log10(101))


def test_ratings_are_the_most_likely_ones() -> None:
    generator = np.random.default_rng(0)
    truth = np.array([0.0, 100.0, -50.0, 300.0])
    p = 1 / (1 + 10 ** ((truth[None] - truth[:, None]) / 400))
    wins = np.triu(generator.binomial(4000, p), 1).astype(float)
    points = wins + np.tril(4000 - wins.T, -1)
    games = 4000.0 * (1 - np.eye(4))
    assert ratings(points, games) == pytest.approx(truth, abs=12)


def test_the_wilson_interval_is_the_published_one() -> None:
    assert wilson(0.9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_members_are_met_by_how_hard_they_are_to_beat() -> None:
    policy, _ = policy_of()
    league = league_of(policy)
    assert league is not None and league.present().tolist() == [1]
    assert league.chances()[:2] == pytest.approx([0.5, 0.5])
    league.join(policy, 100)
    league.score[1], league.score[2] = torch.tensor([99.0, 98.0]), torch.tensor([9.0, 2.0])
    easy, hard = (1 - 98.5 / 100) ** 2 + FLOOR, (1 - 2.5 / 10) ** 2 + FLOOR
    wanted = [0.5, 0.5 * easy / (easy + hard), 0.5 * hard / (easy + hard)]
    assert league.chances()[:3] == pytest.approx(wanted)
    assert [league.name(n) for n in range(3)] == ["newest", "random", "step 100"]


def test_games_of_a_rollout_are_counted_once() -> None:
    policy, _ = policy_of()
    league = league_of(policy)
    assert league is not None
    last = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.bool)
    reward = torch.tensor([[1.0, 0], [0, 0], [-1, 0]])
    obs = {OPPONENT: torch.tensor([[1, 2], [1, 2], [0, 2], [0, 2]])}
    rollout = Rollout(obs, last, last, torch.zeros(3, 2), reward, last[1:])
    league.count(rollout)
    # row 1 of lane 0 won against 1, row 3 lost against 0; lane 1 drew against 2 in row 2 (row 3 closes nothing anew)
    assert league.score[:3].tolist() == [[1, 0], [1, 1], [1, 0.5]]


def test_a_full_league_forgets_its_oldest_snapshot_and_keeps_the_others_results() -> None:
    policy, _ = policy_of(**{"league.size": 2})
    league = league_of(policy)
    assert league is not None
    for step in (10, 20, 30):
        members = league.present()
        league.record(np.repeat(members, 2), np.ones(2 * len(members)))
        with torch.no_grad():
            next(policy.parameters()).fill_(step)
        league.join(policy, step)
    assert league.joined.tolist() == [30, 20]
    # 20 won 2 games against random and against 10, which is gone; 30 won 2 against random, 10 (its place) and 20
    assert league.games[1].tolist() == [0, 0, 2, 2] and league.points[2].tolist() == [0, 2, 0, 2]
    twin, _ = policy_of(**{"league.size": 2})
    for member, step in ((2, 30), (3, 20)):
        league.dress(twin, member)
        assert (next(twin.parameters()) == step).all()


def test_each_member_moves_as_its_own_weights_say() -> None:
    """Snapshots that are sure of one cell each, and the newest weights of another: the first move of seat 0 tells."""
    policy, _ = policy_of()
    league = league_of(policy)
    assert league is not None
    bias = policy.network.heads["policy"].bias  # type: ignore[union-attr]
    for cell in (1, 2, 3):  # members 2 and 3, and the newest
        with torch.no_grad():
            bias.copy_(torch.where(torch.arange(4) == cell, 50.0, 0.0))
        if cell < 3:
            league.join(policy, cell)
    env = Board(256, 5, width=4, height=1, row=2)
    seat(env, policy, Lanes(256))
    row = env.restore(np.zeros(256, np.int64), [np.zeros(0)] * 256)
    obs = row.obs
    assert isinstance(obs, dict)
    second = obs[SEAT] == 1
    who, moved = obs[OPPONENT][second], (obs["board"][second, 0] == 2).int().argmax(1)
    assert {int(n) for n in who} == {0, 1, 2, 3}
    for member, cell in ((0, 3), (2, 1), (3, 2)):
        assert (moved[who == member] == cell).all()
    assert len(moved[who == 1].unique()) == 4  # at random
    # half against the newest, the rest by their chances: a sixth each, as none was played yet
    share = torch.bincount(obs[OPPONENT], minlength=4) / 256
    assert (share - torch.tensor([1 / 2, 1 / 6, 1 / 6, 1 / 6])).abs().max() < 0.1
    # an evaluation plays every member, from both seats, as often
    judged = seat(Board(8, 5, evaluation=True, width=4, height=1, row=2), policy, Lanes(8))
    played = run_episodes(policy, judged, 18, seed=5, device=torch.device("cpu"))
    assert {(each.opponent, each.seat) for each in played} == {(m, s) for m in (1, 2, 3) for s in (0, 1)}
    assert all(sum((e.opponent, e.seat) == (m, s) for e in played) == 3 for m in (1, 2, 3) for s in (0, 1))


def test_lanes_in_groups_do_not_depend_on_their_neighbours() -> None:
    """Six lanes in groups of two, against snapshots that remember: the same rows as three vectors of two lanes."""
    options = {
        "network.core": "gru",
        "network.core_size": 8,
        "env.lanes": 6,
        "source.group": 2,
        "league.newest": 0.3,
    }
    policy, config = policy_of(**options)
    league = league_of(policy)
    assert league is not None
    for step in (1, 2, 3):
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(
                    0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
                )
        league.join(policy, step)
    device = torch.device("cpu")
    config = replace(config, agent=replace(config.agent, steps=8))
    whole, _ = make_actor(config, policy, device).collect()
    assert len(whole.obs[OPPONENT].unique()) > 3  # type: ignore[index]
    for first in (0, 2, 4):
        part, _ = make_actor(config, policy, device, first_lane=first, lanes=2).collect()
        lanes = slice(first, first + 2)
        assert torch.equal(part.action, whole.action[:, lanes])
        assert torch.equal(part.reward, whole.reward[:, lanes])
        assert all(torch.equal(part.obs[name], whole.obs[name][:, lanes]) for name in part.obs)  # type: ignore[index]


@pytest.mark.parametrize(
    "more",
    [
        {"agent": "ppo", "agent.steps": 8, "agent.minibatch": 32, "agent.epochs": 2, "evaluate.average": 0.9},
        {"agent": "ppo", "agent.steps": 8, "agent.sequence": 8, "network.core": "gru", "network.core_size": 8,
         "source": "thread"},
        {"agent": "dqn", "agent.replay.warmup": 32, "agent.replay.batch": 16, "agent.replay.capacity": 256,
         "agent.replay.ratio": 0.1, "agent.steps": 8},
    ],
    ids=["ppo", "ppo-gru-thread", "dqn"],
)  # fmt: skip
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {**TINY, **more, "evaluate.every": 128, "evaluate.episodes": 4, "checkpoint.every": 100}
    whole = rlkit.train(total_steps=450, name="whole", **options)
    with interrupted_at(monkeypatch, 5), pytest.raises(KeyboardInterrupt):
        rlkit.train(total_steps=450, name="part", **options)
    resume(tmp_path / "runs" / "part")
    assert digest(whole) == digest(tmp_path / "runs" / "part")
    policy = load(whole, "last").policy
    league = league_of(policy)
    assert league is not None and league.joined.tolist()[:3] == sorted(league.joined.tolist()[:3])
    assert (league.joined >= 0).sum() >= 3
    rows = [row for row in read_metrics(whole / "metrics.csv") if "evaluate/elo" in row]
    assert len(rows) == int((league.joined >= 0).sum())
    # best/ is the one with the highest rating
    score = checkpoint.read(whole / "best", "score")["score"]
    assert score["mean"] == pytest.approx(max(row["evaluate/elo"] for row in rows))


def test_self_play_finds_the_winning_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Who moves first wins by a middle cell, against anybody; an agent that learns nothing wins half of these games."""
    monkeypatch.chdir(tmp_path)
    learning = {
        "agent.steps": 16,
        "agent.minibatch": 64,
        "agent.epochs": 4,
        "optim.lr": 3e-3,
        "agent.entropy_coef": 0.01,
    }
    options = {
        **TINY,
        **learning,
        "env.lanes": 32,
        "league.openings": 1,
        "evaluate.every": 2000,
        "evaluate.episodes": 4,
    }
    folder = rlkit.train(agent="ppo", total_steps=8_000, name="line", **options)
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--opponent", "perfect", "--games", "40", "--no-sample"]) == 0
    text = capsys.readouterr().out
    first, second = (
        next(line for line in text.splitlines() if f"perfect   {seat}" in line)
        for seat in ("first", "second")
    )
    assert first.split()[2:6] == ["20", "20", "0", "0"], text
    assert second.split()[2:6] == ["20", "0", "0", "20"], text
    assert (folder / "eval" / "best-perfect-greedy-seed1000000-40.csv").read_text().count("\n") == 41
    assert main(["evaluate", str(folder), "games=4"]) == 0
    assert "random" in capsys.readouterr().out
    shutil.copytree(folder, "copy")
    assert main(["evaluate", str(folder), "copy", "--tournament", "--games", "4"]) == 0
    assert capsys.readouterr().out.count("Elo") == 2
    _person(folder)


def _person(folder: Path) -> None:
    """A person who types a wrong move, plays a game and stops in the next."""
    said: list[str] = []
    typed = iter(["nine", "0", "3", "q"])
    results = play_person(
        load(folder).policy,
        run_config(folder),
        5,
        seed=1,
        greedy=True,
        say=said.append,
        ask=lambda _: next(typed),
    )
    assert results == [1.0] and "the agent has won" in said and said[-1] == "stopped"
    assert "'nine': no move here; allowed: 0, 2, 3, q to stop" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"league.players": ["random", "chess"]}, "league.players chess: no such player here; allowed: random, first"),
        ({"league.newest": 2.0}, "league.newest"),
        ({"source": "ray", "source.inference": "shared"}, "source.inference=shared: in a game of turns"),
        ({"env": "cartpole", "league.newest": 0.4}, "league.newest=0.4: CartPole-v1 is no game of turns"),
        ({"league.players": []}, "league.players"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    base = {
        key: value for key, value in TINY.items() if not key.startswith("env.kwargs") or "env" not in options
    }
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        rlkit.train(**{**base, **options})
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_opponents_of_other_games_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = {"agent": "ppo", "agent.steps": 8, "agent.minibatch": 32, "total_steps": 64}
    line = rlkit.train(name="line", **{**TINY, **short})
    other = rlkit.train(name="other", **{**TINY, **short, "env.kwargs.width": 5})
    pole = rlkit.train(
        name="pole", **short, env="cartpole", preset="none", **{"evaluate.episodes": 1, "device": "cpu"}
    )
    from rlkit.cli import evaluate

    for arguments, message in (
        ([str(line), "--opponent", str(other)], "plays another game"),
        ([str(line), "--opponent", "nobody"], "--opponent nobody: no such player here; allowed: random, first"),
        ([str(line), "--opponent", "no_module:Class"], "no_module"),
        ([str(pole), "--opponent", "random"], "is no game of turns"),
        ([str(line), "--tournament"], "type two or more"),
        ([str(line), str(other), "--tournament"], f"^--tournament: {other}: plays another game"),
        ([str(line), str(pole), "--tournament"], "is no game of turns, .*; leave --tournament out"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            evaluate.main(arguments)


def test_other_environments_keep_their_policies() -> None:
    config = compose(values={"agent": "ppo", "env": "cartpole", "preset": "none"}).config
    spec: EnvSpec = registry.env_package().probe(config.env).spec
    policy = registry.algorithm("ppo").Policy(spec, config.network, config.agent)
    assert league_of(with_league(policy, LeagueConfig())) is None
    env = Board(2, 0)
    assert seat(env, policy, Lanes(2)) is env and not isinstance(env.others, League)
