"""The processes that learn as one (`learner.workers`): rank 0 is the run, the others only learn.

Rank 0 has environments, source, feed, hooks and checkpoints, as any run. Before an update it hands the batch to the
other ranks; then every rank calls the same `learn`, in which `rlkit.ranks` shares out minibatches and sums gradients:

    rank 0     collect -> broadcast batch -> learn -> hooks -> collect ...
    rank 1..               receive batch -> learn ->          wait

So a checkpoint is rank 0's state, and the others are given that state when they start. Orders go down a pipe as lines
of JSON, tensors by broadcast; nothing is pickled. When rank 0 ends, however it ends, the pipe closes, and a thread of
each rank that waits for its next line ends that process. When another rank ends, rank 0's next operation with it fails
and becomes a LearnerFault, which says what happened there.
"""

from __future__ import annotations

import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import torch
from torch import Tensor

from rlkit import processes, ranks
from rlkit.buffers import pieces
from rlkit.checkpoint import pack, unpack
from rlkit.collect.league import without_league
from rlkit.config import registry
from rlkit.config.schema import OptimConfig, RunConfig
from rlkit.contracts import Experience, LaneShares, Learner, Minibatches, Policy, Replayed, Saved, Sharing
from rlkit.device import keep_memory
from rlkit.learn.watch import Watch
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError, build
from rlkit.types import EnvSpec, Rollout

DYING = 10.0  # seconds that a rank whose connection is closed may take to end
Order: TypeAlias = dict[str, Any]  # a line of JSON for another rank: the run that it joins, then what to do
LOST = 3  # exit status of a rank that could not go on because another was gone


class LearnerFault(RuntimeError):
    """Another rank than rank 0 raised an error or ended."""

    def __init__(self, rank: int, what: str, trace: str = "") -> None:
        self.rank, self.trace = rank, trace
        kind, hint = (
            ("raised", "the traceback above is that rank's")
            if trace
            else ("exited", "look for output above, or learn in one process: learner.workers=1")
        )
        text = f"{kind}: learner rank {rank}: {' '.join(what.split())}"
        super().__init__(f"{trace.rstrip()}\n{text}\n{hint}" if trace else f"{text}\n{hint}")


def check(config: RunConfig, experience: Experience, sharing: Sharing, device: torch.device) -> None:
    """Raise ConfigError where learner.workers ranks cannot share this run's learning equally."""
    workers, lanes = config.learner.workers, config.env.lanes
    asked = f"learner.workers={workers}"
    if sharing is None:
        why = "shares no work between processes"
        if isinstance(experience, Replayed):
            why = "learns from a replay buffer, in one process"
        able = [
            f"agent={name}"
            for name in registry.names("agents")
            if registry.shares(registry.algorithm_of(name))
        ]
        raise ConfigError(
            f"{asked}: agent={config.alias or config.agent_name} {why}; type learner.workers=1, or one of "
            f"{', '.join(able)}"
        )
    if not torch.distributed.is_available():
        raise ConfigError(f"{asked}: this torch is built without torch.distributed; type learner.workers=1")
    if device.type == "cuda":
        devices = torch.cuda.device_count() - (device.index or 0)
        if workers > devices:
            raise ConfigError(
                f"{asked}: every rank has a GPU of its own, and there are {devices} from {device} on; "
                f"type learner.workers={devices} or device=cpu"
            )
    more = -(-lanes // workers) * workers
    if isinstance(sharing, LaneShares) and lanes % workers:
        raise ConfigError(
            f"{asked}: env.lanes={lanes} cannot be shared equally; type env.lanes={more} or learner.workers=1"
        )
    if isinstance(sharing, Minibatches):
        length = sharing.length
        total = experience.steps * lanes // length  # sequences of a rollout
        count = pieces(total, sharing.rows / length)
        if total % workers:
            raise ConfigError(
                f"{asked}: the {total} sequences of a rollout (env.lanes={lanes} times agent.steps="
                f"{experience.steps}) cannot be shared equally; type env.lanes={more} or learner.workers=1"
            )
        if total % (count * workers):
            fits = [n for n in range(1, total // workers + 1) if total // workers % n == 0]
            near = total // min(fits, key=lambda n: abs(n - count)) * length
            raise ConfigError(
                f"{asked}: agent.minibatch={sharing.rows} cuts the {total * length} rows of a rollout into "
                f"{count} minibatches that cannot be shared equally; type agent.minibatch={near} or learner.workers=1"
            )


@contextmanager
def over_ranks(
    agent: Learner[Rollout],
    policy: Policy,
    config: RunConfig,
    device: torch.device,
    say: Callable[[str], None],
) -> Iterator[Learner[Rollout]]:
    """The learner of a run: the agent itself, or all ranks of learner.workers, which end with the block."""
    if config.learner.workers == 1:
        yield agent
        return
    say(f"learner: {config.learner.workers} ranks on {device.type}, torch threads each: {config.threads}")
    learners = Learners(agent, policy, config, device)
    try:
        yield learners
    finally:
        learners.close()


class Learners:
    """Rank 0's side: `learn` is made by all ranks together; the first call starts them."""

    def __init__(
        self, agent: Learner[Rollout], policy: Policy, config: RunConfig, device: torch.device
    ) -> None:
        self.agent, self.policy, self.config, self.device = agent, policy, config, device
        self.processes: list[_Process] = []
        self.watch = Watch(self.processes, config.env.deadline)
        self.folder: Path | None = None  # of the file through which ranks find one another

    def start(self) -> None:
        """Start the other ranks, wait for them, and give them the agent's whole state."""
        config, policy = self.config, self.policy
        self.folder = Path(tempfile.mkdtemp(prefix="rlkit-learners-"))
        order = {
            "agent": config.agent_name,
            "agent_config": asdict(config.agent),
            "network": asdict(config.network),
            "optim": asdict(config.optim),
            "spec": policy.spec.to_json(),
            "size": config.learner.workers,
            "meeting": str(self.folder / "ranks"),
            **{name: getattr(config, name) for name in ("seed", "precision", "compile", "threads")},
        }
        with self._faults():
            for rank in range(1, config.learner.workers):
                self.processes.append(_Process(rank))
                device = f"cuda:{(self.device.index or 0) + rank}" if self.device.type == "cuda" else "cpu"
                self.processes[-1].send(order | {"rank": rank, "device": device})
            self.watch.start()
            for process in self.processes:
                process.wait_ready(config.env.deadline)
            ranks.join(0, config.learner.workers, self.device, self.folder / "ranks")
            self._tell(
                "load", {"policy": without_league(policy.state_dict()), "agent": self.agent.state_dict()}
            )

    def learn(self, batch: Rollout, progress: float) -> dict[str, Tensor]:
        """One update of the agent, by all ranks. Raises LearnerFault where another rank failed."""
        if self.folder is None:
            self.start()
        with self._faults():
            told = self._tell("learn", {"rollout": vars(batch), "progress": progress})
            # the tensors as the others get them, so that all ranks compute the same bits
            return self.agent.learn(Rollout(**told["rollout"]), progress)

    def state_dict(self) -> Saved:
        """The state of the agent, which is the same in every rank."""
        return self.agent.state_dict()

    def load_state_dict(self, state: Saved, /) -> None:
        """Continue from the agent's state; the other ranks are given it when they start."""
        assert self.folder is None, "the other ranks have been given another state"
        self.agent.load_state_dict(state)

    def close(self) -> None:
        """End the other ranks, whatever they are doing; idempotent."""
        self.watch.close()
        for process in self.processes:
            process.close()
        self.processes.clear()
        ranks.leave()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _tell(self, op: str, tree: Saved) -> Saved:
        """Give all ranks an order with tensors; returns what they get."""
        value, tensors = pack(tree, move=False)
        table = {
            name: [str(x.dtype).removeprefix("torch."), list(x.shape), x.device.type]
            for name, x in tensors.items()
        }
        for process in self.processes:
            process.send({"op": op, "tree": value, "tensors": table})
        ranks.broadcast(tensors.values())
        told: Saved = unpack(value, tensors)
        return told

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Say which rank was lost and why, instead of how this one noticed."""
        try:
            yield
        except ranks.Lost as error:
            end = time.monotonic() + DYING
            while time.monotonic() < end and self._dead() is None:
                time.sleep(0.01)
            lost = self._dead() or self.processes[-1]
            raise lost.fault(f"its connection failed: {error}") from error
        except RuntimeError as error:  # how an operation on a GPU fails, later
            dead = self._dead()
            if dead is None or isinstance(error, LearnerFault):
                raise
            raise dead.fault(str(error)) from error

    def _dead(self) -> _Process | None:
        """A rank that has ended, but not because another did."""
        ended = [each for each in self.processes if each.process.poll() is not None]
        causes = [each for each in ended if each.process.returncode != LOST]
        return causes[0] if causes else None


class _Process:
    """Another rank, as rank 0 sees it."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.reason = ""  # why it was ended from here
        report, theirs = os.pipe()  # "ready", then at most one error
        self.process = subprocess.Popen(
            processes.command("rlkit.learn.learners", theirs),
            stdin=subprocess.PIPE,
            pass_fds=[theirs],
            text=True,
            process_group=0,  # Ctrl-C in the terminal is rank 0's to handle
        )
        os.close(theirs)
        self.report = os.fdopen(report)

    def send(self, order: Order) -> None:
        """Send it an order. Raises ranks.Lost where it is gone."""
        assert self.process.stdin is not None, "made with a pipe"
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise ranks.Lost(f"rank {self.rank} has closed its pipe") from error

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid

    def end(self, reason: str) -> None:
        """Kill it, stopped or not, because of `reason`: who waits for it goes on."""
        self.reason = self.reason or reason
        self.process.kill()

    def wait_ready(self, deadline: float) -> None:
        """Wait until it has made its agent. Raises LearnerFault where that failed or it stood still so long."""
        still = processes.Stillness()
        while not select.select([self.report], [], [], min(0.25, deadline / 4))[0]:
            if still.seconds(self.pid) > deadline:
                self.end(f"no answer in {deadline:g} s (env.deadline): its process was stopped")
        line = self.report.readline()
        if not line:
            raise ranks.Lost(f"rank {self.rank} ended at its start")
        found = json.loads(line)
        if "trace" in found:
            raise LearnerFault(self.rank, found["error"], found["trace"])

    def fault(self, otherwise: str) -> LearnerFault:
        """Why this process ended; `otherwise` where it still runs."""
        code = self.process.poll()
        if code is None or self.reason:
            return LearnerFault(self.rank, self.reason or otherwise)
        line = self.report.readline()
        if line:
            found = json.loads(line)
            return LearnerFault(self.rank, found["error"], found["trace"])
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        return LearnerFault(self.rank, how)

    def close(self) -> None:
        """Close its pipe, which ends it, and kill it where that takes more than 3 s."""
        assert self.process.stdin is not None, "made with a pipe"
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        processes.wake(self.pid)
        try:
            self.process.wait(3.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.report.close()


def main(report: int) -> None:
    """Another rank: read orders from stdin and write to the file descriptor `report`, until rank 0 is gone."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # rank 0 decides what they mean
    lines: queue.Queue[Order] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(json.loads(line))
        os._exit(0)  # rank 0 has closed the pipe, or died

    threading.Thread(target=read, name="rlkit-orders", daemon=True).start()
    with os.fdopen(report, "w") as out:
        try:
            _serve(lines, out)
        except ranks.Lost:
            os._exit(LOST)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            _say(out, {"error": text, "trace": traceback.format_exc()})
            os._exit(1)


def _serve(lines: queue.Queue[Order], out: TextIO) -> None:
    """Make the agent that the first order describes, join the other ranks, and do what further orders say."""
    order = lines.get()
    device = torch.device(order["device"])
    torch.set_num_threads(order["threads"])
    keep_memory()
    torch.manual_seed(order["seed"])
    algorithm = registry.algorithm(order["agent"])
    config = build(algorithm.Config, order["agent_config"], "agent")
    network = build(NetworkConfig, order["network"], "network")
    optim = build(OptimConfig, order["optim"], "optim")
    policy = algorithm.Policy(EnvSpec.from_json(order["spec"]), network, config).to(device)
    precision = getattr(torch, order["precision"])
    agent = algorithm.Agent(
        policy, config, optim, seed=order["seed"], precision=precision, compile=order["compile"]
    )
    _say(out, {"ready": True})
    ranks.join(order["rank"], order["size"], device, Path(order["meeting"]))
    while True:
        order = lines.get()
        tensors = {
            name: torch.empty(shape, dtype=getattr(torch, dtype), device=device if kind == "cuda" else "cpu")
            for name, (dtype, shape, kind) in order["tensors"].items()
        }
        ranks.broadcast(tensors.values())
        told = unpack(order["tree"], tensors)
        if order["op"] == "load":
            policy.load_state_dict(told["policy"])
            agent.load_state_dict(told["agent"])
        else:
            agent.learn(Rollout(**told["rollout"]), told["progress"])


def _say(out: TextIO, message: dict[str, object]) -> None:
    """Write a line of JSON to rank 0."""
    out.write(json.dumps(message) + "\n")
    out.flush()
