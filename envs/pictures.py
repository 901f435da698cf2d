"""What an environment's render() gives, as the picture [H, W, 3] uint8 that films are made of."""

from __future__ import annotations

import numpy as np

from rlkit.envs.aliases import Value
from rlkit.spaces import Array


def as_picture(drawn: Value) -> Array | None:
    """The picture of what render() gave; of a list the newest one; None where nothing was drawn.

    Floats are from 0 to 1 or, where one is above 1, from 0 to 255. One channel becomes gray, a fourth is left out.
    Raises ValueError for everything else.
    """
    if isinstance(drawn, list | tuple):
        drawn = drawn[-1] if drawn else None
    if drawn is None:
        return None
    picture = np.asarray(drawn)
    if picture.ndim == 3 and picture.shape[0] in (1, 3, 4) and picture.shape[2] not in (1, 3, 4):
        picture = np.moveaxis(picture, 0, -1)
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or not picture.size:
        raise ValueError(f"its render() returned an array of shape {picture.shape}")
    picture = _bytes(picture[..., :3])
    return picture if picture.shape[2] == 3 else np.repeat(picture, 3, 2)


def _bytes(picture: Array) -> Array:
    """Pixels of any type as uint8. Raises ValueError where they lie outside the range of their type."""
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype.kind not in "biuf":
        raise ValueError(f"its render() returned {picture.dtype}")
    low, high = picture.min(), picture.max()
    if not (low >= 0 and high <= 255):  # or NaN
        raise ValueError(
            f"its render() returned {picture.dtype} from {low} to {high}; allowed: 0 to 1, or 0 to 255"
        )
    if picture.dtype.kind == "b" or (picture.dtype.kind == "f" and high <= 1):
        picture = np.rint(picture * np.float32(255))
    result: Array = picture.astype(np.uint8)
    return result
