"""What films show: every frame, also those that a frame skip passes over, as pictures of one size and kind."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from rlkit.envs import EnvConfig, make_env, make_vec
from rlkit.envs.pictures import as_picture
from rlkit.envs.wrappers.frames import FrameSkip
from rlkit.options import ConfigError
from rlkit.play.video import VideoWriter

COLORS = np.arange(2 * 5 * 3).reshape(2, 5, 3).astype(np.uint8)
GRAY = COLORS[..., 0]


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (COLORS, COLORS),
        ([COLORS * 0, COLORS], COLORS),  # frames of several steps: the newest
        (COLORS.astype(np.int64), COLORS),
        (COLORS.astype(np.float64), COLORS),
        (COLORS / np.float32(255), COLORS),
        (torch.from_numpy(COLORS), COLORS),
        (np.dstack([COLORS, GRAY]), COLORS),
        (np.moveaxis(COLORS, -1, 0), COLORS),
        (GRAY, np.dstack([GRAY] * 3)),
        (GRAY[..., None], np.dstack([GRAY] * 3)),
        (GRAY > 5, np.dstack([(GRAY > 5) * np.uint8(255)] * 3)),
    ],
)
def test_whatever_is_a_picture_becomes_one(drawn, expected):
    picture = as_picture(drawn)
    assert picture.dtype == np.uint8 and np.array_equal(picture, expected)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (np.zeros((5, 4, 2)), r"an array of shape \(5, 4, 2\)"),
        (np.zeros(3), r"an array of shape \(3,\)"),
        (np.zeros((0, 4, 3)), "an array of shape"),
        ("@..#", r"an array of shape \(\)"),
        (np.full((4, 4), np.nan), "float64 from nan to nan; allowed: 0 to 1, or 0 to 255"),
        (np.full((4, 4), -1.0), "float64 from -1.0"),
        (np.full((4, 4), 300), "int64 from 300 to 300"),
    ],
)
def test_whatever_is_none_is_refused(drawn, said):
    with pytest.raises(ValueError, match=said):
        as_picture(drawn)
    assert as_picture(None) is None and as_picture([]) is None


def test_pictures_of_changing_size_make_no_film(tmp_path):
    film = VideoWriter(tmp_path / "grow.mp4")
    film.add(np.zeros((30, 40, 3), np.uint8))
    with pytest.raises(ConfigError, match="changing size, 40x30 and then 40x32; a video has one size"):
        film.add(np.zeros((32, 40, 3), np.uint8))
    film.close(keep=False)
    assert not list(tmp_path.iterdir())


class Counter(gymnasium.Env):
    """Draws how many steps its episode, of seven, has had."""

    metadata = {"render_fps": 24}  # noqa: RUF012
    observation_space, action_space = gymnasium.spaces.Box(0, 9, (1,)), gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), 1.0, self.t == 7, False, {}

    def render(self):
        return np.full((2, 2, 3), self.t, np.uint8)


def test_a_film_shows_the_frames_that_a_skip_passes_over():
    vector = make_vec(
        EnvConfig(id="tests.unit.test_films:Counter", skip=3, lanes=1, backend="inprocess"), 0, render=True
    )
    row = vector.restore(np.zeros(1, np.int64), [np.zeros(0)])
    shown = [[int(picture[0, 0, 0]) for picture in vector.pictures(0)]]
    for _ in range(5):
        row = vector.step(torch.zeros(1, dtype=torch.int64))
        shown.append([int(picture[0, 0, 0]) for picture in vector.pictures(0)])
    assert shown == [[0], [1, 2, 3], [4, 5, 6], [7], [0], [1, 2, 3]]
    assert row.obs.item() == 3
    assert (vector.fps, vector.picture_rate) == (8.0, 24.0)
    vector.close()


def test_frames_passed_over_are_drawn_for_people_alone():
    """CarRacing's observation of them is not drawn; with a window, which shows every frame, everything is."""
    seen = []
    for mode in (None, "rgb_array"):
        env = make_env(EnvConfig(id="CarRacing-v3", skip=3), mode)
        env.reset(seed=0)
        for _ in range(2):
            obs = env.step(np.array([0.5, 1.0, 0.0], np.float32))[0]
        seen.append(obs)
    assert np.array_equal(*seen)
    frames = [*env.passed, env.render()]
    assert len(frames) == 3 and all(frame.std() > 10 for frame in frames)
    assert not np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[1], frames[2])
    env.unwrapped.render_mode = "human"
    assert FrameSkip(env.unwrapped, 3).pen is None and env.pen is not None


def test_films_of_atari_play_the_same_decisions_frame_by_frame():
    pytest.importorskip("ale_py")
    config = EnvConfig(id="ALE/Pong-v5", skip=4, gray=True, size=84, time_limit=20)
    envs = [make_env(config, mode) for mode in (None, "rgb_array")]
    rows = [env.reset(seed=3)[0] for env in envs]
    assert np.array_equal(*rows)
    for action in [2, 3, 0, 5] * 5:
        plain, film = (env.step(action) for env in envs)
        assert np.array_equal(plain[0], film[0]) and plain[1:4] == film[1:4]
    assert plain[3], "the limit is in the agent's steps for both"
    assert len(envs[1].get_wrapper_attr("passed")) == 3
