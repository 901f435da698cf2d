"""Random changes of pictures that what is true of them follows: shift, crop, flip, cutout, gain.

    new = augment(rows, parts, config, draws(seed, update, len(rows)))

A function of the rows and of uniform numbers alone, which are a function of (seed, update): what a batch becomes
depends on nothing that came before, so a run that is continued needs no generator's state.

Shift, crop and flip are one thing, a window of the picture that is read in steps: of a side of L pixels, pixel j of
the new picture is pixel

    i = start + floor(step (2 j + 1) / (2 L)),    0 <= i < L

of the old one: a window of `step` pixels from `start` on, read backwards where `step` is negative; beyond the borders
their pixels are repeated (DrQ: Kostrikov et al., 2021, arXiv:2004.13649). Nothing is mixed, so a mask is
moved as its picture is, and a new pixel of an object is labelled as one. In integers all of this is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlkit.config.augment import AugmentConfig
from rlkit.options import ConfigError
from rlkit.seeding import uniforms
from rlkit.spaces import Box

NUMBERS = 10  # uniforms per row; each option has its own, so that one does not change what another does
STREAM = 0x617567  # keeps these numbers apart from all others that are drawn with the same seed


@dataclass(frozen=True)
class Part:
    """What one column of a batch is; columns without one are handed through.

    image     uint8 [B, ..., H, W] or [B, ..., H, W, C], with any axes of frames and channels between
    mask      any dtype, the same; it is moved, and its values are never changed
    boxes     [B, K, 4] pixels x0, y0, x1, y1, of which x1 and y1 are the first beyond the box
    numbers   [B, D] or [B]; of the components in `mirrored`, the sign changes in a mirrored picture
    """

    kind: Literal["image", "mask", "boxes", "numbers"]
    height: int = -2  # of an image or mask: the axis of its rows of pixels; -3 with channels last
    mirrored: tuple[int, ...] = ()

    @staticmethod
    def image(space: Box) -> Part:
        """The part of pictures of this space."""
        return Part("image", -3 if space.channel_axis == "last" else -2)


def draws(seed: int, update: int, rows: int) -> Tensor:
    """The uniforms of one update: [rows, NUMBERS] float32, a stream of its own among those of `seed`."""
    stream = int(np.random.SeedSequence([seed, STREAM]).generate_state(1)[0])
    return torch.from_numpy(uniforms(stream, np.arange(rows), update, 1, NUMBERS)[0])


class Window(NamedTuple):
    """What is read of one side of each picture."""

    start: Tensor  # [B] int64
    step: Tensor  # [B] int64, not 0: pixels of the window, negative where it is read backwards

    def pixels(self, length: int) -> Tensor:
        """The old pixel of each new one: [B, length] int64."""
        centre = 2 * torch.arange(length, device=self.step.device) + 1
        moved = torch.div(self.step[:, None] * centre, 2 * length, rounding_mode="floor")
        return (self.start[:, None] + moved).clamp_(0, length - 1)

    def places(self, x: Tensor, length: int) -> Tensor:
        """Where places x [B, ...] of the old picture are in the new one, within it."""
        start, step = (number.view(-1, *(1,) * (x.dim() - 1)) for number in self)
        return ((x - start) * length / step).clamp_(0, length)


def augment(
    rows: Mapping[str, Tensor], parts: Mapping[str, Part], config: AugmentConfig, u: Tensor
) -> dict[str, Tensor]:
    """Rows [B, ...] by column, changed by uniforms u [B, NUMBERS] in (0, 1); what is given stays as it is.

    Raises ConfigError where there is no picture, or pictures and masks differ in height or width.
    """
    new = dict(rows)
    if not config.active:
        return new
    height, width = _size(rows, parts)
    u = u.double()  # a float32 just below 1 times a large number of places could reach the first place beyond
    down, across = windows(config, u[:, :6], height, width)
    for name, part in parts.items():
        if part.kind == "image":
            x = moved(rows[name], down, across, part.height) if config.moves else rows[name]
            x = cut_out(x, config.cutout, u[:, 6:8], part.height) if config.cutout else x
            x = brighter(x, 1 + config.gain * (2 * u[:, 8] - 1)) if config.gain else x
            new[name] = recoloured(x, u[:, 9], part.height) if config.colours else x
        elif not config.moves:
            continue
        elif part.kind == "mask":
            new[name] = moved(rows[name], down, across, part.height)
        elif part.kind == "boxes":
            new[name] = moved_boxes(rows[name], down, across, (height, width))
        elif part.mirrored:
            new[name] = turned(rows[name], across.step < 0, part.mirrored)
    return new


def windows(config: AugmentConfig, u: Tensor, height: int, width: int) -> tuple[Window, Window]:
    """What is read down and across, of uniforms u [B, 6]: two for the shift, three for the crop, one for the flip."""
    sides = []
    for length, shift, place in ((height, u[:, 0], u[:, 3]), (width, u[:, 1], u[:, 4])):
        share = config.crop + (1 - config.crop) * u[:, 2]
        step = (share * length).round().long().clamp_(min=1)
        start = (place * (length - step + 1)).long()
        start += (shift * (2 * config.shift + 1)).long() - config.shift
        sides.append(Window(start, step))
    down, (start, step) = sides
    flipped = (u[:, 5] < 0.5) & config.flip
    return down, Window(torch.where(flipped, start + step, start), torch.where(flipped, -step, step))


def moved(x: Tensor, down: Window, across: Window, height: int = -2) -> Tensor:
    """The windows of pictures or masks [B, ..., H, W, ...], whose axis of H is `height`, in their old size."""
    axis = x.dim() + height
    lines, columns = x.shape[axis : axis + 2]
    outer = x.shape[:axis].numel()  # pictures times their frames or channels
    picture = torch.arange(outer, device=x.device).view(len(x), -1, 1, 1)
    row, column = down.pixels(lines)[:, None, :, None], across.pixels(columns)[:, None, None, :]
    pixel = (picture * lines + row) * columns + column  # [B, outer / B, H, W]
    return x.reshape(outer * lines * columns, -1).index_select(0, pixel.flatten()).view(x.shape)


def cut_out(x: Tensor, side: int, u: Tensor, height: int = -2) -> Tensor:
    """Pictures with a black square around a random pixel, which may reach beyond them; u [B, 2].

    DeVries and Taylor, 2017, arXiv:1708.04552.
    """
    axis = x.dim() + height
    inside = []
    for i in (0, 1):
        length = x.shape[axis + i]
        begin = (u[:, i] * length).long() - side // 2  # [B]
        pixel = torch.arange(length, device=x.device) - begin[:, None]  # [B, length]
        inside.append((pixel >= 0) & (pixel < side))
    hole = inside[0][:, :, None] & inside[1][:, None, :]  # [B, H, W]
    return x * (~hole).to(x.dtype).view(len(x), *(1,) * (axis - 1), *hole.shape[1:], *(1,) * (-height - 2))


def brighter(x: Tensor, gain: Tensor) -> Tensor:
    """uint8 pictures times gain [B], rounded, at most 255."""
    factor = gain.to(torch.float32).view(-1, *(1,) * (x.dim() - 1))
    return (x * factor).round_().clamp_(max=255).to(torch.uint8)


def recoloured(x: Tensor, u: Tensor, height: int) -> Tensor:
    """Pictures [B, ..., H, W, 3] or [B, ..., 3, H, W] with their channels in one of six orders, by u [B].

    Raises ConfigError where they have no three channels.
    """
    channel = x.dim() - 1 if height == -3 else x.dim() + height - 1
    if channel < 1 or x.shape[channel] != 3:
        raise ConfigError(
            f"augment.colours=true: exchanges three channels, and pictures are {tuple(x.shape[1:])}; type "
            "augment.colours=false"
        )
    orders = torch.tensor(list(permutations(range(3))), device=x.device)  # [6, 3]
    order = orders[(u * len(orders)).long()]  # [B, 3]
    shape = [1] * x.dim()
    shape[0], shape[channel] = len(x), 3
    return x.gather(channel, order.view(shape).expand_as(x))


def moved_boxes(boxes: Tensor, down: Window, across: Window, size: tuple[int, int]) -> Tensor:
    """Boxes [B, K, 4] in the new picture, cut at its borders, as float32. Empty ones, which fill up K, stay."""
    x, y = across.places(boxes[..., 0::2], size[1]), down.places(boxes[..., 1::2], size[0])  # [B, K, 2]
    x = x.sort(-1).values  # mirrored, the left end has become the right one
    new = torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1).float()
    empty = (boxes[..., 2] <= boxes[..., 0]) | (boxes[..., 3] <= boxes[..., 1])
    return torch.where(empty[..., None], boxes.float(), new)


def turned(numbers: Tensor, flipped: Tensor, components: tuple[int, ...]) -> Tensor:
    """Numbers [B, D] or [B] with the sign of some components changed in the rows that `flipped` [B] marks."""
    table = numbers.reshape(len(numbers), -1)
    if max(components) >= table.shape[1]:
        raise ConfigError(
            f"mirrored={list(components)}: the label has {table.shape[1]} numbers, the first of which is 0"
        )
    sign = torch.ones_like(table)
    sign[:, list(components)] = torch.where(flipped, -1, 1).to(table.dtype)[:, None]
    return (table * sign).view_as(numbers)


def _size(rows: Mapping[str, Tensor], parts: Mapping[str, Part]) -> tuple[int, int]:
    """Height and width of all pictures and masks."""
    sizes = {}
    for name, part in parts.items():
        if part.kind in ("image", "mask"):
            axis = rows[name].dim() + part.height
            sizes[name] = tuple(rows[name].shape[axis : axis + 2])
        if part.kind == "image" and rows[name].dtype != torch.uint8:
            raise ConfigError(f"augment: pictures of bytes are changed; {name} is {rows[name].dtype}")
    if not any(part.kind == "image" for part in parts.values()):
        raise ConfigError("augment: there is no picture to change; leave it out")
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} {height}x{width}" for name, (height, width) in sizes.items())
        raise ConfigError(
            f"augment: pictures and masks are moved together, so they have one size; got {shown}"
        )
    height, width = next(iter(sizes.values()))
    return height, width
