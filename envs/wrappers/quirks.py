"""What particular environments need beyond Gymnasium's interface: exact resets, steps without drawing, silence.

Exact resets. An episode must depend on its seed alone, or a run could not be resumed from (episode,
actions). Box2D keeps contacts and the order of its bodies from one episode to the next, so
BipedalWalker-v3's later episodes differ slightly from the same seed's in a new environment; a new world
before each reset makes them equal.

Drawing. CarRacing-v3 draws its observation in every step, which is most of the step's time. Frames that
nobody sees (under frame skip, or while a checkpoint's actions are replayed) need no drawing, and physics
does not read it.

Silence. MiniGrid's levels with instructions (BabyAI) print a line for every draft of a mission that they throw away.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from rlkit.envs.aliases import Core, Env, Value


def fresh_world(env: Env) -> Callable[[], None] | None:
    """A call that gives a Box2D environment a new world before its reset, or None where there is none."""
    core: Core = env.unwrapped
    world: Core = getattr(core, "world", None)
    if type(world).__name__ != "b2World" or not hasattr(core, "_destroy"):
        return None
    kind = type(world)

    def renew() -> None:
        core._destroy()  # bodies go before the world that holds them
        core.world = kind(gravity=core.world.gravity)

    return renew


def silence(env: Env) -> None:
    """Give the module of MiniGrid's levels a `print` that says nothing, where the environment is one of them."""
    levels = "minigrid.envs.babyai.core.roomgrid_level"
    if any(kind.__module__ == levels for kind in type(env.unwrapped).__mro__):
        sys.modules[levels].__dict__["print"] = lambda *words: None


class Pen:
    """Switches the drawing of an environment's observation off and on; pairs of calls may nest.

    While it is off, steps return a blank frame. `Pen.of` is None for environments whose steps draw nothing
    that could be left out.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self.blank = np.zeros(core.observation_space.shape, core.observation_space.dtype)
        self.depth = 0

    @staticmethod
    def of(env: Env) -> Pen | None:
        """The environment's one pen."""
        core: Core = env.unwrapped
        if all(kind.__module__ != "gymnasium.envs.box2d.car_racing" for kind in type(core).__mro__):
            return None
        pen: Pen = core.__dict__.setdefault("_rlkit_pen", None) or Pen(core)
        core._rlkit_pen = pen
        return pen

    def off(self) -> None:
        self.depth += 1
        self.core._render = lambda mode: self.blank  # the instance's attribute hides the class's method

    def on(self) -> None:
        self.depth -= 1
        if self.depth == 0:
            del self.core._render

    def draw(self) -> Value:
        """The observation of the present state: what the last step would have drawn."""
        self.core.state = self.core._render("state_pixels")
        return self.core.state
