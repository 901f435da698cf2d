"""Pixels as a convolution reads them: floats in channels-last memory, scaled by the bounds of their space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlkit.spaces import Box, Space


class UnitScale(nn.Module):
    """uint8 numbers, given as floats, from the bounds of their space to [0, 1]: (x - low) / (high - low), in place.

    Bounds of 0 and 255 are plain numbers, others buffers. Policies that were saved without these have divided by 255,
    and go on doing so.

    arranged: brings an array of bounds from the shape of an observation to that of the floats (None: flattened).
    """

    low: Tensor
    scale: Tensor

    def __init__(self, space: Box, arranged: Callable[[Tensor], Tensor] = torch.ravel) -> None:
        super().__init__()
        low, high = (np.clip(bound, 0, 255) for bound in (space.low, space.high))
        self.plain = bool(np.all(low == 0) and np.all(high == 255))
        if self.plain:
            return
        scale = 1 / np.where(high > low, high - low, 1)  # an entry of one value only is 0
        for name, value in (("low", low), ("scale", scale)):
            tensor = torch.tensor(value, dtype=torch.float32)
            self.register_buffer(name, arranged(tensor.broadcast_to(space.shape)) if tensor.dim() else tensor)

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(1 / 255) if self.plain else x.sub_(self.low).mul_(self.scale)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if not self.plain and f"{prefix}scale" not in state_dict:
            state_dict[f"{prefix}low"] = torch.zeros_like(self.low)
            state_dict[f"{prefix}scale"] = torch.full_like(self.scale, 1 / 255)
        super()._load_from_state_dict(state_dict, prefix, *args)


class Pixels(nn.Module):
    """Images as floats [B, k*C, H, W] in channels-last memory, uint8 through a `UnitScale`.

    Rows are [B, H, W], [B, H, W, C] or [B, C, H, W] (as `Box.channel_axis` says), with a frame stack [B, k, ...]. The
    dtype is that of the surrounding autocast, so pixels are converted once.
    """

    def __init__(self, space: Space, stack: int, name: str, smallest: int = 1) -> None:
        super().__init__()
        if not isinstance(space, Box) or len(space.shape) not in (2, 3):
            given = f"a Box of shape {space.shape}" if isinstance(space, Box) else type(space).__name__
            raise ValueError(
                f"encoder {name} reads images of shape (H, W), (H, W, C) or (C, H, W); got {given}: "
                "use mlp (network.encoder=mlp)"
            )
        rank3, axis = len(space.shape) == 3, space.channel_axis
        if rank3 and not axis:
            raise ValueError(
                f"encoder {name} reads images of shape (H, W, C) or (C, H, W); which of them {space.shape} is "
                "cannot be told: type env.channels=last or env.channels=first, or use mlp (network.encoder=mlp)"
            )
        height, width = space.shape[1:] if axis == "first" else space.shape[:2]
        channels = (space.shape[0] if axis == "first" else space.shape[2]) if rank3 else 1
        if min(height, width) < smallest:
            raise ValueError(
                f"encoder {name} reads images of at least {smallest}x{smallest}; got {height}x{width}: "
                "use impala_cnn, small_cnn or auto"
            )
        self.size = (height, width)
        self.channels = stack * channels
        self.stack = stack
        self.channels_last = axis == "last"
        self.scale = UnitScale(space, self._arranged) if space.dtype == "uint8" else None

    def _arranged(self, bounds: Tensor) -> Tensor:
        """Bounds in the shape of an observation as [k*C, H, W]."""
        if self.channels_last:
            bounds = bounds.permute(2, 0, 1)
        return bounds.reshape(-1, *self.size).repeat(self.stack, 1, 1)

    def forward(self, obs: Tensor) -> Tensor:
        if self.channels_last:
            if self.stack > 1:
                obs = obs.permute(0, 2, 3, 1, 4).flatten(3)  # [B, k, H, W, C] -> [B, H, W, k*C]
            obs = obs.permute(0, 3, 1, 2)  # [B, k*C, H, W], in channels-last memory
        else:
            obs = obs.reshape(obs.shape[0], self.channels, *self.size)  # [B, H, W] and [B, k, ...] as well
        device = obs.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        x = obs.to(dtype)
        if self.scale is not None:
            x = self.scale(x)
        return x.contiguous(memory_format=torch.channels_last)
