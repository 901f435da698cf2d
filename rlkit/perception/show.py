"""Rows as pictures: what is there, what is true of it, what a model says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rlkit.options import ConfigError
from rlkit.perception.inspect import as_rgb, overlaid
from rlkit.perception.saved import PIECE, SavedModel, Scorer
from rlkit.perception.table import Array, Index, Table
from rlkit.spaces import Box

SIDE, LINE = 256, 16  # pixels of a picture's side, and of a line of text below it


def scene(saved: SavedModel, scorer: Scorer, table: Table, index: Index, chosen: Index) -> Iterator[Array]:
    """A picture [H, W, 3] for each of the rows index[chosen]: the frame, and for masks what is true and what is said.

    index: rows that the model can read, of which one with memory reads those before the chosen one in its sequence.
    Raises ConfigError where the table shows no pictures.
    """
    image = next((name for name in table.inputs if _is_image(table, name)), "")
    if not image:
        raise ConfigError(
            f"{table.name} shows no pictures; rlkit evaluate says how good the model is in numbers"
        )
    label, length = scorer.reader.label, scorer.reader.length
    sequences = scorer.reader.sequences(index)
    step = max(PIECE // length, 1)
    for start in range(0, len(chosen), step):
        piece = chosen[start : start + step]
        rows = sequences[piece // length].ravel()  # the sequence of each
        said, scores = scorer.predictions(rows), scorer.scores(rows)
        for place, row in zip(np.arange(len(piece)) * length + piece % length, index[piece], strict=True):
            frame = as_rgb(table[image][row])
            true = table[label][row] if label else None
            found = {name: each[place] for name, each in said.items()}
            yield _drawn(frame, true, found, float(scores[place]), saved)


def _is_image(table: Table, name: str) -> bool:
    space = table.columns[name].space
    return isinstance(space, Box) and space.image and not space.meaning


def _drawn(
    frame: Array, true: Array | None, said: dict[str, Array], score: float, saved: SavedModel
) -> Array:
    """One row: pictures side by side, and lines of text below them."""
    import cv2

    views, lines = [frame], [f"score {score:.3g}"]
    prediction = said.get("label")
    if prediction is not None and prediction.ndim == 2 and true is not None:
        views += [overlaid(frame, true), overlaid(frame, prediction)]
        lines[0] += "   the frame, what is true, what the model says"
    elif "picture" in said:
        again = said["picture"]
        if again.ndim == 3:
            views.append(as_rgb((np.clip(np.moveaxis(again, 0, -1), 0, 1) * 255).astype(np.uint8)))
    elif prediction is not None:
        lines += [f"{saved.label}: {_words(prediction)}"]
        lines += [f"true: {_words(true)}"] if true is not None else []
    shown = [cv2.resize(view, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) for view in views]
    foot = np.full((LINE * 3 + 4, SIDE * len(shown), 3), 255, np.uint8)
    for number, text in enumerate(lines[:3]):
        place = (4, LINE * (number + 1) - 3)
        cv2.putText(foot, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([np.hstack(shown), foot])


def _words(value: Array) -> str:
    """A value on a line."""
    flat = np.ravel(value)
    more = " ..." if len(flat) > 7 else ""
    return " ".join(f"{float(x):.3g}" for x in flat[:7]) + more
