"""Gymnasium's classic control problems as machine code: a step of all lanes is one call, with the same bits.

Every kernel moves lanes whose episode goes on. It reads an action per lane, changes `state` [N, k] (float64), and
writes what is seen, obs [N, m] (float32), and the lanes' flags. Lanes that showed a last row are counted and get -1
steps: their next episode is opened by who called. Where an action is none of the problem's, nothing is changed and the
count is -1.

The order of every operation and its precision are those of Gymnasium's sources, in which a square `x ** 2` is the C
library's pow, which rounds some of them to the other side of x * x. `two` is 2.0 as an argument, which no compiler
turns into a product. Sines and cosines are the C library's too, as NumPy's are since 2.0 (`block.same` compares them).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled
from rlkit.spaces import Array

LARGEST = 1e6  # of an action that is a number; Gymnasium's own code is asked what follows from larger ones


class Flags(NamedTuple):
    """What a step says of the lanes beside what is seen, [N] each, as `rlkit.envs.backends.rows.Rows` has it."""

    reward: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    first: npt.NDArray[np.bool_]
    last: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]


@compiled
def _among(action: Array, choices: int) -> bool:
    """Whether all actions [N] are of 0 .. choices - 1."""
    fitting = True
    for each in action:
        fitting = fitting and 0 <= each < choices
    return fitting


@compiled
def _moderate(action: Array) -> bool:
    """Whether all actions [N, 1] are numbers of a usual size."""
    fitting = True
    for each in action[:, 0]:
        fitting = fitting and abs(each) <= LARGEST
    return fitting


@compiled
def _close(n: int, terminated: bool, limit: int, flags: Flags) -> None:
    """Write the flags of lane n after a step; limit: of an episode's steps, 0: none."""
    flags.steps[n] += 1
    flags.first[n] = False
    flags.terminated[n] = terminated
    flags.last[n] = terminated or flags.steps[n] == limit


@compiled
def cartpole(state: Array, action: Array, obs: Array, flags: Flags, limit: int, two: float) -> int:
    """A pole on a cart, pushed with 10 N to the left (0) or right (1) for 0.02 s: Euler's method.

        temp    = (F + m l w^2 sin a) / M
        w'      = (g sin a - cos a temp) / (l (4/3 - m cos^2 a / M)),    v' = temp - m l w' cos a / M

    x, v: the cart's place and speed; a, w: the pole's angle and speed; M = m + 1 kg. The state is what is seen. An
    episode ends beyond 2.4 m or 12 degrees; every step pays 1. Barto, Sutton and Anderson, "Neuronlike adaptive
    elements that can solve difficult learning control problems", 1983, with Florian's correction (2007).
    """
    if not _among(action, 2):
        return -1
    total, pole, widest, opening = 0.1 + 1.0, 0.1 * 0.5, 12 * 2 * math.pi / 360, 0
    for n in range(len(state)):
        if flags.last[n]:
            opening += 1
            flags.steps[n] = -1
            continue
        x, v, a, w = state[n, 0], state[n, 1], state[n, 2], state[n, 3]
        force = 10.0 if action[n] == 1 else -10.0
        cos, sin = math.cos(a), math.sin(a)
        temp = (force + pole * (w * w) * sin) / total
        turn = (9.8 * sin - cos * temp) / (0.5 * (4.0 / 3.0 - 0.1 * (cos * cos) / total))
        push = temp - pole * turn * cos / total
        x, v, a, w = x + 0.02 * v, v + 0.02 * push, a + 0.02 * w, w + 0.02 * turn
        state[n, 0], state[n, 1], state[n, 2], state[n, 3] = x, v, a, w
        obs[n, 0], obs[n, 1], obs[n, 2], obs[n, 3] = x, v, a, w
        flags.reward[n] = 1.0
        _close(n, x < -2.4 or x > 2.4 or a < -widest or a > widest, limit, flags)
    return opening


@compiled
def pendulum(state: Array, action: Array, obs: Array, flags: Flags, limit: int, two: float) -> int:
    """A rod of 1 kg and 1 m, turned by a torque u within 2 Nm for 0.05 s; a = 0 is upright.

        w' = 15 sin a + 3 u,    reward = -(a^2 + 0.1 w^2 + 0.001 u^2), a within pi of upright, as before the step

    The speed w stays within 8 rad/s. Seen are cos a, sin a and w; no episode ends by itself. u is float32.
    """
    if not _moderate(action):
        return -1
    opening = 0
    for n in range(len(state)):
        if flags.last[n]:
            opening += 1
            flags.steps[n] = -1
            continue
        a, w = state[n, 0], state[n, 1]
        u = np.float32(min(max(action[n, 0], np.float32(-2.0)), np.float32(2.0)))
        angle = (a + math.pi) % (2 * math.pi) - math.pi
        effort = np.float32(0.001) * np.float32(math.pow(u, np.float32(two)))
        costs = math.pow(angle, two) + 0.1 * math.pow(w, two) + np.float64(effort)
        w = w + (15.0 * math.sin(a) + np.float64(np.float32(3.0) * u)) * 0.05
        w = min(max(w, -8.0), 8.0)
        a = a + w * 0.05
        state[n, 0], state[n, 1] = a, w
        obs[n, 0], obs[n, 1], obs[n, 2] = math.cos(a), math.sin(a), w
        flags.reward[n] = -costs
        _close(n, False, limit, flags)
    return opening


@compiled
def _bend(y: Any, torque: float, two: float) -> Any:
    """The derivative of Acrobot's state y = (a, b, v, w) under a torque: the equations of the book."""
    a, b, v, w = y
    d1 = 0.25 + (1.25 + math.cos(b)) + 1.0 + 1.0
    d2 = (0.25 + 0.5 * math.cos(b)) + 1.0
    phi2 = 0.5 * 9.8 * math.cos(a + b - math.pi / 2.0)
    phi1 = (
        -0.5 * math.pow(w, two) * math.sin(b)
        - 1.0 * w * v * math.sin(b)
        + 1.5 * 9.8 * math.cos(a - math.pi / 2)
        + phi2
    )
    pull = torque + d2 / d1 * phi1 - 0.5 * math.pow(v, two) * math.sin(b) - phi2
    second = pull / (1.25 - math.pow(d2, two) / d1)
    return v, w, -(d2 * second + phi1) / d1, second


@compiled
def _after(y: Any, k: Any, time: float) -> Any:
    """y + time k, for states of four numbers."""
    return y[0] + time * k[0], y[1] + time * k[1], y[2] + time * k[2], y[3] + time * k[3]


@compiled
def _wrapped(angle: float) -> float:
    """The angle within pi of 0."""
    while angle > math.pi:
        angle = angle - (math.pi - -math.pi)
    while angle < -math.pi:
        angle = angle + (math.pi - -math.pi)
    return angle


@compiled
def acrobot(state: Array, action: Array, obs: Array, flags: Flags, limit: int, two: float) -> int:
    """Two links of 1 kg and 1 m that hang from a pivot; a torque of action - 1 Nm between them for 0.2 s.

    State: both angles, 0 hanging down, the second relative to the first, and their speeds, within 4 pi and 9 pi; one
    step of the classical Runge-Kutta method. Seen are cosine and sine of both angles, and the speeds. An episode ends,
    and pays 0, where the tip swings above a height of one link; other steps pay -1. Sutton, "Generalization in
    reinforcement learning: successful examples using sparse coarse coding", 1996.
    """
    if not _among(action, 3):
        return -1
    opening = 0
    for n in range(len(state)):
        if flags.last[n]:
            opening += 1
            flags.steps[n] = -1
            continue
        y, torque = (state[n, 0], state[n, 1], state[n, 2], state[n, 3]), action[n] - 1.0
        k1 = _bend(y, torque, two)
        k2 = _bend(_after(y, k1, 0.1), torque, two)
        k3 = _bend(_after(y, k2, 0.1), torque, two)
        k4 = _bend(_after(y, k3, 0.2), torque, two)
        for i in range(4):
            state[n, i] = y[i] + 0.2 / 6.0 * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i])
        a, b = _wrapped(state[n, 0]), _wrapped(state[n, 1])
        v = min(max(state[n, 2], -4 * math.pi), 4 * math.pi)
        w = min(max(state[n, 3], -9 * math.pi), 9 * math.pi)
        state[n, 0], state[n, 1], state[n, 2], state[n, 3] = a, b, v, w
        obs[n, 0], obs[n, 1], obs[n, 2], obs[n, 3] = math.cos(a), math.sin(a), math.cos(b), math.sin(b)
        obs[n, 4], obs[n, 5] = v, w
        terminated = -math.cos(a) - math.cos(b + a) > 1.0
        flags.reward[n] = 0.0 if terminated else -1.0
        _close(n, terminated, limit, flags)
    return opening


@compiled
def mountain_car(state: Array, action: Array, obs: Array, flags: Flags, limit: int, two: float) -> int:
    """A car in a valley, too weak to drive out of it; pushed left (0), not at all (1) or right (2).

        v' = 0.001 (action - 1) - 0.0025 cos 3x

    The place x is within -1.2, where the car stops, and 0.6, the speed v within 0.07; both are seen. An episode ends
    at 0.5; every step pays -1. Moore, "Efficient memory-based learning for robot control", 1990.
    """
    if not _among(action, 3):
        return -1
    opening = 0
    for n in range(len(state)):
        if flags.last[n]:
            opening += 1
            flags.steps[n] = -1
            continue
        x, v = state[n, 0], state[n, 1]
        v = v + ((action[n] - 1) * 0.001 + math.cos(3 * x) * -0.0025)
        v = min(max(v, -0.07), 0.07)
        x = min(max(x + v, -1.2), 0.6)
        if x == -1.2 and v < 0:
            v = 0.0
        state[n, 0], state[n, 1] = x, v
        obs[n, 0], obs[n, 1] = x, v
        flags.reward[n] = -1.0
        _close(n, x >= 0.5 and v >= 0, limit, flags)
    return opening


@compiled
def _roll(x: Any, v: Any, push: Any, fastest: Any, left: Any, right: Any) -> Any:
    """Place and speed after a push, all in the precision of the arguments."""
    v = min(max(v + push, -fastest), fastest)
    x = min(max(x + v, left), right)
    return x, v if x != left or v >= 0 else v - v


@compiled
def mountain_car_continuous(
    state: Array, action: Array, obs: Array, flags: Flags, limit: int, two: float
) -> int:
    """The same valley with a force u within 1: v' = 0.0015 u - 0.0025 cos 3x.

    An episode ends at 0.45 and pays 100 there; every step pays -0.1 u^2, of the force that was asked for. Gymnasium
    keeps the state as float32 after the first step of an episode, which alone is computed in float64.
    """
    if not _moderate(action):
        return -1
    opening = 0
    for n in range(len(state)):
        if flags.last[n]:
            opening += 1
            flags.steps[n] = -1
            continue
        x, v, u, single = state[n, 0], state[n, 1], action[n, 0], np.float32
        if flags.steps[n] == 0:
            slope = 0.0025 * math.cos(3 * x)
        else:
            slope = 0.0025 * math.cos(np.float64(single(3) * single(x)))
        within = -1.0 <= u <= 1.0  # a force beyond is replaced by a float64
        push = np.float64(single(u * single(0.0015)) - single(slope))
        if not within:
            push = np.float64(math.copysign(0.0015, u) - slope)
        if flags.steps[n] == 0:
            x, v = _roll(x, v, push, 0.07, -1.2, 0.6)
            terminated = x >= 0.45 and v >= 0
        else:
            moved = _roll(single(x), single(v), single(push), single(0.07), single(-1.2), single(0.6))
            x, v = np.float64(moved[0]), np.float64(moved[1])
            terminated = moved[0] >= single(0.45) and v >= 0
        state[n, 0], state[n, 1] = single(x), single(v)
        obs[n, 0], obs[n, 1] = x, v
        flags.reward[n] = (100.0 if terminated else 0.0) - math.pow(np.float64(u), two) * 0.1
        _close(n, terminated, limit, flags)
    return opening


KERNELS = {
    "cartpole": cartpole,
    "pendulum": pendulum,
    "acrobot": acrobot,
    "mountain_car": mountain_car,
    "mountain_car_continuous": mountain_car_continuous,
}
