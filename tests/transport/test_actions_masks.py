"""Composite actions and action masks reach every kind of vector environment as the environment wants them."""

from __future__ import annotations

import json
import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlkit.envs import EnvConfig, EnvFault, make_env, make_vec, probe
from rlkit.envs import make as make_module
from rlkit.envs.backends.actions import allow, pack, unpack, unpack_batch
from rlkit.envs.backends.gymnasium import Native
from rlkit.seeding import Seeds
from rlkit.space_json import from_json, to_json
from rlkit.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    action_row,
    check_mask,
    from_gymnasium,
    native_action,
)
from tests.helpers.composite import NESTED, PAIR, Checked
from tests.helpers.masked import Masked

SPACES = [
    NESTED,
    PAIR,
    spaces.Discrete(4, start=-2),
    spaces.MultiDiscrete([3, 2], start=[1, -1]),
    spaces.MultiBinary(3),
    spaces.Box(-1.0, 1.0, (), np.float32),
    spaces.Box(-1.0, 1.0, (2, 2), np.float64),
]


def same(a: Any, b: Any) -> bool:
    """Equal structure, types of containers included, and equal numbers."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    return np.shape(a) == np.shape(b) and bool(np.allclose(a, b, rtol=1e-6))


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_rows_and_actions_are_inverse(space: spaces.Space[Any]) -> None:
    space.seed(1)
    samples = [space.sample() for _ in range(6)]
    ours = from_gymnasium(space)
    shape, dtype = action_row(ours)
    rows = np.stack([pack(space, sample) for sample in samples]).astype(dtype).reshape(6, *shape)
    back = unpack(space, rows)
    for sample, action in zip(samples, back, strict=True):
        assert same(sample, action)
        assert space.contains(action)
    assert unpack(space, rows[:0]) == []
    batched = gymnasium.vector.utils.batch_space(space, 6)
    several = list(gymnasium.vector.utils.iterate(batched, unpack_batch(space, batched, rows)))
    assert all(same(sample, action) for sample, action in zip(samples, several, strict=True))
    saved = from_json(json.loads(json.dumps(to_json(ours))))
    assert all(same(sample, native_action(saved, row)) for sample, row in zip(samples, rows, strict=True))


def test_a_row_by_hand() -> None:
    # a: 6 - 5 = 1; b: bits 1 0 0 1, number 0.5; c: choices 1 2, numbers 3 4
    row = np.array([[1, 1, 0, 0, 1, 0.5, 1, 2, 3, 4]], np.float32)
    (action,) = unpack(NESTED, row)
    bits, numbers = np.array([[1, 0], [0, 1]], np.int8), np.array([[3], [4]], np.float32)
    assert same(action, {"a": 6, "b": (bits, np.array(0.5)), "c": {"d": np.array([[1, 2]]), "e": numbers}})


def make(kind: str, env: type, config: EnvConfig) -> Any:
    """A vector of 4 lanes."""
    config = EnvConfig(**{**vars(config), "lanes": 4})
    if kind in AutoresetMode.__members__:
        vector = SyncVectorEnv([lambda: env(**config.kwargs)] * 4, autoreset_mode=AutoresetMode[kind])
        return Native(vector, config, Seeds(3, False, 0, 4))
    return make_vec(
        EnvConfig(**{**vars(config), "backend": kind, "workers": 2 if kind == "workers" else 0}), 3
    )


BACKENDS = ["inprocess", "workers", *AutoresetMode.__members__]


@pytest.mark.parametrize("tuple_first", [False, True])
@pytest.mark.parametrize("kind", BACKENDS)
def test_composite_actions_arrive(kind: str, tuple_first: bool) -> None:
    config = EnvConfig(
        id="tests.helpers.composite:Checked", kwargs={"tuple_first": tuple_first}, action_mask="none"
    )
    vector = make(kind, Checked, config)
    space = PAIR if tuple_first else NESTED
    space.seed(0)
    width = action_row(vector.spec.action)[0][0]
    assert width == vector.rows.action.shape[1] == 10 + tuple_first
    row = vector.restore(np.zeros(4, np.int64), [np.zeros((0, width))] * 4)
    for _ in range(8):
        opens = row.last.clone()
        action = torch.from_numpy(np.stack([pack(space, space.sample()) for _ in range(4)]))
        row = vector.step(action)
        expected = torch.where(opens[:, None], 0.0, action)
        torch.testing.assert_close(row.obs, expected)
    vector.close()


@pytest.mark.parametrize("kind", ["inprocess", "workers"])
def test_composite_actions_are_replayed(kind: str) -> None:
    config = EnvConfig(id="tests.helpers.composite:Checked", lanes=2, workers=2, backend=kind)
    NESTED.seed(0)
    actions = [np.stack([pack(NESTED, NESTED.sample()) for _ in range(k)]) for k in (2, 1)]
    vector = make_vec(config, 3)
    row = vector.restore(np.array([4, 0]), actions)
    torch.testing.assert_close(row.obs, torch.from_numpy(np.stack([actions[0][1], actions[1][0]])))
    vector.close()


# ---------------------------------------------------------------- masks

KINDS = ("Discrete", "MultiDiscrete", "Dict")


def random_actions(vector: Any, mask: Any, generator: np.random.Generator) -> torch.Tensor:
    """An allowed action for every lane."""
    rows = np.zeros((4, *action_row(vector.spec.action)[0]), vector.rows.action.dtype)
    for i in range(4):
        flat = rows[i : i + 1].reshape(-1)
        flat += generator.integers(0, 2, flat.shape).astype(flat.dtype)
        allow(vector.spec.action, flat, mask[i], generator)
    return torch.from_numpy(rows)


def masked(kind: str, form: str = "array") -> EnvConfig:
    return EnvConfig(id="tests.helpers.masked:Masked", kwargs={"kind": kind, "form": form})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "form"), [(k, f) for k in KINDS for f in ("array", "parts")])
def test_masks_become_an_entry_on_every_backend(kind: str, form: str, backend: str) -> None:
    """The rows are those of a single environment stepped by hand; forbidden actions would raise."""
    config = EnvConfig(**{**vars(masked(kind, form)), "action_mask": "info"})
    vector = make(backend, Masked, config)
    entries = dict(vector.spec.observation)
    size = sum(Masked(kind).counts)
    assert entries["action_mask"] == MultiBinary(size) and set(entries) == {"observation", "action_mask"}
    generator = np.random.default_rng(0)
    row = vector.restore(np.zeros(4, np.int64), [np.zeros((0, *vector.rows.action.shape[1:]))] * 4)
    single = Masked(kind, form)
    obs, _ = single.reset(seed=Seeds(3, False, 0, 4).of(0, 0))
    for t in range(5):
        mask = row.obs["action_mask"]
        assert mask.shape == (4, size) and mask.dtype == torch.int8
        assert torch.equal(row.obs["observation"][0], torch.from_numpy(obs))
        expected = (
            np.concatenate(single.masks) if t < 4 else np.ones(size)
        )  # nothing is acted on: all of them
        assert mask[0].tolist() == expected.tolist()
        action = random_actions(vector, mask.numpy(), generator)
        if t < 4:
            obs = single.step(unpack(single.action_space, action.numpy())[0])[0]
            row = vector.step(action)
    assert bool(row.last[0])
    for _ in range(12):  # over endings, where the action is ignored whatever it is
        action = random_actions(vector, row.obs["action_mask"].numpy(), generator)
        row = vector.step(action)
        assert (row.obs["action_mask"].sum(1) > 0).all()
    vector.close()


def test_the_choice_is_made_once() -> None:
    for kind in KINDS:
        assert probe(masked(kind)).config.action_mask == "info"
    assert probe(masked("Discrete", "entry")).config.action_mask == "none"  # it is there already
    assert probe(EnvConfig(id="CartPole-v1")).config.action_mask == "none"
    assert probe(EnvConfig(id="Pendulum-v1")).config.action_mask == "none"
    given = EnvConfig(**{**vars(masked("Discrete")), "action_mask": "none", "backend": "inprocess"})
    assert probe(given).config.action_mask == "none"
    assert isinstance(probe(given).spec.observation, Box)
    decided = probe(masked("Dict"))
    assert [name for name, _ in dict(decided.spec.observation).items()] == ["action_mask", "observation"]
    assert make_env(decided.config).reset(seed=0)[0].keys() == {"action_mask", "observation"}
    assert isinstance(
        make_env(masked("Dict")).reset(seed=0)[0], np.ndarray
    )  # undecided: the mask stays in info
    batched = EnvConfig(id="rlkit.envs.toys.batched:Quadratic")
    assert probe(batched).config.action_mask == "none"


@pytest.mark.parametrize("lanes", [1, 4])
def test_measuring_the_step_takes_allowed_actions(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_module, "SLOW_STEP", math.inf)
    config = EnvConfig(id="tests.helpers.masked:Masked", kwargs={"kind": "Dict", "length": 50}, lanes=lanes)
    assert probe(config).config.backend == "inprocess"


def test_what_cannot_be_masked_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"masks forbid choices, but the actions are Box.*env\.action_mask=none"
    ):
        make_env(EnvConfig(id="Pendulum-v1", action_mask="info"))
    with pytest.raises(ValueError, match="observations have an entry action_mask; type env.action_mask=none"):
        make_env(EnvConfig(**{**vars(masked("Discrete", "entry")), "action_mask": "info"}))
    with pytest.raises(ValueError, match="env.backend=batched shows masks as an entry"):
        EnvConfig(id="x", backend="batched", action_mask="info").validate()
    own = Dict((("action_mask", MultiBinary(3)), ("x", Box((2,), "float32"))))
    check_mask(own, Discrete(3))
    check_mask(Box((2,), "float32"), Discrete(3))
    with pytest.raises(
        ValueError, match=r"MultiBinary\(3\), .* has 4 choices; allowed: a MultiBinary\(4\) or"
    ):
        check_mask(own, Discrete(4))
    with pytest.raises(ValueError, match="has no choices; allowed: another name"):
        check_mask(own, Box((3,), "float32"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("Silent", "no action_mask in this info"), ("Empty", "allows nothing in component 0")],
)
@pytest.mark.parametrize("backend", ["inprocess", "workers"])
def test_broken_masks_are_faults_of_the_environment(name: str, message: str, backend: str) -> None:
    config = EnvConfig(
        id=f"tests.helpers.masked:{name}", lanes=2, workers=1, backend=backend, action_mask="info"
    )
    vector = make_vec(config, 0)
    with pytest.raises(EnvFault, match=message):  # noqa: PT012
        row = vector.restore(np.zeros(2, np.int64), [np.zeros(0, np.int64)] * 2)
        vector.step(torch.from_numpy(row.obs["action_mask"].numpy().argmax(1)))
    vector.close()
