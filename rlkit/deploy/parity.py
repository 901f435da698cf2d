"""Whether a policy does what the agent did: the steps in parity.npz, replayed.

    obs, obs.<entry>     [T, ...]   what the agent saw, one step after the other
    first                [T]        where an episode opens
    action               [T, ...]   the greedy actions
    memory_steps         [M]        the steps after which the memory was recorded
    memory.<i>           [M, ...]   the memory of the greedy policy there
    noise                [S, k]     uniforms, and
    sampled              [S, ...]   the actions that they draw, with a memory of their own

The loop is closed: the memory is the one that this policy has made itself. Continuous actions may differ by 1e-5 of
their range, memory by 1e-4 of its size (or of 1). Choices may differ where the graph compares two numbers that are
closer than 1e-5.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from rlkit.deploy.graph import LARGEST_FILE, GraphError
from rlkit.deploy.program import FAULTS
from rlkit.spaces import Array, Box, Space, columns, leaves

if TYPE_CHECKING:
    from rlkit.deploy.runtime import Folder, Policy

NEAR, MEMORY = 1e-5, 1e-4


def recorded(folder: Folder) -> dict[str, Array]:
    """parity.npz of an exported folder. Raises GraphError."""
    data = folder.read("parity.npz")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(each.file_size for each in archive.infolist()) > LARGEST_FILE:
                raise GraphError("parity.npz holds too much")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (*FAULTS, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise GraphError(f"parity.npz is damaged: {type(error).__name__}") from error


def replay(policy: Policy) -> str:
    """What differs first between a policy and the recorded steps; "" where nothing does. Raises GraphError."""
    record = recorded(policy.folder)
    try:
        return _greedy(policy, record) or _sampled(policy, record)
    except GraphError:
        raise
    except FAULTS as error:
        raise GraphError(f"parity.npz is damaged: {type(error).__name__}: {error}") from error


def _rows(policy: Policy, record: dict[str, Array], step: int) -> dict[str, Array]:
    """What was seen in a step, as rows of one lane."""
    names = [entry.name for entry in policy.reader.entries]
    return {name: record[f"obs.{name}" if name else "obs"][step : step + 1] for name in names}


def _greedy(policy: Policy, record: dict[str, Array]) -> str:
    state, checked = policy.opening(1), record["memory_steps"].tolist()
    for step in range(len(record["first"])):
        rows, first = _rows(policy, record, step), record["first"][step : step + 1]
        action, after = policy.run(rows, first, state)
        wrong = apart(policy.reader.action, record["action"][step], action[0])
        if wrong and (not wrong.choice or policy.margin(rows, first, state) > NEAR):
            return f"step {step}, output action{wrong}"
        state = after
        if step in checked:
            for (name, _, _), x in zip(policy.memory, state, strict=True):
                wrong = _memory(record[name][checked.index(step)], x[0])
                if wrong:
                    return f"step {step}, output {name.replace('memory', 'memory_out', 1)}{wrong}"
    return ""


def _sampled(policy: Policy, record: dict[str, Array]) -> str:
    state = policy.opening(1)
    for step, noise in enumerate(record["noise"]):
        rows, first = _rows(policy, record, step), record["first"][step : step + 1]
        action, after = policy.run(rows, first, state, noise[None])
        wrong = apart(policy.reader.action, record["sampled"][step], action[0])
        if wrong and (not wrong.choice or policy.margin(rows, first, state, noise[None]) > NEAR):
            return f"step {step} with noise, output action{wrong}"
        state = after
    return ""


class Apart(str):
    """Where two arrays differ, in words: "[2]: 0.5, and the agent had 0.25". choice: in whole numbers alone."""

    choice = False


def apart(space: Space, wanted: Array, found: Array) -> Apart:
    """How an action differs from the agent's; "" where it does not."""
    scale, whole = scales(space)
    wide = wanted.astype(np.float64).ravel()
    off = np.abs(wide - found.astype(np.float64).ravel())
    allowed = np.where(whole, 0.0, NEAR * np.where(np.isfinite(scale), scale, np.maximum(np.abs(wide), 1)))
    return _words(wanted, found, ~(off <= allowed), whole)


def _memory(wanted: Array, found: Array) -> Apart:
    wide = wanted.astype(np.float64).ravel()
    off = np.abs(wide - found.astype(np.float64).ravel())
    wrong = ~(off <= (MEMORY * np.maximum(np.abs(wide), 1) if wanted.dtype.kind == "f" else 0))
    return _words(wanted, found, wrong, np.zeros(len(wide), bool))


def _words(wanted: Array, found: Array, wrong: Array, whole: Array) -> Apart:
    if not wrong.any():
        return Apart("")
    place = int(np.argmax(wrong))
    index = f"[{place}]" if wanted.ndim else ""
    words = Apart(
        f"{index}: {found.ravel()[place].item()!r}, and the agent had {wanted.ravel()[place].item()!r}"
    )
    words.choice = not (wrong & ~whole).any()
    return words


def scales(space: Space) -> tuple[Array, Array]:
    """Of every number of an action: its range (infinite where it has none), and whether it is a choice."""
    ranges, whole = [], []
    for _, leaf in leaves(space):
        count = columns(leaf)
        continuous = isinstance(leaf, Box)
        low, high = (leaf.low, leaf.high) if isinstance(leaf, Box) else (0.0, 0.0)
        ranges.append(np.broadcast_to(np.subtract(high, low), leaf.shape).reshape(count))
        whole.append(np.full(count, not continuous))
    return np.concatenate(ranges), np.concatenate(whole)
