"""What a program around a policy meets: refused observations, batches, sessions, the signature of SB3, frames."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rlkit.agents import ppo
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError
from rlkit.play.saved import AgentPolicy
from rlkit.reading import Frames, Reader, native_actions
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, native_action
from rlkit.types import EnvSpec

VECTOR = Box((4,), "float32", -1.0, 1.0)
PIXELS = Box((8, 8, 3), "uint8", 0.0, 255.0)
MIXED = Dict(
    (
        ("kind", Discrete(5, 2)),
        ("x", Box((2,), "float32")),
        ("parts", Dict((("bits", MultiBinary(4, (2, 2))), ("two", MultiDiscrete((3, 2), (0, 1)))))),
        ("action_mask", MultiBinary(3)),
    )
)
GIVEN = {
    "kind": 3,
    "x": [1, 2],
    "parts": {"bits": np.eye(2, dtype=int), "two": [2, 1]},
    "action_mask": [1, 0, 1],
}


def agent(space: Any = VECTOR, action: Any = None, core: str = "identity", stack: int = 1) -> AgentPolicy:
    torch.manual_seed(0)
    network = NetworkConfig(core=core, core_size=8, hidden=(8,), encoder="mlp")
    spec = EnvSpec("none", space, action or Discrete(3), stack)
    policy = ppo.Policy(spec, network, ppo.Config()).eval()
    torch.nn.init.normal_(policy.network.heads["policy"].weight)
    return AgentPolicy(policy, Path("none"))


@pytest.mark.parametrize(
    ("space", "given", "words"),
    [
        (VECTOR, [0, np.nan, 0, 0], r"observation holds nan at \[1\].*np\.nan_to_num"),
        (VECTOR, [0, 0, 0, -np.inf], r"observation holds -inf at \[3\]"),
        (VECTOR, np.full(4, 1e300), r"observation holds inf at \[0\]"),
        (VECTOR, np.zeros(3), r"observation has shape \(3,\); this policy reads shape \(4,\): make .* as in training"),
        (VECTOR, ["a"] * 4, r"observation has dtype <U1; this policy reads a Box\(4,\)"),
        (VECTOR, "text", r"the observation is the text 'text'; this policy reads a Box\(4,\)"),
        (VECTOR, [[0], [0, 1]], r"observation is no array .*; this policy reads a Box\(4,\)"),
        (PIXELS, np.full((8, 8, 3), 0.5), r"dtype float64; .*uint8.*pass np\.round\(255 \* x\)\.astype\(np\.uint8\)"),
        (PIXELS, np.full((8, 8, 3), 256), r"observation holds 256; .*allowed is 0 to 255"),
        (PIXELS, np.full((8, 8, 3), -1), r"observation holds -1; .*allowed is 0 to 255"),
        (MIXED, GIVEN | {"kind": 7}, r"entry kind holds 7; this policy reads a Discrete\(5\): allowed is 2 to 6"),
        (MIXED, GIVEN | {"kind": 1}, r"entry kind holds 1; .*allowed is 2 to 6"),
        (MIXED, GIVEN | {"kind": 2.5}, r"entry kind has dtype float64; .*x\.astype\(np\.int64\), if they are whole"),
        (MIXED, GIVEN | {"action_mask": [0, 0, 0]}, r"entry action_mask allows no choice"),
        (MIXED, GIVEN | {"action_mask": [2, 0, 0]}, r"entry action_mask holds 2; .*allowed is 0 to 1"),
        (MIXED, GIVEN | {"parts": {"bits": np.eye(2, dtype=int), "two": [3, 1]}}, r"entry parts\.two holds 3"),
        (MIXED, GIVEN | {"parts": {"two": [2, 1]}}, r"entry 'parts' of the observation has no 'bits'; this policy"),
        (MIXED, GIVEN | {"more": 1}, r"the observation has an entry 'more' that this policy does not know"),
        (MIXED, 5, r"the observation is a int; this policy reads a Dict\(kind: Discrete\(5\)"),
    ],
)  # fmt: skip
def test_what_training_cannot_have_shown_is_refused(space: Any, given: Any, words: str) -> None:
    if given is not GIVEN and isinstance(given, dict) and "bits" in str(given):
        given = {
            **given,
            "parts": {k: v.astype(int) if k == "bits" else v for k, v in given["parts"].items()},
        }
    policy = agent(space)
    with pytest.raises(ValueError, match=words):
        policy(given)
    session = policy.session()
    with pytest.raises(ValueError, match=words):
        session.act(given)
    assert session.state is None


def test_what_is_given_in_another_dtype_that_loses_nothing_is_read() -> None:
    policy = agent(MIXED)
    whole = GIVEN | {"parts": {"bits": np.eye(2, dtype=bool), "two": np.array([2, 1], np.int8)}}
    row = policy.reader.row(whole)
    assert {name: x.dtype.name for name, x in row.items()} == {
        "kind": "int64", "x": "float32", "parts.bits": "int8", "parts.two": "int64", "action_mask": "int8",
    }  # fmt: skip
    assert row["kind"].tolist() == [1] and row["parts.two"].tolist() == [[2, 0]]
    assert row["parts.bits"].tolist() == [[1, 0, 0, 1]]
    # finite numbers whose sum is not
    huge = np.array([3e38, 3e38, 0, 0], np.float32)
    assert np.isfinite(agent().reader.row(huge)[""]).all()


def test_labels_may_come_and_gaps_may_where_a_policy_reads_them() -> None:
    space = Dict((("x", VECTOR), ("label.pose", Box((2,), "float32"))))
    reader = Reader(space, Discrete(2), ("label.pose",), gaps=True)
    row = reader.row({"x": [0, np.nan, 0, 0], "label.pose": "anything"})
    assert list(row) == ["x"] and np.isnan(row["x"][0, 1])
    with pytest.raises(ValueError, match="holds inf"):
        reader.row({"x": [0, np.nan, np.inf, 0]})


@pytest.mark.parametrize("core", ["identity", "lstm", "transformer"])
def test_lanes_of_a_batch_are_simulations_of_their_own(core: str) -> None:
    """Three simulations, whose episodes open at different times: together as one after the other."""
    policy, generator = agent(core=core, stack=2), np.random.default_rng(0)
    obs = generator.standard_normal((6, 3, 4)).astype(np.float32)
    first = generator.random((6, 3)) < 0.3
    first[0] = True
    together, states = [], None
    for t in range(6):
        actions, states = policy.batch(obs[t], states, first[t])
        together.append(actions)
    for lane in range(3):
        state = None
        for t in range(6):
            action, state = policy(obs[t, lane], None if first[t, lane] else state)
            assert action == together[t][lane]
    assert len(np.unique(np.stack(together))) > 1


def test_a_state_of_another_policy_or_of_other_lanes_is_refused_by_name() -> None:
    policy, other = agent(core="lstm"), agent()
    obs = np.zeros(4)
    _, state = policy(obs)
    with pytest.raises(
        ValueError, match="the state is 4 parts; this policy remembers 0 parts: it is of another"
    ):
        other(obs, state)
    with pytest.raises(
        ValueError, match=r"part 0 of the state has shape \(1, 1, 8\).*for 2 lanes .*\(2, 1, 8\)"
    ):
        policy.batch(np.zeros((2, 4)), state)
    for wrong in (3, [1], ({"a": 1},)):
        with pytest.raises(ValueError, match="another policy"):
            policy(obs, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"first has shape \(3,\); this batch has 2 lanes"):
        policy.batch(np.zeros((2, 4)), None, [True] * 3)
    with pytest.raises(ValueError, match="observation has no axis of lanes"):
        policy.batch(5.0)


def test_a_session_keeps_the_memory_and_saves_it() -> None:
    policy, obs = agent(core="gru"), np.random.default_rng(1).standard_normal((8, 4))
    session, state = policy.session(), None
    for t in range(4):
        action, state = policy(obs[t], state)
        assert session.act(obs[t]) == action
    saved, other = session.save(), policy.session()
    other.load(saved)
    assert [session.act(x) for x in obs[4:]] == [other.act(x) for x in obs[4:]]
    other.load(policy.session().save())
    assert other.state is None
    for policy_, data in (
        (agent(), saved),
        (policy, b"no zip"),
        (policy, saved[:100]),
        (agent(core="lstm"), saved),
    ):
        with pytest.raises(ValueError, match="the bytes are no saved memory of this policy"):
            policy_.session().load(data)
    wide = agent(stack=3)
    mine = agent(stack=2).session()
    mine.act(obs[0])
    with pytest.raises(ValueError, match="another policy"):
        wide.session().load(mine.save())


def test_predict_is_that_of_stable_baselines3() -> None:
    policy = agent(core="lstm")
    obs = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
    actions, states = policy.predict(obs, deterministic=True)
    assert actions.shape == (3,) and actions.dtype == np.int64
    again, _ = policy.predict(obs, states, np.array([True, False, True]), deterministic=True)
    one, state = policy.predict(obs[0], deterministic=True)
    assert one.shape == () and one == actions[0] == again[0]
    opened, _ = policy.predict(obs[0], state, True, deterministic=True)
    assert opened == one
    drawn = {int(policy.predict(obs[0])[0]) for _ in range(50)}
    assert len(drawn) > 1
    boxes = agent(action=Box((2,), "float32", -1.0, 1.0))
    assert boxes.predict(obs, deterministic=True)[0].shape == (3, 2) and boxes.predict(obs[0])[0].shape == (
        2,
    )


def test_threads_do_not_disturb_one_another() -> None:
    policy, obs = agent(core="lstm"), np.random.default_rng(3).standard_normal((30, 4))

    def walk() -> list[int]:
        session = policy.session()
        return [session.act(x) for x in obs]

    wanted, found = walk(), list[list[int]]()
    threads = [Thread(target=lambda: found.append(walk())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4


def test_actions_of_many_lanes_are_those_of_each() -> None:
    space = Dict(
        (
            ("go", Discrete(3, 5)),
            ("two", Dict((("0", Box((2, 1), "float64")), ("1", MultiBinary(2))), True)),
            ("many", MultiDiscrete((2, 3), (1, 0), (1, 2), "int32")),
        )
    )
    rows = np.array([[2, 0.5, -1, 0, 1, 1, 2], [0, 1.5, 2, 1, 0, 0, 1]], np.float32)
    every = native_actions(space, rows)
    for lane in range(2):
        one = native_action(space, rows[lane])
        assert every["go"][lane] == one["go"] and isinstance(one["go"], int)
        for mine, theirs in (
            (every["two"][0], one["two"][0]),
            (every["two"][1], one["two"][1]),
            (every["many"], one["many"]),
        ):
            assert np.array_equal(mine[lane], theirs) and mine.dtype == theirs.dtype


@pytest.mark.parametrize(
    ("gray", "size", "shape"),
    [(True, 64, (96, 96, 3)), (False, 36, (210, 160, 3)), (True, 0, (5, 7, 3)), (False, 10, (15, 25))],
)
def test_frames_are_prepared_as_opencv_does(gray: bool, size: int, shape: tuple[int, ...]) -> None:
    frame = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)
    wanted = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if gray else frame
    if size:
        wanted = cv2.resize(wanted, (size, size), interpolation=cv2.INTER_AREA)
    found = Frames(gray, size, False)(frame)
    assert found.dtype == np.uint8 and found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= 1
    if len(shape) == 3 and not gray:
        first = Frames(gray, size, True)(np.moveaxis(frame, -1, 0))
        assert np.array_equal(np.moveaxis(first, 0, -1), found)


def test_frames_that_cannot_be_prepared_are_refused() -> None:
    for given, words in (
        (np.zeros((8, 8, 3)), r"dtype float64 and shape \(8, 8, 3\); uint8 frames"),
        (np.zeros((8, 8, 4), np.uint8), r"RGB frames \[H, W, 3\]"),
        (np.zeros((8, 60, 3), np.uint8), "8 x 60 pixels; prepare shrinks to 16 x 16"),
    ):
        with pytest.raises(ValueError, match=words):
            Frames(True, 16, False)(given)


def test_a_run_says_how_its_frames_are_prepared(tmp_path: Path) -> None:
    policy = agent(Box((8, 8), "uint8", 0.0, 255.0))
    (tmp_path / "config.yaml").write_text("env: {gray: true, size: 8, skip: 4}\n")
    frame = np.random.default_rng(5).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    for folder in (tmp_path / "best", tmp_path / "checkpoints" / "step-000000100"):
        found = AgentPolicy(policy.policy, folder)
        seen = found.prepare(frame)
        assert seen.shape == (8, 8) and seen.dtype == np.uint8 and found(seen)[0] in (0, 1, 2)
    with pytest.raises(ConfigError, match=r"lies in no run folder, whose config\.yaml says"):
        AgentPolicy(policy.policy, tmp_path / "a" / "b" / "c").prepare(frame)
