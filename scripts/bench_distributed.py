"""Collecting with Ray beside one process and beside worker processes; PPO CartPole beside RLlib's; memory.

    python scripts/bench_distributed.py [--seconds 0 5e-5 1e-3 1e-2] [--workers 1 2 4 8 16 32] [--measure 5]
                                        [--plot bench_distributed.png] [--json FILE] [--rllib PYTHON] [--memory 1000000]

Steps per second of `source.get` and `publish` alone (nothing is learned), after two batches of warm-up:

* Environments whose step takes 0 s, 50 microseconds of work, 1 ms or 10 ms of sleep (so that there may be more of them
  than cores), 8 lanes per worker, 64 rows per rollout (4 where one process sleeps for all of them in turn).
* CarRacing with 16 lanes and CartPole with 64, two workers (`--no-pairs`: not these).

Everything runs in turn in fresh processes, `--rounds` times, and the best is kept: what else runs on a machine only
slows. `--rllib PYTHON` names an interpreter with `ray[rllib]`, which trains PPO on CartPole with 2 runners beside ours
with 2 workers: steps per second of training. `--memory STEPS` collects as many steps with Ray (async) and tells how
much memory the learner's process, the workers and Ray's store had on the way.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

ROOT = Path(__file__).resolve().parents[1]
LANES = 8  # per worker
BUSY = 5e-4  # seconds below which a step works instead of sleeping

RLLIB = """
import json, sys, time
from ray.rllib.algorithms.ppo import PPOConfig
config = (PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=2, num_envs_per_env_runner=8)
          .training(train_batch_size_per_learner=2048, minibatch_size=256, num_epochs=10, lr=3e-4, gamma=0.99,
                    lambda_=0.95))
algorithm = config.build_algo()
for _ in range(2):
    algorithm.train()
begin, steps, end = time.monotonic(), 0, time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    steps += int(algorithm.train()["env_runners"]["num_env_steps_sampled"])
print(json.dumps({"rate": steps / (time.monotonic() - begin)}))
"""


class Sleeper(gymnasium.Env[Any, Any]):
    """Observations of 4 numbers, episodes of 200 steps, each of which takes `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.seconds, self.obs = seconds, np.zeros(4, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        if self.seconds >= BUSY:
            time.sleep(self.seconds)
        elif self.seconds:
            end = time.perf_counter() + self.seconds
            while time.perf_counter() < end:
                pass
        return self.obs, 0.0, False, self.t == 200, {}


def rate_of(options: list[str], measure: float, learn: bool) -> float:
    """Steps per second of collecting as `options` say, and of learning where `learn`."""
    from rlkit.config.compose import compose
    from rlkit.run.console import Console
    from rlkit.run.start import prepare

    common = ["agent=ppo", "preset=none", "threads=1", "log.tensorboard=false", "total_steps=1000000000"]
    with tempfile.TemporaryDirectory() as folder:
        config = compose([*common, *options]).config
        run = prepare(config, Path(folder), Console(config.total_steps, "bench"))
        try:
            steps, update, begin = 0, 0, 0.0
            while update < 4 or time.monotonic() - begin < measure:
                batch, count = run.feed.next()
                if learn:
                    run.learner.learn(batch, 0.0)
                update += 1
                run.feed.learned(update)
                steps += count
                if update == 2:
                    steps, begin = 0, time.monotonic()
            return steps / (time.monotonic() - begin)
        finally:
            run.feed.close()


def pairs() -> dict[str, dict[str, list[str]]]:
    """Real environments with two workers: environment -> name -> options."""
    racing = ["env=carracing", "network=cnn", "env.lanes=16", "agent.steps=32"]
    cartpole = ["env=cartpole", "env.lanes=64", "agent.steps=128"]
    ray = ["source=ray", "source.workers=2"]
    # one worker acts for the environments of two actors
    shared = ["source=ray", "source.workers=1", "source.inference=shared", "source.env_actors=2"]
    return {
        name: {
            "one process": [*env, "env.backend=inprocess"],
            "processes": [*env, "env.backend=workers", "env.workers=2"],
            "ray sync": [*env, *ray],
            "ray async": [*env, *ray, "source.mode=async"],
            "ray shared": [*env, *shared],
        }
        for name, env in {"CarRacing": racing, "CartPole": cartpole}.items()
    }


def cases(seconds: float, workers: int) -> dict[str, list[str]]:
    """What is compared: name -> options."""
    env = [
        "env=bench_distributed:Sleeper",
        f"env.kwargs={{seconds: {seconds}}}",
        f"env.lanes={LANES * workers}",
    ]
    env += ["agent.steps=64", "env.check=none"]
    found = {
        "ray sync": [*env, "source=ray", f"source.workers={workers}"],
        "ray async": [*env, "source=ray", f"source.workers={workers}", "source.mode=async"],
    }
    # one after the other, so a rollout of 64 rows of 256 lanes that sleep for 10 ms would take three minutes
    short = ["agent.steps=4"] if seconds >= BUSY else []
    one = [*env, "env.backend=inprocess", *short]
    return {"one process": one, "processes": [*env, "env.backend=workers", f"env.workers={workers}"], **found}


def memory(steps: int) -> list[dict[str, float]]:
    """MB at ten points of `steps` steps of CartPole: the learner, both workers, and what they see of Ray's store."""
    from rlkit.config.compose import compose
    from rlkit.run.console import Console
    from rlkit.run.start import prepare

    options = [
        "agent=ppo",
        "env=cartpole",
        "preset=none",
        "threads=1",
        "log.tensorboard=false",
        "env.lanes=64",
    ]
    options += ["source=ray", "source.workers=2", "source.mode=async", "total_steps=1000000000"]
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        config = compose(options).config
        run = prepare(config, Path(folder), Console(config.total_steps, "bench"))
        source: Any = run.feed.source
        try:
            done, update = 0, 0
            while done < steps:
                _, count = run.feed.next()
                update += 1
                run.feed.learned(update)
                done += count
                if done * 10 // steps > len(found):
                    pids = [member.pid for member in source.fleet.members]
                    found.append(
                        {
                            "steps": done,
                            "learner": resident(os.getpid(), "RssAnon:"),
                            "workers": sum(resident(pid, "RssAnon:") for pid in pids),
                            "shared": max(resident(pid, "RssShmem:") for pid in (os.getpid(), *pids)),
                        }
                    )
        finally:
            run.feed.close()
    return found


def resident(pid: int, kind: str) -> float:
    """MB of memory of a process, its own (RssAnon:) or of Ray's store (RssShmem:)."""
    status = Path(f"/proc/{pid}/status").read_text().split()
    return float(status[status.index(kind) + 1]) / 1000


def fresh(options: list[str], arguments: argparse.Namespace, learn: bool = False) -> float:
    """The best rate of some measurements, each in a process of its own."""
    job = json.dumps({"options": options, "measure": arguments.measure, "learn": learn})
    return max(_answer([sys.executable, __file__, "--job", job]) for _ in range(arguments.rounds))


def _answer(command: list[str]) -> float:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["rate"])


def rllib(arguments: argparse.Namespace) -> dict[str, float]:
    """PPO on CartPole, the same hyperparameters: steps per second of training."""
    ours = [
        "env=cartpole", "env.lanes=16", "agent.steps=128", "agent.minibatch=256", "agent.epochs=10",
        "network.hidden=[256,256]",
    ]  # fmt: skip
    ray = [*ours, "source=ray", "source.workers=2"]
    competitors = {
        "rlkit, ray sync, 2 workers": ray,
        "rlkit, ray async, 2 workers": [*ray, "source.mode=async"],
        "rlkit, ray async, 1 worker": [*ours, "source=ray", "source.workers=1", "source.mode=async"],
        "rlkit, one process": ours,
    }
    fast = ["compile=true", "precision=bfloat16", "threads=2"]
    rates = {
        "RLlib PPO CartPole, 2 runners": max(
            _answer([arguments.rllib, "-c", RLLIB, str(arguments.measure)]) for _ in range(arguments.rounds)
        )
    }
    for name, options in competitors.items():
        for count, how in enumerate(
            ("", ", compiled", ", compiled, bfloat16", ", compiled, bfloat16, 2 threads")
        ):
            rates[name + how] = fresh([*options, *fast[:count]], arguments, True)
    return rates


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """Steps per second by workers, one panel per environment."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    times = sorted({row["seconds"] for row in rows})
    figure, panels = pyplot.subplots(1, len(times), figsize=(4 * len(times), 3.5), squeeze=False)
    for panel, seconds in zip(panels[0], times, strict=True):
        here = [row for row in rows if row["seconds"] == seconds]
        for name in here[0]["rates"]:
            panel.plot(
                [row["workers"] for row in here], [row["rates"][name] for row in here], "o-", label=name
            )
        panel.set(title=f"{seconds * 1e3:g} ms per step", xlabel="workers", xscale="log", yscale="log")
    panels[0][0].set_ylabel("steps/s")
    panels[0][-1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> int:
    """Measure, print tables, write files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, nargs="*", default=[0.0, 5e-5, 1e-3, 1e-2])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--measure", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--plot", default="")
    parser.add_argument("--json", default="")
    parser.add_argument("--pairs", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rllib", default="")
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--job", default="")
    arguments = parser.parse_args()
    if arguments.job:
        job = json.loads(arguments.job)
        print(json.dumps({"rate": rate_of(job["options"], job["measure"], job["learn"])}))
        return 0
    found: dict[str, Any] = {"rows": []}
    for seconds in arguments.seconds:
        for workers in arguments.workers:
            options = cases(seconds, workers)
            if not found["rows"]:
                print(f"| step | workers | lanes | {' | '.join(options)} |\n{'|---' * (3 + len(options))}|")
            rates = {name: fresh(each, arguments) for name, each in options.items()}
            found["rows"].append({"seconds": seconds, "workers": workers, "rates": rates})
            print(f"| {seconds * 1e3:g} ms | {workers} | {LANES * workers} | {_cells(rates)} |", flush=True)
    found["pairs"] = {}
    for env, options in (pairs() if arguments.pairs else {}).items():
        rates = found["pairs"][env] = {name: fresh(each, arguments) for name, each in options.items()}
        share = rates["ray sync"] / rates["processes"]
        print(f"| {env}, 2 workers | {_cells(rates)} | ray sync / processes: {share:.0%} |", flush=True)
    found["rllib"] = rllib(arguments) if arguments.rllib else {}
    for name, rate in found["rllib"].items():
        print(f"{name}: {rate:,.0f} steps/s", flush=True)
    found["memory"] = memory(arguments.memory) if arguments.memory else []
    for row in found["memory"]:
        print(
            "MB after {steps:,} steps: learner {learner:.0f}, workers {workers:.0f}, shared {shared:.0f}".format(
                **row
            )
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))
    if arguments.plot and found["rows"]:
        plot(found["rows"], arguments.plot)
    return 0


def _cells(rates: dict[str, float]) -> str:
    return " | ".join(f"{rate:,.0f}" for rate in rates.values())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
