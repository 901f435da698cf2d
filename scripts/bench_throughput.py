"""Throughput of rlkit beside Stable-Baselines3: same task, same hyperparameters, one process per competitor.

    python scripts/bench_throughput.py [--case cartpole ...] [--repeat 3] [--json bench.json]

Every competitor runs at each of its settings (threads, in-process or worker processes, eager or compiled) in a fresh
process, in turn, `--repeat` times; its best setting by median is the one compared. compile=auto with one thread is
what the plain command does (rlkit's engine). Steps per second are of training (collecting and learning), counted after
a warm-up of two updates; compilation is in the warm-up, which is reported.
Needs `pip install "rlkit[sb3,mujoco]" sb3-contrib`.

recurrent: PPO with one LSTM of 64 for the policy and one for the value (sb3-contrib's default: not shared), and two
layers of 64 each, which sb3-contrib has after the LSTM and we before it (so our LSTM reads 64 numbers, theirs 4).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

# name -> (hyperparameters, steps measured by rlkit and by SB3)
CASES: dict[str, dict[str, Any]] = {
    "cartpole": {
        "id": "CartPole-v1", "lanes": 8, "steps": 256, "minibatch": 256, "epochs": 10, "hidden": [64, 64],
        "activation": "tanh", "pixels": False, "normalize": False, "measure": (160_000, 60_000),
    },
    "recurrent": {
        "id": "CartPole-v1", "lanes": 8, "steps": 256, "minibatch": 256, "epochs": 10, "hidden": [64, 64],
        "activation": "tanh", "pixels": False, "normalize": False, "measure": (40_000, 8_192), "lstm": 64,
    },
    "halfcheetah": {
        "id": "HalfCheetah-v5", "lanes": 1, "steps": 512, "minibatch": 64, "epochs": 20, "hidden": [256, 256],
        "activation": "relu", "pixels": False, "normalize": True, "measure": (12_000, 6_000),
    },
    "carracing": {
        "id": "CarRacing-v3", "lanes": 8, "steps": 128, "minibatch": 128, "epochs": 4, "hidden": [],
        "activation": "relu", "pixels": True, "normalize": False, "measure": (6_144, 5_120),
    },
    "carracing-exact": {  # ours on our environment; SB3's on the stock one, and on ours too
        "id": "rlkit/CarRacing", "lanes": 8, "steps": 128, "minibatch": 128, "epochs": 4, "hidden": [],
        "activation": "relu", "pixels": True, "normalize": False, "measure": (6_144, 3_072),
    },
    "pong": {
        "id": "pong", "lanes": 8, "steps": 128, "minibatch": 256, "epochs": 4, "hidden": [],
        "activation": "relu", "pixels": True, "normalize": False, "measure": (8_192, 5_120),
    },
    # RL Baselines3 Zoo's settings, one environment
    "dqn-cartpole": {
        "agent": "dqn", "id": "CartPole-v1", "lanes": 1, "steps": 256, "updates": 128, "batch": 64, "lr": 2.3e-3,
        "capacity": 100_000, "target": 128, "warm": 6, "hidden": [256, 256], "activation": "relu", "pixels": False,
        "normalize": False, "measure": (20_480, 7_680),
    },
    "dqn-pong": {
        "agent": "dqn", "id": "pong", "lanes": 1, "steps": 4, "updates": 1, "batch": 32, "lr": 1e-4,
        "capacity": 10_000, "target": 250, "warm": 270, "hidden": [], "activation": "relu", "pixels": True,
        "normalize": False, "measure": (2_048, 1_024),
    },
    "ddpg-pendulum": {
        "agent": "ddpg", "id": "Pendulum-v1", "lanes": 1, "steps": 1, "updates": 1, "batch": 256, "lr": 1e-3,
        "capacity": 200_000, "warm": 1_100, "hidden": [400, 300], "activation": "relu", "pixels": False,
        "normalize": False, "measure": (1_000, 600),
    },
}  # fmt: skip
LEARNER = {"batch": 256, "shape": (96, 96, 3), "updates": 24}
SETTINGS = {
    ("cartpole", "rlkit"): [
        {"threads": 1},
        {"threads": 1, "compile": True},
        {"threads": 1, "compile": "auto"},
        {"threads": 1, "compile": "auto", "source": "thread"},
    ],
    ("cartpole", "sb3"): [{"threads": 1}, {"threads": 2}],
    ("recurrent", "rlkit"): [{"threads": 1}, {"threads": 1, "compile": True}],
    ("recurrent", "sb3"): [{"threads": 1}, {"threads": 2}],
    ("halfcheetah", "rlkit"): [
        {"threads": 1},
        {"threads": 2},
        {"threads": 1, "compile": True},
        {"threads": 2, "compile": True},
        {"threads": 1, "compile": True, "source": "thread"},
        {"threads": 1, "compile": True, "source": "thread", "precision": "bfloat16"},
        {"threads": 1, "compile": "auto"},
        {"threads": 1, "compile": "auto", "source": "thread"},
    ],
    ("halfcheetah", "sb3"): [{"threads": 1}, {"threads": 2}],
    ("carracing", "rlkit"): [
        {"threads": 2, "source": "sync", "backend": "workers"},
        {"threads": 1, "source": "thread", "backend": "workers"},
    ],
    ("carracing", "sb3"): [{"threads": 2, "subprocesses": True}, {"threads": 2, "subprocesses": False}],
    ("carracing-exact", "rlkit"): [
        {"threads": 2, "backend": "workers"},
        {"threads": 2, "backend": "threads"},
        {"threads": 2, "backend": "threads", "compile": True},
        {"threads": 1, "source": "thread", "backend": "workers"},
    ],
    ("carracing-exact", "sb3"): [
        {"threads": 2, "subprocesses": True, "id": "CarRacing-v3"},
        {"threads": 2, "subprocesses": True},
        {"threads": 2, "subprocesses": False},
    ],
    ("pong", "rlkit"): [
        {"threads": 2},
        {"threads": 2, "backend": "workers"},
        {"threads": 1, "source": "thread"},
    ],
    ("pong", "sb3"): [{"threads": 2, "subprocesses": True}, {"threads": 2, "subprocesses": False}],
    ("dqn-cartpole", "rlkit"): [
        {"threads": 1},
        {"threads": 1, "compile": True},
        {"threads": 1, "compile": True, "precision": "bfloat16"},
        {"threads": 1, "compile": True, "precision": "bfloat16", "source": "thread"},
        {"threads": 1, "compile": "auto"},
        {"threads": 1, "compile": "auto", "source": "thread"},
    ],
    ("dqn-cartpole", "sb3"): [{"threads": 1}, {"threads": 2}],
    ("dqn-pong", "rlkit"): [
        {"threads": 2},
        {"threads": 2, "compile": True},
        {"threads": 1, "source": "thread"},
        {"threads": 1, "compile": True, "source": "thread"},
    ],
    ("dqn-pong", "sb3"): [{"threads": 2}, {"threads": 1}],
    ("ddpg-pendulum", "rlkit"): [
        {"threads": 1},
        {"threads": 1, "precision": "bfloat16"},
        {"threads": 1, "compile": True, "precision": "bfloat16"},
        {"threads": 2, "compile": True, "precision": "bfloat16"},
        {"threads": 1, "compile": "auto"},
        {"threads": 1, "compile": "auto", "source": "thread"},
    ],
    ("ddpg-pendulum", "sb3"): [{"threads": 1}, {"threads": 2}],
    ("learner", "rlkit"): [{"threads": 2}],
    ("learner", "sb3"): [{"threads": 2}],
}
WARM_UPDATES = 2


def run_rlkit(case: str, setting: dict[str, Any]) -> dict[str, float]:
    """Steps per second of rlkit's own training loop, hooks included."""
    from rlkit.config.compose import compose
    from rlkit.learn.trainer import Clock, Hook, fit
    from rlkit.run.console import Console
    from rlkit.run.start import prepare

    p = CASES[case]
    values = {
        "agent": p.get("agent", "ppo"), "env": p["id"], "preset": "none", "env.lanes": p["lanes"],
        "env.check": "finite", "env.backend": setting.get("backend", "inprocess"),
        "source": setting.get("source", "sync"), "agent.steps": p["steps"], "network.normalize": p["normalize"],
        "network.activation": p["activation"], "total_steps": 10**9, "threads": setting["threads"],
        "precision": setting.get("precision", "auto"), "compile": setting.get("compile", False),
        "evaluate.every": 10**9, "checkpoint.every": 10**9,
    }  # fmt: skip
    if "updates" in p:
        values |= {
            "agent.replay.batch": p["batch"], "agent.replay.ratio": p["updates"] / p["steps"],
            "agent.replay.capacity": p["capacity"], "agent.replay.warmup": 1000, "optim.lr": p["lr"],
        }  # fmt: skip
        if values["agent"] == "dqn":
            values |= {"agent.double": False, "agent.target_every": p["target"], "optim.clip_norm": 10.0}
    else:
        values |= {
            "agent.minibatch": p["minibatch"], "agent.epochs": p["epochs"], "agent.normalize_reward": p["normalize"]
        }  # fmt: skip
    if not p["pixels"]:
        values["network.hidden"] = p["hidden"]
    if "lstm" in p:
        values |= {"network.core": "lstm", "network.core_size": p["lstm"]}

    warm = p.get("warm", WARM_UPDATES)

    class Meter(Hook):
        def after_update(self, clock: Clock, report: dict[str, Any]) -> None:
            if clock.update == warm:
                self.begin, self.step = time.perf_counter(), clock.step
            elif clock.step - getattr(self, "step", clock.step) >= p["measure"][0]:
                self.seconds, self.steps = time.perf_counter() - self.begin, clock.step - self.step
                clock.stop_reason = "measured"

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(compose(values=values).config, Path(folder), Console(10**9, case, plain=True))
        meter = Meter()
        fit(run.learner, run.feed, [meter, *run.hooks[-2:]], run.clock)
        run.close()
    return {"rate": meter.steps / meter.seconds, "warmup_s": meter.begin - started}


def run_sb3(case: str, setting: dict[str, Any]) -> dict[str, float]:
    """Steps per second of SB3's PPO.learn."""
    import gymnasium
    import numpy as np
    import torch
    from stable_baselines3 import DDPG, DQN, PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

    torch.set_num_threads(setting["threads"])
    p = CASES[case]
    vector = SubprocVecEnv if setting.get("subprocesses") else DummyVecEnv
    if p["id"] == "pong":
        import ale_py
        from stable_baselines3.common.env_util import make_atari_env
        from stable_baselines3.common.vec_env import VecFrameStack

        gymnasium.register_envs(ale_py)
        # the emulator skips, as ours does: faster for SB3 than its own wrapper, which draws every frame
        emulator = {"frameskip": 4, "repeat_action_probability": 0.0}
        env: Any = make_atari_env(
            "ALE/Pong-v5",
            p["lanes"],
            vec_env_cls=vector,
            vec_env_kwargs={"start_method": "fork"} if vector is SubprocVecEnv else {},  # knows ale_py's ids
            env_kwargs=emulator,
            wrapper_kwargs={"frame_skip": 1},
        )
        env = VecFrameStack(env, 4)
    else:
        id = setting.get("id", p["id"])

        def make() -> Any:

            return gymnasium.make(id)

        env = make_vec_env(make, n_envs=p["lanes"], vec_env_cls=vector)
    if p["normalize"]:
        env = VecNormalize(env)
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[p["activation"]]
    arguments: dict[str, Any] = {} if p["pixels"] else {"net_arch": p["hidden"], "activation_fn": activation}
    kind: Any = PPO
    policy = "CnnPolicy" if p["pixels"] else "MlpPolicy"
    if "lstm" in p:
        from sb3_contrib import RecurrentPPO

        kind, policy = RecurrentPPO, "MlpLstmPolicy"
        arguments["lstm_hidden_size"] = p["lstm"]
    if "updates" in p:
        options: dict[str, Any] = {
            "train_freq": p["steps"], "gradient_steps": p["updates"], "batch_size": p["batch"],
            "buffer_size": p["capacity"], "learning_starts": 1000, "learning_rate": p["lr"],
        }  # fmt: skip
        if p["agent"] == "dqn":
            kind, options["target_update_interval"] = DQN, p["target"] * p["steps"] // p["updates"]
        else:
            kind, options["action_noise"] = DDPG, NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    else:
        options = {"n_steps": p["steps"], "batch_size": p["minibatch"], "n_epochs": p["epochs"]}
    model = kind(policy, env, policy_kwargs=arguments, device="cpu", **options)
    batch, warm = p["steps"] * p["lanes"], p.get("warm", WARM_UPDATES)

    class Meter(BaseCallback):
        begin = seconds = 0.0
        steps = rollouts = 0

        def _on_rollout_start(self) -> None:  # the moment after a whole update
            if self.rollouts == warm:
                self.begin = time.perf_counter()
            self.steps = max(self.rollouts - warm, 0) * batch
            self.seconds = time.perf_counter() - self.begin
            self.rollouts += 1

        def _on_step(self) -> bool:
            return self.steps < p["measure"][1]

    started, meter = time.perf_counter(), Meter()
    model.learn(10**9, callback=meter)
    env.close()
    return {"rate": meter.steps / meter.seconds, "warmup_s": meter.begin - started}


def run_learner_rlkit(case: str, setting: dict[str, Any]) -> dict[str, float]:
    """Samples per second, forward and backward, of our Nature CNN PPO update."""
    import torch

    from rlkit.agents.ppo import Agent, Config, Policy
    from rlkit.config.schema import OptimConfig
    from rlkit.device import choose_precision
    from rlkit.nn.config import NetworkConfig
    from rlkit.spaces import Box
    from rlkit.types import EnvSpec, Lanes, Rollout

    torch.set_num_threads(setting["threads"])
    spec = EnvSpec("bench", Box(LEARNER["shape"], "uint8", 0.0, 255.0), Box((3,), "float32", -1.0, 1.0))
    config = Config(steps=256, minibatch=LEARNER["batch"], epochs=LEARNER["updates"] // 8)
    precision = choose_precision("auto", torch.device("cpu"), True, print)
    policy = Policy(spec, NetworkConfig(), config).to(memory_format=torch.channels_last)
    agent = Agent(policy, config, OptimConfig(), precision=precision)
    T, N = 256, 8
    rollout = Rollout(
        obs=torch.randint(0, 256, (T + 1, N, *LEARNER["shape"]), dtype=torch.uint8),
        first=torch.zeros(T + 1, N, dtype=torch.bool), last=torch.zeros(T + 1, N, dtype=torch.bool),
        action=torch.randn(T, N, 3), reward=torch.randn(T, N), terminated=torch.zeros(T, N, dtype=torch.bool),
        state=policy.initial_state(Lanes(N)), extra={"log_prob": torch.zeros(T, N) - 4, "value": torch.zeros(T, N)},
    )  # fmt: skip
    agent.learn(rollout, 0.0)
    begin = time.perf_counter()
    agent.learn(rollout, 0.0)
    return {"rate": T * N * config.epochs / (time.perf_counter() - begin), "warmup_s": 0.0}


def run_learner_sb3(case: str, setting: dict[str, Any]) -> dict[str, float]:
    """Samples per second of SB3's PPO.train on a full buffer."""
    import gymnasium
    import numpy as np
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.vec_env import DummyVecEnv

    class Blank(gymnasium.Env):  # type: ignore[type-arg]
        observation_space = gymnasium.spaces.Box(0, 255, LEARNER["shape"], np.uint8)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)

    torch.set_num_threads(setting["threads"])
    T, N = 256, 8
    model = PPO(
        "CnnPolicy", DummyVecEnv([Blank] * N), n_steps=T, batch_size=LEARNER["batch"],
        n_epochs=LEARNER["updates"] // 8, device="cpu",
    )  # fmt: skip
    model.set_logger(Logger(None, []))
    generator = np.random.default_rng(0)
    buffer = model.rollout_buffer

    def fill() -> None:
        buffer.reset()
        for _ in range(T):
            obs = generator.integers(0, 256, (N, 3, 96, 96), np.uint8)
            action = generator.normal(size=(N, 3)).astype(np.float32)
            buffer.add(obs, action, np.zeros(N), np.zeros(N), torch.zeros(N), torch.zeros(N) - 4)
        buffer.compute_returns_and_advantage(torch.zeros(N), np.zeros(N))

    fill()
    model.train()
    fill()
    begin = time.perf_counter()
    model.train()
    return {"rate": T * N * model.n_epochs / (time.perf_counter() - begin), "warmup_s": 0.0}


def measure(case: str, competitor: str, setting: dict[str, Any]) -> dict[str, float]:
    """One competitor in a process of its own."""
    job = json.dumps([case, competitor, setting])
    environment = os.environ | {"SDL_VIDEODRIVER": "dummy", "GOMP_SPINCOUNT": "30000"}
    command = [sys.executable, os.path.abspath(__file__), "--job", job]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{job} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def perform(job: str) -> None:
    """The child's side of `measure`."""
    case, competitor, setting = json.loads(job)
    if case == "learner":
        function = run_learner_rlkit if competitor == "rlkit" else run_learner_sb3
    else:
        function = run_rlkit if competitor == "rlkit" else run_sb3
    print(json.dumps(function(case, setting)))


def compare(case: str, repeat: int) -> dict[str, Any]:
    """All settings of both competitors, in turn; the best of each by median."""
    jobs = [(who, setting) for who in ("rlkit", "sb3") for setting in SETTINGS[case, who]]
    rates: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeat):
        for who, setting in jobs:
            key = json.dumps([who, setting])
            rates.setdefault(key, []).append(measure(case, who, setting))
            print(f"  {case} {who} {setting}: {rates[key][-1]['rate']:,.0f}/s", flush=True)
    rows = []
    for key, results in rates.items():
        who, setting = json.loads(key)
        rows.append(
            {
                "competitor": who,
                "setting": setting,
                "rate": statistics.median(each["rate"] for each in results),
                "rates": [each["rate"] for each in results],
                "warmup_s": statistics.median(each["warmup_s"] for each in results),
            }
        )
    best = {who: max((row for row in rows if row["competitor"] == who), key=lambda row: row["rate"])
            for who in ("rlkit", "sb3")}  # fmt: skip
    return {"case": case, "rows": rows, "best": best, "ratio": best["rlkit"]["rate"] / best["sb3"]["rate"]}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: every setting, as a ratio to SB3's best."""
    lines = ["| case | who | setting | per second | to SB3's best | warm-up s |", "|---|---|---|---|---|---|"]
    for result in results:
        base = result["best"]["sb3"]["rate"]
        for row in result["rows"]:
            mark = "**" if row is result["best"][row["competitor"]] else ""
            setting = ", ".join(f"{key}={value}" for key, value in row["setting"].items())
            lines.append(
                f"| {result['case']} | {row['competitor']} | {setting} | {mark}{row['rate']:,.0f}{mark} "
                f"| {row['rate'] / base:.2f} | {row['warmup_s']:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*CASES, "learner"]
    parser.add_argument("--case", action="append", choices=names, help="one of them (default: all)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", default="")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        perform(arguments.job)
        return
    results = [compare(case, arguments.repeat) for case in arguments.case or names]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"\n{date.today()}, {machine}\n\n{table(results)}")
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps({"date": str(date.today()), "machine": machine, "results": results}, indent=1)
        )


if __name__ == "__main__":
    main()
