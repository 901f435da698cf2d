"""Environments with the habits of old interfaces, and such as end or interrupt what they should not."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlkit.envs import EnvConfig, EnvFault, make_vec
from rlkit.envs.backends import interface, watchdog
from rlkit.envs.make import probe
from rlkit.options import ConfigError

HERE = "tests.unit.test_envs_interface:"
ROW = np.zeros(2, np.float32)


class Odd(gymnasium.Env[Any, Any]):
    """Returns from step and reset what it is told to; `raises` is raised in the method of that name."""

    observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        step: Any = (ROW, 1.0, False, False, {}),
        reset: Any = (ROW, {}),
        raises: Any = None,
        at: str = "",
        render_mode: str | None = None,
    ) -> None:
        self.given, self.opening, self.raises, self.at, self.render_mode = (
            step,
            reset,
            raises,
            at,
            render_mode,
        )
        self._do("init")

    def _do(self, name: str) -> None:
        if name == self.at:
            self.raises() if callable(self.raises) else None

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._do("reset")
        return self.opening

    def step(self, action: Any) -> Any:
        self._do("step")
        return self.given

    def render(self) -> Any:
        self._do("render")
        return np.zeros((4, 4, 3), np.uint8)

    def close(self) -> None:
        self._do("close")


class Seedless(Odd):
    def reset(self) -> Any:  # type: ignore[override]
        return self.opening


class Spaceless(gymnasium.Env[Any, Any]):
    """Declares no spaces."""


class Strange(Odd):
    """Has the spaces that it is told to have."""

    def __init__(self, **given: Any) -> None:
        super().__init__()
        for name, space in given.items():
            setattr(self, name, space)


def throw(error: BaseException) -> Any:
    def raises() -> None:
        raise error

    return raises


def play(kind: str = "Odd", steps: int = 1, render: bool = False, wrap: Any = None, **options: Any) -> float:
    """The reward of the last of some steps of one lane."""
    fields = {
        name: options.pop(name) for name in ("skip", "stuck_after", "check", "deadline") if name in options
    }
    config = EnvConfig(
        id=HERE + kind, kwargs=options, lanes=1, backend="inprocess", action_mask="none", **fields
    )
    vector = make_vec(config, 0, render=render)
    try:
        row = vector.restore(np.zeros(1, np.int64), [np.zeros(0, np.int64)])
        for _ in range(steps):
            row = vector.step(torch.zeros(1, dtype=torch.int64))
        if render:
            vector.render(0)
        return float(row.reward)
    finally:
        vector.close()


def step(**changed: Any) -> Any:
    names = ("obs", "reward", "terminated", "truncated", "info")
    return tuple((dict(zip(names, (ROW, 1.0, False, False, {}), strict=True)) | changed).values())


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        (
            {"step": (ROW, 1.0, False, {})},
            "step",
            "returned 4 values; write return obs, reward, terminated, trunc",
        ),
        ({"step": None}, "step", "returned NoneType; write return obs, reward"),
        ({"reset": ROW}, "reset", "its second value, info, is np.float32(0.0) (float32); write def reset("),
        (
            {"reset": np.zeros(3, np.float32)},
            "reset",
            "returned more values than that, or an observation alone",
        ),
        (
            {"reset": (ROW, None)},
            "reset",
            "its second value, info, is None (NoneType); write def reset(self, *, s",
        ),
        (
            {"kind": "Seedless"},
            "reset",
            "got an unexpected keyword argument 'seed'; write def reset(self, *, seed",
        ),
        ({"step": step(reward="1.0")}, "reward", "'1.0' (str) is no number; write reward = float(...)"),
        ({"step": step(reward=None)}, "reward", "None (NoneType) is no number"),
        ({"step": step(reward=1 + 2j)}, "reward", "(1+2j) (complex) is no number"),
        ({"step": step(reward=np.ones(2))}, "reward", "array([1., 1.]) (ndarray) is no number"),
        (
            {"step": step(terminated=None)},
            "terminated",
            "None (NoneType) is neither True nor False; write termin",
        ),
        ({"step": step(terminated="False")}, "terminated", "'False' (str) is neither True nor False; write"),
        ({"step": step(terminated=float("nan"))}, "terminated", "nan (float) is neither True nor False"),
        (
            {"step": step(terminated=np.zeros(2, bool))},
            "terminated",
            "array([False, False]) (ndarray) is neither",
        ),
        (
            {"step": step(truncated={})},
            "truncated",
            "{} (dict) is neither True nor False (step ends with return",
        ),
        # behind wrappers, which unpack and add up before a lane sees anything
        ({"step": (ROW, 1.0, False, {}), "skip": 2}, "step", "returned 4 values; write return obs, reward"),
        (
            {"step": step(reward=None), "skip": 2},
            "step",
            "returned something of the wrong type (float() argument",
        ),
        (
            {"step": step(reward=None), "stuck_after": 2},
            "step",
            "returned something of the wrong type (float()",
        ),
        ({"kind": "Seedless", "stuck_after": 2}, "reset", "got an unexpected keyword argument"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_write(options: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(EnvFault) as caught:
        play(**options)
    fault = caught.value
    assert (fault.kind, fault.field, fault.lane, fault.episode) == ("interface", field, 0, 0)
    assert words in str(fault) and not fault.trace and "check_env" in str(fault)


def test_a_reward_of_one_number_is_converted_where_the_hint_says_so() -> None:
    given = step(reward=np.array([0.5], np.float32))
    with pytest.raises(EnvFault, match=r"an array of shape \(1,\); .*\n.*env.check=finite converts it"):
        play(step=given)
    assert play(step=given, check="finite") == 0.5


@pytest.mark.parametrize(
    "given",
    [
        step(reward=np.float32(1)), step(reward=True), step(reward=np.array(1)), step(reward=torch.tensor(1.0)),
        step(reward=np.float16(1)), step(reward=np.uint8(1)), step(info=None), step(terminated=0, truncated=np.False_),
        step(terminated=np.array([False]), truncated=np.array(0)), step(truncated=torch.tensor(False)),
    ],
)  # fmt: skip
def test_what_says_the_same_is_taken(given: Any) -> None:
    assert play(step=given, steps=2) == 1.0


def test_a_reward_beyond_every_float_is_said() -> None:
    with pytest.raises(EnvFault, match="reward: .* is too large for float32"):
        play(step=step(reward=10**400))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"observation_space": None}, "has no observation_space; write self.observation_space = ... in its"),
        ({"action_space": 3}, r"its action_space is 3 \(int\); write self.action_space"),
        (
            {"action_space": spaces.Sequence(spaces.Discrete(3))},
            "action: space Sequence is not supported; allowed: B",
        ),
        (
            {
                "observation_space": spaces.Dict(
                    {"a": spaces.Tuple((spaces.Discrete(2), spaces.Sequence(spaces.Discrete(2))))}
                )
            },
            "observation entry 'a' entry 1: space Sequence is not supported; .*leave it out or convert it in a wrapper",
        ),
        (
            {"observation_space": spaces.Box(-1, 1, (0,))},
            r"observation: a Box of shape \(0,\) holds no number",
        ),
        ({"action_space": spaces.Box(-1, 1, (2, 0))}, r"action: a Box of shape \(2, 0\) holds no number"),
    ],
)
def test_spaces_that_no_agent_can_use(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^env.id={HERE}Strange: {message}"):
        probe(EnvConfig(id=HERE + "Strange", kwargs=kwargs, backend="inprocess"))
    with pytest.raises(ValueError, match="has no observation_space"):
        probe(EnvConfig(id=HERE + "Spaceless", backend="inprocess"))


@pytest.fixture
def training() -> Any:
    """While a run is trained Ctrl-C raises something else than KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, lambda *given: None)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("at", ["step", "reset", "render"])
@pytest.mark.parametrize(
    ("raises", "kind"),
    [
        (throw(KeyboardInterrupt()), "raised"),
        (throw(asyncio.CancelledError()), "raised"),
        (throw(GeneratorExit()), "raised"),
        (throw(RuntimeError("mine")), "raised"),
        (throw(SystemExit(3)), "exited"),
        (lambda: os._exit(7), "exited"),
    ],
)
def test_whatever_an_environment_raises_names_its_place(
    training: Any, raises: Any, kind: str, at: str
) -> None:
    with pytest.raises(EnvFault) as caught:
        play(raises=raises, at=at, render=at == "render")
    fault = caught.value
    assert (fault.kind, fault.field, fault.lane) == (kind, "" if at == "step" else at, 0)
    assert "test_envs_interface.py" in fault.trace and f"seed {fault.seed}" in str(fault)


def test_an_interrupt_that_is_no_environment_s_passes() -> None:
    # Python's own handler, also where tests run in the background of a shell, which ignores Ctrl-C: it may be Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            play(raises=throw(KeyboardInterrupt()), at="step")
    finally:
        signal.signal(signal.SIGINT, before)
    assert not interface.own(watchdog.Hang())


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()])
def test_a_constructor_that_ends_the_program_is_said(error: BaseException) -> None:
    with pytest.raises(
        ValueError, match=f"Odd: its constructor ends the program with {type(error).__name__}"
    ):
        probe(EnvConfig(id=HERE + "Odd", kwargs={"raises": throw(error), "at": "init"}, backend="inprocess"))


def test_os_exit_ends_who_is_not_in_a_step() -> None:
    play()
    assert os._exit is watchdog._exit
    child = os.fork()
    if child == 0:
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


@pytest.mark.parametrize(
    ("raises", "words"),
    [(throw(ValueError("mine")), "raised: .* close: "), (lambda: time.sleep(60), "hung: .* close: ")],
)
def test_a_close_that_fails_or_hangs_is_warned_of(raises: Any, words: str) -> None:
    with pytest.warns(RuntimeWarning, match=words):
        play(raises=raises, at="close", deadline=0.2)


def test_a_render_that_hangs_is_a_fault() -> None:
    with pytest.raises(EnvFault, match=r"hung: .* render: no answer in 0.2 s"):
        play(raises=lambda: time.sleep(60), at="render", deadline=0.2, render=True)


def test_a_forked_child_does_not_hold_the_lock_of_a_run(tmp_path: Path) -> None:
    from rlkit.files import named
    from rlkit.run.folder import lock_folder

    lock = lock_folder(named(tmp_path))
    ours, theirs = os.pipe()
    begun, says = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os.write(says, b".")
        os.read(ours, 1)
        os._exit(0)
    try:
        os.read(begun, 1)
        with pytest.raises(ConfigError, match="in use"):
            lock_folder(named(tmp_path))
        lock.close()
        again = (named(tmp_path) / ".lock").lock()
        assert again is not None, "the child holds it"
        again.close()
    finally:
        for descriptor in (theirs, ours, begun, says):
            os.close(descriptor)
        os.waitpid(child, 0)
