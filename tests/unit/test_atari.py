"""Atari games by the rules of env.atari.*: pictures, openings, lives, rewards, and three ways to play that agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.contracts import VecEnv
from rlkit.envs.config import AtariConfig, EnvConfig
from rlkit.envs.make import make_vec, probe
from rlkit.envs.single import make_env
from rlkit.envs.wrappers.atari import AtariGame
from rlkit.types import EnvStep

pytest.importorskip("ale_py")

RULES = compose(["env=atari", "env.id=ALE/Breakout-v5"]).config.env.atari
BREAKOUT = EnvConfig(id="ALE/Breakout-v5", skip=4, gray=True, size=84, lanes=1, backend="inprocess")


def game(id: str, **rules: Any) -> AtariGame:
    config = replace(BREAKOUT, id=id, size=0, atari=replace(AtariConfig(sticky=0.0), **rules))
    env = make_env(config)
    assert isinstance(env, AtariGame)
    return env


def opened(config: EnvConfig, evaluation: bool = False) -> tuple[VecEnv, EnvStep]:
    env = make_vec(config, 0, evaluation=evaluation)
    return env, env.restore(np.zeros(config.lanes, np.int64), [np.zeros(0)] * config.lanes)


def test_the_brighter_of_two_frames_shows_what_flickers() -> None:
    """Asteroids draws its rocks in every other frame: one frame loses most of what the two show."""
    env, single = (game("ALE/Asteroids-v5", pool=pool) for pool in (True, False))
    both: list[int] = []
    shown: list[int] = []
    alone: list[int] = []
    for each in (env, single):
        each.reset(seed=0)
    for t in range(12):
        before = []
        # the two frames by hand, from a copy of the emulator's state
        state = single.ale.cloneState()
        for _ in range(4):
            single.ale.act(single.actions[t % 14])
            before.append(single.screen())
        single.ale.restoreState(state)
        brightest = np.maximum(before[-2], before[-1])
        picture, *_ = env.step(t % 14)
        last, *_ = single.step(t % 14)
        assert np.array_equal(picture, brightest) and np.array_equal(last, before[-1])
        for counts, seen in ((both, brightest), (shown, picture), (alone, last)):
            counts.append(np.count_nonzero(seen))
    assert sum(shown) >= 0.99 * sum(both) and sum(alone) < 0.75 * sum(both)


def test_an_episode_opens_as_its_seed_says() -> None:
    env = game("ALE/Breakout-v5", noops=30)
    idle = []
    for seed in (1, 2, 3, 1):
        env.reset(seed=seed)
        idle.append(env.ale.getEpisodeFrameNumber())
    assert idle[0] == idle[3] and len(set(idle[:3])) > 1 and all(1 <= each <= 30 for each in idle)
    plain = game("ALE/Breakout-v5")
    plain.reset(seed=1)
    assert plain.ale.getEpisodeFrameNumber() == 0


def test_fire_starts_a_game_that_has_it() -> None:
    fired, waiting = (game("ALE/Breakout-v5", fire=fire) for fire in (True, False))
    for env in (fired, waiting):
        env.reset(seed=0)
    pictures = [[env.step(0)[0] for _ in range(3)] for env in (fired, waiting)]
    assert np.array_equal(pictures[1][0], pictures[1][2]), "without fire there is no ball"
    assert not np.array_equal(pictures[0][0], pictures[0][2])
    freeway = game("ALE/Freeway-v5", fire=True)  # up and down are all that it knows
    freeway.reset(seed=0)
    assert freeway.ale.getEpisodeFrameNumber() == 0


@pytest.mark.parametrize("evaluation", [False, True])
def test_a_lost_life_cuts_the_return_of_training_and_the_game_goes_on(evaluation: bool) -> None:
    env, row = opened(replace(BREAKOUT, atari=replace(RULES, evaluation_sticky=0.0)), evaluation)
    g, cuts = torch.Generator().manual_seed(0), 0
    try:
        while not row.last:
            row = env.step(torch.randint(0, 4, (1,), generator=g))
            cuts += int(row.terminated and not row.last)
    finally:
        env.close()
    assert bool(row.terminated)
    assert cuts == (0 if evaluation else 4)  # five lives, and the last one ends the game


@pytest.mark.parametrize("evaluation", [False, True])
def test_training_pays_the_sign_of_a_reward(evaluation: bool) -> None:
    """A fish of Seaquest is 20 points."""
    env, _ = opened(replace(BREAKOUT, id="ALE/Seaquest-v5", size=42, atari=RULES), evaluation)
    g, paid = torch.Generator().manual_seed(0), set()
    try:
        for _ in range(150):
            paid.add(float(env.step(torch.randint(0, 18, (1,), generator=g)).reward))
    finally:
        env.close()
    assert paid == ({0.0, 20.0} if evaluation else {0.0, 1.0})


def test_evaluation_repeats_actions_and_its_episodes_differ() -> None:
    config = compose(["env=breakout", "env.lanes=3", "env.backend=inprocess"]).config.env
    judged = config.atari.judged()
    assert (config.atari.sticky, judged.sticky, judged.lives, judged.sign) == (0.0, 0.25, False, False)
    assert judged.judged() == judged and "sticky actions 0 (evaluation 0.25)" in config.atari.describe()
    env, row = opened(replace(config, atari=replace(config.atari, noops=0)), evaluation=True)
    try:
        for t in range(40):  # the same actions, from the same start
            row = env.step(torch.full((3,), t % 4))
        assert not torch.equal(row.obs[0], row.obs[1]) and not torch.equal(row.obs[1], row.obs[2])  # type: ignore[index]
    finally:
        env.close()


@pytest.mark.parametrize("backend", ["native", "envpool"])
def test_vectors_in_machine_code_play_the_same_game(backend: str) -> None:
    """The same pictures, rewards and lost lives, to the last bit, where no opening is drawn."""
    if backend == "envpool":
        pytest.importorskip("envpool")
    noops = int(backend == "envpool")  # exactly one frame; it cannot do without
    config = replace(BREAKOUT, lanes=2, workers=1, atari=replace(RULES, noops=noops, fire=False))
    pairs = [opened(replace(config, backend=each)) for each in ("inprocess", backend)]
    g = torch.Generator().manual_seed(1)
    try:
        assert (
            pairs[0][0].spec == pairs[1][0].spec or pairs[0][0].spec.to_json() == pairs[1][0].spec.to_json()
        )
        cuts = 0
        for _ in range(120):
            action = torch.randint(0, 4, (2,), generator=g)
            ours, theirs = (env.step(action) for env, _ in pairs)
            if ours.last.any():
                break
            for name in ("obs", "reward", "terminated", "last"):
                assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
            cuts += int(ours.terminated.sum())
        assert cuts > 1
    finally:
        for env, _ in pairs:
            env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"id": "CartPole-v1"},
            r"env\.atari\.pool=true: env\.id=CartPole-v1 is no Atari game; allowed",
        ),
        (
            {"atari": AtariConfig(lives=True, sign=True)},
            r"env\.atari: lives and sign alone.*type env\.atari\.pool=true",
        ),
        ({"id": "rlkit/Driving"}, r"env\.id=rlkit/Driving is no Atari game"),
        ({"kwargs": {"frameskip": 2}}, r"env\.kwargs\.frameskip: follows from env\.skip, env\.atari\.sticky"),
        (
            {"backend": "envpool", "atari": replace(RULES, noops=0)},
            r"its games .*env\.atari\.noops=30",
        ),
        ({"backend": "envpool", "size": 0}, r"type env\.size=84, or env\.backend=workers"),
        (
            {"backend": "native", "time_limit": 9},
            r"env\.time_limit=9: env\.backend=native takes",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(options: dict[str, Any], message: str) -> None:
    if options.get("backend") == "envpool":
        pytest.importorskip("envpool")
    with pytest.raises(ValueError, match=message) as caught:
        probe(replace(BREAKOUT, **{"atari": RULES, **options}))
    assert "\n" not in str(caught.value)


def test_ale_py_s_vector_draws_no_films() -> None:
    with pytest.raises(
        ValueError, match=r"env\.backend=native: ale-py's vector draws no films; allowed with"
    ):
        make_vec(replace(BREAKOUT, backend="native", atari=RULES), 0, render=True)


def test_a_time_limit_counts_frames() -> None:
    """As for every other environment with a skip: in steps before it."""
    config = replace(BREAKOUT, time_limit=21, atari=RULES)
    env, row = opened(config)
    try:
        steps = 0
        while not row.last:
            row, steps = env.step(torch.zeros(1, dtype=torch.long)), steps + 1
    finally:
        env.close()
    assert steps == 6 and not row.terminated


def test_every_game_has_a_name() -> None:
    games = {name: id for name, id in registry.environment_ids().items() if "atari" in registry.lineage(name)}
    assert len(games) == 58 and len(set(games.values())) == 58  # and the configuration of all of them
    assert {
        "breakout": "ALE/Breakout-v5",
        "mspacman": "ALE/MsPacman-v5",
        "pong": "ALE/Pong-v5",
    }.items() <= games.items()
    assert all(id in gymnasium.registry for id in games.values() if "*" not in id)
    composed = compose(["agent=dqn", "env=ALE/Seaquest-v5"])
    assert composed.preset == "dqn-atari" and composed.config == compose(["agent=dqn", "env=seaquest"]).config
    assert (
        compose(["env=ALE/Adventure-v5"]).config.env.atari == RULES
        and compose(["env=pong"]).preset == "ppo-atari"
    )
