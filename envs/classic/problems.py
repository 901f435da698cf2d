"""The problems that `equations` has, and which configurations mean one of them as it is. No numba."""

from __future__ import annotations

from rlkit.envs.abilities import WRAPPED
from rlkit.envs.config import EnvConfig

_HOME = "gymnasium.envs.classic_control"
# id -> (Gymnasium's class, the kernel of `equations` that steps it)
PROBLEMS = {
    "CartPole-v0": (f"{_HOME}.cartpole:CartPoleEnv", "cartpole"),
    "CartPole-v1": (f"{_HOME}.cartpole:CartPoleEnv", "cartpole"),
    "Pendulum-v1": (f"{_HOME}.pendulum:PendulumEnv", "pendulum"),
    "Acrobot-v1": (f"{_HOME}.acrobot:AcrobotEnv", "acrobot"),
    "MountainCar-v0": (f"{_HOME}.mountain_car:MountainCarEnv", "mountain_car"),
    "MountainCarContinuous-v0": (
        f"{_HOME}.continuous_mountain_car:Continuous_MountainCarEnv",
        "mountain_car_continuous",
    ),
}


def suits(config: EnvConfig) -> bool:
    """Whether an environment is a classic problem as it is: no arguments, and no wrapper but a time limit."""
    usual = EnvConfig()
    wrapped = (name for name in (*WRAPPED, "kwargs", "labels") if name != "time_limit")
    return (
        config.id in PROBLEMS
        and config.action_mask != "info"
        and all(getattr(config, name) == getattr(usual, name) for name in wrapped)
    )
