"""NumPy values as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(value: Any) -> Tensor:
    """Returns a row as a tensor of its own, of a type that models take."""
    if isinstance(value, Tensor):
        return value.clone()
    array = np.array(value)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    elif array.dtype.kind == "f" and array.dtype.itemsize not in (2, 4, 8):
        array = array.astype(np.float64)
    elif array.dtype.kind == "c" and array.dtype.itemsize > 16:
        array = array.astype(np.complex128)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(native)
