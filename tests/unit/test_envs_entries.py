"""What the agent sees of an observation: entries that are kept and dropped, codes, texts as bytes."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.envs import EnvConfig, EnvFault, make, make_env, make_vec, probe
from rlkit.play.saved import AgentPolicy
from rlkit.spaces import Box, leaves

HERE = f"{__name__}:"
SAID = ["go", "öffne die Tür", "x" * 12]


class Speaks(gymnasium.Env):
    """Its observation has everything: codes, bits, texts, an inner Dict and a Tuple."""

    def __init__(self, longer: bool = False) -> None:
        self.longer = longer
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Dict(
            {
                "view": spaces.Box(0, 255, (3, 2, 2), np.uint8),
                "board": spaces.Box(0, 1, (4, 3, 2), bool),
                "order": spaces.Text(20),
                "inner": spaces.Dict({"said": spaces.Text(20), "x": spaces.Box(-1, 1, (2,), np.float32)}),
                "both": spaces.Tuple((spaces.Text(20), spaces.Discrete(3))),
            }
        )

    def seen(self):
        text = SAID[self.t % 3] + ("!" * 90 if self.longer and self.t == 2 else "")
        return {
            "view": np.full((3, 2, 2), self.t, np.uint8),
            "board": np.full((4, 3, 2), self.t % 2 == 1),
            "order": text,
            "inner": {"said": text[::-1], "x": np.zeros(2, np.float32)},
            "both": (text, self.t % 3),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        self.t += 1
        return self.seen(), 1.0, self.t == 5, False, {}


def rows(config: EnvConfig, steps: int = 4) -> list[dict[str, torch.Tensor]]:
    vector = make_vec(config, 0)
    try:
        row = vector.restore(np.zeros(config.lanes, np.int64), [np.zeros(0)] * config.lanes)
        found = [{name: value.clone() for name, value in row.obs.items()}]
        for _ in range(steps):
            row = vector.step(torch.zeros(config.lanes, dtype=torch.long))
            found.append({name: value.clone() for name, value in row.obs.items()})
        return found
    finally:
        vector.close()


def text(row: torch.Tensor) -> str:
    return bytes(row.numpy().tobytes()).rstrip(b"\0").decode()


def speaks(**options) -> EnvConfig:
    return EnvConfig(id=f"{HERE}Speaks", lanes=1, backend="inprocess", **options)


def test_texts_are_rows_of_bytes_wherever_they_stand():
    found = rows(speaks(text=24))
    for t, row in enumerate(found):
        assert row["order"].shape == (1, 24) and row["order"].dtype == torch.uint8
        assert text(row["order"][0]) == text(row["both.0"][0]) == SAID[t % 3]
        assert text(row["inner.said"][0]) == SAID[t % 3][::-1]
        assert row["both.1"].tolist() == [t % 3]


def test_bits_of_any_shape_are_an_image_of_zeros_and_ones():
    board = dict(leaves(probe(speaks()).spec.observation))["board"]
    assert isinstance(board, Box) and board.image and (board.low, board.high) == (0.0, 1.0)
    assert [int(row["board"].sum()) for row in rows(speaks())] == [0, 24, 0, 24, 0]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, ["view", "board", "order", "inner.said", "inner.x", "both.0", "both.1"]),
        ({"drop": ("order", "inner.said", "both")}, ["view", "board", "inner.x"]),
        ({"drop": ("inner",), "keep": ("view", "inner", "both")}, ["view", "both.0", "both.1"]),
        ({"keep": ("inner.x", "view")}, ["view", "inner.x"]),
    ],
)
def test_entries_by_name(options, left):
    config = speaks(**options)
    assert {name for name, _ in leaves(probe(config).spec.observation)} == set(left)
    for row, whole in zip(rows(config), rows(speaks()), strict=True):
        assert all(torch.equal(row[name], whole[name]) for name in left) and set(row) == set(left)


def test_codes_and_texts_are_told_apart_from_brightness():
    found = dict(leaves(probe(speaks(codes=("view",), text=30)).spec.observation))
    meanings = {name: leaf.meaning for name, leaf in found.items() if isinstance(leaf, Box)}
    assert meanings == {
        "view": "codes",
        "board": "",
        "order": "text",
        "inner.said": "text",
        "inner.x": "",
        "both.0": "text",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": ("ordr",)}, r"env\.drop=\['ordr'\]: observations have no entry ordr; did you mean order\?"),
        ({"keep": ("sight",)}, r"env\.keep=\['sight'\]: observations have no entry sight"),
        ({"keep": (0,)}, r"env\.keep=\[0\]: observations have no entry 0"),
        (
            {"codes": ("inner.x",)},
            r"env\.codes=\['inner\.x'\]: inner\.x is Box.*allowed: uint8 boxes \[height",
        ),
        ({"drop": ("both.1",)}, r"env\.drop=\['both\.1'\]: a part of a Tuple cannot be left out"),
        (
            {"drop": ("view", "board", "order", "inner", "both")},
            r"env\.drop=\['view', .*: nothing of the observation is left; it has board, both\.0",
        ),
    ],
)
def test_what_is_not_there_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_env(speaks(**options))
    assert "\n" not in str(caught.value)


def test_a_text_that_is_too_long_ends_the_run_in_one_line():
    config = EnvConfig(id=f"{HERE}Speaks", kwargs={"longer": True}, lanes=1, backend="inprocess")
    with pytest.raises(EnvFault) as caught:
        rows(config)
    assert caught.value.kind == "text" and not caught.value.trace
    assert (
        "step 2: both.0: the text 'xxx" in caught.value.text
        and "has 102 bytes; the agent sees 96" in caught.value.text
    )
    assert "env.text=BYTES" in str(caught.value)


@pytest.mark.parametrize("backend", ["inprocess", "workers"])
def test_kept_entries_of_a_vector_are_those_of_the_whole_observation(backend):
    whole = make_vec(EnvConfig(id="CartPole-v1", lanes=2, backend="inprocess"), 5)
    part = make_vec(EnvConfig(id="CartPole-v1", lanes=2, backend=backend, keep=(2, 0)), 5)
    try:
        rows = [vector.restore(np.zeros(2, np.int64), [np.zeros(0)] * 2) for vector in (whole, part)]
        for t in range(60):  # several episodes
            assert torch.equal(rows[1].obs, rows[0].obs[:, [2, 0]])
            rows = [vector.step(torch.tensor([t % 2, 1])) for vector in (whole, part)]
    finally:
        whole.close()
        part.close()


def test_the_space_keeps_the_bounds():
    space = probe(EnvConfig(id="Pendulum-v1", keep=(2, 1))).spec.observation
    assert isinstance(space, Box) and (space.shape, space.dtype) == ((2,), "float32")
    assert np.array_equal(space.low, [-8, -1]) and np.array_equal(space.high, [8, 1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EnvConfig(id="CartPole-v1", keep=(0, 4)), r"env\.keep=\[0, 4\]: the observation has 4 entries"),
        (EnvConfig(id="CartPole-v1", keep=(1, 1)), r"env\.keep=\[1, 1\].*different numbers from 0 to 3"),
        (
            EnvConfig(id="CarRacing-v3", keep=(0,)),
            r"env\.keep=\[0\]: observations are Box.*type env\.keep=\[\]",
        ),
        (
            EnvConfig(id="CartPole-v1", keep=("pole",)),
            r"env\.keep=\['pole'\]: observations are Box.*the numbers of those of a Box",
        ),
        (
            EnvConfig(id="CartPole-v1", drop=("pole",)),
            r"env\.drop=\['pole'\]: observations have no entry pole",
        ),
    ],
)
def test_entries_of_a_vector_that_are_not_there_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        make_env(config)


def test_a_native_vector_keeps_everything():
    with pytest.raises(
        ValueError, match=r"env\.keep=\[0\]: env\.backend=native takes its environment as it is"
    ):
        EnvConfig(id="CartPole-v1", backend="native", keep=(0,)).validate()


GOTO = "MiniGrid-GoToDoor-5x5-v0"


def test_minigrid_and_envpool_show_the_same_spaces_and_missions(monkeypatch):
    pytest.importorskip("minigrid")
    pytest.importorskip("envpool")
    config = EnvConfig(id=GOTO, lanes=8, codes=("image",))
    found = []
    for backend in ("inprocess", "envpool"):
        decided = probe(EnvConfig(id=GOTO, lanes=8, codes=("image",), backend=backend))
        found.append((leaves(decided.spec.observation), decided.spec.action))
        said = {text(row) for row in rows(decided.config, 0)[0]["mission"]}
        assert said <= {
            f"go to the {color} door" for color in ("red", "green", "blue", "purple", "yellow", "grey")
        }
    assert str(found[0]) == str(found[1])
    monkeypatch.setattr(make, "cores", lambda: 2)
    auto = probe(config)
    assert auto.config.backend == "envpool" and "EnvPool's version of it" in auto.why
    assert probe(replace(config, kwargs={"size": 6})).config.backend != "envpool"  # kwargs are the original's


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": (0,)}, r"env\.keep=\[0\]: env\.backend=envpool keeps entries of a Dict, by name"),
        ({"drop": ("misson",)}, r"no entry misson; did you mean mission\?"),
    ],
)
def test_envpool_refuses_as_well(options, message):
    pytest.importorskip("envpool")
    id = "CartPole-v1" if "keep" in options else GOTO
    with pytest.raises(ValueError, match=message):
        probe(EnvConfig(id=id, lanes=1, backend="envpool", **options))


def test_envpool_tells_of_a_text_that_is_too_long():
    """A pool that is given too short a row writes beyond it: it gets its own length, and we look."""
    pytest.importorskip("envpool")
    config = probe(EnvConfig(id=GOTO, lanes=1, backend="envpool", text=10)).config
    with pytest.raises(
        EnvFault, match=r"text: .*mission: the text 'go to the \w+ door' has \d\d bytes; the agent sees 10"
    ):
        rows(config, 0)


def test_an_agent_outside_training_reads_a_text_as_the_environment_says_it(tmp_path):
    config = compose([f"env={HERE}Speaks", "env.codes=[view]"]).config
    decided = probe(speaks(codes=("view",)))
    made = registry.algorithm("ppo").Policy(decided.spec, config.network, config.agent)
    policy, seen = AgentPolicy(made, tmp_path), Speaks().reset()[0]
    action, state = policy(seen)
    again, _ = policy(make_env(decided.config).observation(seen))
    assert action == again and action in (0, 1)
    with pytest.raises(ValueError, match="has 97 bytes"):
        policy(seen | {"order": "y" * 97}, state)
