"""rlkit/CarRacing is CarRacing-v3: every pixel, reward and ending; its vector is its lanes."""

import zlib
from pathlib import Path

import gymnasium
import numba
import numpy as np
import pygame
import pytest
import torch
from gymnasium.envs.box2d import car_racing as stock

from rlkit.envs import EnvConfig, make_env, make_vec
from rlkit.envs.driving.exact import canvas, car_racing, polygons
from rlkit.envs.driving.exact.car_racing import CarRacing, new_canvas


def drive(rng, steering):
    """A random action, smooth enough to get somewhere."""
    return rng.uniform([-steering, 0.0, 0.0], [steering, 1.0, 0.3]).astype(np.float32)


def assert_same_picture(env, note):
    mine, theirs = env._render("state_pixels"), stock.CarRacing._render(env, "state_pixels")
    different = (mine != theirs).any(axis=2)
    assert not different.any(), (note, np.argwhere(different)[:5].tolist())


@pytest.mark.parametrize("seed", range(12))
def test_pictures_are_gymnasiums_to_the_last_bit(seed):
    """95 frames of each of 12 tracks: drives with and without grip, each frame of the zoom, and made-up places."""
    rng = np.random.default_rng(seed)
    env = CarRacing(domain_randomize=seed % 3 == 2)
    assert env.exact
    env.reset(seed=seed)
    steering = (0.1, 0.4, 1.0)[seed % 3]
    for step in range(60):
        action = drive(rng, steering)
        for _ in range(1 if step < 40 else 6):
            env.step(action) if step < 40 else unseen(env, action)
        assert_same_picture(env, (seed, step))
    for place in range(35):
        move(env, rng, place)
        assert_same_picture(env, (seed, "place", place))


def unseen(env, action):
    """A step whose picture nobody draws."""
    env._render = lambda mode: None
    try:
        env.step(action)
    finally:
        del env._render


def move(env, rng, place):
    """Put the car anywhere: on the track, at the field's edges, turned by quarters, with full gauges, long scores."""
    _, _, x, y = env.track[rng.integers(len(env.track))]
    if place % 3 == 0:
        x, y = rng.uniform(-360, 360, 2)
    angle = float(rng.uniform(-20, 20)) if place % 4 else float(rng.integers(-4, 5) * np.pi / 2)
    hull = env.car.hull
    hull.position, hull.angle = (float(x), float(y)), angle
    hull.linearVelocity = tuple(map(float, rng.uniform(-100, 100, 2)))
    hull.angularVelocity = float(rng.uniform(-12, 12))
    for wheel, offset in zip(env.car.wheels, rng.uniform(-2, 2, (4, 2)), strict=True):
        wheel.position, wheel.angle = (
            (float(x + offset[0]), float(y + offset[1])),
            angle + float(rng.uniform(-0.4, 0.4)),
        )
        wheel.phase, wheel.omega = float(rng.uniform(-50, 50)), float(rng.uniform(-200, 900))
    env.t = float(rng.choice([0.0, 0.02, 0.5, 0.98, 1.0, 7.3]))
    env.reward = float(rng.choice([0.0, -0.1, -7.3, -123.4, 999.9, 1234.5, 20000.0]))
    for tile in rng.integers(0, len(env.road), 30):
        env.road[tile].color[:] = env.road_color  # as when it is driven on


@pytest.mark.parametrize(("continuous", "randomize", "seed"), [(True, False, 5), (False, True, 6)])
def test_whole_episodes_are_the_same(continuous, randomize, seed):
    """Rewards, endings, pictures (each twentieth) until an episode ends, and in the next one of the same object."""
    kwargs = {"continuous": continuous, "domain_randomize": randomize, "lap_complete_percent": 0.9}
    mine = gymnasium.make("rlkit/CarRacing", disable_env_checker=True, **kwargs)
    theirs = gymnasium.make("CarRacing-v3", disable_env_checker=True, **kwargs)
    rng = np.random.default_rng(seed)
    for episode in range(2):
        a, b = mine.reset(seed=seed + episode)[0], theirs.reset(seed=seed + episode)[0]
        assert np.array_equal(a, b)
        over, step = False, 0
        while not over:
            seen = step % 20 == 0
            if not seen:
                mine.unwrapped._render = theirs.unwrapped._render = lambda mode: None
            if step % 25 == 0:
                held = drive(rng, 0.3) if continuous else int(rng.integers(5))
            x, y = mine.step(held), theirs.step(held)
            if not seen:
                del mine.unwrapped._render, theirs.unwrapped._render
            else:
                assert np.array_equal(x[0], y[0]), step
            assert x[1:] == y[1:], step
            over, step = x[2] or x[3], step + 1
    for wheel, other in zip(mine.unwrapped.car.wheels, theirs.unwrapped.car.wheels, strict=True):
        assert (wheel.omega, wheel.phase, wheel.gas) == (other.omega, other.phase, other.gas)
        assert len(mine.unwrapped.car.particles) == len(theirs.unwrapped.car.particles)


def test_it_is_registered_like_carracing_v3():
    mine, theirs = gymnasium.spec("rlkit/CarRacing"), gymnasium.spec("CarRacing-v3")
    assert mine.max_episode_steps == theirs.max_episode_steps == 1000
    assert mine.reward_threshold == theirs.reward_threshold
    env = gymnasium.make("rlkit/CarRacing", render_mode="rgb_array")
    other = gymnasium.make("CarRacing-v3", render_mode="rgb_array")
    env.reset(seed=1), other.reset(seed=1)
    assert np.array_equal(env.render(), other.render())


def entries(sources):
    """Both fillers as machine code that is kept on disk; sources: of what files, which numba looks at for a change."""

    def gfx(tags, pool, free, pixels, cells, spans, meets, x, y, color, lowest):
        return sources, polygons.gfx_polygon(
            tags, pool, free, pixels, cells, spans, meets, x, y, color, lowest
        )

    def draw(tags, pool, free, pixels, cells, spans, points, count, color, blended, height):
        return sources, polygons.draw_polygon(
            tags, pool, free, pixels, cells, spans, points, count, color, blended, height
        )

    return (numba.njit(nogil=True, _nrt=False, cache=True)(function) for function in (gfx, draw))


gfx_polygon, draw_polygon = entries(
    zlib.crc32(b"".join(Path(each.__file__).read_bytes() for each in (canvas, polygons)))
)


@pytest.mark.parametrize("rule", ["gfx", "draw"])
def test_polygons_are_filled_as_pygame_fills_them(rule):
    """Random quadrilaterals, crossed ones too, small, large and beyond the picture."""
    rng = np.random.default_rng(1)
    surface = pygame.Surface((canvas.WIDTH, canvas.HEIGHT))
    c = new_canvas()
    for trial in range(60):
        size = (30, 300, 3000)[trial % 3]
        corners = rng.uniform(-size, size, (4, 2)) + rng.uniform([200, 250], [800, 600])
        color = rng.integers(1, 256, 3)
        packed = np.uint32((color[0] << 16) | (color[1] << 8) | color[2])
        surface.fill((9, 99, 199))
        canvas.clear(c.tags, c.free)
        c.tags[:] = (9 << 16) | (99 << 8) | 199
        if rule == "gfx":
            x, y = corners.astype(np.int64).T.copy()
            pygame.gfxdraw.aapolygon(surface, corners.tolist(), color.tolist())
            pygame.gfxdraw.filled_polygon(surface, corners.tolist(), color.tolist())
            gfx_polygon(c.tags, c.pool, c.free, c.pixels, c.cells, c.spans, c.meets, x, y, packed, 0)
            want = pygame.transform.flip(surface, False, True)
        else:
            c.points[:2, :4] = corners.astype(np.int64).T
            pygame.draw.polygon(surface, color.tolist(), corners.tolist())
            draw_polygon(c.tags, c.pool, c.free, c.pixels, c.cells, c.spans, c.points, 4, packed, False, 800)
            want = surface
        picture = np.empty((96, 96, 3), np.uint8)
        canvas.reduce(c.tags, c.pool, c.cells, c.table, c.sums, c.shift, picture)
        reduced = pygame.transform.smoothscale(want, (96, 96))
        np.testing.assert_array_equal(
            picture, pygame.surfarray.array3d(reduced).transpose(1, 0, 2), f"{trial}"
        )


@pytest.mark.parametrize("picture", [{}, {"skip": 3, "gray": True, "size": 64}])
def test_threads_give_the_rows_of_single_lanes(picture):
    """Row for row over endings and new episodes, and from the middle of episodes."""
    config = EnvConfig(id="rlkit/CarRacing", lanes=3, time_limit=24, check="none", **picture)
    single, threads = (
        make_vec(EnvConfig(**{**vars(config), "backend": name, "workers": 2}), 4)
        for name in ("inprocess", "threads")
    )
    assert threads.block.threads == 2
    rng = np.random.default_rng(0)
    actions = rng.uniform([-1, 0, 0], [1, 1, 0.3], (40, 3, 3)).astype(np.float32)
    histories = [actions[:k, k] for k in (0, 1, 2)]
    a, b = (vector.restore(np.array([0, 5, 2]), histories) for vector in (single, threads))
    for action in actions:
        for name in ("obs", "reward", "terminated", "first", "last"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        a, b = (vector.step(torch.from_numpy(action)) for vector in (single, threads))
    assert single.rows.episode.min() > 0
    single.close(), threads.close(), threads.close()


def test_skip_gray_and_size_are_the_stock_environments():
    """`env=carracing` gives the pictures of CarRacing-v3 under the same wrappers."""
    envs = [
        make_env(EnvConfig(id=id, skip=4, gray=True, size=64)) for id in ("rlkit/CarRacing", "CarRacing-v3")
    ]
    rng = np.random.default_rng(3)
    rows = [env.reset(seed=8)[0] for env in envs]
    for _ in range(25):
        assert np.array_equal(*rows)
        action = drive(rng, 0.3)
        (x, y) = (env.step(action) for env in envs)
        rows, rest = [x[0], y[0]], [x[1:4], y[1:4]]
        assert rest[0] == rest[1]


def test_threads_are_refused_elsewhere():
    with pytest.raises(ValueError, match=r"env.backend=threads: draws env.id=rlkit/CarRacing"):
        make_vec(EnvConfig(id="CartPole-v1", backend="threads"), 0)


def test_where_pygame_draws_differently_gymnasium_draws(monkeypatch):
    """A score that is written in another way stands for any difference."""
    monkeypatch.setattr(car_racing, "FORMATS", (lambda score: "42",))
    car_racing.score_format.cache_clear()
    try:
        with pytest.warns(UserWarning, match="draws other pictures .* left to CarRacing-v3's own code"):
            env = CarRacing()
        assert not env.exact
        other = stock.CarRacing()
        assert np.array_equal(env.reset(seed=2)[0], other.reset(seed=2)[0])
    finally:
        car_racing.score_format.cache_clear()


def test_where_gymnasium_moves_the_car_differently_it_moves_it(monkeypatch):
    """A car that exerts no force stands for any difference."""
    monkeypatch.setattr(
        car_racing, "LeanCar", type("Other", (car_racing.LeanCar,), {"step": lambda *_: None})
    )
    car_racing.score_format.cache_clear()
    try:
        with pytest.warns(UserWarning, match="computes other forces than rlkit; everything is left to"):
            env = CarRacing()
        env.reset(seed=2)
        assert not env.exact and type(env.car) is stock.Car
    finally:
        car_racing.score_format.cache_clear()


def test_a_window_that_closes_takes_no_font_along(monkeypatch):
    """Gymnasium quits pygame as it closes a window; whoever draws on draws the score as before."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    pygame.display.quit()  # the drivers are read when it starts
    env = gymnasium.make("rlkit/CarRacing", render_mode="human")
    env.reset(seed=1)
    env.close()
    other = CarRacing()
    other.reset(seed=1)
    car_racing.score_picture.cache_clear()
    other.reward = 77.0
    assert_same_picture(other, "after pygame.quit")
