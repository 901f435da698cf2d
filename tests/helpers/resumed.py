"""Short runs of every agent and every kind of memory, to be ended and continued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rlkit.learn import trainer

COMMON = [
    "preset=none", "env.backend=inprocess", "env.lanes=4", "threads=1", "evaluate.every=400", "evaluate.episodes=1",
    "env.time_limit=60", "log.every=100", "log.tensorboard=false", "checkpoint.every=130", "checkpoint.keep=100",
    "network.core_size=16",
]  # fmt: skip
SMALL = "network.hidden=[16] agent.steps=16 agent.minibatch=32 agent.epochs=2"
EPISODES = "network.hidden=[16] agent.steps=8 agent.episodes=4"
REPLAY = (
    "network.hidden=[16] checkpoint.every=130 agent.replay.warmup=100 agent.replay.ratio=0.1 "
    "agent.replay.capacity=400"
)
SEQUENCES = f"{REPLAY} agent.steps=4 agent.replay.batch=32 agent.replay.sequence=8 agent.replay.burn_in=4"
CASES = {  # options of each run
    "ppo": f"agent=ppo env=cartpole {SMALL} network.normalize=true agent.normalize_reward=true total_steps=700",
    "ppo-engine": f"agent=ppo env=pendulum {SMALL} agent.distribution=tanh network.normalize=true compile=engine "
    "total_steps=700",
    "dqn-engine-thread": f"agent=dqn env=cartpole {REPLAY} agent.noisy=true agent.replay.alpha=0.6 source=thread "
    "compile=engine total_steps=700",
    "ppo-lstm": f"agent=ppo env=cartpole_novel network=lstm {SMALL} exploration=count total_steps=700",
    "ppo-gru-stack-thread": f"agent=ppo env=cartpole network=gru env.stack=3 source=thread {SMALL} total_steps=700",
    "ppo-transformer": f"agent=ppo env=pendulum_novel network=transformer network.window=8 {SMALL} total_steps=700",
    "reinforce": f"agent=reinforce env=cartpole {EPISODES} network.normalize=true agent.baseline=mean total_steps=700",
    "reinforce-lstm-stack": f"agent=reinforce env=cartpole network=lstm env.stack=2 {EPISODES} exploration=rnd "
    "total_steps=700",
    "reinforce-transformer-thread": f"agent=reinforce env=cartpole network=transformer network.window=8 "
    f"source=thread {EPISODES} total_steps=700",
    "dqn": f"agent=dqn env=cartpole {REPLAY} agent.noisy=true agent.replay.alpha=0.6 network.normalize=true "
    "agent.dueling=true agent.replay.n_step=3 exploration=rnd total_steps=700",
    "dqn-lstm-stack": f"agent=dqn {SEQUENCES} env=cartpole_novel env.stack=2 network=lstm agent.replay.alpha=0.6 "
    "total_steps=560",
    "dqn-transformer-thread": f"agent=dqn {SEQUENCES} env=cartpole network=transformer network.window=8 source=thread "
    "total_steps=560",
    "ddpg": f"agent=td3 env=pendulum {REPLAY} agent.replay.alpha=0.6 agent.noise=ou network.normalize=true "
    "agent.replay.n_step=2 total_steps=700",
    "ddpg-lstm-stack": f"agent=td3 {SEQUENCES} env=pendulum_novel env.stack=2 network=lstm total_steps=560",
    "ddpg-transformer-thread": f"agent=ddpg {SEQUENCES} env=pendulum network=transformer network.window=8 "
    "agent.noise=ou source=thread total_steps=560",
}


@contextmanager
def interrupted_at(monkeypatch: pytest.MonkeyPatch, update: int) -> Iterator[None]:
    """Runs that are trained in this block are interrupted in their update of this number."""
    count, advance = [0], trainer.Clock.advance

    def stop(self: trainer.Clock, steps: int) -> None:
        count[0] += 1
        if count[0] == update:
            raise KeyboardInterrupt
        advance(self, steps)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Clock, "advance", stop)
        yield
