"""Named tensors in the safetensors format (huggingface.co/docs/safetensors): written from where they lie in memory,
read as views of the file.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import torch
from torch import Tensor

_HEADER, _TENSORS = 1 << 24, 1 << 17  # bytes and entries beyond which a header is not read
# what JSON raises that was read and is not what was meant
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_DTYPES = {  # names in the safetensors format
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_NAMED = {name: dtype for dtype, name in _DTYPES.items()}


def pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file of `tensors` in pieces: the length and text of a header, then the tensors as they lie in memory.

    Those of wide numbers come first, so that each begins at a multiple of its width.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, end = {}, 0
    for name in order:
        x = tensors[name]
        begin, end = end, end + x.numel() * x.element_size()
        header[name] = {"dtype": _DTYPES[x.dtype], "shape": list(x.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        if tensors[name].numel():
            yield tensors[name].flatten().view(torch.uint8).numpy().data


def views(file: BinaryIO) -> dict[str, Tensor]:
    """The tensors of a file, as views of it; what is written to them stays in memory.

    Raises one of MALFORMED where they do not lie in the file as its header says.
    """
    end = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if length > min(end - 8, _HEADER):
        raise ValueError(f"a header of {length:,} bytes")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if len(header) > _TENSORS:
        raise ValueError(f"{len(header):,} tensors, and at most {_TENSORS:,} are read")
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    start, tensors = 8 + length, {}
    for name, each in header.items():
        dtype, shape = _NAMED[each["dtype"]], [int(n) for n in each["shape"]]
        begin, stop = (start + int(n) for n in each["data_offsets"])
        count = math.prod(shape)
        inside = start <= begin <= stop <= end and min(shape, default=0) >= 0
        if not inside or stop - begin != count * dtype.itemsize:
            raise ValueError(f"{name} does not lie where the header says")
        if count:
            tensors[name] = torch.frombuffer(data, dtype=dtype, count=count, offset=begin).view(shape)
        else:
            tensors[name] = torch.empty(shape, dtype=dtype)
    return tensors
