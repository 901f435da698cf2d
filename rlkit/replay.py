"""Replay: experience that is learned from many times.

Rows of N lanes are kept as they were collected (`rlkit.ring`). What is drawn starts at a row t of a lane:

    memoryless      one transition over m <= n_step steps; m is less at the end of an episode and at the newest rows
                        (o_t, a_t)  ->  sum_{i<m} gamma^i r_{t+i},  o_{t+m},  discount gamma^m (1 - terminated)
    with memory     L = burn_in + sequence rows from a row whose core state was stored when the policy acted there
                    (Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", ICLR
                    2019); starts lie about sequence / 2 rows apart, so sequences overlap

Every real transition (every complete sequence) is equally likely, or likely by its priority (`rlkit.priorities`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlkit.config import ReplayConfig
from rlkit.options import ConfigError
from rlkit.priorities import Ints, SumTree
from rlkit.ring import FLAGS, Field, Layout, Ring, fitting, gib
from rlkit.sampling import Array, Batches, draw, follow, following, gather, unroll
from rlkit.types import Obs, Rollout, State, empty_rows, tree_leaves, tree_map

__all__ = ["Replay", "following"]

ETA = 0.9  # a sequence's error is eta max_t |td_t| + (1 - eta) mean_t |td_t| (R2D2)
CHUNK = 1 << 24  # bytes of uniform batches that are drawn at once


class Replay:
    """The last `config.capacity` rows of `lanes` lanes, on the host; batches of them go to `device`.

    policy: the one that acts; its spec, actions and memory give the shapes, and policy.network.memoryless says whether
    transitions or sequences are drawn. steps: rows of the rollouts to come (others may come too). folder: its own, for
    storage=disk. Raises ConfigError where the sizes do not fit each other or the machine.
    """

    def __init__(
        self,
        config: ReplayConfig,
        policy: Any,
        *,
        lanes: int,
        steps: int,
        gamma: float,
        seed: int = 0,
        device: torch.device | str = "cpu",
        folder: Path = Path("replay"),
    ) -> None:
        self.config, self.lanes, self.steps, self.gamma = config, lanes, steps, gamma
        self.device = torch.device(device)
        self.memory = not policy.network.memoryless
        self.stack: int = policy.spec.stack
        self.length = config.burn_in + config.sequence if self.memory else 1  # L
        self.agent_rows = config.burn_in if self.memory else 0
        self.batch = max(config.batch // config.sequence, 1) if self.memory else config.batch  # B
        self.rows = config.capacity // lanes  # R, of each lane that can be drawn from
        # rows between two starts: a whole number of rollouts
        self.spacing = -(-max(config.sequence // 2, 1) // steps) * steps
        self._check_sizes()
        prototype = _prototype(policy)
        layout = fitting(lambda capacity: self._layout(prototype, capacity), config.capacity, lanes, folder)
        self.ring = Ring(layout, folder)
        self.initial: State = policy.initial_state(self.batch, self.device)
        self.flat = not isinstance(prototype[0], dict)
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
            least = self.length + self.spacing + self.steps
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
        places = rows + slack + self.stack
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
        if row > 0:
            self._end_lost(first[0])
        oldest, after = self.oldest, max(row + steps - self.rows, 0)
        self.valid -= int((~ring.get("last", oldest, after - oldest)).sum())
        for name, x in _leaves(rollout.obs).items():
            ring.put(f"obs/{name}", row, _array(x))
        for name, values in (("first", first), ("last", last)):
            ring.put(name, row, values)
        for name in ("action", "reward", "terminated"):
            ring.put(name, row, _array(getattr(rollout, name)))
        fresh = int((~last[:-1]).sum())
        if self.memory:
            self._add_start(rollout.state)
        self.valid += fresh
        self.written = row + steps
        if self.memory:
            self._move_starts()
        elif self.tree is not None:
            self._prioritise_rows(oldest, after, last)
        ratio, warmup = Fraction(str(self.config.ratio)), self.config.warmup
        before, now = (ratio * max(n - warmup, 0) // 1 for n in (self.collected, self.collected + fresh))
        self.collected += fresh
        self.due = int(now - before) if self.ready else 0

    def _end_lost(self, first: Array) -> None:
        """Where a lane was opened anew (first [N], but its newest row was not), the step to that row never happened.

        The row before it then ends its episode, untold how.
        """
        fields, places = self.ring.fields, self.ring.layout.rows
        place, before = self.written % places, (self.written - 1) % places
        lost = first & ~fields["first"][place] & ~fields["last"][before]
        if lost.any():
            self.valid -= int(lost.sum())
            fields["last"][before] |= lost
            if self.tree is not None and not self.memory:
                lanes = np.flatnonzero(lost)
                self.tree.put(before * self.lanes + lanes, np.zeros(len(lanes)))

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
        while self._high < self._begun and start[self._high % len(start)] + self.length <= self.written:
            self._high += 1
        while self._low < self._high and start[self._low % len(start)] < self.oldest:
            self._low += 1
        if self.tree is not None:
            self._put(np.arange(high, self._high), self.tree.largest)
            self._put(np.arange(low, self._low), 0.0)

    def _prioritise_rows(self, oldest: int, after: int, last: Array) -> None:
        """New transitions get the largest priority so far, those that fell out none. last [T+1, N]."""
        assert self.tree is not None, "no priorities"
        self._put(np.arange(oldest, after), 0.0)
        self._put(np.arange(self.written - len(last) + 1, self.written), self.tree.largest * ~last[:-1])

    def _put(self, number: Ints, priority: Any) -> None:
        """Set the priorities of rows (starts) `number` [K] of all lanes to `priority` ([K, N] or one number)."""
        assert self.tree is not None, "no priorities"
        places = len(self.ring.start) if self.memory else self.ring.layout.rows
        index = (number % places)[:, None] * self.lanes + np.arange(self.lanes)  # [K, N]
        self.tree.put(index.ravel(), np.broadcast_to(np.float64(priority), index.shape).ravel())

    def batches(self, progress: float) -> Iterator[Rollout]:
        """The batches [L, B] of the updates that are due, on the device; `progress` in [0, 1] moves beta to 1.

        Each is to be used up before the next is taken, whose numbers go into the same tensors. Memoryless (L = 1):

            obs [2, B, ...] = (o_t, o_{t+m}), reward [1, B] summed and discounted, extra["discount"] [1, B] =
            gamma^m (1 - terminated); of stacked frames state[0] is the history of o_t and extra["history"] [B, k-1,
            ...] that of o_{t+m}: network(obs[1:], first[1:], following(batch)). `first` says False: the history is
            complete.

        With memory: obs [L+1, B, ...], `state` before row 0, plain rewards, extra["discount"] [L, B] = gamma (1 -
        terminated); rows before `agent_rows` only warm the memory up. Both: extra["index"] [B] for `prioritise`, and
        extra["weight"] [B], the importance weights divided by their largest, ones where drawing is uniform.
        """
        left = self.due
        while left > 0:
            count = self._fill(left, progress)
            for rollout in self._batches.rollouts[:count]:  # type: ignore[union-attr]
                yield replace(rollout, extra=dict(rollout.extra))
            left -= count

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

    def _fill(self, wanted: int, progress: float) -> int:
        """Draw up to `wanted` batches (one where priorities may change between them); returns how many."""
        fitting = max(CHUNK // max(self._batch_bytes(), 1), 1)
        count = 1 if self.tree is not None else min(wanted, fitting)
        if self._batches is None or self._batches.depth < count:
            self._batches = self._make_batches(count)
        batches, host = self._batches, self._batches.host
        batches.wait()
        self._draw(host["index"][:count], host["weight"][:count], progress)
        if self.memory:
            self._fill_sequences(host, count)
        else:
            self._fill_transitions(host, count)
        batches.move(count)
        return count

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

    def _fill_transitions(self, host: dict[str, Array], count: int) -> None:
        ring, fields = self.ring, self.ring.fields
        index, rows = host["index"][:count], host["rows"][:count]  # [D, B], [D, R, B]
        newest = self.written % ring.layout.rows * self.lanes
        first, last, terminated = (fields[name].reshape(-1) for name in FLAGS)
        reward, discount, ended = (host[name][:count, 0] for name in ("reward", "discount", "terminated"))
        follow(
            index, newest, self.lanes, self.config.n_step, self.gamma, self.stack, first, last, terminated,
            fields["reward"].reshape(-1), rows, reward, discount, ended,
        )  # fmt: skip
        for name, array in ring.obs.items():
            gather(array, rows, host[f"obs/{name}"][:count])
        gather(fields["action"], index, host["action"][:count, 0])
        host["last"][:count, 1] = last[rows[:, self.stack]]

    def _fill_sequences(self, host: dict[str, Array], count: int) -> None:
        ring, fields = self.ring, self.ring.fields
        index, rows = host["index"][:count], host["rows"][:count]  # [D, B], [D, k-1 + L+1, B]
        unroll(index, ring.start, ring.layout.rows, self.lanes, self.stack, fields["first"].reshape(-1), rows)
        for name, array in ring.obs.items():
            gather(array, rows, host[f"obs/{name}"][:count])
        now = np.ascontiguousarray(rows[:, self.stack - 1 :])  # [D, L+1, B]
        for name in ("first", "last"):
            gather(fields[name], now, host[name][:count])
        now = np.ascontiguousarray(now[:, :-1])  # [D, L, B]
        for name in ("action", "reward", "terminated"):
            gather(fields[name], now, host[name][:count])
        np.multiply(~host["terminated"][:count], np.float32(self.gamma), out=host["discount"][:count])
        for i, array in enumerate(ring.states):
            gather(array, index, host[f"state/{i}"][:count])

    def _frames(self) -> int:
        """Observation rows of one item: for a stack of k, its history too."""
        if self.memory:
            return self.stack - 1 + self.length + 1
        return self.stack + 1 + (self.stack - 1 if self.config.n_step > 1 else 0)

    def _batch_bytes(self) -> int:
        layout = self.ring.layout
        return self.batch * (
            self._frames() * sum(field.bytes for field in layout.fields)
            + sum(field.bytes for field in layout.states)
        )

    def _make_batches(self, depth: int) -> Batches:
        """Room for `depth` batches, and the rollouts that show them."""
        L, B, layout = self.length, self.batch, self.ring.layout
        batches = Batches(depth, self.device)
        for field in layout.fields:
            flag = field.name in ("first", "last")
            rows = self._frames() if field.name.startswith("obs/") else L + flag
            batches.make(field.name, (rows, B, *field.shape), field.dtype)
        for field in layout.states:
            batches.make(field.name, (B, *field.shape), field.dtype)
        batches.make("discount", (L, B), "float32")
        batches.make("index", (B,), "int64")
        batches.make("weight", (B,), "float32")
        batches.host["weight"][:] = 1
        batches.host["rows"] = np.zeros((depth, self._frames(), B), np.int64)
        batches.move(depth)
        batches.rollouts = [self._view(batches.tensors, d) for d in range(depth)]
        return batches

    def _view(self, tensors: dict[str, Tensor], d: int) -> Rollout:
        """Batch number d of the tensors [D, ...]."""
        k, n_step = self.stack, not self.memory and self.config.n_step > 1
        each = {name: x[d] for name, x in tensors.items()}
        frames = {name: each[f"obs/{name}"] for name in self.ring.obs}  # [R, B, ...]
        rows = slice(k - 1, k + 1 if not self.memory else None)
        obs = {name: x[rows] for name, x in frames.items()}
        state, extra = self.initial, {name: each[name] for name in ("discount", "index", "weight")}
        if self.memory:
            leaves = iter([each[field.name] for field in self.ring.layout.states])
            state = (state[0], *tree_map(lambda _: next(leaves), state[1:]))
        if k > 1:
            x = frames[""]
            state = ((x[: k - 1].transpose(0, 1),), *state[1:])
            extra["history"] = (x[k + 1 :] if n_step else x[1:k]).transpose(0, 1)
        return Rollout(
            obs=obs[""] if self.flat else obs,
            first=each["first"],
            last=each["last"],
            action=each["action"],
            reward=each["reward"],
            terminated=each["terminated"],
            state=state,
            extra=extra,
        )


def _prototype(policy: Any) -> tuple[Obs, Tensor, State]:
    """An observation, an action and the memory of one lane: their shapes and dtypes."""
    parameter = next(policy.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    with torch.no_grad():
        obs: Obs = tree_map(torch.zeros_like, empty_rows(policy.spec.observation, (1,), device))
        state = policy.initial_state(1, device)
        action, _, _ = policy.act(obs, torch.ones(1, dtype=torch.bool, device=device), state, None)
    return obs, action, state


def _field(name: str, x: Tensor) -> Field:
    """Of a prototype [1, ...]."""
    return Field(name, tuple(x.shape[1:]), str(x.dtype).removeprefix("torch."), large=True)


def _leaves(obs: Obs) -> dict[str, Tensor]:
    return obs if isinstance(obs, dict) else {"": obs}


def _array(x: Tensor) -> Array:
    return x.numpy() if x.device.type == "cpu" else x.cpu().numpy()
