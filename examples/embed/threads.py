"""One policy for many simulations: each has a session of its own, in threads of its own.

python examples/embed/threads.py runs/cartpole/export CartPole-v1 8
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import gymnasium

from rlkit.runtime import Policy


def play(policy: Policy, name: str, seed: int) -> float:
    """One episode."""
    env, session, total, over = gymnasium.make(name), policy.session(), 0.0, False
    obs, _ = env.reset(seed=seed)
    while not over:
        obs, reward, terminated, truncated, _ = env.step(session.act(obs))
        total, over = total + float(reward), terminated or truncated
    return total


def main(folder: str, name: str, workers: int = 4) -> list[float]:
    policy = Policy.load(folder)
    with ThreadPoolExecutor(workers) as pool:
        returns = list(pool.map(lambda seed: play(policy, name, seed), range(2 * workers)))
    print(f"{len(returns)} episodes in {workers} threads, returns {returns}")
    return returns


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
