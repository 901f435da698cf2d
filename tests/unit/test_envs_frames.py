"""Frame skip without drawing is the naive skip; gray and size are what they say."""

import cv2
import gymnasium
import numpy as np
import pytest

from rlkit.envs import EnvConfig, make_env, probe
from rlkit.envs.wrappers.frames import FrameSkip, Picture
from rlkit.envs.wrappers.quirks import Pen


class NaiveSkip(gymnasium.Wrapper):
    """The slow, obvious version."""

    def __init__(self, env, skip):
        super().__init__(env)
        self.skip = skip

    def step(self, action):
        total = 0.0
        for _ in range(self.skip):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info


@pytest.mark.parametrize("limit", [60, 61, 62])
def test_skip_without_drawing_is_the_naive_skip(limit):
    """The limits end episodes after the first, the second and the last frame of a skip of 3."""
    make = lambda: gymnasium.make("CarRacing-v3", disable_env_checker=True, max_episode_steps=limit)  # noqa: E731
    fast, slow = FrameSkip(make(), 3), NaiveSkip(make(), 3)
    assert np.array_equal(fast.reset(seed=3)[0], slow.reset(seed=3)[0])
    rng = np.random.default_rng(0)
    ended = False
    while not ended:
        action = rng.uniform([-1, 0, 0], [1, 1, 0.2]).astype(np.float32)
        a, b = fast.step(action), slow.step(action)
        assert np.array_equal(a[0], b[0])
        assert a[1:4] == b[1:4]
        ended = a[3]
    assert "_render" not in vars(fast.unwrapped), "drawing is on again"


def test_unseen_frames_are_not_drawn(monkeypatch):
    env = make_env(EnvConfig(id="CarRacing-v3", skip=4))
    env.reset(seed=0)
    drawn = []
    kind = type(env.unwrapped)
    original = kind._render
    monkeypatch.setattr(kind, "_render", lambda self, mode: drawn.append(mode) or original(self, mode))
    env.step(np.zeros(3, np.float32))
    assert drawn == ["state_pixels"]
    pen = Pen.of(env)
    pen.off()
    assert not env.step(np.zeros(3, np.float32))[0].any(), "blank while the pen is off, skip or not"
    pen.on()
    assert env.step(np.zeros(3, np.float32))[0].any()
    assert len(drawn) == 2


def test_gray_is_luminance_and_size_averages_areas():
    plain = make_env(EnvConfig(id="CarRacing-v3"))
    gray = make_env(EnvConfig(id="CarRacing-v3", gray=True))
    small = make_env(EnvConfig(id="CarRacing-v3", gray=True, size=48))
    color = make_env(EnvConfig(id="CarRacing-v3", size=48))
    frames = [env.reset(seed=1)[0] for env in (plain, gray, small, color)]
    weights = frames[0].astype(float) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(frames[1] - weights).max() <= 1.0
    means = frames[1].reshape(48, 2, 48, 2).astype(float).mean((1, 3))
    assert np.abs(frames[2] - means).max() <= 1.0
    assert frames[3].shape == (48, 48, 3)
    for env, frame in zip((plain, gray, small, color), frames, strict=True):
        assert env.observation_space.contains(frame)


def test_atari_skips_in_the_emulator():
    pytest.importorskip("ale_py")
    env = make_env(
        EnvConfig(id="ALE/Pong-v5", skip=3, kwargs={"repeat_action_probability": 0.0}, gray=True, size=84)
    )
    assert env.unwrapped._frameskip == 3
    assert not isinstance(env.env, FrameSkip)
    obs, _ = env.reset(seed=0)
    before = env.unwrapped.ale.getEpisodeFrameNumber()
    env.step(0)
    assert env.unwrapped.ale.getEpisodeFrameNumber() - before == 3
    assert obs.shape == (84, 84)


class Still(gymnasium.Env):
    """Shows one frame for ever."""

    def __init__(self, frame, high=255):
        self.frame, self.observation_space = frame, gymnasium.spaces.Box(0, high, frame.shape, np.uint8)

    def reset(self, *, seed=None, options=None):
        return self.frame, {}


@pytest.mark.parametrize("depth", [1, 3, 16])
@pytest.mark.parametrize("gray", [False, True])
def test_frames_with_channels_first_become_the_same_and_keep_their_order(depth, gray):
    frame = np.random.default_rng(0).integers(0, 256, (24, 40, depth), dtype=np.uint8)
    if gray and depth != 3:
        for given, channels in ((frame, "last"), (np.moveaxis(frame, -1, 0), "first")):
            with pytest.raises(ValueError, match=f"env.gray=true: frames have {depth} channels"):
                Picture(Still(given), gray, 8, channels)
        return
    last = Picture(Still(frame), gray, 8, "last")
    first = Picture(Still(np.moveaxis(frame, -1, 0)), gray, 8, "first")
    shown = last.reset()[0]
    assert shown.shape == (8, 8) if gray else (8, 8, depth)
    assert np.array_equal(first.reset()[0], shown if gray else np.moveaxis(shown, -1, 0))
    for env in (first, last):
        assert env.observation_space.contains(env.reset()[0])
    if not gray:
        means = frame.reshape(8, 3, 8, 5, depth).astype(float).mean((1, 3))
        assert np.abs(shown - means).max() <= 1


def test_frames_of_unknown_order_are_refused_and_bounds_are_kept():
    planes = np.ones((4, 4, 16), np.uint8)
    with pytest.raises(ValueError, match="of shape .* type env.channels=last or env.channels=first"):
        Picture(Still(planes), False, 2)
    assert Picture(Still(planes, high=1), False, 2, "last").observation_space.high.max() == 1


def test_what_is_drawn_is_what_is_seen():
    """A frame is render()'s, made smaller; the label is the observation that it stands for."""
    config = EnvConfig(id="CartPole-v1", pixels=40, skip=3, labels=("state",))
    env, plain = make_env(config), gymnasium.make("CartPole-v1", render_mode="rgb_array")
    assert env.observation_space["image"] == gymnasium.spaces.Box(0, 255, (40, 40, 3), np.uint8)
    seen, _ = env.reset(seed=2)
    state, _ = plain.reset(seed=2)
    for action in (0, 1, 1, 0):
        wanted = cv2.resize(plain.render(), (40, 40), interpolation=cv2.INTER_AREA)
        assert np.array_equal(seen["image"], wanted) and np.array_equal(seen["label"]["state"], state)
        seen = env.step(action)[0]
        for _ in range(3):
            state = plain.step(action)[0]
    gray = make_env(EnvConfig(id="CartPole-v1", pixels=40, gray=True))
    assert gray.observation_space.shape == gray.reset(seed=0)[0].shape == (40, 40)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"id": "CartPole-v1", "labels": ("state",)}, "env.labels=.state.: is for pictures .*; type env.pixels=64, or"),
        ({"id": "rlkit.envs.toys:Identity", "pixels": 8}, "no render_mode, so it draws no pictures; allowed"),
        ({"id": "CartPole-v1", "pixels": 8, "labels": ("mask",)}, "env.id=CartPole-v1 says nothing of itself; allowed"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_drawn(options, says):
    with pytest.raises(ValueError, match=says):
        make_env(EnvConfig(**options))


def test_backends_that_take_an_environment_as_it_is_draw_nothing():
    for id, backend in (("rlkit/Maze", "batched"), ("CartPole-v1", "native"), ("rlkit/CarRacing", "threads")):
        with pytest.raises(
            ValueError, match=f"env.pixels=8: env.backend={backend} takes its environment as it is"
        ):
            probe(EnvConfig(id=id, pixels=8, backend=backend))
