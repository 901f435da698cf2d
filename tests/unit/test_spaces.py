"""Spaces as plain values: what they say of themselves, and what their JSON keeps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlkit.distributions import action_head
from rlkit.space_json import from_json, to_json
from rlkit.spaces import from_gymnasium, leaf_values, leaves, native_action


def read_back(space):
    """A space that was written to a file and read again."""
    return from_json(json.loads(json.dumps(to_json(space))))


@pytest.mark.parametrize("shape", [(4, 4, 16), (16, 4, 4)])
def test_the_axis_of_channels_is_written_down(shape):
    """What was said stays; a file that does not name the axis is of a version that chose one in its own way."""
    frames = spaces.Box(0, 255, shape, np.uint8)
    space = spaces.Dict({"clip": frames, "list": spaces.Tuple((frames,)), "flat": spaces.Box(0, 1, (3,))})
    for channels in ("first", "last"):
        for said in (from_gymnasium(space, channels), read_back(from_gymnasium(space, channels))):
            assert [getattr(leaf, "channel_axis", None) for _, leaf in leaves(said)] == [
                channels,
                "",
                channels,
            ]
    unsaid = from_gymnasium(frames)
    assert unsaid.channel_axis == read_back(unsaid).channel_axis == ""
    early = to_json(unsaid)
    del early["channels"]
    assert from_json(early).channel_axis == ("first" if shape[0] == 4 else "last")


@pytest.mark.parametrize("largest", [np.finfo(np.float32).max, 1e20])
def test_huge_bounds_of_floats_are_none(largest):
    high = np.array([1.0, largest, np.inf], np.float32)
    box = from_gymnasium(spaces.Box(-high, high))
    for space in (box, read_back(box)):
        assert (space.low.tolist(), space.high.tolist()) == ([-1, -np.inf, -np.inf], [1, np.inf, np.inf])
        assert not space.bounded
    action = from_gymnasium(spaces.Box(-largest, largest, (1,), np.float32))
    assert (action.low, action.high) == (-np.inf, np.inf)
    assert action_head(action).to_env(torch.tensor([[0.5]])).item() == 0.5
    assert from_gymnasium(spaces.Box(-1e6, 1e6, (1,), np.float64)).high == 1e6
    assert from_gymnasium(spaces.Box(0, 2**62, (1,), np.int64)).high == 2**62  # whole numbers are exact
    saved = to_json(action) | {"low": -3.4028235e38, "high": 3.4028235e38}  # as earlier versions wrote it
    assert to_json(from_json(saved)) == to_json(action)


def test_actions_by_hand_have_the_dtype_of_their_space():
    for dtype in (np.int8, np.int16, np.int64, np.uint8):
        space = spaces.MultiDiscrete([3, 2], dtype=dtype, start=[1, 5])
        for ours in (from_gymnasium(space), read_back(from_gymnasium(space))):
            action = native_action(ours, np.array([2, 0]))
            assert action.dtype == dtype and space.contains(action) and action.tolist() == [3, 5]


BOX = spaces.Box(0, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (spaces.Dict({"a.b": BOX, "c/d": spaces.Discrete(9)}), {"a.b": 1, "c/d": 2}),
        (spaces.Dict({"": BOX}), {"": 1}),
        (spaces.Dict({1: BOX, 2: BOX}), {1: 1, 2: 2}),
        (spaces.Dict({"1": BOX, "sub": spaces.Tuple((BOX, BOX))}), {"1": 1, "sub": (2, 3)}),
        (spaces.Tuple((BOX, spaces.Dict({"0": BOX, "": BOX}))), (1, {"0": 3, "": 2})),
        (BOX, 1),
    ],
)
def test_values_are_read_by_their_structure_and_not_by_their_names(space, value):
    for ours in (from_gymnasium(space), read_back(from_gymnasium(space))):
        found = leaf_values(ours, value)
        assert found == sorted(found) and len(found) == len(leaves(ours))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a.b": BOX, "a": spaces.Dict({"b": BOX})}),
        spaces.Dict({"": spaces.Dict({"a": BOX}), "a": BOX}),
        spaces.Tuple((spaces.Dict({"x": spaces.Dict({"a.b": BOX, "a": spaces.Dict({"b": BOX})})}),)),
    ],
)
def test_entries_that_would_have_one_name_are_refused(space):
    with pytest.raises(
        ValueError, match=r"two entries of a Dict space have the dotted name 'a(\.b)?'.*rename one"
    ):
        from_gymnasium(space)
