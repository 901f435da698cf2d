"""Evaluation in training, with made-up episodes: what is kept, what is left out, what is compared."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import rlkit
from rlkit.config.compose import compose
from rlkit.contracts import EndlessEpisode, Timing
from rlkit.envs import EnvFault
from rlkit.learn import trainer
from rlkit.learn.trainer import Clock
from rlkit.play import video
from rlkit.play.evaluate import Episode, Evaluator
from rlkit.run import hooks
from rlkit.run.check import check
from rlkit.run.console import Console, summary_lines
from rlkit.run.hooks import CheckpointHook, EvaluateHook, LogHook, VideoHook
from rlkit.run.start import prepare

ENDLESS = None


class Played:
    """An evaluator whose evaluations return these means, one after the other; None: an episode does not end."""

    def __init__(self, *means, judged=None):
        self.means, self.judged, self.count = list(means), judged or {"id": "E", "greedy": True}, 0

        self.greedy = self.judged["greedy"]

    def worth(self, episodes, step, report):
        return sum(each.result for each in episodes) / len(episodes)

    def play(self, greedy=True):
        self.count += 1
        mean = self.means.pop(0)
        if mean is ENDLESS:
            raise EndlessEpisode("it did not end")
        return [Episode(0, 1, mean - 1, 5), Episode(1, 2, mean + 1, 5)]


class Kept:
    def __init__(self):
        self.scores = []

    def keep(self, step, mean):
        self.scores.append((step, mean))


def run(evaluator, evaluations, episodes=1):
    """A run with an evaluation every ten steps; returns its reports, what was kept, what was said, the hook."""
    clock, kept, said = Clock(10 * evaluations), Kept(), []
    hook = EvaluateHook(10, evaluator, kept, said.append, lambda step: None)
    reports = []
    for _ in range(2 * evaluations):
        clock.advance(5)
        reports.append({"episodes": episodes})
        hook.after_update(clock, reports[-1])
    return reports, kept.scores, said, hook


def test_the_best_is_kept_and_of_equal_ones_the_later():
    reports, kept, said, _ = run(Played(1.0, 3.0, 2.0, 3.0), 4)
    assert kept == [(10, 1.0), (20, 3.0), (40, 3.0)]
    assert [each.get("evaluate/mean") for each in reports] == [None, 1, None, 3, None, 2, None, 3]
    assert [each["evaluate/best"] for each in reports[1::2]] == [1, 3, 3, 3]
    assert {each["evaluate/std"] for each in reports[1::2]} == {1.0}
    assert said == []


@pytest.mark.parametrize(("greedy", "apart"), [(2.0, False), (90.0, True)])
def test_at_the_end_of_a_run_that_draws_actions_the_most_likely_ones_are_tried(greedy, apart):
    evaluator = Played(1.0, 3.0, greedy, judged={"id": "E", "greedy": False})
    reports, kept, said, _ = run(evaluator, 2)
    assert evaluator.means == [] and reports[-1]["evaluate/mean"] == 3.0 and kept[-1] == (20, 3.0)
    assert len(said) == apart
    if apart:  # of two returns, the mean +- 12.7 standard errors of 1
        assert said[0].startswith(
            "evaluation: 3 [-9.706, 15.71] with actions drawn as in training, 90 [77.29, 102.7]"
        )


def test_evaluations_that_do_not_end_are_tried_less_and_less():
    """Numbers 1, 3, 7 and the last of ten; one that ends starts anew."""
    evaluator = Played(*[ENDLESS] * 4)
    _, kept, said, _ = run(evaluator, 10)
    assert (evaluator.count, kept) == (4, [])
    assert [text.split(" (")[0] for text in said] == [
        f"warning: no evaluation at step {step}" for step in (10, 30, 70, 100)
    ]
    evaluator = Played(ENDLESS, 1.0, 2.0, ENDLESS, 5.0, 6.0)
    _, kept, _, _ = run(evaluator, 8)  # 1; 3, 4, 5; 7, 8
    assert evaluator.count == 6
    assert kept == [(30, 1.0), (40, 2.0), (70, 5.0), (80, 6.0)]


def test_where_no_episode_of_training_ends_only_the_first_and_the_last_are_tried():
    evaluator = Played(ENDLESS, ENDLESS)
    assert run(evaluator, 10, episodes=0)[2] and evaluator.count == 2
    evaluator = Played(*range(10))  # all of these end: training's own are longer
    assert len(run(evaluator, 10, episodes=0)[1]) == 10


def test_a_run_that_goes_on_remembers_the_best_unless_something_else_is_judged():
    state = run(Played(1.0, 3.0), 2)[3].state_dict()
    _, _, said, hook = run(Played(), 0)
    hook.load_state_dict(state)
    assert hook.best == 3.0 and said == []
    del state["judged"]  # as before version 0.2.0
    hook.load_state_dict(state)
    assert hook.best == 3.0
    state = run(Played(1.0, 3.0), 2)[3].state_dict()
    for judged in ({"id": "F", "greedy": True}, {"id": "E", "greedy": False}):
        _, _, said, hook = run(Played(judged=judged), 0)
        hook.load_state_dict(state)
        assert hook.best is None
        assert said[0].startswith("evaluation has changed (") and "best/, 3.0, is not compared" in said[0]


def test_what_is_judged_is_the_environment_and_how_actions_are_chosen():
    config = compose(["preset=none"]).config

    def judged(greedy=True, **env):
        changed = replace(config, env=replace(config.env, **env))
        policy = type("P", (), {"spec": type("S", (), {"agents": ("agent",), "groups": ()})})
        return Evaluator(policy, changed, 10, seed=0, device=torch.device("cpu"), greedy=greedy).judged

    same = judged()
    assert (
        judged(lanes=3, backend="workers", workers=2, reward_scale=0.1, stuck_after=9, deadline=5.0) == same
    )
    for change in (
        {"id": "Acrobot-v1"},
        {"kwargs": {"a": 1}},
        {"time_limit": 7},
        {"skip": 2},
        {"greedy": False},
    ):
        assert judged(**change) != same, change


@pytest.mark.parametrize("sample", [False, True])
def test_actions_are_drawn_in_evaluation_and_in_films_where_that_was_asked_for(sample, tmp_path, monkeypatch):
    options = [
        "preset=none",
        "env.backend=inprocess",
        "network.hidden=[4]",
        f"evaluate.sample={str(sample).lower()}",
    ]
    session = prepare(compose(options).config, tmp_path, Console(1, "test", plain=True))
    hooks = {type(hook): hook for hook in session.hooks}
    assert hooks[EvaluateHook].evaluator.greedy is not sample
    drawn = []
    monkeypatch.setattr(video, "run_episodes", lambda *_, greedy, **options: drawn.append(greedy) or [])
    hooks[VideoHook].recorder.record(7)
    assert drawn == [not sample]
    session.close()


@pytest.mark.parametrize(("steps", "warns"), [(900, True), (1000, True), (1001, False)])
def test_a_warm_up_as_long_as_the_run_is_said(steps, warns):
    plan = check(
        compose(["agent=dqn", "env=cartpole", "preset=none", f"total_steps={steps}", "env.lanes=1"]).config
    )
    said = [note for note in plan.notes if "warms up for 1,000 transitions" in note]
    assert bool(said) == warns


class Broken:
    """A recorder whose environment fails when it is drawn."""

    def record(self, step):
        trace = "Traceback (most recent call last):"
        raise EnvFault("raised", "E-v0", 0, 2, 5, 77, "render", "OSError('no display')", trace)


def test_a_film_that_fails_is_told_and_ends_nothing():
    clock, said = Clock(100), []
    hook = VideoHook(10, Broken(), None, said.append)
    for _ in range(2):
        clock.advance(10)
        hook.after_update(clock, {})
    where = "raised: environment E-v0, lane 0, episode 2 (seed 77), step 5: render: OSError('no display')"
    assert said == [f"warning: no video at step {step}: {where}" for step in (10, 20)]


class Feed:
    timing = Timing(environment=2.0, policy=1.0)

    def lags(self):
        return []


class Timed(Clock):
    """A clock whose seconds a test sets."""

    seconds = 0.0


def test_evaluations_and_films_are_not_training_time(monkeypatch):
    """Ten seconds, of which the evaluation took six: 400 steps in four seconds, a quarter of them in learning."""
    now = iter([100.0, 106.0])
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: next(now))
    rows, console = [], type("C", (), {"update": lambda self, step, row: None})()
    writer = type("W", (), {"write": lambda _, step, row: rows.append(row), "histogram": lambda *_: None})()
    clock, hook = Timed(400), LogHook(1, writer, console, Feed())
    clock.advance(400)
    clock.learning, clock.seconds = 1.0, 10.0
    report = {"episodes": 1}
    EvaluateHook(1, Played(1.0), Kept(), print, lambda step: None).after_update(clock, report)
    hook.after_update(clock, report)
    (row,) = rows
    assert (row["time/seconds"], row["time/evaluation_seconds"]) == (10.0, 6.0)
    assert row["time/steps_per_second"] == 100.0
    shares = [row[f"time/{name}"] for name in ("environment", "policy", "learning", "other")]
    assert shares == pytest.approx([0.5, 0.25, 0.25, 0.0])
    state = clock.state_dict()
    again = Clock(400)
    again.load_state_dict(state)
    assert again.beside == 6.0
    del state["beside"]  # as before version 0.2.0
    again.load_state_dict(state)
    assert again.beside == 0.0


@pytest.mark.parametrize("waited", [0.0, 3.0])
def test_time_that_workers_elsewhere_are_waited_for_is_told_since_the_row_before(waited):
    rows, feed = [], Feed()
    writer = type("W", (), {"write": lambda _, step, row: rows.append(row), "histogram": lambda *_: None})()
    clock, hook = Timed(400), LogHook(1, writer, type("C", (), {"update": lambda *_: None})(), feed)
    for count in (1, 2):
        feed.timing = Timing(environment=0.0, policy=0.0, waiting=count * count * waited)
        clock.advance(10)
        clock.seconds = 10.0 * count
        hook.after_update(clock, {"episodes": 1})
    expected = [0.3, 0.9] if waited else [None, None]
    assert [row.get("time/waiting") for row in rows] == expected


def test_the_state_in_memory_is_at_most_a_fifth_of_a_second_old(monkeypatch):
    """Updates at these seconds, each taken at the first that comes more than 0.2 after the one before."""
    taken, now = [], [0.0]
    run = type("R", (), {"urgent": False, "state_dict": lambda self: taken.append(now[0]) or {}})()
    monkeypatch.setattr(hooks.time, "monotonic", lambda: now[0])
    hook, clock = CheckpointHook(10**9, run), Clock(10**9)
    hook.begin()
    for now[0] in (0.1, 0.19, 0.21, 0.3, 0.42, 0.6, 0.63, 2.0):
        clock.advance(1)
        hook.after_update(clock, {})
    assert taken == [0.0, 0.21, 0.42, 0.63, 2.0]


def test_a_console_says_why_it_stands_still_and_how_long_everything_took(capsys):
    console = Console(1000, "t", plain=True)
    console.update(0, {})
    console.close()
    assert (
        capsys.readouterr()
        .out.splitlines()[1]
        .startswith("step 0/1,000 (0%)  gathering a batch; steps count")
    )
    lines = dict(summary_lines({"time/seconds": 75.0, "time/evaluation_seconds": 15.0, "time/learning": 0.5}))
    assert lines == {"total time": "1:15, of it 0:15 in evaluations and films", "training": "learning 50%"}
    assert dict(summary_lines({"time/seconds": 75.0})) == {"total time": "1:15"}


def test_the_same_command_again_says_that_such_a_run_exists(tmp_path, capsys):
    options = {
        "total_steps": 20, "preset": "none", "dir": str(tmp_path), "threads": 1, "log.tensorboard": False,
        "env.lanes": 2, "env.backend": "inprocess", "evaluate.episodes": 1, "network.hidden": [4],
        "agent.steps": 10, "agent.epochs": 1,
    }  # fmt: skip
    for number in (1, 2):
        folder = rlkit.train("ppo", "CartPole-v1", **options)
        said = capsys.readouterr().out
        assert ("exists, so this new run is" in said) == (number == 2)
    assert folder.name == "ppo-cartpole-0-2"
    assert f"rlkit resume {tmp_path / 'ppo-cartpole-0'} continues that one" in said
