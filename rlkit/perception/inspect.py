"""What a person should know of a table before a model learns from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from rlkit.images import likely_channels
from rlkit.perception.table import FIRST, GROUP, LABEL, PARTS, Array, Table
from rlkit.spaces import Box, Discrete

PIECE = 1024  # rows that are looked at at once
PALETTE = np.array(
    [(70, 140, 60), (110, 110, 110), (220, 40, 40), (240, 240, 240), (20, 20, 20), (60, 90, 220), (230, 200, 40),
     (160, 60, 200)], np.uint8,
)  # fmt: skip


def findings(table: Table) -> list[str]:
    """Lines about a table: its rows, each column, its parts; those that begin with "warning" should be read."""
    groups = table.groups
    lines = [f"{table.rows:,} rows in {len(np.unique(groups)):,} groups"]
    for part in PARTS:
        index = table.part(part)
        lines.append(f"  {part:<11} {len(index):>9,} rows in {len(np.unique(groups[index])):,} groups")
        if not len(index):
            lines.append(
                f"warning: no row is for {part}; a model needs some: more groups (episodes) are needed"
            )
    for name in table.columns:
        lines += _column(table, name)
    if table.inputs:
        lines += _duplicates(table)
    return lines


def _pieces(array: Array) -> Iterator[Array]:
    return (array[start : start + PIECE] for start in range(0, len(array), PIECE))


def _column(table: Table, name: str) -> list[str]:
    """What one column holds, and what looks wrong in it."""
    array, column = table[name], table.columns[name]
    if name in (GROUP, FIRST) or not len(array):
        return []
    low, high, broken = np.inf, -np.inf, 0
    constant = True
    for piece in _pieces(array):
        numbers = piece.astype(np.float64)
        finite = np.isfinite(numbers)
        broken += int((~finite).sum())
        if finite.any():
            low, high = min(low, float(numbers[finite].min())), max(high, float(numbers[finite].max()))
        constant = constant and bool((piece == array[0]).all())
    lines = [f"  {name:<15} {column.dtype} {column.shape}, from {low:.4g} to {high:.4g}"]
    if broken:
        lines.append(
            f"warning: {broken:,} of {array.size:,} numbers of {name} are NaN or infinite ({broken / array.size:.1%})"
        )
    if constant:
        lines.append(f"warning: {name} is the same in all rows")
    space = column.space
    if isinstance(space, Discrete):
        shares = np.bincount(array.astype(np.int64), minlength=space.n) / len(array)
        lines.append(f"    {_shares(shares)}")
        if name.startswith(LABEL) and shares.max() > 0.95:
            lines.append(
                f"warning: {shares.max():.0%} of the rows have one {name}: a model that says it always is right"
            )
    elif isinstance(space, Box) and space.meaning == "codes" and name.startswith(LABEL):
        counts = np.zeros(int(np.max(space.high)) + 1)
        for piece in _pieces(array):
            counts += np.bincount(piece.ravel(), minlength=len(counts))
        lines.append(f"    of the pixels: {_shares(counts / counts.sum())}")
    return lines


def _shares(shares: Array) -> str:
    """How often each class comes, the most frequent ones of many."""
    order = np.argsort(-shares)[:10]
    more = f" and {len(shares) - 10} others" if len(shares) > 10 else ""
    return ", ".join(f"{int(i)}: {shares[i]:.1%}" for i in sorted(order)) + more


def _duplicates(table: Table) -> list[str]:
    """Rows whose inputs are the same bytes, and whether they are in several parts."""
    sums = np.empty(table.rows, "S16")
    for row in range(table.rows):
        digest = hashlib.blake2b(digest_size=16)
        for name in table.inputs:
            digest.update(np.ascontiguousarray(table[name][row]).tobytes())
        sums[row] = digest.digest().hex()[:16].encode()
    twice = table.rows - len(np.unique(sums))
    if not twice:
        return ["  no two rows show the same"]
    held = np.concatenate([table.part("validation"), table.part("test")])
    leaked = np.isin(sums[held], sums[table.part("training")]).mean() if len(held) else 0.0
    lines = [f"  {twice:,} rows ({twice / table.rows:.1%}) show what an earlier one shows"]
    if leaked > 0.01:
        lines.append(f"warning: {leaked:.1%} of the held-out rows show what a training row shows")
    return lines


def sheet(table: Table, count: int = 16, side: int = 128) -> Array | None:
    """A picture [H, W, 3] of rows with their labels, evenly spaced through the table; None where none is an image."""
    name = next((each for each in table.inputs if _image(table, each)), "")
    if not name or not table.rows:
        return None
    import cv2

    rows = np.linspace(0, table.rows - 1, min(count, table.rows)).astype(int)
    masks = [label for label in table.columns if label.startswith(LABEL) and _mask(table, label)]
    tiles = []
    for row in rows:
        picture = as_rgb(table[name][row])
        views = [picture, *(overlaid(picture, table[mask][row]) for mask in masks[:1])]
        shown = [cv2.resize(view, (side, side), interpolation=cv2.INTER_NEAREST) for view in views]
        caption = np.full((44, side * len(shown), 3), 255, np.uint8)
        for line, text in enumerate(_said(table, int(row))[:3]):
            cv2.putText(
                caption, text, (2, 12 + 14 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA
            )
        tiles.append(np.vstack([np.hstack(shown), caption]))
    across = 4
    while len(tiles) % across:
        tiles.append(np.full_like(tiles[0], 255))
    return np.vstack([np.hstack(tiles[i : i + across]) for i in range(0, len(tiles), across)])


def _said(table: Table, row: int) -> list[str]:
    """The labels of a row, short."""
    found = []
    for label in table.labels:
        value = np.asarray(table[LABEL + label][row])
        if value.ndim == 0:
            found.append(f"{label} {value.item():g}")
        elif value.ndim == 1:
            found.append(f"{label} {' '.join(f'{x:.2g}' for x in value[:6])}")
    return found


def _image(table: Table, name: str) -> bool:
    space = table.columns[name].space
    return isinstance(space, Box) and space.image and not space.meaning


def _mask(table: Table, name: str) -> bool:
    space = table.columns[name].space
    return isinstance(space, Box) and space.dtype == "uint8" and len(space.shape) == 2


def as_rgb(frame: Array) -> Array:
    """An image [H, W], [H, W, C] or [C, H, W] as [H, W, 3]; dark ones of few levels are made brighter."""
    if frame.ndim == 3 and likely_channels(frame.shape) == "first":
        frame = np.moveaxis(frame, 0, -1)
    if frame.ndim == 2:
        frame = frame[..., None]
    if frame.shape[-1] != 3:
        frame = np.repeat(frame[..., -1:], 3, -1)
    top = int(frame.max(initial=1))
    return (frame.astype(np.uint16) * 255 // top).astype(np.uint8) if top < 64 else frame


def overlaid(picture: Array, mask: Array) -> Array:
    """A picture [H, W, 3] with the classes [h, w] of its pixels in colours."""
    import cv2

    height, width = picture.shape[:2]
    colours = PALETTE[mask % len(PALETTE)]
    if mask.shape != (height, width):
        colours = cv2.resize(colours, (width, height), interpolation=cv2.INTER_NEAREST)
    mixed: Array = (0.35 * picture + 0.65 * colours).astype(np.uint8)
    return mixed
