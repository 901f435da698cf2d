"""CartPole steered by a policy as a co-simulation unit, through FMPy: the loop that any FMI 2.0 master runs.

    rlkit export RUN --format fmu                        # RUN was trained with env=cartpole
    python examples/embed/fmu/cartpole.py RUN/export/policy.fmu [EPISODES]

Needs fmpy and gymnasium (pip install fmpy gymnasium), not rlkit. The unit is code: run only one that you trust.
"""

from __future__ import annotations

import shutil
import sys

import fmpy
import gymnasium
from fmpy.fmi2 import FMU2Slave

STEP = 0.02  # seconds of one step of CartPole, and of one communication step


def main(path: str, episodes: int = 3) -> list[float]:
    """The returns of some episodes, which are printed, too."""
    described = fmpy.read_model_description(path)
    reference = {each.name: each.valueReference for each in described.modelVariables}
    inputs = [reference[f"obs[{i}]"] for i in range(1, 5)]
    folder = fmpy.extract(path)
    unit = FMU2Slave(
        guid=described.guid,
        unzipDirectory=folder,
        modelIdentifier=described.coSimulation.modelIdentifier,
        instanceName="cartpole",
    )
    unit.instantiate()
    unit.setupExperiment(startTime=0.0)
    unit.enterInitializationMode()
    unit.setReal([reference["period"]], [STEP])
    unit.exitInitializationMode()
    env, returns, time = gymnasium.make("CartPole-v1"), [], 0.0
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        total, over, opens = 0.0, False, True
        while not over:
            unit.setReal(inputs, [float(x) for x in obs])
            unit.setBoolean([reference["reset"]], [opens])
            unit.doStep(time, STEP)
            time, opens = time + STEP, False
            (action,) = unit.getInteger([reference["action[1]"]])
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
        print(f"episode {seed}: {total:g}")
    unit.terminate()
    unit.freeInstance()
    shutil.rmtree(folder)
    return returns


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
