"""Hooks, which run after every update in this order: stop, average, evaluate, record, log, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlkit import checkpoint
from rlkit.checkpoint import BEST, CheckpointError
from rlkit.collect.league import league_of
from rlkit.config.compose import to_yaml
from rlkit.contracts import EndlessEpisode, Feed, Policy, Report, Saved, Stateful
from rlkit.device import Say
from rlkit.files import Place
from rlkit.learn.signals import shielded
from rlkit.learn.trainer import Clock, Hook
from rlkit.metrics import MetricsWriter
from rlkit.play.evaluate import Episode, Evaluator
from rlkit.play.saved import policy_parts
from rlkit.play.statistics import summarise
from rlkit.play.video import Recorder, as_gif
from rlkit.run.check import Plan
from rlkit.run.console import Console, number
from rlkit.run.early import EarlyStopHook
from rlkit.run.health import require_finite


class AverageHook(Hook):
    """The moving mean of a policy's weights over the updates u = 1, 2, ... (Polyak and Juditsky, 1992).

        mean <- mean + max(1 - d, 1 / u) (theta - mean)

    with decay d: the plain mean of the first 1 / (1 - d) updates, then one that forgets: free of much of the noise
    of single gradient steps. module: another policy, which holds the mean; its normalizers' statistics are the latest.
    """

    def __init__(self, policy: nn.Module, module: nn.Module, decay: float) -> None:
        self.policy, self.module, self.decay = policy, module.requires_grad_(False), decay
        module.load_state_dict(policy.state_dict())
        self._loaded = False

    @torch.no_grad()
    def after_update(self, clock: Clock, report: Report) -> None:
        share = max(1 - self.decay, 1 / clock.update)
        torch._foreach_lerp_(list(self.module.parameters()), list(self.policy.parameters()), share)
        # not copied in place: they may change their size
        self.module.load_state_dict(dict(self.policy.named_buffers()), strict=False)

    def resume(self, clock: Clock) -> None:
        """The mean of a run that had none begins with its weights."""
        if not self._loaded:
            self.module.load_state_dict(self.policy.state_dict())

    def state_dict(self) -> Saved:
        return {name: value.clone() for name, value in self.module.state_dict().items()}

    def load_state_dict(self, state: Saved) -> None:
        self.module.load_state_dict(state)
        self._loaded = True


class Best:
    """The folder best/: the policy that evaluated best. describe(): part `policy` of a checkpoint."""

    def __init__(self, folder: Place, describe: Callable[[], Saved]) -> None:
        self.folder, self.describe = folder, describe

    def keep(self, step: int, mean: float) -> None:
        """Replace what is there by the policy as it is, with its score."""
        checkpoint.write(
            self.folder, {"policy": self.describe(), "score": {"step": step, "mean": mean}}, step
        )


class Judge(Protocol):
    """Whoever plays the episodes of an evaluation, or scores the rows of a table as if each were one."""

    greedy: bool  # takes the most likely actions

    @property
    def judged(self) -> dict[str, Any]:
        """What scores depend on beside the model."""

    def play(self, greedy: bool | None = None) -> list[Episode]:
        """All of them; greedy: instead of its own choice. Raises EndlessEpisode."""

    def worth(self, episodes: list[Episode], step: int, report: Report) -> float:
        """The number by which best/ is chosen, once for every evaluation; `report` hears what else there is to say."""

    def close(self) -> None:
        """Free what is held; idempotent."""


class EvaluateHook(Hook):
    """Every `every` steps, and at the end, run episodes on held-out seeds; keep the best policy.

    Endless episodes cost the most and tell the least. So after an evaluation that did not end the next one is left out,
    after a second such one the next three, then seven, and all of them while no episode of training has ended either.
    The last evaluation of a run is always tried. Where actions are drawn, the most likely ones are tried as well at the
    end, and both results are said where they differ.
    """

    def __init__(
        self, every: int, evaluator: Judge, best: Best, say: Say, check: Callable[[int], None]
    ) -> None:
        self.every, self.evaluator, self.folder, self.say = every, evaluator, best, say
        self.check = check  # of the weights at a step: raises where they are not worth an evaluation
        self.best: float | None = None
        self.endless = 0  # evaluations in a row that did not end
        self.left_out = 0  # evaluations still to be left out

    def after_update(self, clock: Clock, report: Report) -> None:
        if not (clock.due(self.every) or clock.finished):
            return
        without_end = self.endless and not report.get("episodes", 1)
        if (self.left_out or without_end) and not clock.finished:
            self.left_out = max(self.left_out - 1, 0)
            return
        self.check(clock.step)
        try:
            with clock.pausing():
                episodes = self.evaluator.play()
                if clock.finished and not self.evaluator.greedy:
                    self._compare(episodes, self.evaluator.play(greedy=True))
        except EndlessEpisode as error:
            self.endless += 1
            self.left_out = 2**self.endless - 1
            self.say(
                f"warning: no evaluation at step {clock.step:,} ({self.left_out} or more that follow are left out): "
                f"{error}"
            )
            return
        self.endless = 0
        returns = torch.tensor([episode.result for episode in episodes], dtype=torch.float64)
        mean = float(returns.mean())
        report["evaluate/mean"], report["evaluate/std"] = mean, float(returns.std(correction=0))
        worth = self.evaluator.worth(episodes, clock.step, report)
        if not math.isfinite(worth):
            self.say(
                f"warning: the evaluation's mean return at step {clock.step:,} is {mean}: not kept as best/"
            )
        elif self.best is None or worth >= self.best:  # of equal ones the later, which has seen more
            self.best = worth
            with shielded():
                self.folder.keep(clock.step, worth)
        if self.best is not None:
            report["evaluate/best"] = self.best

    def _compare(self, sampled: list[Episode], greedy: list[Episode]) -> None:
        """Say both results where their intervals lie apart."""
        if not all(math.isfinite(each.result) for each in (*sampled, *greedy)):
            return
        results = [summarise([each.result for each in episodes]) for episodes in (sampled, greedy)]
        (low, high), (other_low, other_high) = (each.mean_ci for each in results)
        if high < other_low or other_high < low:
            words = [
                f"{number(each.mean)} [{number(each.mean_ci[0])}, {number(each.mean_ci[1])}]"
                for each in results
            ]
            self.say(
                f"evaluation: {words[0]} with actions drawn as in training, {words[1]} with the most likely ones "
                f"({len(sampled)} episodes each; evaluate.sample chooses)"
            )

    def close(self, clock: Clock, error: BaseException | None) -> None:
        self.evaluator.close()

    def state_dict(self) -> Saved:
        return {
            "best": self.best,
            "judged": self.evaluator.judged,
            "endless": self.endless,
            "left_out": self.left_out,
        }

    def load_state_dict(self, state: Saved) -> None:
        self.endless, self.left_out = state.get("endless", 0), state.get("left_out", 0)
        before, now = state.get("judged", self.evaluator.judged), self.evaluator.judged
        changed = [name for name in now if name in before and before[name] != now[name]]
        if not changed:
            self.best = state["best"]
        elif state["best"] is not None:
            self.say(
                f"evaluation has changed ({', '.join(changed)}): the score of best/, {state['best']:.1f}, is not "
                "compared with those to come, and the next evaluation replaces it"
            )


class VideoHook(Hook):
    """Every `every` steps, film one episode, for the folder and for TensorBoard.

    A film that fails is no reason to end the training: that is said, and the next one is tried.
    """

    def __init__(self, every: int, recorder: Recorder, writer: MetricsWriter, say: Say) -> None:
        self.every, self.recorder, self.writer, self.say = every, recorder, writer, say

    def after_update(self, clock: Clock, report: Report) -> None:
        if clock.due(self.every):
            try:
                with clock.pausing():
                    path = self.recorder.record(clock.step)
                    self.say(f"video: {path}")
                    if self.writer.draws:
                        self.writer.animation(clock.step, "film", *as_gif(path.path))
            # a fault of the environment is a RuntimeError, with a `text` that leaves its traceback out
            except (OSError, ValueError, RuntimeError) as error:
                reason = getattr(error, "text", error)
                self.say(f"warning: no video at step {clock.step:,}: {reason}")


class StopHook(Hook):
    """End the run when it is good enough or has taken long enough."""

    def __init__(self, reward: float | None, minutes: float | None, episodes: int = 100) -> None:
        self.reward, self.minutes, self.episodes = reward, minutes, episodes

    def after_update(self, clock: Clock, report: Report) -> None:
        mean = report.get("return/mean")
        enough = report.get("episodes", 0) >= self.episodes
        if self.reward is not None and enough and mean is not None and mean >= self.reward:
            clock.stop_reason = f"mean return {mean:.1f} reached stop.reward={self.reward:g}"
        elif self.minutes is not None and clock.seconds >= 60 * self.minutes:
            clock.stop_reason = f"stop.minutes={self.minutes:g} are over"


class LogHook(Hook):
    """Rows of numbers to metrics.csv, TensorBoard and the console: every `every` steps and with each evaluation."""

    def __init__(self, every: int, writer: MetricsWriter, console: Console, feed: Feed) -> None:
        self.every, self.writer, self.console, self.feed = every, writer, console, feed
        self._seconds, self._beside, self._step = 0.0, 0.0, 0
        self._parts = {"environment": 0.0, "policy": 0.0, "learning": 0.0}
        self._shown = self._waited = 0.0

    def after_update(self, clock: Clock, report: Report) -> None:
        due = clock.due(self.every) or clock.update == 1 or clock.finished or "evaluate/mean" in report
        now = time.monotonic()
        if not due and now - self._shown < 0.5:
            return
        self._shown = now
        row = _numbers(report) | self._times(clock, reset=due)
        if due:
            self.writer.write(clock.step, row)
            self.writer.histogram(clock.step, "source/lag", self.feed.lags())
        self.console.update(clock.step, row)

    def _times(self, clock: Clock, reset: bool) -> dict[str, float]:
        """Speed and shares of the time since the last logged row that went into training; and all time so far."""
        parts = {
            "environment": self.feed.timing.environment,
            "policy": self.feed.timing.policy,
            "learning": clock.learning,
        }
        seconds = max(clock.seconds - self._seconds - (clock.beside - self._beside), 1e-9)
        times = {
            "time/seconds": clock.seconds,
            "time/evaluation_seconds": clock.beside,
            "time/steps_per_second": (clock.step - self._step) / seconds,
            **{f"time/{name}": (value - self._parts[name]) / seconds for name, value in parts.items()},
        }
        # checkpoints, logging; with the thread source the parts overlap and leave nothing
        named = sum(times[f"time/{name}"] for name in parts)
        times["time/other"] = max(1.0 - named, 0.0)
        waiting = self.feed.timing.waiting
        if waiting:  # for workers elsewhere, while these act and step
            times["time/waiting"] = (waiting - self._waited) / seconds
        if reset:
            self._seconds, self._beside, self._step = clock.seconds, clock.beside, clock.step
            self._parts = parts
            self._waited = waiting
        return times

    def resume(self, clock: Clock) -> None:
        """Forget rows after the checkpoint that the run continues from."""
        self.writer.truncate(clock.step)
        self._seconds, self._beside, self._step = clock.seconds, clock.beside, clock.step

    def close(self, clock: Clock, error: BaseException | None) -> None:
        self.writer.close()
        self.console.close()


def _numbers(report: Report) -> dict[str, float]:
    """A report with its tensors as numbers; all of them come from their device in one transfer."""
    tensors = [value.float() for value in report.values() if isinstance(value, Tensor)]
    values = iter(torch.stack(tensors).tolist() if tensors else [])
    return {name: next(values) if isinstance(value, Tensor) else value for name, value in report.items()}


class Savable(Protocol):
    """The run, as a CheckpointHook sees it."""

    @property
    def urgent(self) -> bool:
        """Whether the next update destroys what the latest `state_dict` only refers to."""

    def state_dict(self) -> Mapping[str, Saved]:
        """The parts of a checkpoint, copied."""

    def save(self, parts: Mapping[str, Saved], /) -> None:
        """Write the parts to a checkpoint."""


class CheckpointHook(Hook):
    """Keeps the state of the last update in memory; writes it every `every` steps and when the run ends, however.

    An interrupt may fall into the middle of a rollout or of a gradient step; what it cut is made again on resume.
    `run.urgent` says whether the next update would destroy what the latest state only refers to (rows of a replay
    memory), so that a new one is due.
    """

    MIN_SECONDS = 0.2  # between states: very short updates do not each pay for a copy

    def __init__(self, every: int, run: Savable) -> None:
        self.every, self.run = every, run
        self._latest: Mapping[str, Saved] | None = None
        self._taken = -1e9
        self._saved = True

    def begin(self) -> None:
        """Take the state before the first update."""
        self._take()

    def after_update(self, clock: Clock, report: Report) -> None:
        due = clock.due(self.every) or clock.finished
        if due or time.monotonic() - self._taken > self.MIN_SECONDS or self.run.urgent:
            with shielded():
                self._take()
                if due:
                    self._write()

    def close(self, clock: Clock, error: BaseException | None) -> None:
        # a save that failed (full disk) would fail again
        if not self._saved and not isinstance(error, CheckpointError):
            self._write()

    def _take(self) -> None:
        self._latest = self.run.state_dict()
        self._taken = time.monotonic()
        self._saved = False

    def _write(self) -> None:
        assert self._latest is not None, "no state to save"
        self.run.save(self._latest)
        self._saved = True


def make_hooks(
    plan: Plan, folder: Place, console: Console, policy: Policy, another: Callable[[], Policy], feed: Feed
) -> tuple[list[Hook], dict[str, Stateful]]:
    """The hooks of a run in their order, and those that a checkpoint saves by their names there."""
    config, total, say = plan.config, plan.config.total_steps, console.say
    judged = another() if config.evaluate.average else policy  # what is evaluated, filmed and kept
    average = AverageHook(policy, judged, config.evaluate.average) if config.evaluate.average else None
    evaluation = EvaluateHook(
        config.evaluate.every or max(total // 10, 1),
        Evaluator(
            judged,
            config,
            config.evaluate.episodes,
            seed=config.seed,
            device=plan.device,
            greedy=not config.evaluate.sample,
            league=league_of(policy),
        ),
        Best(folder / BEST, lambda: policy_parts(judged, config)),
        say,
        lambda step: require_finite(judged, step, config.optim),
    )
    early = EarlyStopHook(config.stop.score, config.stop.patience)
    writer = MetricsWriter(folder, config.log.tensorboard, say)
    writer.text("config", f"```\n{to_yaml(config)}```")
    hooks: list[Hook] = [
        StopHook(config.stop.reward, config.stop.minutes),
        *([average] if average else []),
        evaluation,
        early,
        VideoHook(config.video.every, Recorder(judged, config, folder / "videos", plan.device), writer, say),
        LogHook(config.log.every or max(total // 500, 1), writer, console, feed),
    ]
    return hooks, {
        "evaluation": evaluation,
        "early": early,
        **({"average": average} if average else {}),
    }
