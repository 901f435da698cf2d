"""Throughput of environments: the same task stepped in different ways, each in a fresh process, in turn, medians.

    python scripts/bench_envs.py [--case carracing ...] [--repeat 3] [--seconds 2] [--json envs.json]

A frame is one step of the physics, a decision one action (`skip` frames). Actions are drawn evenly beforehand. Lanes
are measured for `rows` decisions after an untimed reset; what a reset takes stands beside it. `cores` is the number of
cores that the process and its children may use. The split of a frame, of one lane on one core:

    physics   Box2D's World.Step and the car's own forces (car.step), nothing else
    Python    a step that draws nothing (rlkit.envs.wrappers.quirks.Pen) less physics: rewards, contacts, wrappers
    drawing   a whole step less one that draws nothing

EnvPool and batched environments cannot be split; driving with observation=vector rays=0 shows what its pictures
cost. Needs `pip install "rlkit[envpool,highway]"`; rows whose packages are missing are left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

PICTURE = {"skip": 4, "gray": True, "size": 64}  # as configs/env/carracing.yaml
BATCHED = "rlkit/Driving"


def ways(
    label: str, fields: dict[str, Any], *backends: tuple[str, int], lanes: int = 8
) -> list[dict[str, Any]]:
    """One row of the table for each (backend, cores)."""
    return [
        {"who": label, "cores": cores, "fields": {"lanes": lanes, "backend": backend, **fields}}
        for backend, cores in backends
    ]


def batched(cores: int, lanes: int = 32, id: str = BATCHED, **kwargs: Any) -> dict[str, Any]:
    """A row of a batched environment."""
    label = "batched, " + " ".join(f"{key}={value}" for key, value in kwargs.items() if key != "skip")
    fields = {"id": id, "lanes": lanes, "backend": "batched", "kwargs": kwargs}
    return {"who": label, "cores": cores, "fields": fields, "skip": kwargs.get("skip", 1)}


IN, OUT, THREADS, POOL = ("inprocess", 1), ("workers", 2), ("threads", 1), ("envpool", 1)
STOCK, EXACT = {"id": "CarRacing-v3"}, {"id": "rlkit/CarRacing"}
# classic control by the names of its classes: the same problems, which are then stepped as Gymnasium steps them
PYTHON: dict[str, dict[str, Any]] = {
    id: {"id": f"gymnasium.envs.classic_control.{name}", "time_limit": limit}
    for id, name, limit in (
        ("CartPole-v1", "cartpole:CartPoleEnv", 500),
        ("Pendulum-v1", "pendulum:PendulumEnv", 200),
        ("Acrobot-v1", "acrobot:AcrobotEnv", 500),
        ("MountainCar-v0", "mountain_car:MountainCarEnv", 200),
        ("MountainCarContinuous-v0", "continuous_mountain_car:Continuous_MountainCarEnv", 999),
    )
}
CASES: dict[str, dict[str, Any]] = {
    # every frame is seen: [96, 96, 3]
    "carracing": {
        "rows": 400,
        "ways": [
            *ways("stock", STOCK, IN, OUT),
            *ways("exact", EXACT, IN, OUT, THREADS, ("threads", 2)),
            *ways("EnvPool", STOCK, POOL, ("envpool", 2)),
            *(batched(cores, observation="picture", skip=1, size=96) for cores in (1, 2)),
        ],
    },
    # as it is learned from: four frames per decision
    "carracing-skip4": {
        "rows": 100,
        "ways": [
            *ways("stock, gray 64x64", STOCK | PICTURE, IN, OUT),
            *ways("exact, gray 64x64", EXACT | PICTURE, IN, OUT, THREADS, ("threads", 2)),
            *(batched(cores, observation="picture", skip=4, size=64) for cores in (1, 2)),
            *(batched(cores, observation="vector", skip=4, rays=16) for cores in (1, 2)),
            batched(1, observation="vector", skip=4, rays=0),
            batched(2, lanes=1024, observation="vector", skip=4, rays=16),
        ],
    },
    "cartpole": {
        "rows": 2000,
        "ways": [
            *ways("Gymnasium", PYTHON["CartPole-v1"], IN, OUT, ("native", 1)),
            *ways("machine code", {"id": "CartPole-v1"}, IN),
            *ways("EnvPool", {"id": "CartPole-v1"}, POOL, ("envpool", 2)),
            *ways("Gymnasium, 256 lanes", {"id": "CartPole-v1"}, ("native", 1), lanes=256),
            *ways("EnvPool, 256 lanes", {"id": "CartPole-v1"}, POOL, ("envpool", 2), lanes=256),
        ],
    },
    "classic": {
        "rows": 2000,
        "ways": [
            way
            for id, python in PYTHON.items()
            for lanes in (8, 1)
            for label, fields in ((f"{id}, Gymnasium", python), (f"{id}, machine code", {"id": id}))
            for way in ways(label, fields, IN, lanes=lanes)
        ],
    },
    "maze": {
        "rows": 1000,
        "ways": [
            *(batched(1, 1024, "rlkit/Maze", view=view) for view in ("codes", "lidar", "picture")),
            batched(1, 1024, "rlkit/Maze", view="codes", doors=3, obstacles=3),
            batched(2, 1024, "rlkit/Maze", view="codes"),
        ],
    },
    "nav": {
        "rows": 500,
        "ways": [
            *(batched(1, 1024, "rlkit/Nav", **kwargs) for kwargs in ({}, {"moving": 4}, {"walls": 0, "circles": 0})),
            batched(2, 1024, "rlkit/Nav"),
        ],
    },
    "highway": {
        "rows": 200,
        "ways": [
            *ways("highway-env", {"id": "highway-fast-v0"}, IN, OUT),
            *ways("EnvPool", {"id": "highway-fast-v0"}, POOL, ("envpool", 2)),
        ],
    },
}  # fmt: skip
SPLITS = {"stock": "CarRacing-v3", "exact": "rlkit/CarRacing"}  # measured with case carracing


def draw(space: Any, lanes: int, rows: int = 64) -> Any:
    """Actions [rows, lanes, ...] of a rlkit space, drawn evenly."""
    import numpy as np
    import torch

    from rlkit.spaces import Box, Discrete

    generator = np.random.default_rng(0)
    if isinstance(space, Discrete):
        return torch.from_numpy(generator.integers(0, space.n, (rows, lanes)))
    assert isinstance(space, Box), "the cases have Discrete and Box actions"
    shape = (rows, lanes, *space.shape)
    return torch.from_numpy(generator.uniform(space.low, space.high, shape).astype(np.float32))


def run_vector(fields: dict[str, Any], cores: int, skip: int, rows: int, seconds: float) -> dict[str, float]:
    """Frames and decisions per second of a vector environment, and the milliseconds of a lane's reset."""
    import numpy as np
    import torch

    from rlkit.envs import EnvConfig
    from rlkit.envs.make import make_vec

    torch.set_num_threads(cores)
    vector: Any = make_vec(EnvConfig(**{"check": "finite", "workers": cores, **fields}), seed=0)
    lanes = vector.lanes
    actions = draw(vector.spec.action, lanes)
    none = [np.zeros((0, *actions.shape[2:]), np.int64)] * lanes
    spent, decisions, resets, episode, warm = 0.0, 0, [], 0, True
    while warm or spent < seconds:
        before = time.perf_counter()
        vector.restore(np.full(lanes, episode), none)
        resets.append(time.perf_counter() - before)
        episode += 1
        before, opened = time.perf_counter(), 0
        for i in range(10 if warm else rows):
            row = vector.step(actions[i % len(actions)])
            opened += int(row.first.sum())
            if time.perf_counter() - before > seconds - spent and i >= 9:
                break
        if not warm:  # the first stretch is the warm-up: machine code is made, pages are touched
            spent += time.perf_counter() - before
            decisions += (i + 1) * lanes - opened
        warm = False
    vector.close()
    timed = resets[1:]
    return {
        "frames": decisions * skip / spent,
        "decisions": decisions / spent,
        "reset_ms": statistics.median(timed) / lanes * 1e3,
    }


def run_split(id: str, seconds: float) -> dict[str, float]:
    """Milliseconds of a frame, of one lane on one core: physics, Python, drawing."""
    import torch

    from rlkit.envs import EnvConfig
    from rlkit.envs.single import make_env
    from rlkit.envs.wrappers.quirks import Pen

    torch.set_num_threads(1)
    env: Any = make_env(EnvConfig(id=id))
    core, pen = env.unwrapped, Pen.of(env)
    assert pen is not None, f"{id} has a pen"
    actions = draw_like(env.action_space)

    def bare(action: Any) -> None:
        core.car.steer(-float(action[0]))  # Box2D takes no NumPy float32
        core.car.gas(float(action[1]))
        core.car.brake(float(action[2]))
        core.car.step(1 / 50)
        core.world.Step(1 / 50, 180, 60)  # the environment's own time step and iterations

    def per_frame(step: Any) -> float:
        env.reset(seed=0)
        for action in actions[:20]:
            step(action)
        count, before = 0, time.perf_counter()
        while time.perf_counter() - before < seconds and count < 900:
            step(actions[count % len(actions)])
            count += 1
        return (time.perf_counter() - before) / count * 1e3

    whole = per_frame(env.step)
    pen.off()
    blank = per_frame(env.step)
    pen.on()
    physics = per_frame(bare)
    env.close()
    return {"physics": physics, "python": blank - physics, "drawing": whole - blank, "whole": whole}


def draw_like(space: Any) -> list[Any]:
    """64 actions of a Gymnasium Box, drawn evenly."""
    space.seed(0)
    return [space.sample() for _ in range(64)]


def perform(job: str) -> None:
    """The child's side of `measure`."""
    task = json.loads(job)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task["cores"]])
    if "split" in task:
        print(json.dumps(run_split(task["split"], task["seconds"])))
        return
    try:
        result = run_vector(task["fields"], task["cores"], task["skip"], task["rows"], task["seconds"])
    except ValueError as error:  # a backend that this environment lacks, a package that is not installed
        print(json.dumps({"missing": str(error)}))
        return
    print(json.dumps(result))


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """One way in a process of its own."""
    command = [sys.executable, os.path.abspath(__file__), "--job", json.dumps(task)]
    environment = os.environ | {"SDL_VIDEODRIVER": "dummy", "OMP_NUM_THREADS": str(task["cores"])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{task} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(case: str, repeat: int, seconds: float) -> dict[str, Any]:
    """Every way of a case, in turn, `repeat` times: medians."""
    rows = [dict(way, results=[]) for way in CASES[case]["ways"]]
    splits: dict[str, list[dict[str, float]]] = {who: [] for who in SPLITS} if case == "carracing" else {}
    for _ in range(repeat):
        for row in rows:
            if "missing" in row:
                continue
            skip = row.get("skip", row["fields"].get("skip", 1))
            task = {"fields": row["fields"], "cores": row["cores"], "skip": skip, "rows": CASES[case]["rows"]}
            result = measure(task | {"seconds": seconds})
            if "missing" in result:
                row["missing"] = result["missing"]
                print(f"  {case} {row['who']}: left out: {result['missing']}", flush=True)
                continue
            row["results"].append(result)
            print(
                f"  {case} {row['who']} {row['fields']['backend']} {row['cores']}: {result['frames']:,.0f}/s",
                flush=True,
            )
        for who, measured in splits.items():
            try:
                measured.append(measure({"split": SPLITS[who], "cores": 1, "seconds": seconds}))
            except RuntimeError as error:
                print(f"  {case} {who}: not split: {str(error).splitlines()[-1]}", flush=True)
    for row in rows:
        if row["results"]:
            row |= {key: statistics.median(each[key] for each in row["results"]) for key in row["results"][0]}
    parts = {
        who: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for who, found in splits.items()
        if found
    }
    return {"case": case, "rows": [row for row in rows if row["results"]], "splits": parts}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: every way as a ratio to its case's first, and the splits."""
    lines = [
        "| case | environment | backend | lanes | cores | frames/s | decisions/s | to the first | ms per reset |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        base = result["rows"][0]["frames"]
        for row in result["rows"]:
            fields = row["fields"]
            lines.append(
                f"| {result['case']} | {row['who']} | {fields['backend']} | {fields['lanes']} | {row['cores']} "
                f"| {row['frames']:,.0f} | {row['decisions']:,.0f} | {row['frames'] / base:.1f} "
                f"| {row['reset_ms']:.3g} |"
            )
    splits = [(who, part) for result in results for who, part in result["splits"].items()]
    if splits:
        lines += ["", "| ms per frame | physics | Python | drawing | whole |", "|---|---|---|---|---|"]
        lines += [
            f"| {who} | {part['physics']:.3f} | {part['python']:.3f} | {part['drawing']:.3f} | {part['whole']:.3f} |"
            for who, part in splits
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=list(CASES), help="one of them (default: all)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of stepping, per measurement")
    parser.add_argument("--json", default="")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        perform(arguments.job)
        return
    results = [compare(case, arguments.repeat, arguments.seconds) for case in arguments.case or CASES]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"\n{date.today()}, {machine}\n\n{table(results)}")
    if arguments.json:
        Path(arguments.json).write_text(
            json.dumps({"date": str(date.today()), "machine": machine, "results": results}, indent=1)
        )


if __name__ == "__main__":
    main()
