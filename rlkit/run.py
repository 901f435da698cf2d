"""A run: everything that a configuration describes, put together, trained, saved and continued.

runs/<name>/  config.yaml  metrics.csv  events.out.tfevents.*  checkpoints/step-.../  best/  videos/  eval/
"""

from __future__ import annotations

import fcntl
import os
import shutil
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rlkit import accelerate, checkpoint, learners, registry, trust, video
from rlkit.compose import compose, from_yaml, to_yaml
from rlkit.config import RunConfig
from rlkit.evaluate import Episode, run_episodes
from rlkit.feeds import make_feed, parts_of
from rlkit.hooks import AverageHook, CheckpointHook, EvaluateHook, LogHook, StopHook, VideoHook
from rlkit.logging import Console, MetricsWriter
from rlkit.options import ConfigError
from rlkit.policy import load, policy_parts
from rlkit.sources import check_lanes, make_source
from rlkit.spaces import Box, leaves
from rlkit.trainer import Clock, Interrupted, fit, interruptible
from rlkit.types import EnvSpec, tree_map

__all__ = ["Run", "load", "resume", "train"]

Say = Callable[[str], None]


class Diverged(RuntimeError):
    """The policy's weights are no longer numbers."""

    complete = True  # the message says everything: the command line offers no traceback


class Run:
    """A training run in its folder. `train` runs it to its end; a signal saves it and raises Interrupted."""

    def __init__(self, config: RunConfig, folder: Path, console: Console) -> None:
        self.config, self.folder = config, folder
        spec = _check_pair(config)
        pixels = has_pixels(spec)
        threads = accelerate.choose_threads(config.threads, pixels, config.learner.workers)
        torch.set_num_threads(threads)
        accelerate.keep_memory()
        self.device = accelerate.choose_device(config.device, console.say)
        dtype = accelerate.choose_precision(config.precision, self.device, pixels, console.say)
        env = config.env
        if (
            config.source.name == "ray"
            and env.backend == "auto"
            and not registry.env_package().is_batched(env)
        ):
            env = replace(env, backend="inprocess")  # its workers are the processes
        self.config = config = replace(
            config,
            device=str(self.device),
            precision=str(dtype).removeprefix("torch."),
            threads=threads,
            env=registry.env_package().choose_backend(env, say=console.say),
        )
        agent = registry.agent_module(config.agent_name)
        torch.manual_seed(config.seed)
        self.policy = agent.Policy(spec, config.network, config.agent).to(self.device)
        self.agent = agent.Agent(
            self.policy, config.agent, config.optim, seed=config.seed, precision=dtype, compile=config.compile
        )
        if config.learner.workers > 1:
            learners.check(config, self.agent, self.device)

        def another() -> Any:
            return agent.Policy(spec, config.network, config.agent).to(self.device)

        self.clock = Clock(config.total_steps)
        self.feed = make_feed(
            agent.FEED,
            make_source(config, self.policy, another, agent.FEED, self.device, console.say),
            self.policy,
            config,
            folder,
            console.say,
        )
        self.console = console
        decay = config.evaluate.average
        self.average = AverageHook(self.policy, another(), decay) if decay else None
        self.evaluated = self.average.module if self.average else self.policy  # by us, and kept as best/
        total = config.total_steps
        self.evaluation = EvaluateHook(
            config.evaluate.every or max(total // 10, 1), self._evaluate, self._keep, console.say
        )
        self.log = LogHook(
            config.log.every or max(total // 500, 1),
            MetricsWriter(folder, config.log.tensorboard),
            console,
            self.feed,
        )
        self.checkpoints = CheckpointHook(
            config.checkpoint.every or max(total // 10, 1),
            self.state_dict,
            self._save,
            lambda: self.feed.urgent,
        )
        self.hooks = [
            StopHook(config.stop.reward, config.stop.minutes),
            *([self.average] if self.average else []),
            self.evaluation,
            VideoHook(config.video.every, self._record, console.say),
            self.log,
            self.checkpoints,
        ]

    def train(self) -> None:
        """Train until the clock is finished; whatever ends it, the last completed update is saved.

        An error leaves with a note that says how to continue.
        """
        with interruptible():
            try:
                self.checkpoints.begin()
                self.console.update(self.clock.step, {})
                with learners.over_ranks(self.agent, self.config, self.device, self.console.say) as learner:
                    fit(learner, self.feed, self.hooks, self.clock)
            except Interrupted as stop:
                stop.folder = self.folder
                raise
            except Exception as error:
                saved = checkpoint.steps(self.folder / "checkpoints")
                if saved:
                    error.add_note(
                        f"the run is saved: rlkit resume {self.folder} continues from step {saved[0][0]:,}"
                    )
                raise
            finally:
                self.feed.close()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the run is, copied: parts `policy` and `state` of a checkpoint.

        Raises Diverged where that is not worth keeping.
        """
        if not torch.stack([torch.isfinite(p).all() for p in self.policy.parameters()]).all():
            raise Diverged(
                f"at step {self.clock.step:,} the policy's weights are no longer finite numbers. "
                f"To resume would repeat it; type a smaller optim.lr (it was {self.config.optim.lr:g}) or "
                f"optim.clip_norm (it was {self.config.optim.clip_norm:g}), or change them in the run's config.yaml "
                "and resume"
            )
        state = {
            "clock": self.clock.state_dict(),
            "agent": self.agent.state_dict(),
            "feed": self.feed.state_dict(),
            "evaluation": self.evaluation.state_dict(),
            "stop": asdict(self.config.stop),
        }
        if self.average:
            weights = self.average.module.state_dict()
            state["average"] = {name: value.clone() for name, value in weights.items()}
        return {"policy": policy_parts(self.policy, self.config), "state": state}

    def load_state_dict(self, parts: dict[str, Any]) -> None:
        """Continue from a checkpoint's parts."""
        weights = tree_map(lambda x: x.to(self.device), parts["policy"]["weights"])
        try:
            self.policy.load_state_dict(weights)
        except RuntimeError as error:
            raise ConfigError(
                f"{self.folder / 'config.yaml'} describes another network or environment than the run's checkpoints "
                "hold; take back what was changed in it"
            ) from error
        state = parts["state"]
        self.clock.load_state_dict(state["clock"])
        self.agent.load_state_dict(state["agent"])
        self.evaluation.load_state_dict(state["evaluation"])
        if self.average:
            self.average.module.load_state_dict(state.get("average", weights))
        self.feed.load_parts(state["feed"], parts)
        warning = self.feed.load_state_dict(state["feed"])
        if warning:
            self.console.say(f"warning: {warning}")
        self.log.resume(self.clock)

    def _save(self, parts: dict[str, Any]) -> None:
        step = parts["state"]["clock"]["step"]
        parts = parts | self.feed.parts(parts["state"]["feed"])
        checkpoint.save_step(self.folder / "checkpoints", parts, step, self.config.checkpoint.keep)

    def _keep(self, step: int, mean: float) -> None:
        parts = {"policy": policy_parts(self.evaluated, self.config), "score": {"step": step, "mean": mean}}
        checkpoint.write(self.folder / "best", parts, step)

    def _evaluate(self) -> list[float]:
        episodes = evaluate_policy(
            self.evaluated,
            self.config,
            self.config.evaluate.episodes,
            seed=self.config.seed,
            device=self.device,
        )
        return [episode.result for episode in episodes]

    def _record(self, step: int) -> None:
        path = self.folder / "videos" / f"step-{step:09d}.mp4"
        video.record(self.evaluated, self.config, path, seed=self.config.seed, device=self.device)
        self.console.say(f"video: {path}")


def evaluate_policy(
    policy: Any, config: RunConfig, episodes: int, *, seed: int, device: torch.device, greedy: bool = True
) -> list[Episode]:
    """Episodes in the run's environment as it is without reward scaling, on held-out seeds."""
    env_config = replace(config.env, lanes=min(config.env.lanes, episodes), reward_scale=1.0)
    env = registry.env_package().make_vec(env_config, seed, evaluation=True, device=device)
    try:
        return run_episodes(policy, env, episodes, seed=seed, device=device, greedy=greedy)
    finally:
        env.close()


def train(
    agent: str = "ppo", env: str = "cartpole", *, console: Console | None = None, **options: Any
) -> Path:
    """Train a new agent and return the run's folder.

    options: as on the command line, e.g. total_steps=100_000, seed=3, network="cnn", **{"agent.clip": 0.1}.
    Raises ConfigError (a ValueError) for anything that cannot be used, before anything starts.
    """
    return start(compose(values={"agent": agent, "env": env, **options}).config, console)


def start(config: RunConfig, console: Console | None = None) -> Path:
    """Train a new run of this configuration in a folder of its own; returns the folder."""
    accelerate.choose_device(config.device, lambda text: None)  # refused before a folder is made
    _check_pair(config)
    check_lanes(config)
    if config.video.every:
        video.check(config)
    trust.remember(config.env.id)
    folder = _new_folder(config)
    with _lock(folder):
        try:
            console = console or Console(config.total_steps, folder.name)
            run = Run(config, folder, console)
            (folder / "config.yaml").write_text(to_yaml(run.config), encoding="utf-8")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # nothing was trained in it
            raise
        try:
            run.train()
        finally:
            console.close()
    return folder


def resume(folder: str | Path, console: Console | None = None) -> Path:
    """Continue the run in `folder` exactly where its newest whole checkpoint is; returns the folder.

    Raises ConfigError where it is no run folder, CheckpointError where no checkpoint is whole.
    """
    folder = Path(folder)
    config = run_config(folder)
    trust.require(config.env.id)
    console = console or Console(config.total_steps, folder.name)
    lock = _lock(folder)
    try:
        names = ("policy", "state", *parts_of(registry.agent_module(config.agent_name).FEED))
        step, path, parts = checkpoint.newest(folder / "checkpoints", *names, say=console.say)
        reason = parts["state"]["clock"]["stop_reason"]
        stopped = reason and parts["state"]["stop"] == asdict(config.stop)
        if stopped or step >= config.total_steps:
            reason = reason if stopped else f"all {config.total_steps:,} steps are done"
            option = "other stop options" if stopped else "a larger total_steps"
            console.say(
                f"{folder} is complete: {reason} ({option} in {folder / 'config.yaml'} trains it longer)"
            )
            return folder
        run = Run(config, folder, console)
        run.load_state_dict(parts)
        for newer, damaged in checkpoint.steps(folder / "checkpoints"):
            if newer > step:  # it could not be read; the run will pass this step again
                aside = damaged.with_name(f"damaged-{damaged.name}")
                shutil.rmtree(aside, ignore_errors=True)
                damaged.rename(aside)
        console.say(f"resuming from {path} (step {step:,})")
        run.train()
    finally:
        console.close()
        lock.close()
    return folder


def run_config(folder: Path) -> RunConfig:
    """The configuration of a run folder. Raises ConfigError where it is none."""
    if not (folder / "config.yaml").is_file():
        what = "is not a run folder (no config.yaml in it)" if folder.exists() else "does not exist"
        raise ConfigError(f"{folder} {what}; rlkit list runs shows what there is")
    return from_yaml(folder / "config.yaml")


def has_pixels(spec: EnvSpec) -> bool:
    """Whether an observation holds an image."""
    return any(isinstance(leaf, Box) and leaf.image for _, leaf in leaves(spec.observation))


def spec_of(config: RunConfig) -> EnvSpec:
    """What the environment shows and takes; ConfigError where it cannot be made."""
    try:
        spec: EnvSpec = registry.env_package().probe(config.env)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:  # the environment's own code
        place = [
            each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<")
        ][-1]
        raise ConfigError(
            f"environment {config.env.id} cannot be made: {type(error).__name__}: {error} "
            f"({place.filename}:{place.lineno}; --traceback shows the way there)"
        ) from error
    return spec


def _check_pair(config: RunConfig) -> EnvSpec:
    """`spec_of`, and ConfigError where the agent cannot handle the environment's spaces."""
    spec = spec_of(config)
    try:
        registry.agent_module(config.agent_name).check(spec, config.agent)
    except ValueError as error:
        raise ConfigError(
            f"agent={config.alias or config.agent_name} cannot act in {spec.id}: {error}"
        ) from error
    return spec


def _new_folder(config: RunConfig) -> Path:
    """runs/<name>; a name that was not asked for is made unique."""
    parent = Path(config.dir)
    folder, number = parent / config.run_name, 1
    try:
        while True:
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                if not folder.exists():
                    raise NotADirectoryError from None  # a link to nowhere on the way
                if config.name:
                    raise ConfigError(
                        f"name={config.name}: {folder} exists; continue it with rlkit resume {folder}, "
                        "or choose another name"
                    ) from None
                number += 1
                folder = parent / f"{config.run_name}-{number}"
    except NotADirectoryError as error:
        culprit = next(path for path in (folder, *folder.parents) if path.is_symlink() or path.exists())
        raise ConfigError(f"dir={config.dir}: {culprit} is not a folder") from error
    except OSError as error:
        raise ConfigError(
            f"dir={config.dir}: cannot make {folder} ({error.strerror}); type dir=FOLDER with one you may write to"
        ) from error


def _lock(folder: Path) -> Any:
    """An exclusive lock on a run folder, held until closed (or until the process ends)."""
    try:
        descriptor = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write there ({error.strerror})") from error
    file = os.fdopen(descriptor, "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(f"{folder} is in use by another process; wait for it or stop it") from None
    return file
