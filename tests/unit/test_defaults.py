"""What nobody types: another default changes every run, so whoever changes one changes it here too."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from rlkit.config import registry
from rlkit.config.schema import OptimConfig, ReplayConfig

DEFAULTS = {
    "ppo": "steps=128 epochs=10 minibatch=256 sequence=16 gamma=0.99 lam=0.95 clip=0.2 clip_schedule=constant "
    "value_coef=0.5 value_clip=None entropy_coef=0.0 normalize_advantage=True recompute_advantage=False "
    "target_kl=None normalize_reward=False distribution=gaussian log_std_init=0.0",
    "reinforce": "steps=32 episodes=8 gamma=0.99 baseline=value value_coef=0.5 bootstrap=True reward_to_go=True "
    "entropy_coef=0.0 normalize_advantage=True distribution=gaussian log_std_init=0.0",
    "dqn": "steps=4 gamma=0.99 double=True dueling=False quantiles=1 noisy=False target_every=500 tau=1.0 "
    "epsilon_start=1.0 epsilon_end=0.05 epsilon_fraction=0.1 epsilon_spread=0.0",
    "ddpg": "steps=1 gamma=0.99 tau=0.005 noise=gaussian noise_std=0.1 noise_decay=0.15 critics=1 smoothing=0.0 "
    "smoothing_clip=0.5 actor_every=1 actor_lr=None",
    "replay": "capacity=100000 warmup=1000 ratio=1.0 batch=256 n_step=1 sequence=16 burn_in=8 alpha=0.0 beta=0.4 "
    "storage=memory",
    "optim": "name=adam lr=0.0003 lr_schedule=constant clip_norm=0.5 eps=1e-05 betas=(0.9,0.999) momentum=0.0 "
    "weight_decay=0.0",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_results(name: str) -> None:
    own = {"replay": ReplayConfig, "optim": OptimConfig}
    config = own[name]() if name in own else registry.algorithm(name).Config()
    found = {key: value for key, value in asdict(config).items() if key != "replay"}
    assert " ".join(f"{key}={value}".replace(", ", ",") for key, value in found.items()) == DEFAULTS[name]
