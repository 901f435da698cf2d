"""What a trained policy offers a program around it, whatever computes it: torch (rlkit.load) or NumPy (rlkit.runtime).

    action, state = policy(obs, state)                          one simulation; memory is a value, None opens an episode
    actions, states = policy.batch(obs, states, first)          many at once, [lanes, ...]
    session = policy.session()                                  an object that keeps the memory
    actions, states = policy.predict(obs, state, starts, True)  the signature of Stable-Baselines3
    obs = policy.prepare(frame)                                 a raw frame as the environment in training showed it

NumPy alone is imported here.
"""

from __future__ import annotations

import io
import zipfile
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from rlkit.reading import Reader, native_actions
from rlkit.spaces import Array, native_action

S = TypeVar("S")  # the memory of a policy, as a value
Info: TypeAlias = dict[str, Any]  # what policy.json of an exported folder holds
Part = tuple[tuple[int, ...], Any]  # of a memory: shape and dtype


class Embedded(ABC, Generic[S]):
    """A policy outside training. Calls change nothing, so any number of threads may make them."""

    reader: Reader
    _single: list[Part] | None = None  # `shapes` of a memory of one lane

    @abstractmethod
    def opening(self, lanes: int) -> S:
        """Memory before any observation."""

    @abstractmethod
    def step(self, rows: dict[str, Array], first: Array, state: S, greedy: bool) -> tuple[Array, S]:
        """rows [lanes, ...] by entry, first [lanes] bool -> actions [lanes, ...] in the environment's units, memory."""

    @abstractmethod
    def shapes(self, state: Any) -> list[Part]:
        """Shape and dtype of every part of a memory. Raises TypeError, AttributeError where it is none."""

    @abstractmethod
    def to_arrays(self, state: S) -> list[Array]:
        """The parts of a memory."""

    @abstractmethod
    def from_arrays(self, arrays: list[Array]) -> S:
        """Inverse of `to_arrays`."""

    @abstractmethod
    def prepare(self, frame: Any) -> Array:
        """A raw frame as the environment in training showed it (env.gray, env.size). Raises ValueError."""

    def __call__(self, obs: Any, state: S | None = None, *, greedy: bool = True) -> tuple[Any, S]:
        """One decision.

        obs: as the (wrapped) environment gives it, with the entry action_mask where one was there in training; state:
        what the last call returned, None to open an episode. greedy=False samples. Returns the action in the
        environment's units and structure, and state. Raises ValueError for observations that training cannot have
        shown and for a state of another policy.
        """
        rows = self.reader.row(obs)
        if state is not None:
            self.check_state(state, 1)
        action, after = self.step(
            rows, _FIRST if state is None else _LATER, self.opening(1) if state is None else state, greedy
        )
        return native_action(self.reader.action, action[0]), after

    def batch(
        self, obs: Any, states: S | None = None, first: Any = None, *, greedy: bool = True
    ) -> tuple[Any, S]:
        """Decisions of several simulations: every entry of obs [lanes, ...] -> actions [lanes, ...], states.

        states: what the last call returned, None to open episodes in all lanes. first [lanes] bool: lanes that open an
        episode with this observation; their memory is cleared. Lanes do not depend on one another.
        """
        rows = self.reader.rows(obs)
        lanes = len(next(iter(rows.values())))
        if first is None:
            first = np.full(lanes, states is None)
        starts = np.array(first, bool)
        if starts.shape != (lanes,):
            raise ValueError(
                f"first has shape {starts.shape}; this batch has {lanes} lanes: shape ({lanes},) is read"
            )
        if states is None:
            states, starts = self.opening(lanes), np.ones(lanes, bool)
        else:
            self.check_state(states, lanes)
        actions, after = self.step(rows, starts, states, greedy)
        return native_actions(self.reader.action, actions), after

    def predict(
        self, observation: Any, state: S | None = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, S]:
        """The action as Stable-Baselines3 returns it: [lanes, ...] for observations with an axis of lanes, else one.

        state: None, or what the last call returned; episode_start: [lanes] bool (or one for one observation).
        """
        if self.reader.is_batch(observation):
            return self.batch(observation, state, episode_start, greedy=deterministic)
        rows = self.reader.row(observation)
        if state is not None:
            self.check_state(state, 1)
        opens = state is None or (episode_start is not None and bool(np.all(episode_start)))
        action, after = self.step(
            rows, _FIRST if opens else _LATER, self.opening(1) if state is None else state, deterministic
        )
        found = native_action(self.reader.action, action[0])
        return found if isinstance(found, dict | tuple) else np.asarray(found), after

    def session(self, *, greedy: bool = True) -> Session[S]:
        """One simulation whose memory is kept for it."""
        return Session(self, greedy)

    def check_state(self, state: Any, lanes: int) -> None:
        """Raise ValueError where a memory is not one of this policy for so many lanes."""
        try:
            given: list[Part] | None = self.shapes(state)
        except (TypeError, AttributeError):
            given = None
        wanted = self._wanted(lanes)
        if given == wanted:
            return
        if given is None or len(given) != len(wanted):
            count = f"{len(given)} parts" if given is not None else f"a {type(state).__name__}"
            raise ValueError(
                f"the state is {count}; this policy remembers {len(wanted)} parts: it is of another policy (None "
                "opens an episode)"
            )
        number = next(i for i, parts in enumerate(zip(wanted, given, strict=True)) if parts[0] != parts[1])
        (shape, dtype), (ours, its) = given[number], wanted[number]
        raise ValueError(
            f"part {number} of the state has shape {tuple(shape)} of {dtype}; for {lanes} lanes this policy's has "
            f"{tuple(ours)} of {its}: it is a state of another policy, or of another number of lanes (None opens an "
            "episode)"
        )

    def _wanted(self, lanes: int) -> list[Part]:
        """`shapes` of a memory of so many lanes."""
        if self._single is None:
            self._single = self.shapes(self.opening(1))
        if lanes == 1:
            return self._single
        return [((lanes, *shape[1:]), dtype) for shape, dtype in self._single]


_FIRST, _LATER = np.array([True]), np.array([False])
for _each in (_FIRST, _LATER):
    _each.setflags(write=False)


class Session(Generic[S]):
    """A policy and the memory of one simulation."""

    def __init__(self, policy: Embedded[S], greedy: bool = True) -> None:
        self.policy, self.greedy = policy, greedy
        self.state: S | None = None

    def reset(self) -> None:
        """The next observation opens an episode."""
        self.state = None

    def act(self, obs: Any) -> Any:
        """The action for an observation; what it says is remembered. An observation that is refused changes nothing."""
        action, self.state = self.policy(obs, self.state, greedy=self.greedy)
        return action

    def save(self) -> bytes:
        """The memory as the bytes of an npz file."""
        file = io.BytesIO()
        arrays = [] if self.state is None else self.policy.to_arrays(self.state)
        named: dict[str, Any] = {f"memory.{i}": x for i, x in enumerate(arrays)}
        np.savez(file, opened=np.array(self.state is not None), **named)
        return file.getvalue()

    def load(self, data: bytes) -> None:
        """Continue from `save`'s bytes. Raises ValueError where they are not those of a memory of this policy."""
        parts = self.policy.to_arrays(self.policy.opening(1))
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                size = sum(each.file_size for each in archive.infolist())
            if size > 2 * sum(part.nbytes for part in parts) + 1024 * (len(parts) + 1):
                raise ValueError(f"{size:,} bytes")
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = [file[f"memory.{i}"] for i in range(len(file.files) - 1)]
                opened = bool(file["opened"])
            state = self.policy.from_arrays(arrays) if opened else None
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"the bytes are no saved memory of this policy: {error}") from error
        if state is not None:
            self.policy.check_state(state, 1)
        self.state = state
