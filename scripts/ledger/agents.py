"""Runs of games of several agents that are killed (SIGKILL) at random moments, and continued.

One policy that all agents share, a policy for each of two groups, and self-play in a league with a player, snapshots
and the agent of another run. Survived: as in `kills`. Every cell is killed ten times.
"""

from __future__ import annotations

from scripts.ledger.kills import killed
from scripts.ledger.trial import Task, Trials
from tests.helpers.runs import rlkit

EACH = 10  # kills of every cell
COMMON = [
    "preset=none", "threads=1", "device=cpu", "log.every=100", "log.tensorboard=false",
    "checkpoint.every=130", "checkpoint.keep=100", "network.hidden=[16]", "network.core_size=8",
]  # fmt: skip
PPO = "agent=ppo agent.steps=16 agent.minibatch=32 agent.epochs=2"
DQN = (
    "agent=dqn agent.replay.warmup=100 agent.replay.ratio=0.1 agent.replay.capacity=400 agent.steps=4 "
    "agent.replay.batch=16"
)
GAMES = "env.lanes=6 env.show_agent=true evaluate.every=400 evaluate.episodes=3 total_steps=3000"
LINE = "env=rlkit/Board env.kwargs={width:4,height:1,row:2} env.lanes=8 network.encoder=mlp"
LEAGUE = f"{LINE} evaluate.every=400 evaluate.episodes=4 league.players=[random,runs/guest] total_steps=3000"
LIVES, CHASE = "env=tests.helpers.parallel:Lives env.kwargs={lives:[3,6]}", "env=tests.helpers.parallel:Chase"
CELLS = {
    "shared-ppo": f"{PPO} {LIVES} {GAMES} env.backend=inprocess",
    "shared-dqn-workers": f"{DQN} {LIVES} {GAMES} env.backend=workers env.workers=2",
    "groups-ppo": f"{PPO} {CHASE} {GAMES} env.backend=inprocess",
    "groups-ppo-gru-thread": f"{PPO} {CHASE} {GAMES} env.backend=inprocess network=gru source=thread",
    "league-ppo": f"{PPO} {LEAGUE}",
    "league-dqn-gru": f"{DQN} {LEAGUE} network=gru agent.replay.sequence=8 agent.replay.burn_in=4",
}
SAMPLE = "groups-ppo"


def trials(task: Task) -> Trials:
    folder = task.folder()
    cells = (SAMPLE,) if task.short else tuple(CELLS)
    commands = {cell: ["train", *COMMON, *CELLS[cell].split()] for cell in cells}
    if not task.short:
        guest = ["train", *COMMON, *f"{PPO} {LINE} network=lstm evaluate.episodes=4 total_steps=400".split()]
        code, output = rlkit(folder, *guest, "name=guest", timeout=300)
        if code:
            raise RuntimeError(f"the run of the other agent could not be trained:\n{output}")
    yield from killed(task, folder, commands, 2 if task.short else EACH * len(cells))
