"""A run: everything that a configuration describes, put together, trained, saved and continued.

runs/<name>/  config.yaml  metrics.csv  events.out.tfevents.*  checkpoints/step-.../  best/  videos/  eval/
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rlkit import checkpoint
from rlkit.config import registry, trust
from rlkit.config.compose import compose, to_yaml
from rlkit.config.schema import RunConfig
from rlkit.device import choose_device, choose_precision, choose_threads, keep_memory
from rlkit.learn import learners
from rlkit.learn.feeds import make_feed, parts_of
from rlkit.learn.signals import Interrupted, interruptible
from rlkit.learn.trainer import Clock, fit
from rlkit.metrics import MetricsWriter
from rlkit.options import ConfigError
from rlkit.play import video
from rlkit.play.evaluate import evaluate_policy
from rlkit.play.saved import load, policy_parts
from rlkit.run.check import check_pair, has_pixels
from rlkit.run.console import Console
from rlkit.run.folder import lock_folder, new_folder, run_config
from rlkit.run.hooks import AverageHook, CheckpointHook, EvaluateHook, LogHook, StopHook, VideoHook
from rlkit.sources.make import check_lanes, make_source
from rlkit.types import tree_map

__all__ = ["Run", "load", "resume", "train"]

Say = Callable[[str], None]


class Diverged(RuntimeError):
    """The policy's weights are no longer numbers."""

    complete = True  # the message says everything: the command line offers no traceback


class Run:
    """A training run in its folder. `train` runs it to its end; a signal saves it and raises Interrupted."""

    def __init__(self, config: RunConfig, folder: Path, console: Console) -> None:
        self.config, self.folder = config, folder
        spec = check_pair(config)
        pixels = has_pixels(spec)
        threads = choose_threads(config.threads, pixels, config.learner.workers)
        torch.set_num_threads(threads)
        keep_memory()
        self.device = choose_device(config.device, console.say)
        dtype = choose_precision(config.precision, self.device, pixels, console.say)
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
    choose_device(config.device, lambda text: None)  # refused before a folder is made
    check_pair(config)
    check_lanes(config)
    if config.video.every:
        video.check(config)
    trust.remember(config.env.id)
    folder = new_folder(config)
    with lock_folder(folder):
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
    lock = lock_folder(folder)
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
