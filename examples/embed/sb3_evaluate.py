"""Stable-Baselines3's own evaluation measures an exported agent: `policy.predict` has its signature.

python examples/embed/sb3_evaluate.py runs/cartpole/export CartPole-v1 10
"""

import sys

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from rlkit.runtime import Policy


def main(folder: str, name: str, episodes: int = 10) -> float:
    env = make_vec_env(name, n_envs=1, seed=0)
    mean, deviation = evaluate_policy(Policy.load(folder), env, n_eval_episodes=episodes, deterministic=True)
    print(f"mean return {mean:.1f} +- {deviation:.1f} in {episodes} episodes")
    return float(mean)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
