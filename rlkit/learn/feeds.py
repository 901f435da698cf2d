"""Feeds: they hand out the batches that a learner learns from, and hear what was learned.

RolloutFeed is a source of rollouts, each learned from once, with the account of finished episodes. The function
`feed` of an algorithm's file says which feed it learns from (`rlkit.contracts.Experience`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from rlkit.collect.episodes import complete, join
from rlkit.config.schema import RunConfig
from rlkit.contracts import (
    MAX_STEPS,
    EndlessEpisode,
    Experience,
    Feed,
    Policy,
    Replayed,
    Rollouts,
    RolloutSource,
    Saved,
    WholeEpisodes,
)
from rlkit.types import Rollout

if TYPE_CHECKING:
    from rlkit.replay.memory import Replay


class RolloutFeed(Feed):
    """Hands out every rollout of a source once, and keeps the account of finished episodes."""

    def __init__(self, source: RolloutSource, window: int = 100) -> None:
        self.source, self.timing = source, source.timing
        self.recent: deque[tuple[float, int]] = deque(maxlen=window)  # (return, length) of finished episodes
        self.episodes = 0

    def next(self) -> tuple[Rollout, int]:
        rollout, finished = self.source.get()
        self.recent.extend(zip(finished.returns, finished.lengths, strict=True))
        self.episodes += len(finished.returns)
        return rollout, int(rollout.valid.sum())

    def learned(self, version: int) -> None:
        self.source.publish(version)

    def report(self) -> dict[str, float]:
        """Return and length of the last finished episodes, nothing before the first one; and what the source says."""
        row: dict[str, float] = {"episodes": self.episodes} | self.source.report()
        if self.recent:
            returns, lengths = np.array(self.recent, dtype=np.float64).T
            row |= {
                "return/mean": float(returns.mean()),
                "return/std": float(returns.std()),
                "return/min": float(returns.min()),
                "return/max": float(returns.max()),
                "length/mean": float(lengths.mean()),
            }
        return row

    def lags(self) -> list[int]:
        return self.source.lags()

    def state_dict(self) -> Saved:
        return {
            "source": self.source.state_dict(),
            "recent": [list(pair) for pair in self.recent],
            "episodes": self.episodes,
        }

    def load(self, state: Saved, parts: Mapping[str, Saved]) -> str | None:
        """Continue; a warning if the environments are not quite what they were."""
        self.recent.extend((pair[0], pair[1]) for pair in state["recent"])
        self.episodes = state["episodes"]
        return self.source.load_state_dict(state["source"])

    def close(self) -> None:
        """End the source and free what lies on disk."""
        self.source.close()


class EpisodeFeed(RolloutFeed):
    """Whole episodes, each once, as soon as they are complete.

    `next` collects rollouts until at least `minimum` episodes that nobody has learned from are complete, and returns
    the rollouts that they lie in, joined in time, as one [T, N]; extra["weight"] [T, N] (float32) is 1 in their
    transitions and 0 elsewhere (episodes that still run, those that were learned from before, rows that are no
    transitions). Every weighted episode opens in the batch. Rollouts that hold the beginning of a running episode are
    kept, and saved in checkpoints. A transition is counted when it is collected, so the run's clock is exact.

    longest: transitions after which an episode is taken to be endless (EndlessEpisode).
    """

    def __init__(
        self,
        source: RolloutSource,
        minimum: int,
        device: torch.device | str = "cpu",
        window: int = 100,
        longest: int = MAX_STEPS,
    ) -> None:
        super().__init__(source, window)
        self.minimum, self.device, self.longest = minimum, device, longest
        self.kept: list[Rollout] = []  # consecutive, all of one length
        self.learned_to: npt.NDArray[np.int64] | int = 0  # [N] the first of their rows not learned from

    def next(self) -> tuple[Rollout, int]:
        steps, begin = 0, self.episodes
        opened = self.learned_to  # [N] row in which the running episode of each lane opened
        while self.episodes < begin + self.minimum:
            rollout, count = super().next()
            row = len(self.kept) * rollout.size[0] + np.arange(len(rollout.last))[:, None]  # [T+1, 1]
            opened = np.maximum(opened, np.where(rollout.last.cpu().numpy(), row + 1, 0).max(0))
            self.kept.append(rollout.map(torch.clone))  # the source writes into the same storage again
            steps += count
            if row[-1] - np.min(opened) > self.longest:
                raise EndlessEpisode(
                    f"an episode did not end in {self.longest:,} steps, and this agent learns from whole ones; "
                    "give it a time limit, for example env.time_limit=1000"
                )
        first, last = (
            torch.cat([*(getattr(each, name)[:-1] for each in self.kept), getattr(self.kept[-1], name)[-1:]])
            for name in ("first", "last")
        )  # [T+1, N]
        weight = complete(first.cpu().numpy(), last.cpu().numpy())  # [T, N]
        weight &= np.arange(len(weight))[:, None] >= self.learned_to
        length = self.kept[0].size[0]
        start = int(weight.any(1).argmax()) // length  # of the rollouts kept, the first that is needed
        batch = join(self.kept[start:])
        batch.extra["weight"] = torch.from_numpy(weight[start * length :]).to(batch.reward)
        done = min(int(np.min(opened)) // length, len(self.kept))
        self.kept, self.learned_to = self.kept[done:], opened - done * length
        return batch, steps

    def state_dict(self) -> Saved:
        return super().state_dict() | {
            "kept": [dict(vars(rollout)) for rollout in self.kept],
            "learned_to": self.learned_to,
        }

    def load(self, state: Saved, parts: Mapping[str, Saved]) -> str | None:
        self.kept = [Rollout(**each).map(lambda x: x.to(self.device)) for each in state["kept"]]
        self.learned_to = state["learned_to"]
        return super().load(state, parts)


class ReplayFeed(RolloutFeed):
    """Every rollout goes into a replay memory; the batch is the memory itself, which knows how many updates are due."""

    def __init__(self, source: RolloutSource, replay: Replay, window: int = 100) -> None:
        super().__init__(source, window)
        self.replay = replay

    def next(self) -> tuple[Any, int]:
        rollout, steps = super().next()
        self.replay.add(rollout)
        return self.replay, steps

    def state_dict(self) -> Saved:
        return super().state_dict() | {"replay": self.replay.snapshot()}

    @property
    def urgent(self) -> bool:
        return self.replay.urgent

    def parts(self, state: Saved) -> dict[str, Saved]:
        return {"replay": self.replay.saved(state["replay"])}

    def load(self, state: Saved, parts: Mapping[str, Saved]) -> str | None:
        self.replay.load(state["replay"], parts["replay"])
        return super().load(state, parts)

    def close(self) -> None:
        super().close()
        self.replay.close()


def part_names(experience: Experience) -> tuple[str, ...]:
    """The parts of a checkpoint that the feed of this kind saves on its own."""
    return ("replay",) if isinstance(experience, Replayed) else ()


def make_feed(
    experience: Experience,
    source: RolloutSource,
    policy: Policy,
    config: RunConfig,
    folder: Path,
    say: Callable[[str], None],
) -> RolloutFeed:
    """The feed of an algorithm that learns from `experience`, for a run in `folder`.

    Raises ConfigError where it cannot be had.
    """
    device = next(policy.parameters()).device
    if isinstance(experience, Rollouts):
        return RolloutFeed(source)
    if isinstance(experience, WholeEpisodes):
        return EpisodeFeed(source, experience.minimum, device)
    from rlkit.replay.memory import Replay

    replay = Replay(
        experience.config, policy, lanes=config.env.lanes, steps=experience.steps, gamma=experience.gamma,
        seed=config.seed, device=device, folder=folder / "replay",
    )  # fmt: skip
    say(replay.statement)
    return ReplayFeed(source, replay)
