"""How often rlkit/Nav's planner reaches the goal: the share of evaluation worlds and its 95% interval.

    python scripts/nav_baseline.py [--worlds 100] [--seed 0] [moving=4 walls=8 map=office.yaml ...]

Worlds are those of evaluations with the same seed. With `--agent RUN` a run's policy drives instead of the planner,
without noise. The interval is that of `rlkit.play.statistics`.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import torch
import yaml  # type: ignore[import-untyped]


def drive(worlds: int, seed: int, kwargs: dict[str, Any], agent: str) -> tuple[int, int, float]:
    """Goals reached, crashes, and mean seconds to the goal, of the first episode of every lane."""
    from rlkit.envs.navigation.nav import Nav
    from rlkit.envs.navigation.planner import plan
    from rlkit.envs.navigation.robots import REACH, TICK
    from rlkit.envs.navigation.scans import RAYS

    policy = None
    if agent:
        import rlkit
        from rlkit.types import Lanes

        policy = rlkit.load(agent).policy
        state = policy.initial_state(Lanes(worlds))
    env = Nav(worlds, seed, evaluation=True, **kwargs)
    row = env.restore(np.zeros(worlds, np.int64), [np.zeros((0, 2))] * worlds)
    running, reached, crashed, times = np.ones(worlds, np.bool_), 0, 0, []
    for t in range(1, env.limit + 1):
        if policy is None:
            action = torch.from_numpy(plan(row.obs.numpy(), env.sensor[0]))
        else:
            with torch.no_grad():
                raw, state, _ = policy.act(row.obs, row.first, state, None)
            action = policy.to_env(raw)
        row = env.step(action)
        over = running & row.last.numpy()
        there = over & row.terminated.numpy() & (row.obs.numpy()[:, RAYS] <= REACH + 1e-5)
        reached += int(there.sum())
        crashed += int((over & row.terminated.numpy() & ~there).sum())
        times += [t * TICK] * int(there.sum())
        running &= ~over
    env.close()
    return reached, crashed, float(np.mean(times)) if times else math.nan


def main() -> None:
    from rlkit.play.statistics import summarise

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--agent", default="", help="a run's folder")
    parser.add_argument("kwargs", nargs="*", help="arguments of rlkit/Nav, KEY=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kwargs = {key: yaml.safe_load(value) for key, _, value in (each.partition("=") for each in args.kwargs)}
    reached, crashed, seconds = drive(args.worlds, args.seed, kwargs, args.agent)
    low, high = summarise([1.0] * reached + [0.0] * (args.worlds - reached)).mean_ci
    print(
        f"goals {reached} of {args.worlds} ({low:.1%} to {high:.1%}), crashes {crashed}, too slow "
        f"{args.worlds - reached - crashed}; {seconds:.1f} s to a goal"
    )


if __name__ == "__main__":
    main()
