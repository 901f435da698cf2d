"""Every field of a state is needed: without it loading refuses, or what follows is not the same."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlkit.config.compose import compose
from rlkit.learn.trainer import Clock
from rlkit.run.console import Console
from rlkit.run.hooks import EvaluateHook
from rlkit.run.start import prepare
from rlkit.types import Rollout, tree_leaves

Path = tuple[Any, ...]
REFUSED = (KeyError, IndexError, ValueError, TypeError, RuntimeError, AttributeError, AssertionError)


def fields(tree: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of all entries of nested dicts; of a list, those of its first and its last element."""
    if isinstance(tree, dict):
        for name, each in tree.items():
            inner = [*fields(each, (*path, name))]
            yield from inner or [(*path, name)]
    elif isinstance(tree, (list, tuple)):
        for i in sorted({0, len(tree) - 1} if tree else ()):
            yield from fields(tree[i], (*path, i))


def without(tree: Any, path: Path) -> Any:
    """A copy that lacks one entry."""
    changed = copied(tree)
    inside = changed
    for name in path[:-1]:
        inside = inside[name]
    del inside[path[-1]]
    return changed


def copied(tree: Any) -> Any:
    return copy.deepcopy(tree)


def not_needed(state: Any, go_on: Callable[[Any], list[Any]]) -> set[str]:
    """The entries of a state without which everything goes on as with them."""
    whole, found = go_on(copied(state)), set()
    assert same(whole, go_on(copied(state))), "what follows is not a function of the state"
    for path in fields(state):
        try:
            after = go_on(without(state, path))
        except REFUSED:
            continue
        if same(after, whole):
            found.add(".".join(map(str, path)))
    return found


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True)
    )


COMMON = [
    "preset=none", "env=cartpole", "env.lanes=2",
    "env.backend=inprocess", "network.hidden=[4]", "network.normalize=true", "threads=1", "total_steps=2000",
    "log.tensorboard=false", "agent.steps=8", "evaluate.every=100000",
]  # fmt: skip
REPLAY = [
    "agent.replay.capacity=100", "agent.replay.warmup=8", "agent.replay.batch=4", "agent.replay.ratio=0.15",
    "agent.replay.alpha=0.5",
]  # fmt: skip
SEQUENCES = ["network=gru", "network.core_size=3", "agent.replay.sequence=8", "agent.replay.burn_in=2"]
RUNS = {
    "ppo": [
        "agent=ppo", "agent.minibatch=8", "agent.epochs=1", "agent.normalize_reward=true", "agent.sequence=8",
        "network=gru", "network.core_size=3", "evaluate.average=0.5", "optim.name=rmsprop", "optim.momentum=0.5",
    ],
    "reinforce": ["agent=reinforce", "agent.episodes=2", "agent.baseline=mean"],
    "dqn": ["agent=dqn", *REPLAY, "agent.noisy=true", "agent.target_every=2", "agent.tau=0.5"],
    "td3": [
        "agent=td3", "env=rlkit.envs.toys.tasks:Quadratic", "env.kwargs={length: 5}", *REPLAY, *SEQUENCES,
        "agent.noise=ou",
    ],
}  # fmt: skip

# The clock's times, and why the last session ended, are for people. Of what a run was configured as and of the
# weights' network nothing is loaded: they are compared, and read by those who use the policy elsewhere. Of the
# rollouts that are kept for the episodes in them the newest one's version is told, and the first one's memory is read.
FOR_PEOPLE = (
    "state.clock.seconds",
    "state.clock.beside",
    "state.clock.stop_reason",
    "state.stop",
    "state.config",
)


def outcome(session: Any, updates: int) -> list[Any]:
    """What a run does in its next updates: everything it reports, learns, collects and hands to hooks."""
    found: list[Any] = []
    hooks = [hook for hook in session.hooks if type(hook).__name__ in ("AverageHook", "StopHook")]
    for _ in range(updates):
        batch, steps = session.feed.next()
        metrics = session.learner.learn(batch, session.clock.progress)
        session.clock.advance(steps)
        session.feed.learned(session.clock.update)
        report = session.feed.report() | metrics
        for hook in hooks:
            hook.after_update(session.clock, report)
        found += [value.clone() if isinstance(value, torch.Tensor) else value for value in report.values()]
        if isinstance(batch, Rollout):
            found += [
                x.clone()
                for x in (*tree_leaves(batch.obs), batch.action, batch.reward, batch.first, batch.last)
            ]
            found.append(batch.version)
    found += [x.clone() for x in session.model.state_dict().values()]
    found += [session.clock.step, session.clock.update, session.clock.previous]
    for hook in hooks:
        found += [x.clone() for x in getattr(hook, "state_dict", dict)().values()]
    return found


@pytest.mark.parametrize("run", RUNS)
def test_every_field_of_a_checkpoint_is_needed(run: str, tmp_path: Any) -> None:
    """Each entry of a run's state is dropped in turn, and the run is continued in place of one that began otherwise."""
    session = prepare(compose([*COMMON, *RUNS[run]]).config, tmp_path, Console(1, "test", plain=True))
    try:

        def state() -> Any:
            parts = session.state_dict()
            return copied({**parts, **session.feed.parts(parts["state"]["feed"])})

        outcome(session, 1)
        early = state()
        outcome(session, 7)
        saved = state()

        def go_on(parts: Any) -> list[Any]:
            session.load_state_dict(copied(parts))  # which is often refused
            session.load_state_dict(copied(early))
            session.feed.recent.clear()  # a feed is loaded once
            session.load_state_dict(parts)
            return outcome(session, 3)

        weights = saved["policy"]["weights"]
        rest = {name: part for name, part in saved.items() if name != "policy"}
        del rest["state"]["evaluation"]  # its own test is below
        harmless = not_needed(
            {"weights": weights, **rest},
            lambda parts: go_on({"policy": saved["policy"] | {"weights": parts.pop("weights")}, **parts}),
        )
    finally:
        session.close()
    harmless = {name for name in harmless if not name.startswith(FOR_PEOPLE)}
    later = re.compile(r"state.feed.kept.(\d+.version|[1-9]\d*.state)")
    assert {name for name in harmless if not later.fullmatch(name)} == set()


def test_every_field_of_an_evaluation_is_needed() -> None:
    judged = {"id": "E", "kwargs": {"a": 1}}

    def hook() -> EvaluateHook:
        evaluator: Any = SimpleNamespace(judged=judged)
        nothing: Any = None
        return EvaluateHook(10, evaluator, nothing, lambda text: None, nothing)

    before = hook()
    before.best, before.endless, before.left_out = 3.0, 2, 1
    saved = {**before.state_dict(), "judged": {"id": "another", "kwargs": {"a": 1}}}

    def go_on(state: Any) -> list[Any]:
        after = hook()
        after.load_state_dict(state)
        return [after.best, after.endless, after.left_out]

    # entries of `judged` are compared where both sides have them; here only the id differs
    assert not_needed(saved, go_on) == {"judged.kwargs.a"}
    assert not_needed(before.state_dict(), go_on) == {"judged.id"}  # it did not change


def test_every_field_of_a_clock_is_needed() -> None:
    clock = Clock(100)
    clock.advance(7)
    clock.advance(4)
    clock.beside = 3.0
    state = {**clock.state_dict(), "seconds": 50.0}

    def go_on(state: Any) -> list[Any]:
        after = Clock(100)
        after.load_state_dict(state)
        return [after.step, after.previous, after.update, after.beside, round(after.seconds)]

    assert not_needed(state, go_on) == {"stop_reason"}  # for those who list runs; a run that goes on has none
