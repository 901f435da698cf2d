"""A game loop with an exported agent in it: one decision a frame, and you may push the cart with the arrow keys.

python examples/embed/pygame_loop.py runs/cartpole/export
"""

import sys

import gymnasium
import numpy as np
import pygame

from rlkit.runtime import Policy

PUSH = {pygame.K_LEFT: -0.1, pygame.K_RIGHT: 0.1}  # m/s a frame


def main(folder: str, frames: int = 0, rate: int = 50) -> float:
    """Play so many frames (0: until the window is closed), `rate` of them in a second (0: as many as go)."""
    pygame.init()
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    session, screen, clock = (
        Policy.load(folder).session(),
        pygame.display.set_mode((600, 400)),
        pygame.time.Clock(),
    )
    obs, _ = env.reset(seed=0)
    total, number = 0.0, 0
    while not any(event.type == pygame.QUIT for event in pygame.event.get()) and (
        not frames or number < frames
    ):
        obs, reward, terminated, truncated, _ = env.step(session.act(obs))
        total, number = total + float(reward), number + 1
        if terminated or truncated:
            obs, _ = env.reset()
            session.reset()
        pressed = pygame.key.get_pressed()
        env.unwrapped.state = np.add(
            env.unwrapped.state, [0, sum(v for k, v in PUSH.items() if pressed[k]), 0, 0]
        )
        screen.blit(pygame.surfarray.make_surface(env.render().swapaxes(0, 1)), (0, 0))
        pygame.display.flip()
        clock.tick(rate)
    env.close()
    pygame.quit()
    return total


if __name__ == "__main__":
    print(f"{main(sys.argv[1]):.0f} frames in which the pole stood")
