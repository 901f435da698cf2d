"""When hooks act and what they do, with made-up reports and clocks; and evaluation with made-up environments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlkit.cli import evaluate as evaluate_verb
from rlkit.cli import watch as watch_verb
from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.envs.config import EnvConfig
from rlkit.envs.make import make_vec
from rlkit.learn.trainer import Clock, Hook, fit
from rlkit.metrics import MetricsWriter
from rlkit.play import evaluate
from rlkit.play.evaluate import Episode, Evaluator, run_episodes
from rlkit.run.console import Console
from rlkit.run.hooks import (
    AverageHook,
    Best,
    CheckpointHook,
    EvaluateHook,
    LogHook,
    StopHook,
    VideoHook,
)
from rlkit.run.start import prepare
from rlkit.seeding import uniforms
from rlkit.spaces import Box, Discrete
from rlkit.types import EnvSpec, EnvStep, Lanes

STRIDES = [3, 4, 5, 8, 1, 9]  # an update's steps: the clock stands at 3, 7, 12, 20, 21, 30


def steps_of(hook: Hook, acted: list[Any], total: int = 1000) -> list[int]:
    """The steps of the clock at which the hook did something (that is, added to `acted`)."""
    clock, found = Clock(total), []
    for stride in STRIDES:
        clock.advance(stride)
        before = len(acted)
        hook.after_update(clock, {"episodes": 1})
        found += [clock.step] * (len(acted) - before)
    return found


class Acts:
    """Notes every call of anything."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.judged: dict[str, Any] = {}
        self.urgent, self.draws, self.greedy = False, False, True

    def _note(self, *given: Any) -> Any:
        self.calls.append(given)
        return [Episode(0, 0, 1.0, 1)]

    play = record = save = write = _note

    def worth(self, episodes: list[Episode], step: int, report: Any) -> float:
        return episodes[0].result

    def keep(self, step: int, mean: float) -> None: ...

    def histogram(self, *given: Any) -> None: ...

    def update(self, *given: Any) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    timing = SimpleNamespace(environment=0.0, policy=0.0, waiting=0.0)

    def lags(self) -> list[int]:
        return []


def hook_of(kind: str, acts: Any, every: int) -> Hook:
    if kind == "evaluate":
        return EvaluateHook(every, acts, acts, lambda text: None, lambda step: None)
    if kind == "video":
        return VideoHook(every, acts, acts, lambda text: None)
    if kind == "checkpoint":
        return CheckpointHook(every, acts)
    return LogHook(every, acts, acts, acts)


@pytest.mark.parametrize(
    ("kind", "every", "expected"),
    [
        # wherever a multiple was passed; 20 and 30 were met exactly
        ("evaluate", 10, [12, 20, 30]),
        ("video", 10, [12, 20, 30]),
        ("checkpoint", 10, [12, 20, 30]),
        ("log", 10, [3, 12, 20, 30]),  # and the first update
        ("evaluate", 7, [7, 20, 21, 30]),  # one, however many multiples were passed
        ("video", 0, []),
    ],
)
def test_hooks_act_where_a_multiple_of_their_steps_is_passed(
    kind: str, every: int, expected: list[int]
) -> None:
    acts = Acts()
    assert steps_of(hook_of(kind, acts, every), acts.calls) == expected


@pytest.mark.parametrize(
    ("kind", "expected"), [("evaluate", [30]), ("checkpoint", [30]), ("log", [3, 30]), ("video", [])]
)
def test_the_end_of_a_run_is_evaluated_saved_and_logged(kind: str, expected: list[int]) -> None:
    acts = Acts()
    assert steps_of(hook_of(kind, acts, 500), acts.calls, total=30) == expected


def test_an_evaluation_is_logged_whenever_it_comes() -> None:
    acts, clock = Acts(), Clock(1000)
    hook = hook_of("log", acts, 500)
    for report in ({}, {}, {"evaluate/mean": 1.0}, {}):
        clock.advance(1)
        hook.after_update(clock, {"return/mean": torch.tensor(2.0), **report})
    assert [(step, row["return/mean"]) for step, row in acts.calls] == [(1, 2.0), (3, 2.0)]


@pytest.mark.parametrize(
    ("reward", "reports", "expected"),
    [
        # 99 episodes are too few, and then the mean must reach it
        (5.0, [(99, 9.0), (100, 4.99), (100, 5.0)], [False, False, True]),
        (5.0, [(1, 500.0), (0, None)], [False, False]),
        (-5.0, [(100, -5.1), (101, -4.9)], [False, True]),
        (None, [(500, 1e9)], [False]),
    ],
)
def test_a_run_stops_at_the_mean_of_a_hundred_episodes(
    reward: float | None, reports: list[tuple[int, float | None]], expected: list[bool]
) -> None:
    hook, clock, found = StopHook(reward, None), Clock(1000), []
    for episodes, mean in reports:
        clock.advance(1)
        hook.after_update(clock, {"episodes": episodes, **({} if mean is None else {"return/mean": mean})})
        found.append(clock.finished)
    assert found == expected


def test_a_run_stops_after_its_minutes() -> None:
    clock = Clock(1000)
    hook = StopHook(None, 2.0)
    for seconds, ends in ((119.0, False), (120.0, True)):
        clock.load_state_dict({**clock.state_dict(), "seconds": seconds})
        hook.after_update(clock, {})
        assert clock.finished is ends


def test_a_moving_mean_of_weights_by_hand() -> None:
    """Decay 1/2: the weights themselves, then half of each: 3, (3 + 5) / 2 = 4, (4 + 0) / 2 = 2."""
    policy, other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    hook, clock, found = AverageHook(policy, other, 0.5), Clock(10), []
    for weight in (3.0, 5.0, 0.0):
        policy.weight.data.fill_(weight)
        clock.advance(1)
        hook.after_update(clock, {})
        found.append(float(other.weight))
    assert found == [3.0, 4.0, 2.0]
    again = AverageHook(policy, nn.Linear(1, 1, bias=False), 0.5)
    again.load_state_dict(hook.state_dict())
    again.resume(clock)
    assert float(again.module.weight) == 2.0


def test_hooks_see_what_those_before_them_added_and_are_closed_in_reverse() -> None:
    order: list[Any] = []

    class Noted(Hook):
        def __init__(self, name: str) -> None:
            self.name = name

        def after_update(self, clock: Clock, report: Any) -> None:
            order.append((self.name, clock.step, {**report}))
            report[self.name] = clock.step
            if self.name == "b" and clock.update == 2:
                clock.stop_reason = "enough"

        def close(self, clock: Clock, error: BaseException | None) -> None:
            order.append((self.name, error))

    feed = SimpleNamespace(
        next=lambda: (None, 5), learned=lambda update: order.append(update), report=lambda: {}
    )
    learner = SimpleNamespace(learn=lambda batch, progress: {"progress": progress})
    fit(learner, feed, [Noted("a"), Noted("b")], Clock(20))  # type: ignore[arg-type]
    assert order == [
        1, ("a", 5, {"progress": 0.0}), ("b", 5, {"progress": 0.0, "a": 5}),
        2, ("a", 10, {"progress": 0.25}), ("b", 10, {"progress": 0.25, "a": 10}),
        ("b", None), ("a", None),
    ]  # fmt: skip


def test_best_holds_the_policy_and_its_score(tmp_path: Any) -> None:
    from rlkit.checkpoint import read, read_values
    from rlkit.files import at

    weight = torch.tensor([1.0])
    best = Best(at(tmp_path) / "best", lambda: {"weight": weight})
    for step, mean in ((10, 1.5), (20, -3.0)):
        weight.fill_(step)
        best.keep(step, mean)
        assert read(tmp_path / "best", "policy")["policy"]["weight"].tolist() == [step]
        assert read_values(tmp_path / "best", "score") == {"step": step, "mean": mean}


OPTIONS = [
    "preset=none",
    "env.backend=inprocess",
    "network.hidden=[4]",
    "total_steps=50000",
    "log.tensorboard=false",
]
EFFECTS: dict[str, tuple[tuple[object, object], Any, tuple[object, object]]] = {
    "evaluate.every": ((0, 70), lambda hooks: hooks[EvaluateHook].every, (5000, 70)),
    "evaluate.episodes": ((2, 3), lambda hooks: len(hooks[EvaluateHook].evaluator.play()), (2, 3)),
    "evaluate.sample": ((False, True), lambda hooks: hooks[EvaluateHook].evaluator.greedy, (True, False)),
    "evaluate.average": (
        (0.0, 0.75),
        lambda hooks: hooks.get(AverageHook, SimpleNamespace(decay=0)).decay,
        (0, 0.75),
    ),
    "stop.reward": ((None, 7.5), lambda hooks: hooks[StopHook].reward, (None, 7.5)),
    "stop.minutes": ((None, 3.5), lambda hooks: hooks[StopHook].minutes, (None, 3.5)),
    "log.every": ((0, 70), lambda hooks: hooks[LogHook].every, (100, 70)),
    "log.tensorboard": ((False, True), lambda hooks: hooks[LogHook].writer.draws, (False, True)),
    "checkpoint.every": ((0, 70), lambda hooks: hooks[CheckpointHook].every, (5000, 70)),
    "checkpoint.keep": ((2, 3), lambda hooks: hooks[CheckpointHook].run.config.checkpoint.keep, (2, 3)),
    "video.every": ((0, 70), lambda hooks: hooks[VideoHook].every, (0, 70)),
}


@pytest.mark.parametrize("option", EFFECTS)
def test_options_of_hooks_reach_them(option: str, tmp_path: Any) -> None:
    values, observe, expected = EFFECTS[option]
    for value, answer in zip(values, expected, strict=True):
        typed = f"{option}={'null' if value is None else str(value).lower()}"
        session = prepare(compose([*OPTIONS, typed]).config, tmp_path, Console(1, "test", plain=True))
        try:
            hooks = {
                type(hook): hook
                for hook in [*session.hooks, *vars(session).values()]
                if isinstance(hook, Hook)
            }
            assert observe(hooks) == answer
        finally:
            session.close()


# ---- evaluation


class Counting:
    """Episodes whose return tells which they are: 100 * lane + number; lane 0's take one step, lane 1's four."""

    exact, device = "replay", torch.device("cpu")
    LENGTH = (1, 4, 2)

    def __init__(self, lanes: int = 2) -> None:
        self.lanes, self.spec = lanes, EnvSpec("counting", Box((1,), "float32"), Discrete(4))
        self.actions: list[list[int]] = []
        self.t, self.number = [0] * lanes, [0] * lanes

    def restore(self, episode: Any, actions: Any) -> EnvStep:
        return self._row([0.0] * self.lanes, [True] * self.lanes)

    def _row(self, reward: list[float], first: list[bool]) -> EnvStep:
        last = [self.t[n] == self.LENGTH[n] for n in range(self.lanes)]
        flags = torch.tensor(last)
        return EnvStep(torch.zeros(self.lanes, 1), torch.tensor(reward), flags, torch.tensor(first), flags)

    def step(self, action: Any) -> EnvStep:
        self.actions.append(action.tolist())
        reward, first = [0.0] * self.lanes, [False] * self.lanes
        for n in range(self.lanes):
            if self.t[n] == self.LENGTH[n]:  # opens the next episode; the action is ignored
                self.t[n], first[n], self.number[n] = 0, True, self.number[n] + 1
                reward[n] = 1e6  # and so is this
            else:
                self.t[n] += 1
                reward[n] = (100.0 * n + self.number[n]) / self.LENGTH[n]
        return self._row(reward, first)


class Chooses:
    """Action 0 where it is greedy, else what the noise says."""

    noise_size = 1

    def initial_state(self, lanes: Lanes, device: Any = "cpu") -> tuple[()]:
        return ()

    def act(self, obs: Any, first: Any, state: Any, noise: Any) -> Any:
        assert not torch.is_grad_enabled()  # or graphs of whole episodes would be kept
        return (torch.zeros(len(first)) if noise is None else noise[:, 0] * 4).long(), state, {}

    def to_env(self, action: Any) -> Any:
        return action


@pytest.mark.parametrize("greedy", [True, False])
def test_every_lane_plays_its_own_episodes_however_short_others_are(greedy: bool) -> None:
    env: Any = Counting()
    found = run_episodes(Chooses(), env, 5, seed=3, device=torch.device("cpu"), greedy=greedy)  # type: ignore[arg-type]
    # lane 0: episodes 0, 2, 4; lane 1: 1, 3
    assert [(each.number, each.result, each.length) for each in found] == [
        (0, 0.0, 1), (1, 100.0, 4), (2, 1.0, 1), (3, 101.0, 4), (4, 2.0, 1),
    ]  # fmt: skip
    assert len({each.seed for each in found}) == 5
    noise = [uniforms(3, np.arange(2), t, 1, 1)[0, :, 0] * 4 for t in range(len(env.actions))]
    expected = [[0, 0] if greedy else each.astype(int).tolist() for each in noise]
    assert env.actions == expected


def test_episodes_are_numbered_from_lane_to_lane() -> None:
    """Lane n plays n, n + 3, n + 6, ... of ten."""
    found = run_episodes(Chooses(), Counting(3), 10, seed=3, device=torch.device("cpu"))  # type: ignore[arg-type]
    assert [(each.number, each.result) for each in found] == [
        (number, 100.0 * (number % 3) + number // 3) for number in range(10)
    ]


@pytest.mark.parametrize(
    ("typed", "config", "greedy"),
    [([], False, True), (["--sample"], False, False), ([], True, False), (["--no-sample"], True, True)],
)
def test_what_is_evaluated_is_sampled_where_that_was_asked_for(
    typed: list[str], config: bool, greedy: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlkit.files import at

    path = tmp_path / "best"
    run = SimpleNamespace(env=SimpleNamespace(id="E"), evaluate=SimpleNamespace(sample=config))
    agent = SimpleNamespace(
        path=path, policy=SimpleNamespace(spec=SimpleNamespace(labels=(), agents=("a",), groups=()))
    )
    monkeypatch.setattr(evaluate_verb, "open_run", lambda arguments: (at(tmp_path), run, agent))
    asked: list[dict[str, Any]] = []

    def played(policy: Any, config: Any, episodes: int, **options: Any) -> list[Episode]:
        asked.append({"episodes": episodes, **options})
        return [Episode(i, i, float(i), 1) for i in range(episodes)]

    monkeypatch.setattr(evaluate, "evaluate_policy", played)
    assert evaluate_verb.main([str(tmp_path), "--episodes", "4", *typed]) == 0
    assert asked == [{"episodes": 4, "seed": 1_000_000, "device": torch.device("cpu"), "greedy": greedy}]
    (table,) = (tmp_path / "eval").iterdir()
    assert ("greedy" in table.name) is greedy


@pytest.mark.parametrize("windowed", [True, False])
@pytest.mark.parametrize(
    ("typed", "config", "greedy"),
    [([], False, True), (["--sample"], False, False), ([], True, False), (["--no-sample"], True, True)],
)
def test_what_is_watched_is_sampled_where_that_was_asked_for(
    typed: list[str],
    config: bool,
    greedy: bool,
    windowed: bool,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a window and in a film."""
    from rlkit.files import at
    from rlkit.play import video

    run = SimpleNamespace(env=EnvConfig(id="CartPole-v1"), evaluate=SimpleNamespace(sample=config))
    agent = SimpleNamespace(
        path=tmp_path / "best", policy=SimpleNamespace(spec=SimpleNamespace(agents=("a",)), eyes=None)
    )
    monkeypatch.setattr(watch_verb, "open_run", lambda arguments: (at(tmp_path), run, agent))
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if windowed:
        monkeypatch.setenv("DISPLAY", ":0")
        monkeypatch.setattr(
            registry,
            "env_package",
            lambda: SimpleNamespace(
                make_vec=lambda *given, **options: SimpleNamespace(lanes=1, close=lambda: None)
            ),
        )
    asked: list[tuple[bool, int]] = []

    def played(*given: Any, greedy: bool, seed: int, **options: Any) -> list[Episode]:
        asked.append((greedy, seed))
        return []

    monkeypatch.setattr(evaluate, "run_episodes", played)
    monkeypatch.setattr(video, "record", played)
    assert watch_verb.main([str(tmp_path), *typed]) == 0
    assert asked == [(greedy, 0)]


@pytest.mark.parametrize("backend", ["inprocess", "workers", "native"])
def test_rewards_are_scaled_in_training_and_not_in_evaluation(backend: str) -> None:
    """CartPole pays 1 a step."""
    config = EnvConfig(id="CartPole-v1", lanes=2, workers=1, backend=backend, reward_scale=0.25)
    for evaluation, reward in ((False, 0.25), (True, 1.0)):
        env = make_vec(config, 0, evaluation=evaluation)
        with contextlib.closing(env):
            env.restore(np.zeros(2, np.int64), [np.zeros(0)] * 2)
            assert env.step(torch.tensor([0, 1])).reward.tolist() == [reward] * 2


@pytest.fixture
def evaluators() -> Iterator[Any]:
    made: list[Evaluator] = []

    def make(*options: str) -> Evaluator:
        config = compose(["preset=none", "env.lanes=3", *options]).config
        policy: Any = SimpleNamespace(spec=SimpleNamespace(agents=("agent",), groups=()), eyes=None)
        made.append(Evaluator(policy, config, 2, seed=0, device=torch.device("cpu")))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_environments_of_evaluation_are_made_once_and_closed(
    evaluators: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, closed = evaluators("env=cartpole", "env.backend=inprocess"), []
    evaluator.close()  # nothing was made yet
    used: list[Any] = []
    monkeypatch.setattr(
        evaluate, "run_episodes", lambda policy, vector, *given, **options: used.append(vector)
    )
    evaluator.play()
    evaluator.play()
    assert used[0] is used[1]
    monkeypatch.setattr(used[0], "close", lambda: closed.append(used[0]))
    evaluator.close()
    evaluator.close()
    assert closed == [used[0]]


@pytest.mark.parametrize("env", ["rlkit.envs.toys.batched:Quadratic", "cartpole"])
def test_evaluation_opens_other_episodes_than_training(
    env: str, evaluators: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batched environments too, which make their own seeds."""
    evaluator, opened = evaluators(f"env={env}", "env.backend=auto"), []

    def rows(policy: Any, vector: Any, *given: Any, **options: Any) -> list[Episode]:
        opened.append(
            vector.restore(np.zeros(vector.lanes, np.int64), [np.zeros(0)] * vector.lanes).obs.clone()
        )
        return []

    monkeypatch.setattr(evaluate, "run_episodes", rows)
    evaluator.play()
    training = make_vec(evaluator._config, 0, device=torch.device("cpu"))
    with contextlib.closing(training):
        rows(None, training)
    assert len(opened[0]) == 2
    for lane in range(2):
        assert not torch.equal(opened[0][lane], opened[1][lane])


def test_a_writer_draws_only_where_tensorboard_was_asked_for(tmp_path: Any) -> None:
    from rlkit.files import at

    for asked in (False, True):
        writer = MetricsWriter(at(tmp_path), asked, print)
        assert writer.draws is asked
        writer.close()
