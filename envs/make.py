"""Makes one environment (`make_env`), N stepped together (`make_vec`), or reads the spaces (`probe`).

Neither torch nor a vector adapter is imported before a vector is made: worker processes import this module.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from rlkit.envs.config import EnvConfig
from rlkit.envs.lookup import find_class
from rlkit.envs.single import _refusal, make_env
from rlkit.envs.wrappers.masks import ActionMask
from rlkit.spaces import MASK, check_mask, from_gymnasium

if TYPE_CHECKING:
    import torch

    from rlkit.contracts import VecEnv
    from rlkit.types import EnvSpec

SLOW_STEP = 1e-3  # seconds; above it a step outweighs the ~50 microseconds that talking to workers costs
CAR_RACING = "rlkit/CarRacing"  # a fifth of SLOW_STEP is slow for it, and it alone has threads
MEASURE = 0.3  # seconds that choosing a backend may take


def probe(config: EnvConfig) -> EnvSpec:
    """The spaces of the environment: makes one and closes it."""
    from rlkit.types import EnvSpec

    if config.backend == "envpool":
        from rlkit.envs.backends.envpool import probe_pool

        spec = probe_pool(config)
    elif is_batched(config):
        vector = make_vec(replace(config, lanes=1, backend="batched"), seed=0)
        spec = vector.spec
        vector.close()
    else:
        env = make_env(config)
        try:
            spaces = from_gymnasium(env.observation_space), from_gymnasium(env.action_space)
            spec = EnvSpec(config.id, *spaces, config.stack)
        finally:
            env.close()  # type: ignore[no-untyped-call]
    try:
        check_mask(spec.observation, spec.action)
    except ValueError as error:
        raise ValueError(f"env.id={config.id}: {error}") from error
    return spec


def is_batched(config: EnvConfig) -> bool:
    """Whether the id names a class that steps all lanes at once as torch tensors (`batched = True`)."""
    return bool(getattr(find_class(config.id), "batched", False))


def make_vec(
    config: EnvConfig,
    seed: int,
    *,
    evaluation: bool = False,
    first_lane: int = 0,
    device: str | torch.device = "cpu",
    render: bool = False,
    say: Callable[[str], None] | None = None,
) -> VecEnv:
    """`config.lanes` environments behind the VecEnv protocol; `restore` opens their first episodes.

    first_lane: number of lane 0 in the whole run (it seeds training lanes); device: of batched
    environments, all others hand out CPU rows; render: make `render()` draw; say: told in one line what
    env.backend=auto chose. Raises ValueError for a configuration that cannot be used, EnvFault where an
    environment fails as it starts.
    """
    import torch

    config.validate()
    if evaluation and first_lane:
        raise ValueError(f"first_lane={first_lane}: evaluation lanes count from 0; allowed: 0")
    if evaluation:
        config = replace(config, stuck_after=0)
    config = choose_backend(config, say)
    if config.backend == "batched":
        kind = find_class(config.id)
        try:
            vector: VecEnv = kind(
                lanes=config.lanes,
                seed=seed,
                evaluation=evaluation,
                first_lane=first_lane,
                device=torch.device(device),
                **config.kwargs,
            )
        except TypeError as error:
            raise _refusal(config.id, kind, config.kwargs, error) from error
        if config.stack > 1:
            vector.spec = replace(vector.spec, stack=config.stack)
        return vector
    from rlkit.seeding import Seeds

    seeds = Seeds(seed, evaluation, first_lane, config.lanes)
    if config.backend == "envpool":
        from rlkit.envs.backends.envpool import Pool

        return Pool(config, seeds, render)
    if config.backend == "native":
        from rlkit.envs.backends.gymnasium import Native

        return Native.make(config, seeds, render)
    if config.backend == "workers":
        from rlkit.envs.backends.workers import Workers

        return Workers(config, seeds, render)
    from rlkit.envs.backends.inprocess import InProcess

    if config.backend == "threads":
        from rlkit.envs.driving.exact.vector import DrivingBlock

        block = DrivingBlock(config, seeds, 0, config.lanes, render, config.workers)
        return InProcess(config, seeds, render, block)
    return InProcess(config, seeds, render)


def choose_backend(config: EnvConfig, say: Callable[[str], None] | None = None) -> EnvConfig:
    """`config` with backend, workers and action_mask decided; env.backend=auto steps one lane for up to 0.3 s.

    Slow steps (above 1 ms; 0.2 ms of rlkit/CarRacing) go to worker processes where there are several lanes and
    cores, others stay here.
    """
    if config.backend == "envpool":
        from rlkit.envs.backends.envpool import choose_pool

        return choose_pool(config)
    batched = is_batched(config)
    if batched != (config.backend == "batched") and config.backend != "auto":
        needed = "auto or batched" if batched else "auto, inprocess, workers or native"
        raise ValueError(
            f"env.backend={config.backend}: not possible for env.id={config.id}; allowed: {needed}"
        )
    if batched:
        config = replace(config, backend="batched", action_mask="none")
        config.validate()  # of what a batched environment does not take
        return config
    if config.backend == "threads" and (
        config.id != CAR_RACING or config.keep or config.action_mask == "info"
    ):
        raise ValueError(
            f"env.backend=threads: draws env.id={CAR_RACING} without env.keep and env.action_mask=info, given "
            f"env.id={config.id}; type env.backend=auto"
        )
    if config.action_mask == "auto":
        env = make_env(config)
        config = replace(config, action_mask="info" if isinstance(env, ActionMask) else "none")
        env.close()  # type: ignore[no-untyped-call]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(config.workers or cores, config.lanes)
    if config.backend == "workers" and os.name != "posix":
        raise ValueError("env.backend=workers: not possible on this system; allowed: auto, inprocess, native")
    if config.backend == "auto":
        seconds = _step_seconds(config) if config.lanes > 1 and cores > 1 else 0.0
        slow = SLOW_STEP / 5 if config.id == CAR_RACING else SLOW_STEP
        backend = "workers" if seconds > slow and os.name == "posix" else "inprocess"
        config = replace(config, backend=backend)
        if say is not None and seconds:
            where = f"{workers} worker processes" if backend == "workers" else "all lanes in this process"
            say(f"environment {config.id}: {seconds * 1e3:.2g} ms per step, so {where}")
    return replace(config, workers=workers if config.backend in ("threads", "workers") else 0)


def _step_seconds(config: EnvConfig) -> float:
    """Mean seconds of a random step of one lane, resets and checks left out. Raises EnvFault."""
    import numpy as np
    import torch

    from rlkit.envs.backends.actions import allow, pack
    from rlkit.envs.backends.inprocess import InProcess
    from rlkit.seeding import Seeds

    vector = InProcess(replace(config, lanes=1, check="none"), Seeds(0, False, 0, 1))
    space, mask, generator = vector.block.action_space, vector.rows.obs.get(MASK), np.random.default_rng(0)
    space.seed(0)
    spent, count, began = 0.0, 0, time.perf_counter()
    try:
        row = vector.restore(np.zeros(1, np.int64), [vector.rows.action[:0]])
        while count < 50 and time.perf_counter() - began < MEASURE:
            sample = pack(space, space.sample())
            if mask is not None:
                allow(vector.spec.action, sample, mask[0], generator)
            action = torch.from_numpy(sample.reshape(vector.rows.action.shape))
            opens, before = bool(row.last[0]), time.perf_counter()
            row = vector.step(action)
            if not opens:
                spent += time.perf_counter() - before
                count += 1
    finally:
        vector.close()
    return spent / max(count, 1)
