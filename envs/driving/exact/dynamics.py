"""The car's forces, computed with Python's own numbers: what Gymnasium's Car.step computes, to the last bit.

Gymnasium calls NumPy functions on single numbers, each of which costs ten times the arithmetic. The model
(gymnasium.envs.box2d.car_dynamics; Campbell, "Box2D C++ tutorials - top-down car physics"): each wheel turns towards
its steering angle; the engine adds power P gas to the spin omega, d omega = dt P gas / I / (|omega| + 5); a brake takes
15 rad per step away or blocks the wheel; the tyre's force k (r omega - v_forward, -v_side) is cut to the friction limit
of the ground, 0.6 of the road's on grass, and acts back on omega. A tyre whose force is beyond twice the limit leaves a
trace.
"""

from __future__ import annotations

import math

from gymnasium.envs.box2d.car_dynamics import (
    ENGINE_POWER,
    FRICTION_LIMIT,
    SIZE,
    WHEEL_MOMENT_OF_INERTIA,
    Car,
)

from rlkit.envs.aliases import Core

GRIP = 205000 * SIZE * SIZE
BRAKE_FORCE = 15


class LeanCar(Car):
    """Gymnasium's car; equal results, fewer instructions."""

    def gas(self, gas: Core) -> None:
        """Rear wheel drive: gas is clipped to [0, 1], rises by at most 0.1 per step and falls at once."""
        gas = min(max(float(gas), 0.0), 1.0)
        for wheel in self.wheels[2:4]:
            rise = gas - wheel.gas
            wheel.gas += min(rise, 0.1)

    def step(self, dt: float) -> None:
        """Turn the wheels and push the car, for `dt` seconds."""
        for wheel in self.wheels:
            self._step_wheel(wheel, dt)

    def _step_wheel(self, wheel: Core, dt: float) -> None:
        joint = wheel.joint
        turn = wheel.steer - joint.angle
        speed = min(50.0 * abs(turn), 3.0)
        joint.motorSpeed = float(speed if turn > 0 else -speed if turn < 0 else 0.0 * speed)

        limit = FRICTION_LIMIT * 0.6
        for tile in wheel.tiles:
            limit = max(limit, FRICTION_LIMIT * tile.road_friction)
        grass = not wheel.tiles

        rotation, velocity = wheel.transform.q, wheel.linearVelocity
        sine, cosine = rotation.s, rotation.c
        forward, side = (-sine, cosine), (cosine, sine)
        vx, vy = velocity.x, velocity.y
        v_forward = forward[0] * vx + forward[1] * vy
        v_side = side[0] * vx + side[1] * vy

        omega, gas, brake = wheel.omega, wheel.gas, wheel.brake
        power = dt * ENGINE_POWER * gas
        omega += power / WHEEL_MOMENT_OF_INERTIA / (abs(omega) + 5.0)
        self.fuel_spent += power
        if brake >= 0.9:
            omega = 0
        elif brake > 0:
            loss = min(BRAKE_FORCE * brake, abs(omega))
            omega += -loss if omega > 0 else loss if omega < 0 else 0.0
        wheel.phase += omega * dt

        along = (-v_forward + omega * wheel.wheel_rad) * GRIP
        across = -v_side * GRIP
        force = math.sqrt(along * along + across * across)
        if force > 2.0 * limit:
            self._trace(wheel, grass)
        else:
            wheel.skid_start = wheel.skid_particle = None
        if force > limit:
            along, across = along / force * limit, across / force * limit
        wheel.omega = omega - dt * along * wheel.wheel_rad / WHEEL_MOMENT_OF_INERTIA
        push = (across * side[0] + along * forward[0], across * side[1] + along * forward[1])
        wheel.ApplyForceToCenter(push, True)

    def _trace(self, wheel: Core, grass: bool) -> None:
        """Go on with the tyre's trace or begin one."""
        trace = wheel.skid_particle
        if trace and trace.grass == grass and len(trace.poly) < 30:
            trace.poly.append((wheel.position[0], wheel.position[1]))
        elif wheel.skid_start is None:
            wheel.skid_start = wheel.position
        else:
            begin: Core = self._create_particle
            wheel.skid_particle = begin(wheel.skid_start, wheel.position, grass)
            wheel.skid_start = None
