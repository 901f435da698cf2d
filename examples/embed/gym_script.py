"""An exported agent plays a Gymnasium environment: NumPy alone computes it.

rlkit train agent=ppo env=cartpole name=cartpole && rlkit export cartpole
python examples/embed/gym_script.py runs/cartpole/export CartPole-v1 10
"""

import sys

import gymnasium

from rlkit.runtime import Policy  # or: from rlkit_runtime import Policy, with that file beside the script


def main(folder: str, name: str, episodes: int = 10) -> float:
    policy, env, returns = Policy.load(folder), gymnasium.make(name), []
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        session, total, over = policy.session(), 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(session.act(obs))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    print(f"{policy.backend}: mean return {sum(returns) / episodes:.1f} in {episodes} episodes")
    return sum(returns) / episodes


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
