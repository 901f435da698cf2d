"""The Ray actors of a run: started, given work, watched, replaced when they are lost, and accounted for.

Every worker answers in the order of its calls. A chunk has *arrived* when it lies in this machine's memory. What is
asked of a worker that dies (killed, its node gone) or whose environment fails (raises, hangs) and has not arrived is
lost; a new actor takes the worker's place with new episodes, numbered after all that can have begun. So

    asked = arrived + lost + under way            [rows: steps of one lane]

and no row arrives twice. Deaths and failures each have a budget (source.max_restarts, source.max_failures). Chunks
come one by one, or joined by the aggregators of their nodes (aggregate.py).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rlkit.collect.league import league_of
from rlkit.config.schema import RunConfig
from rlkit.contracts import Policy, Saved
from rlkit.machine import cores
from rlkit.options import ConfigError
from rlkit.processes import Stillness, wake
from rlkit.sources.ray.aggregate import Bundle, Chunk, Tree
from rlkit.sources.ray.wire import ActorHandle, Collected, Failure, ObjectRef
from rlkit.sources.ray.worker import Worker, arrays, node_id

PATIENCE = 30.0  # seconds without a worker that is waited for before it is told
# the step at which a worker's lanes are, and the number of each one's episode
Mark: TypeAlias = tuple[int, npt.NDArray[np.int64]]


class WorkersLost(RuntimeError):
    """More workers died, or more environments failed, than the options allow."""

    complete = True  # the message says everything: the command line offers no traceback


@dataclass
class Member:
    """The worker in charge of some lanes, whichever actor that is now."""

    index: int
    origin: Saved | None  # the state that the run began or resumed with
    mark: Mark | None  # after the last chunk that arrived
    skip: int = 0  # episodes of each lane that may have begun after that
    handle: ActorHandle = None
    starting: ObjectRef = None  # the reference to Worker.start's answer until that is here
    pid: int = 0
    node: str = ""  # Ray's name of where it runs; "": not known
    chunks: deque[Chunk] = field(default_factory=deque)  # under way, in order

    @property
    def up(self) -> bool:
        """Whether its environments are made, so that it can be asked for chunks."""
        return self.starting is None


class Fleet:
    """`config.source.workers` workers. `ask` them for chunks, `wait` for events, take what is in `arrived`.

    steps: of a rollout; whole: nobody can learn before each worker's next chunk has arrived, so aggregators may wait
    for all of them.
    """

    def __init__(
        self, config: RunConfig, policy: Policy, steps: int, say: Callable[[str], None], whole: bool = True
    ) -> None:
        self.config, self.spec, self.steps, self.say = config, policy.spec, steps, say
        self.eyes = None if policy.eyes is None else arrays(policy.eyes.parts)
        league = league_of(policy)
        self.guests = arrays(dict(league.invited)) if league else {}
        self.lanes = config.env.lanes // config.source.workers  # of each worker
        self.ray, self.connected = connect(config)
        self.members: list[Member] = []
        many = 0 < config.source.aggregate < config.source.workers
        self.tree = Tree(self.ray, whole) if many else None
        self.arrived: list[Chunk] = []  # in order of arrival
        self.rows = {"asked": 0, "arrived": 0, "lost": 0}
        self.deaths = self.failures = 0
        self._idle = time.monotonic()  # since when nothing has happened
        self._still, self._node = Stillness(), node_id()
        self.open = True

    def start(self, states: list[Saved | None], marks: list[Mark | None]) -> None:
        """Start every worker: from a state, or with the episodes after a mark, or from the beginning."""
        for index, (state, mark) in enumerate(zip(states, marks, strict=True)):
            self.members.append(Member(index, state, mark))
            self._launch(self.members[-1])

    def _launch(self, member: Member) -> None:
        """Start an actor for a member, told where to go on."""
        source, lanes = self.config.source, self.lanes
        actor = self.ray.remote(Worker).options(
            num_cpus=source.cpus_per_worker,
            num_gpus=source.gpus_per_worker,
            resources=source.resources or None,
            scheduling_strategy="SPREAD" if source.placement == "spread" else "DEFAULT",
            max_restarts=0,  # a new actor must be told where to go on
        )
        member.handle = actor.remote(
            self.config, self.spec, member.index * lanes, lanes, self.eyes, self.guests
        )
        if member.mark is None and not member.skip:
            member.starting = member.handle.start.remote(member.origin)
            return
        if member.mark is not None:
            step, episode = member.mark
        elif member.origin:
            step, episode = member.origin["step"], member.origin["episode"]
        else:
            step, episode = 0, np.full(lanes, -1)
        member.starting = member.handle.start.remote(None, step, episode + 1 + member.skip)

    @property
    def up(self) -> int:
        """How many workers can be asked for chunks."""
        return sum(member.up for member in self.members)

    def ask(self, depth: int, version: int, weights: ObjectRef, rollouts: int) -> None:
        """Ask every worker that is up for chunks until `depth` of its are under way or have arrived and lie here."""
        rows = rollouts * self.steps * self.lanes
        here = [chunk.worker for chunk in self.arrived]
        for member in self.members:
            while member.up and len(member.chunks) + here.count(member.index) < depth:
                ref = member.handle.collect.remote(weights, version, rollouts)
                member.chunks.append(Chunk(member.index, version, rows, ref))
                self.rows["asked"] += rows
        if self.tree is not None:
            heads = [
                (member.node, member.chunks[0]) for member in self.members if member.up and member.chunks
            ]
            self.tree.hand_over([(node, head) for node, head in heads if not head.handed and not head.direct])

    def wait(self) -> None:
        """Wait until something happens: a worker is up, a chunk arrives or is lost; or for a while."""
        events: dict[ObjectRef, Member | Bundle | None] = {}
        for member in self.members:
            if not member.up:
                events[member.starting] = member
            elif member.chunks and (self.tree is None or member.chunks[0].direct):
                events[member.chunks[0].ref] = member
        pending = self.tree.pending if self.tree is not None else []
        if self.tree is not None:
            events |= {bundle.ref: bundle for bundle in self.tree.bundles.values()}
        events |= dict.fromkeys(pending)  # once one is finished it can be handed to an aggregator
        refs, options = list(events), {"fetch_local": False} if pending else {}
        # not for long: a signal is heard between two waits
        patience = min(1.0, self.config.env.deadline / 4)
        try:
            ready, _ = self.ray.wait(refs, num_returns=1, timeout=patience, **options)
        except (
            SystemError
        ) as error:  # a signal's handler has raised inside, and Ray returned as if it had not
            raise error.__cause__ or error from None
        if ready:
            ready, _ = self.ray.wait(refs, num_returns=len(refs), timeout=0, **options)
            self._idle = time.monotonic()
        elif time.monotonic() - self._idle > PATIENCE:
            self._tell_who_is_missing()
        for ref in ready:
            event = events[ref]
            if isinstance(event, Member):
                self._receive(event, ref)
            elif isinstance(event, Bundle):
                self._receive_bundle(event)
        self._replace_stopped()

    def _replace_stopped(self) -> None:
        """Replace workers of this machine that were stopped: they neither answer nor die."""
        deadline = self.config.env.deadline
        for member in self.members:
            here = member.pid and member.node == self._node
            if here and member.up and member.chunks and self._still.seconds(member.pid) > deadline:
                os.kill(member.pid, signal.SIGKILL)  # Ray's own way asks the process to end itself
                why = f"no answer in {deadline:g} s (env.deadline): its process {member.pid} was stopped"
                self._replace(member, why, failed=False)

    def _receive(self, member: Member, ref: ObjectRef) -> None:
        """Take the answer of a worker, or replace the worker."""
        errors = self.ray.exceptions
        try:
            value = self.ray.get(ref)
        except errors.RuntimeEnvSetupError as error:
            raise ConfigError(f"ray.runtime_env={self.config.ray.runtime_env}: {error}") from error
        except errors.RayTaskError as error:  # no worker answers so: what it needs is not there
            self._replace(member, str(error), failed=True)
            return
        except errors.RayError as error:
            self._replace(member, " ".join(str(error).split()), failed=False)
            return
        if not member.up and "failure" not in value:
            member.starting, member.pid, member.node = None, value["pid"], value["node"]
            if value["warning"]:
                self.say(f"warning: {value['warning']}")
        else:
            self._take(member, value)

    def _receive_bundle(self, bundle: Bundle) -> None:
        """Take what an aggregator answered; where it died its chunks are waited for directly."""
        assert self.tree is not None, "nobody makes bundles"
        found, why = self.tree.receive(bundle)
        if why:
            where = f"the aggregator of node {bundle.node[:8]}"
            self.say(f"{where} died; {len(bundle.chunks)} chunks are taken directly, nothing is lost: {why}")
            self.deaths += 1
            self._spend(where, failed=False)
        for chunk, value in found:
            member = self.members[chunk.worker]
            if member.chunks and member.chunks[0] is chunk:  # not if the worker was replaced meanwhile
                self._take(member, value)

    def _take(self, member: Member, value: Collected | Failure) -> None:
        """Take what a worker answered to its oldest call."""
        if "failure" in value:
            self._replace(member, value["failure"], failed=not value["died"])
            return
        chunk = member.chunks.popleft()
        chunk.value, chunk.ref = value, None
        member.mark, member.origin, member.skip = (value["step"], value["episode"]), None, 0
        self.rows["arrived"] += chunk.rows
        self.arrived.append(chunk)

    def _replace(self, member: Member, why: str, failed: bool) -> None:
        """Report what is lost, and start another actor in the member's place while the budget lasts."""
        lost = sum(chunk.rows for chunk in member.chunks)
        # an episode has a row at least: none of those that were begun is begun again, so one in which an environment
        # fails every time is left behind
        member.skip += lost // self.lanes + 1
        member.chunks.clear()
        self.rows["lost"] += lost
        self.failures, self.deaths = self.failures + failed, self.deaths + (not failed)
        first = member.index * self.lanes
        where = f"worker {member.index} (lanes {first} to {first + self.lanes - 1})"
        self.say(f"{where} {'failed' if failed else 'died'}, and {lost} rows are lost: {why}")
        self._spend(where, failed)
        with contextlib.suppress(Exception):
            self.ray.kill(member.handle)
        self._launch(member)

    def _spend(self, where: str, failed: bool) -> None:
        """Say that what died or failed is replaced, or raise WorkersLost where the budget is used up."""
        source = self.config.source
        count, limit, name = (
            (self.failures, source.max_failures, "max_failures")
            if failed
            else (self.deaths, source.max_restarts, "max_restarts")
        )
        if 0 <= limit < count:
            raise WorkersLost(
                f"{where} {'failed' if failed else 'died'}, as reported above; source.{name}={limit} replacements "
                f"are used up; type source.{name}=NUMBER for more (-1: any number)"
            )
        self.say(f"{where} is replaced ({count} of {limit if limit >= 0 else 'any'}, source.{name})")

    def _tell_who_is_missing(self) -> None:
        """Say which workers have not started, and what they need."""
        self._idle = time.monotonic()
        missing = [member.index for member in self.members if not member.up]
        if missing:
            source = self.config.source
            beside = ""
            if source.inference == "shared":
                each = f"{source.cpus_per_env_actor:g} cores each"
                beside = f", and beside it {source.env_actors} environment actors of {each}"
            offered = self.ray.available_resources()
            free = {name: offered.get(name, 0.0) for name in ("CPU", "GPU", *source.resources)}
            self.say(
                f"waiting for workers {missing} to start: each needs {source.cpus_per_worker:g} cores, "
                f"{source.gpus_per_worker:g} GPUs and {source.resources or 'nothing else'}{beside}; free are {free}"
            )

    def states(self) -> list[Saved]:
        """The state of every worker between two chunks; waits for workers that are being replaced."""
        while True:
            while self.up < len(self.members):
                self.wait()
            refs = [member.handle.state_dict.remote() for member in self.members]
            found = []
            for member, ref in zip(self.members, refs, strict=True):
                try:
                    found.append(self.ray.get(ref))
                except self.ray.exceptions.RayError as error:
                    self._replace(member, " ".join(str(error).split()), failed=False)
            if len(found) == len(refs):
                return found

    def close(self) -> None:
        """End the actors, and Ray where it was started here; idempotent."""
        if not self.open:
            return
        self.open = False
        for member in self.members:
            if member.pid and member.node == self._node:
                wake(member.pid)
            with contextlib.suppress(Exception):
                self.ray.kill(member.handle)
        if self.tree is not None:
            self.tree.close()
        if self.connected:
            self.ray.shutdown()


def connect(config: RunConfig) -> tuple[ModuleType, bool]:
    """(the module `ray`, whether it was connected here), connected as config.ray says.

    A Ray that the program has connected already is used as it is. Raises ConfigError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's own 15 lets workers wait for whatever else runs here
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        with local_only() if config.ray.address == "local" else contextlib.nullcontext():
            import ray

            if ray.is_initialized():
                return ray, False
            before = signal.getsignal(signal.SIGTERM)
            _knock(config.ray.address)
            try:
                ray.init(**_arguments(config))
            except BaseException:
                ray.shutdown()
                raise
            finally:
                # Ray's own handler would end the process without saving the run
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGTERM, before)
    except ImportError as error:
        raise ConfigError(f"source=ray: {error}; type pip install ray, or source=sync") from error
    except (OSError, ValueError, RuntimeError) as error:  # OSError: refused, unknown host, timeout
        raise ConfigError(
            f"ray.address={config.ray.address}: {' '.join(str(error).split())}; allowed: local, auto (where "
            "`ray start` was run on this machine), HOST:PORT"
        ) from error
    return ray, True


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray itself tries for minutes. ValueError: PORT is no number."""
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


def _arguments(config: RunConfig) -> dict[str, Any]:
    """The arguments of ray.init."""
    common = {
        "address": config.ray.address,
        "runtime_env": config.ray.runtime_env or None,
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,  # what happens to workers is told by the fleet
    }
    if config.ray.address != "local":
        return common
    source = config.source
    each = source.cpus_per_worker
    if source.inference == "shared":
        each += source.env_actors * source.cpus_per_env_actor
    return common | {
        "num_cpus": max(cores(), math.ceil(source.workers * each)),
        "include_dashboard": False,
        "object_store_memory": config.ray.memory * 2**20 or None,
        "_node_ip_address": "127.0.0.1",
    }


@contextlib.contextmanager
def local_only() -> Iterator[None]:
    """Have a Ray that is started inside listen on the loopback alone, and 127.0.0.1 mean the loopback."""
    from ray._private import ray_constants as constants

    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": no cluster, so no other address, on any system
    before, enabled = os.environ.get(name), constants.ENABLE_RAY_CLUSTER
    # for the processes that Ray starts, and for this one, which read it when it imported Ray
    os.environ[name], constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = enabled
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
