"""The header of the NPY format, read without evaluating it.

Source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import IO

import numpy as np

from vgaudit.errors import CannotLoad
from vgaudit.plain import visible

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
"""Characters; a plain array needs about a hundred."""

_DESCR = re.compile(r"'descr'\s*:\s*'([^']*)'")
_ORDER = re.compile(r"'fortran_order'\s*:\s*(True|False)")
_SHAPE = re.compile(r"'shape'\s*:\s*\(([\d\s,L]*)\)")
_EXTENT = re.compile(r"\d{1,30}L?")
_PLAIN = re.compile(r"[<>|=]?[biufc]\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class NpyHeader:
    """What an NPY stream says about its array.

    Attributes:
        dtype: of numbers or truth values, nothing else.
        fortran: the first index changes fastest.
        offset: where the numbers begin.
    """

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """Size of the array, exact however large the header claims it."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], name: str) -> NpyHeader:
    """Returns the header and leaves the stream where the numbers begin.

    Raises:
        CannotLoad: this is no NPY stream, or no array of plain numbers.
    """
    head = stream.read(8)
    if len(head) < 8 or head[:6] != _MAGIC:
        raise CannotLoad(f"{name} is not a NumPy array file")
    if head[6] not in (1, 2, 3):
        raise CannotLoad(
            f"{name} has NPY version {head[6]}.{head[7]}, and 1 to 3 exist"
        )
    width, code = (2, "<H") if head[6] == 1 else (4, "<I")
    field = stream.read(width)
    if len(field) < width:
        raise CannotLoad(f"{name} is truncated inside its header")
    (length,) = struct.unpack(code, field)
    if length > _MAX_HEADER:
        raise CannotLoad(f"{name} has a header of {length:,} bytes: not a plain array")
    text = stream.read(length)
    if len(text) < length:
        raise CannotLoad(f"{name} is truncated inside its header")
    return _parse(text.decode("latin-1"), name, offset=8 + width + length)


def _parse(text: str, name: str, *, offset: int) -> NpyHeader:
    order, shape = _ORDER.search(text), _SHAPE.search(text)
    if order is None or shape is None:
        raise CannotLoad(f"{name} has a header that is not of the NPY format")
    parts = [part.strip() for part in shape[1].split(",") if part.strip()]
    if not all(_EXTENT.fullmatch(part) for part in parts):
        raise CannotLoad(f"{name} has a header with a shape that is none")
    extents = tuple(int(part.rstrip("L")) for part in parts)
    return NpyHeader(
        dtype=_dtype(text, name),
        shape=extents,
        fortran=order[1] == "True",
        offset=offset,
    )


def _dtype(text: str, name: str) -> np.dtype[np.generic]:
    descr = _DESCR.search(text)
    if descr is None:
        raise CannotLoad(
            f"{name} holds records with named fields, not numbers",
            hint="save inputs and labels as two arrays: np.savez(FILE, x=…, y=…)",
        )
    if "O" in descr[1]:
        raise CannotLoad(
            f"{name} holds Python objects, which would have to be unpickled",
            hint="save it as an array of numbers: np.asarray(values, dtype=np.float32)",
        )
    if not _PLAIN.fullmatch(descr[1]):
        raise CannotLoad(
            f"{name} holds values of type '{visible(descr[1])}', not numbers"
        )
    try:
        return np.dtype(descr[1])
    except TypeError:
        raise CannotLoad(f"{name} has an unknown type '{visible(descr[1])}'") from None
