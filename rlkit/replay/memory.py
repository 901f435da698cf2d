"""Replay: experience that is learned from many times.

Rows of N lanes are kept as they were collected (`rlkit.replay.ring`). What is drawn starts at a row t of a lane:

    memoryless      one transition over m <= n_step steps; m is less at the end of an episode and at the newest rows
                        (o_t, a_t)  ->  sum_{i<m} gamma^i r_{t+i},  o_{t+m},  discount gamma^m (1 - terminated)
    with memory     L = burn_in + sequence rows from a row whose core state was stored when the policy acted there
                    (Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", ICLR
                    2019); starts lie about sequence / 2 rows apart, so sequences overlap

Every real transition (every complete sequence) is equally likely, or likely by its priority (`priorities.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rlkit.config.schema import ReplayConfig
from rlkit.machine import gib
from rlkit.options import ConfigError
from rlkit.replay.priorities import Floats, SumTree
from rlkit.replay.ring import FLAGS, Field, Layout, Ring, fitting
from rlkit.replay.sampling import Array, Batches, Shape, draw
from rlkit.types import Batch, Lanes, Obs, Rollout, State, empty_rows, tree_leaves, tree_map

if TYPE_CHECKING:
    from rlkit.contracts import Policy

ETA = 0.9  # a sequence's error is eta max_t |td_t| + (1 - eta) mean_t |td_t| (R2D2)
CHUNK = 1 << 18  # bytes of uniform batches drawn at once: what stays in a cache
COUNTERS = ("collected", "valid", "written", "_begun", "_low", "_high", "_drawn")


class Replay:
    """The last `config.capacity` rows of `lanes` lanes, on the host; batches of them go to `device`.

    policy: the one that acts; its spec, actions and memory give the shapes, and `memoryless` says whether transitions
    or sequences are drawn. steps: rows of the rollouts to come (others may come too). folder: its own, for
    storage=disk. Raises ConfigError where the sizes do not fit each other or the machine.
    """

    def __init__(
        self,
        config: ReplayConfig,
        policy: Policy,
        *,
        lanes: int,
        steps: int,
        gamma: float,
        seed: int = 0,
        device: torch.device | str = "cpu",
        folder: Path = Path("replay"),
    ) -> None:
        self.config, self.lanes, self.steps = config, lanes, steps
        self.device = torch.device(device)
        self.memory = not policy.memoryless
        warm, length = (config.burn_in, config.sequence) if self.memory else (0, 1)
        self.shape = Shape(self.memory, warm, length, policy.spec.stack, config.n_step, gamma)
        self.batch = max(config.batch // config.sequence, 1) if self.memory else config.batch  # B
        self.rows = config.capacity // lanes  # R, of each lane that can be drawn from
        # rows between two starts: a whole number of rollouts
        self.spacing = -(-max(config.sequence // 2, 1) // steps) * steps
        self._check_sizes()
        prototype = _prototype(policy)
        layout = fitting(lambda capacity: self._layout(prototype, capacity), config.capacity, lanes, folder)
        self.ring = Ring(layout, folder)
        self._initial: State = policy.initial_state(Lanes(self.batch), self.device)
        self._at_once = max(CHUNK // (self.batch * self.shape.frames * layout.item_bytes), 1)
        self._key = np.uint64(np.random.SeedSequence([seed, 0x7265706C]).generate_state(1, np.uint64)[0])
        self._none = np.zeros(max(layout.starts * lanes, 1), bool)
        self._batches: Batches | None = None
        items = (layout.starts if self.memory else layout.rows) * lanes
        self.tree = SumTree(items, config.alpha) if config.alpha > 0 else None
        self.due = 0  # updates that the agent owes now
        self.collected = 0  # transitions ever added
        self.valid = 0  # transitions that can be drawn
        self.written = 0  # W: rows added to each lane, not counting the newest
        self._begun = 0  # starts ever stored, of which those numbered [low, high) can be drawn
        self._low = self._high = 0
        self._drawn = 0  # random numbers used
        self._ratio = Fraction(str(config.ratio)).as_integer_ratio()
        self._touched = 0  # the newest row that was ever written to
        self._kept = 0  # the oldest row that the latest snapshot speaks of

    def _check_sizes(self) -> None:
        config, lanes = self.config, self.lanes
        least = max(self.steps, config.n_step)
        if self.memory:
            if self.steps > config.sequence:
                raise ConfigError(
                    f"agent.steps={self.steps}: a network with memory learns from agent.replay.sequence="
                    f"{config.sequence} rows of each rollout; type agent.steps={config.sequence} or less, "
                    "or a larger agent.replay.sequence"
                )
            least = self.shape.steps + self.spacing + self.steps
        if self.rows < least:
            raise ConfigError(
                f"agent.replay.capacity={config.capacity}: too small for {lanes} lanes; "
                f"type agent.replay.capacity={least * lanes} or more"
            )

    def _layout(self, prototype: tuple[Obs, Tensor, State], capacity: int) -> Layout:
        """The ring of `capacity` transitions."""
        config, rows = self.config, capacity // self.lanes
        obs, action, state = prototype
        slack = max(2 * self.steps, rows // 32)
        places = rows + slack + self.shape.stack
        fields = [_field(f"obs/{name}", x) for name, x in _leaves(obs).items()] + [_field("action", action)]
        fields += [Field(name, (), "bool", False) for name in FLAGS] + [Field("reward", (), "float32", False)]
        states = (
            [_field(f"state/{i}", x) for i, x in enumerate(tree_leaves(state[1:]))] if self.memory else []
        )
        starts = (rows + slack) // self.spacing + 2 if self.memory else 0
        items = (starts if self.memory else places) * self.lanes
        beside = SumTree.bytes(items) if config.alpha > 0 else 0
        return Layout(
            places, self.lanes, tuple(fields), starts, tuple(states), config.storage == "disk", beside
        )

    @property
    def statement(self) -> str:
        """What the memory takes, for people."""
        memory, disk = self.ring.layout.bytes
        kept = f"{gib(memory)} in memory" + (f", {gib(disk)} on disk" if disk else "")
        return f"replay: {self.rows * self.lanes:,} transitions, {kept}"

    @property
    def ready(self) -> bool:
        """The warm-up is over and there is something to draw."""
        return self.collected >= self.config.warmup and self.items > 0

    @property
    def items(self) -> int:
        """Transitions (with memory: sequences) that can be drawn."""
        return (self._high - self._low) * self.lanes if self.memory else self.valid

    @property
    def oldest(self) -> int:
        """The first row that can be drawn from."""
        return max(self.written - self.rows, 0)

    def add(self, rollout: Rollout) -> None:
        """Copy the T rows of a rollout of all lanes, which goes on where the one before ended, and set `due`."""
        steps, lanes = rollout.size
        if lanes != self.lanes or steps > self.rows:
            raise ValueError(
                f"a rollout of {steps} steps of {lanes} lanes; allowed: up to {self.rows} steps of {self.lanes} lanes"
            )
        ring, row = self.ring, self.written
        first, last = _array(rollout.first), _array(rollout.last)  # [T+1, N]
        self._touched = row + steps
        self._end_lost(first[0])
        oldest, after = self.oldest, max(row + steps - self.rows, 0)
        if after > oldest:
            gone = ring.get("last", oldest, after - oldest)
            self.valid -= gone.size - int(np.count_nonzero(gone))
        obs = _leaves(rollout.obs)
        values = {
            "first": first,
            "last": last,
            "action": _array(rollout.action),
            "reward": _array(rollout.reward),
            "terminated": _array(rollout.terminated),
            **{f"obs/{name}": _array(x) for name, x in obs.items()},
        }
        ring.put(row, values)
        if self.memory:
            self._add_start(rollout.state)
        fresh = steps * lanes - int(np.count_nonzero(last[:-1]))
        self.valid += fresh
        self.written = row + steps
        if self.memory:
            self._move_starts()
        elif self.tree is not None:
            self._prioritise_rows(oldest, after, last)
        before = self._owed()
        self.collected += fresh
        self.due = self._owed() - before if self.ready else 0

    def _owed(self) -> int:
        """Updates for all transitions so far: floor(ratio (collected - warmup)), exactly."""
        updates, transitions = self._ratio
        return updates * max(self.collected - self.config.warmup, 0) // transitions

    def _end_lost(self, first: Array) -> None:
        """A lane that was opened anew (first [N]; a resume, a lost worker) never made the step to its newest row.

        The row before that one then closes its episode.
        """
        if not self.written:
            return
        fields, places = self.ring.fields, self.ring.layout.rows
        place, before = self.written % places, (self.written - 1) % places
        lost = first & ~fields["first"][place] & ~fields["last"][before]
        if lost.any():
            self.valid -= int(lost.sum())
            fields["last"][before] |= lost
            if self.tree is not None and not self.memory:
                for lane in np.flatnonzero(lost):
                    self.tree.put(before * self.lanes + int(lane), np.zeros(1))

    def _add_start(self, state: State) -> None:
        """Keep the memory before row W if the latest start is far enough behind."""
        ring = self.ring
        if self._begun and self.written - ring.start[(self._begun - 1) % len(ring.start)] < self.spacing:
            return
        slot = self._begun % len(ring.start)
        for array, x in zip(ring.states, tree_leaves(state[1:]), strict=True):
            array[slot] = _array(x)
        ring.start[slot] = self.written
        self._begun += 1

    def _move_starts(self) -> None:
        """Follow which starts can be drawn: those of whole sequences."""
        start, low, high = self.ring.start, self._low, self._high
        while self._high < self._begun and start[self._high % len(start)] + self.shape.steps <= self.written:
            self._high += 1
        while self._low < self._high and start[self._low % len(start)] < self.oldest:
            self._low += 1
        if self.tree is not None:
            self._put(high, np.full((self._high - high, self.lanes), self.tree.largest))
            self._put(low, np.zeros((self._low - low, self.lanes)))

    def _prioritise_rows(self, oldest: int, after: int, last: Array) -> None:
        """New transitions get the largest priority so far, those that fell out none. last [T+1, N]."""
        assert self.tree is not None, "no priorities"
        self._put(oldest, np.zeros((after - oldest, self.lanes)))
        self._put(self.written - len(last) + 1, self.tree.largest * ~last[:-1])

    def _put(self, number: int, priority: Floats) -> None:
        """Set the priorities of the rows (starts) from `number` on to `priority` [K, N]."""
        assert self.tree is not None, "no priorities"
        places = len(self.ring.start) if self.memory else self.ring.layout.rows
        begin = number % places
        fit = places - begin
        for place, part in ((begin, priority[:fit]), (0, priority[fit:])):
            if len(part):
                self.tree.put(place * self.lanes, part.ravel())

    def batches(self, progress: float) -> Iterator[Batch]:
        """The batches of the updates that are due, on the device; `progress` in [0, 1] moves beta to 1.

        Each is to be used up before the next is taken, whose numbers go into the same tensors. Of a memoryless batch
        `first` says False: the frame history is complete. Importance weights are divided by the largest of the batch,
        and ones where drawing is uniform.
        """
        left = self.due
        while left > 0:
            batches = self._fill(left, progress)
            left -= len(batches)
            yield from batches

    def prioritise(self, index: Tensor, td: Tensor) -> None:
        """Priorities of drawn items index [B] from their TD errors: td [B], or [rows, B] of sequences.

        Of [rows, B] the error is 0.9 max |td| + 0.1 mean |td| over the rows. Does nothing where alpha is 0.
        """
        if self.tree is None:
            return
        error = td.detach().abs()
        if error.dim() == 2:
            # eta max_t |td_t| + (1 - eta) mean_t |td_t|
            error = ETA * error.amax(0) + (1 - ETA) * error.mean(0)
        self.tree.update(_array(index), _array(error.float()))

    def _fill(self, wanted: int, progress: float) -> list[Batch]:
        """Up to `wanted` batches: those that fit, or one where learning from it changes what is drawn next."""
        count = 1 if self.tree is not None else min(wanted, self._at_once)
        if self._batches is None or self._batches.depth < count:
            self._batches = Batches(self.ring, self.shape, count, self.batch, self.device, self._initial)
        batches = self._batches
        batches.wait()
        self._draw(batches.host["index"][:count], batches.host["weight"][:count], progress)
        batches.fill(count, self.written)
        return batches.views[:count]

    def _draw(self, index: Array, weight: Array, progress: float) -> None:
        """Fill index [D, B] and weight [D, B]."""
        if self.tree is not None:
            self.tree.draw(self._key, self._drawn, index[0])
            self._drawn += index.size
            beta = self.config.beta + (1 - self.config.beta) * progress
            weight[0] = self.tree.weights(index[0], self.items, beta)
            return
        ring = self.ring
        if self.memory:
            span, places, refused = (self._low, self._high), len(ring.start), self._none
        else:
            span, places = (self.oldest, self.written), ring.layout.rows
            refused = ring.fields["last"].reshape(-1)
        self._drawn = draw(self._key, self._drawn, *span, places, self.lanes, refused, index.reshape(-1))

    @property
    def urgent(self) -> bool:
        """Whether the next rollout overwrites rows that the latest snapshot speaks of."""
        return self._kept + self.ring.layout.rows <= self.written + self.steps

    def snapshot(self) -> dict[str, Any]:
        """What the memory is, but for the rows: these stay where they are until the memory is `urgent`."""
        self._kept = max(self.oldest - self.shape.stack + 1, 0)
        return {
            "places": self.ring.layout.rows,
            "lanes": self.lanes,
            "starts": self.ring.layout.starts,
            **{name: getattr(self, name) for name in COUNTERS},
            "priorities": None if self.tree is None else self.tree.leaves.copy(),
            "largest": None if self.tree is None else self.tree.largest,
        }

    def saved(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        """The rows that the latest snapshot speaks of, among others; views."""
        ring, written = self.ring, snapshot["written"]
        assert self._kept + ring.layout.rows > self._touched, "rows of the snapshot are overwritten"
        places = min(written + 1, ring.layout.rows) if written else 0
        starts = min(snapshot["_begun"], ring.layout.starts)
        return {
            "fields": {name: array[:places] for name, array in ring.fields.items()},
            "states": [array[:starts] for array in ring.states],
            "start": ring.start[:starts],
        }

    def load(self, snapshot: dict[str, Any], saved: dict[str, Any]) -> None:
        """Continue from a snapshot and its rows. Raises ConfigError where they are of a memory of another size."""
        ring, layout = self.ring, self.ring.layout
        sizes = {"places": layout.rows, "lanes": self.lanes, "starts": layout.starts}
        fits = all(snapshot[name] == size for name, size in sizes.items())
        fits = fits and (snapshot["priorities"] is None) == (self.tree is None)
        if not fits or {*saved["fields"]} != {*ring.fields}:
            raise ConfigError(
                "the replay buffer in the checkpoint has another size than agent.replay, agent.steps and env.lanes in "
                "the run's config.yaml describe; take back what was changed there"
            )
        for name, array in ring.fields.items():
            array[: len(saved["fields"][name])] = saved["fields"][name]
        for array, rows in zip(ring.states, saved["states"], strict=True):
            array[: len(rows)] = rows
        ring.start[: len(saved["start"])] = saved["start"]
        for name in COUNTERS:
            setattr(self, name, snapshot[name])
        if self.tree is not None:
            self.tree.load(snapshot["priorities"], snapshot["largest"])

    def close(self) -> None:
        """Remove what lies on disk."""
        self.ring.close()


def _prototype(policy: Policy) -> tuple[Obs, Tensor, State]:
    """An observation, an action and the memory of one lane: their shapes and dtypes."""
    parameter = next(policy.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    with torch.no_grad():
        obs: Obs = tree_map(torch.zeros_like, empty_rows(policy.spec.observation, (1,), device))
        state = policy.initial_state(Lanes(1), device)
        action, _, _ = policy.act(obs, torch.ones(1, dtype=torch.bool, device=device), state, None)
    return obs, action, state


def _field(name: str, x: Tensor) -> Field:
    """Of a prototype [1, ...]."""
    return Field(name, tuple(x.shape[1:]), str(x.dtype).removeprefix("torch."), large=True)


def _leaves(obs: Obs) -> dict[str, Tensor]:
    return obs if isinstance(obs, dict) else {"": obs}


def _array(x: Tensor) -> Array:
    return x.numpy() if x.is_cpu else x.cpu().numpy()
