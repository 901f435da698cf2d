"""Which axis of an image is channels, told by its shape."""

from __future__ import annotations

USUAL_CHANNELS = (1, 3, 4)  # gray, RGB, RGB and depth or a stack of four


def likely_channels(shape: tuple[int, ...]) -> str:
    """Which axis of an image of this shape is channels: "first", "last", or "" where both could be.

    There are usually 1, 3 or 4 of them, and an image is often square; one of these tells where the other does not
    disagree: [3, 96, 80] and [5, 96, 96] are first, [96, 80, 3] and [8, 8, 20] last; [4, 4, 16], [3, 5, 4] and
    [9, 9, 9] could be both. Where neither tells, the axis that is at most half as long as the other: [5, 96, 80].
    """
    first, middle, final = shape
    usual = (first in USUAL_CHANNELS) - (final in USUAL_CHANNELS)  # 1 speaks for first, -1 for last
    square = (middle == final) - (first == middle)
    evidence = usual + square if usual * square >= 0 else 0
    if not (evidence or usual or square or first in USUAL_CHANNELS):
        evidence = (2 * first <= final) - (2 * final <= first)
    return "first" if evidence > 0 else "last" if evidence < 0 else ""


def early_channels(shape: tuple[int, ...]) -> str:
    """The axis of channels as version 0.1.0 chose it, whose files do not name it."""
    first, final = (shape[axis] in USUAL_CHANNELS for axis in (0, -1))
    return "first" if (first and not final) or (first == final == 0 and shape[0] < shape[-1]) else "last"
