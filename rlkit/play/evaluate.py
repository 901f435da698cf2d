"""Episodes of a policy on seeds that training never uses (rlkit.seeding: one bit keeps the two apart)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlkit.collect.league import League, league_of
from rlkit.collect.make import meeting
from rlkit.config import registry
from rlkit.config.compose import learns
from rlkit.config.schema import RunConfig
from rlkit.contracts import MAX_STEPS, EndlessEpisode, Policy, Report, VecEnv
from rlkit.seeding import Seeds, uniforms
from rlkit.turns import OPPONENT, SEAT, Player, seated
from rlkit.types import Lanes, tree_map

# options of an environment that change how it is run, or its training, and no score of an evaluation
BESIDE_THE_SCORE = (
    "name",
    "lanes",
    "backend",
    "workers",
    "check",
    "deadline",
    "channels",
    "action_mask",
    "reward_scale",
    "stuck_after",
)


@dataclass(frozen=True)
class Episode:
    """One evaluated episode."""

    number: int
    seed: int  # of the environment's reset
    result: float  # undiscounted return
    length: int
    opponent: int = 0  # of a game of turns: the member of the league that it was played against
    seat: int = 0  # ... and which seat was held


@torch.no_grad()
def run_episodes(
    policy: Policy,
    env: VecEnv,
    episodes: int,
    *,
    seed: int,
    device: torch.device,
    greedy: bool = True,
    frame: Callable[[npt.NDArray[np.uint8]], None] | None = None,
) -> list[Episode]:
    """Run episodes 0 .. episodes-1 of an evaluation environment made with `seed`; lane n runs n, n + N, ...

    Each lane's number of episodes is fixed in advance, so short episodes are not over-represented. frame: receives
    what lane 0 draws after every step. Raises EndlessEpisode.
    """
    lanes = env.lanes
    row = env.restore(np.zeros(lanes, np.int64), [np.zeros(0)] * lanes)
    state = policy.initial_state(Lanes(lanes), device)
    quota = np.array([len(range(lane, episodes, lanes)) for lane in range(lanes)])
    done = np.zeros(lanes, np.int64)
    total, length = np.zeros(lanes), np.zeros(lanes, np.int64)
    seeds = Seeds(seed, True, 0, lanes)
    finished: list[Episode] = []
    seats = seated(env.spec)
    step = 0
    while len(finished) < episodes:
        _show(env, frame)
        noise = None
        if not greedy:
            noise = torch.from_numpy(uniforms(seed, np.arange(lanes), step, 1, policy.noise_size)[0]).to(
                device
            )
        obs = tree_map(lambda x: x.to(device), row.obs)
        action, state, _ = policy.act(obs, row.first.to(device), state, noise)
        acted = ~row.last.cpu().numpy()
        row = env.step(policy.to_env(action).to(env.device))
        total += np.where(acted, row.reward.cpu().numpy(), 0.0)
        length += acted
        step += 1
        if length.max() > MAX_STEPS:
            raise EndlessEpisode(
                f"an episode of {env.spec.id} did not end in {MAX_STEPS:,} steps; give it a time limit, "
                "for example env.time_limit=1000"
            )
        for lane in np.flatnonzero(acted & row.last.cpu().numpy()):
            if done[lane] < quota[lane]:
                number = int(lane + done[lane] * lanes)
                reset_seed = seeds.of(int(lane), int(done[lane]))
                episode = Episode(number, reset_seed, float(total[lane]), int(length[lane]))
                if seats and isinstance(row.obs, dict):
                    opponent, seat = (int(row.obs[name][lane]) for name in (OPPONENT, SEAT))
                    episode = replace(episode, opponent=opponent, seat=seat)
                finished.append(episode)
            done[lane] += 1
            total[lane], length[lane] = 0.0, 0
    _show(env, frame)
    return sorted(finished, key=lambda each: each.number)


def _show(env: VecEnv, frame: Callable[[npt.NDArray[np.uint8]], None] | None) -> None:
    if frame is not None:
        for picture in env.pictures(0):
            frame(picture)


class Evaluator:
    """Episodes of a policy on held-out seeds, in the run's environment as it is without reward scaling.

    Its environments are made at the first `play` and used again by every later one. Games of turns are played against
    every member of the league (the one given, or that of the policy) or of `only`, `episodes` against each.
    """

    def __init__(
        self,
        policy: Policy,
        config: RunConfig,
        episodes: int,
        *,
        seed: int,
        device: torch.device,
        greedy: bool = True,
        league: League | None = None,
        only: Sequence[str | Player | Policy] = (),
    ) -> None:
        self.only = only
        self.league = league or league_of(policy)
        self.policy, self.episodes, self.seed, self.device, self.greedy = (
            policy,
            episodes,
            seed,
            device,
            greedy,
        )
        agents = len(policy.spec.agents)
        games = -(-episodes // agents)  # lanes are whole games
        if policy.spec.groups:  # no group has more episodes than its agents have
            self.episodes = games * agents
        lanes = min(config.env.lanes, games * agents)
        self._config = replace(config.env, lanes=lanes, reward_scale=1.0)
        self._learning = [name for name, _ in policy.spec.groups if learns(config, name)]
        self._env: VecEnv | None = None

    @property
    def judged(self) -> dict[str, Any]:
        """What scores depend on beside the policy: the environment's options, and how actions are chosen."""
        fields = {name: value for name, value in asdict(self._config).items() if name not in BESIDE_THE_SCORE}
        plain: dict[str, Any] = json.loads(json.dumps(fields, default=str))  # as a checkpoint gives it back
        return plain | {"greedy": self.greedy} | ({"groups": self._learning} if self._learning else {})

    def play(self, greedy: bool | None = None) -> list[Episode]:
        """The episodes 0 .. episodes-1; greedy: instead of the evaluator's own choice.

        Raises EndlessEpisode, and what an environment raises.
        """
        if self._env is None:
            made = registry.env_package().make_vec(
                self._config, self.seed, evaluation=True, device=self.device
            )
            self._env = meeting(made, self.policy, self.league, self.only)
        return run_episodes(
            self.policy,
            self._env,
            self.episodes * self._opponents,
            seed=self.seed,
            device=self.device,
            greedy=self.greedy if greedy is None else greedy,
        )

    @property
    def _opponents(self) -> int:
        """How many opponents there are to play against; 1 in an environment that has none."""
        return len(self.only) or (1 if self.league is None else len(self.league.present()))

    def worth(self, episodes: list[Episode], step: int, report: Report) -> float:
        """How good the policy is: the mean of its episodes; in a league its Elo rating, and it joins as a snapshot.

        Of a game's groups those count that learn: what the others lose to them is no fault of the policy.
        """
        groups = by_group(self.policy, episodes)
        for name, returns in groups.items():
            report[f"{name}/evaluate/mean"] = float(np.mean(returns))
        if self.league is None:
            counted = [result for name in self._learning for result in groups[name]]
            return float(np.mean(counted or [each.result for each in episodes]))
        members = np.array([each.opponent for each in episodes])
        self.league.record(members, np.array([0.5 + 0.5 * np.sign(each.result) for each in episodes]))
        report["evaluate/elo"] = elo = float(self.league.elo()[0])
        self.league.join(self.policy, step)
        return elo

    def close(self) -> None:
        """Close the environments; idempotent."""
        if self._env is not None:
            self._env.close()
        self._env = None


def by_group(policy: Policy, episodes: Sequence[Episode]) -> dict[str, list[float]]:
    """The results of each group of a game's agents, by name; {} where all share one policy."""
    return {
        name: [each.result for each in episodes if group_of(policy, each) == name]
        for name, _ in policy.spec.groups
    }


def group_of(policy: Policy, episode: Episode) -> str:
    """The group whose agent's an episode was, "" where all agents share one policy."""
    # lane n, and so every episode of it, is one of agent n % A
    number = episode.number % len(policy.spec.agents)
    return next((name for name, members in policy.spec.groups if number in members), "")


def evaluate_policy(
    policy: Policy, config: RunConfig, episodes: int, *, seed: int, device: torch.device, greedy: bool = True
) -> list[Episode]:
    """The episodes of an `Evaluator`, once."""
    evaluator = Evaluator(policy, config, episodes, seed=seed, device=device, greedy=greedy)
    try:
        return evaluator.play()
    finally:
        evaluator.close()
