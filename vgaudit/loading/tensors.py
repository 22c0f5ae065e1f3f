"""Tensors from a file, checked before anything computes with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.errors import CannotLoad
from vgaudit.loading.wording import shorten
from vgaudit.plain import kind_of

MAX_DENSE = 2**26
"""Elements up to which a sparse weight is made dense: 256 MiB of float32."""

FLOAT8 = "float8"


def sound(state: Mapping[str, Any], place: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the state_dict with plain tensors, and notes on what was changed.

    Values of ``get_extra_state()`` pass as they are.

    Raises:
        CannotLoad: a tensor has no data, claims more than it has, or is of a
            kind that no gradient flows through.
    """
    plain: dict[str, Any] = {}
    notes: list[str] = []
    for name, value in state.items():
        if isinstance(value, Tensor):
            plain[name], note = plain_tensor(name, value.detach(), place)
            notes += [note] if note and note not in notes else []
        else:
            plain[name] = value
    return plain, notes


def plain_tensor(name: str, tensor: Tensor, place: str) -> tuple[Tensor, str]:
    """Returns a dense tensor that is what it says, and a note or nothing."""
    where = f"{place}: {shorten(name)}"
    refuse_kind(where, tensor)
    if tensor.layout != torch.strided:
        return densify(where, tensor), "sparse weights are made dense"
    check_storage(where, tensor)
    if FLOAT8 in str(tensor.dtype):
        kind = str(tensor.dtype).removeprefix("torch.")
        return tensor.float(), f"{kind} weights are read as float32"
    return tensor.resolve_conj().resolve_neg(), ""


def refuse_kind(where: str, tensor: Tensor) -> None:
    """Refuses tensors without data, quantised ones and those of other classes."""
    if tensor.is_meta:
        raise CannotLoad(
            f"{where} is a meta tensor: no data",
            hint="save the model after its weights are loaded, not on the meta device",
        )
    if tensor.is_quantized:
        raise quantized(where)
    if type(tensor) not in (Tensor, nn.Parameter):
        raise CannotLoad(
            f"{where} is {kind_of(tensor)}, not a plain tensor",
            hint="save plain tensors: gather, dequantise or unwrap them first",
        )
    if tensor.is_nested or tensor.layout == torch._mkldnn:  # type: ignore[attr-defined]
        raise CannotLoad(
            f"{where} is a nested or mkldnn tensor", hint="save it dense: to_dense()"
        )


def quantized(where: str) -> CannotLoad:
    """Returns the error for quantised weights."""
    return CannotLoad(
        f"{where} is quantised: there are no trainable float weights",
        hint="give the model before quantisation",
    )


def densify(where: str, tensor: Tensor) -> Tensor:
    """Returns a sparse tensor as a dense one, if that is small.

    Raises:
        CannotLoad: it would be large.
    """
    if tensor.numel() > MAX_DENSE:
        raise CannotLoad(
            f"{where} is sparse, and {tensor.numel()} elements when dense",
            hint=f"at most {MAX_DENSE} are made dense: save it dense",
        )
    return tensor.to_dense()


def check_storage(where: str, tensor: Tensor) -> None:
    """Refuses a tensor that shows the same bytes more than once.

    Raises:
        CannotLoad: it has more elements than its storage holds.
    """
    held = tensor.untyped_storage().nbytes() // tensor.element_size()
    if tensor.numel() > held:
        raise CannotLoad(
            f"{where}: numel exceeds storage: {tensor.numel()} elements over {held}",
            hint="save it contiguous: tensor.clone()",
        )
