"""Layers that are one operator of ONNX each, in NumPy: convolutions and pools of images [N, C, H, W], norms, Gelu."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from rlkit.deploy.graph import GraphError, Tensor
from rlkit.deploy.operators import OPERATORS, Attributes, Constants, Function, erf, sigmoid


class Windows:
    """Where the windows of a convolution or a pool lie: kernel, strides, padding (top, left, bottom, right)."""

    def __init__(self, attributes: Attributes, kernel: tuple[int, ...]) -> None:
        self.kernel = kernel
        self.strides = tuple(attributes.get("strides") or (1, 1))
        self.pads = tuple(attributes.get("pads") or (0, 0, 0, 0))
        said = attributes.get("auto_pad", "NOTSET") == "NOTSET" and not attributes.get("ceil_mode")
        plain = all(each == 1 for each in attributes.get("dilations") or ())
        sizes = (len(self.kernel), len(self.strides), len(self.pads))
        positive = all(1 <= each <= 4096 for each in (*self.kernel, *self.strides))
        if not (
            said
            and plain
            and positive
            and sizes == (2, 2, 4)
            and all(0 <= each <= 4096 for each in self.pads)
        ):
            raise GraphError(
                "policy.onnx: a convolution or pool that is not of images, or with dilations, auto_pad or ceil_mode"
            )

    def size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """How many windows there are below and beside each other in images [N, C, H, W]."""
        top, left, bottom, right = self.pads
        height = (shape[2] + top + bottom - self.kernel[0]) // self.strides[0] + 1
        width = (shape[3] + left + right - self.kernel[1]) // self.strides[1] + 1
        return height, width

    def padded(self, x: Tensor, value: float = 0.0) -> Tensor:
        top, left, bottom, right = self.pads
        if not any(self.pads):
            return x
        n, c, h, w = x.shape
        y = np.full((n, c, h + top + bottom, w + left + right), value, x.dtype)
        y[:, :, top : top + h, left : left + w] = x
        return y


def _conv(attributes: Attributes, constants: Constants) -> Function:
    """One product of a matrix of windows [N * H' * W', C * kh * kw] and the weights."""
    weight = constants[1]
    if weight is None or weight.ndim != 4:
        raise GraphError("policy.onnx: a convolution whose weights are not four axes of constants")
    windows, groups = Windows(attributes, weight.shape[2:]), int(attributes.get("group", 1))
    out, inner = weight.shape[0], weight.shape[1]
    if groups < 1 or out % groups:
        raise GraphError("policy.onnx: the groups of a convolution")
    # the columns of a window: rows, columns and channels of the image, so that runs in memory are long
    parts = [
        np.ascontiguousarray(part.transpose(2, 3, 1, 0).reshape(-1, out // groups))
        for part in np.split(weight, groups)
    ]

    def conv(x: Tensor, _: Tensor, bias: Tensor | None = None) -> Tensor:
        n, (height, width), (kh, kw) = len(x), windows.size(x.shape), windows.kernel
        x = np.ascontiguousarray(windows.padded(x).transpose(0, 2, 3, 1))  # [N, H, W, C]
        results = []
        for group, part in enumerate(parts):
            own = x[..., group * inner : (group + 1) * inner]
            a, b, c, d = own.strides
            down, across = windows.strides
            view = as_strided(
                own, (n, height, width, kh, kw, inner), (a, b * down, c * across, b, c, d), writeable=False
            )
            results.append(view.reshape(n * height * width, -1).dot(part))
        y = results[0] if groups == 1 else np.concatenate(results, 1)
        if bias is not None:
            y += bias
        return y.reshape(n, height, width, out).transpose(0, 3, 1, 2)

    return conv


def _max_pool(attributes: Attributes, constants: Constants) -> Function:
    windows = Windows(attributes, tuple(attributes.get("kernel_shape") or ()))
    return lambda x: _pooled(windows, windows.padded(x, -np.inf), windows.size(x.shape), np.maximum)


def _mean_pool(attributes: Attributes, constants: Constants) -> Function:
    windows = Windows(attributes, tuple(attributes.get("kernel_shape") or ()))
    whole = bool(attributes.get("count_include_pad")) or not any(windows.pads)

    def pool(x: Tensor) -> Tensor:
        size = windows.size(x.shape)
        y = _pooled(windows, windows.padded(x), size, np.add)
        if whole:
            return y * x.dtype.type(1 / math.prod(windows.kernel))  # type: ignore[no-any-return]
        return y / _pooled(windows, windows.padded(np.ones_like(x[:1, :1])), size, np.add)

    return pool


def _pooled(windows: Windows, x: Tensor, size: tuple[int, int], function: Any) -> Tensor:
    """`function` over every window, one place of it after the other."""
    found: Tensor | None = None
    (down, across), (height, width) = windows.strides, size
    for i in range(windows.kernel[0]):
        for j in range(windows.kernel[1]):
            part = x[:, :, i : i + down * (height - 1) + 1 : down, j : j + across * (width - 1) + 1 : across]
            found = part.copy() if found is None else function(found, part, out=found)
    assert found is not None, "a window has a place"
    return found


def _whole_mean(attributes: Attributes, constants: Constants) -> Function:
    return lambda x: x.mean(tuple(range(2, x.ndim)), keepdims=True, dtype=x.dtype)


def _layer_norm(attributes: Attributes, constants: Constants) -> Function:
    axis, epsilon = int(attributes.get("axis", -1)), np.float32(attributes.get("epsilon", 1e-5))
    if axis != -1:
        raise GraphError("policy.onnx: LayerNormalization of several axes is not read")

    def norm(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        share = x.dtype.type(1 / x.shape[-1])
        y = x - np.add.reduce(x, -1, keepdims=True) * share
        y *= (np.add.reduce(y * y, -1, keepdims=True) * share + epsilon) ** np.float32(-0.5)
        y *= scale
        return y if bias is None else y + bias  # type: ignore[no-any-return]

    return norm


def _batch_norm(attributes: Attributes, constants: Constants) -> Function:
    epsilon = np.float32(attributes.get("epsilon", 1e-5))

    def norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        factor = scale / np.sqrt(var + epsilon)
        shape = (-1, *(1,) * (x.ndim - 2))
        return x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)

    return norm


def _gelu(attributes: Attributes, constants: Constants) -> Function:
    if attributes.get("approximate", "none") == "tanh":
        return lambda x: x * sigmoid(1.5957691216 * (x + 0.044715 * x**3))
    return lambda x: (x * 0.5 * (1 + erf(x * 0.7071067811865476))).astype(x.dtype)


OPERATORS.update(LayerNormalization=_layer_norm, BatchNormalization=_batch_norm, Gelu=_gelu)
OPERATORS.update(Conv=_conv, MaxPool=_max_pool, AveragePool=_mean_pool, GlobalAveragePool=_whole_mean)
