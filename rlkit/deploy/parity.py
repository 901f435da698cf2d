"""Whether a policy does what the agent did: the steps in parity.npz, replayed.

    obs, obs.<entry>     [T, ...]   what the agent saw, one step after the other
    first                [T]        where an episode opens
    action               [T, ...]   the greedy actions
    value                [T]        the returns that it expects, where they were exported
    memory_steps         [M]        the steps after which the memory was recorded
    memory.<i>           [M, ...]   the memory of the greedy policy there
    noise                [S, k]     uniforms, and
    sampled              [S, ...]   the actions that they draw, with a memory of their own

The loop is closed: the memory is the one that this policy has made itself. Continuous actions may differ by 1e-5 of
their range (where that is infinite: of the largest one recorded, and of 1 at least), memory and value by 1e-4 of their
size (or of 1). Choices may differ where the graph compares two numbers that are closer than 1e-5.
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
    except GraphError:
        raise
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
    allowed = tolerance(policy.reader.action, record["action"])
    for step in range(len(record["first"])):
        rows, first = _rows(policy, record, step), record["first"][step : step + 1]
        action, after, value = policy.decide(rows, first, state)
        wrong = apart(record["action"][step], action[0], allowed)
        if wrong and (not wrong.choice or policy.margin(rows, first, state) > NEAR):
            return f"step {step}, output action{wrong}"
        wrong = Apart("") if value is None else _near(record["value"][step], value[0])
        if wrong:
            return f"step {step}, output value{wrong}"
        state = after
        if step in checked:
            for (name, _, _), x in zip(policy.memory, state, strict=True):
                wrong = _near(record[name][checked.index(step)], x[0])
                if wrong:
                    return f"step {step}, output {name.replace('memory', 'memory_out', 1)}{wrong}"
    return ""


def _sampled(policy: Policy, record: dict[str, Array]) -> str:
    state, allowed = policy.opening(1), tolerance(policy.reader.action, record["sampled"])
    for step, noise in enumerate(record["noise"]):
        rows, first = _rows(policy, record, step), record["first"][step : step + 1]
        action, after = policy.run(rows, first, state, noise[None])
        wrong = apart(record["sampled"][step], action[0], allowed)
        if wrong and (not wrong.choice or policy.margin(rows, first, state, noise[None]) > NEAR):
            return f"step {step} with noise, output action{wrong}"
        state = after
    return ""


class Apart(str):
    """Where two arrays differ, in words: "[2]: 0.5, and the agent had 0.25". choice: in whole numbers alone."""

    choice = False


def apart(wanted: Array, found: Array, allowed: Array) -> Apart:
    """How an action differs from the agent's by more than is allowed of each number; "" where it does not."""
    off = np.abs(wanted.astype(np.float64).ravel() - found.astype(np.float64).ravel())
    return _words(wanted, found, ~(off <= allowed), allowed == 0)


def _near(wanted: Array, found: Array) -> Apart:
    """How a part of the memory, or a value, differs from the agent's; "" where it does not."""
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


def tolerance(space: Space, actions: Array) -> Array:
    """How far every number of an action may be off; 0 of choices. actions: those that were recorded."""
    allowed, column = [], 0
    wide = np.abs(actions.astype(np.float64)).reshape(len(actions), -1)
    for _, leaf in leaves(space):
        count = columns(leaf)
        if isinstance(leaf, Box):
            span = np.broadcast_to(np.subtract(leaf.high, leaf.low), leaf.shape).ravel()
            largest = np.maximum(wide[:, column : column + count].max(0), 1)
            allowed.append(NEAR * np.where(np.isfinite(span), span, largest))
        else:
            allowed.append(np.zeros(count))
        column += count
    return np.concatenate(allowed)
