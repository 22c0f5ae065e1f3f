"""The ``--input`` option: ``8x3x224x224``, ``input_ids=long:4x16:1000``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import nn

from vgaudit.data.inputs.form import CallForm, Fill, TensorForm
from vgaudit.data.inputs.signature import describe, forward_signature
from vgaudit.errors import BadConfig
from vgaudit.plain import nearest

TYPES: dict[str, torch.dtype] = {
    "float": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
    "bool": torch.bool,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int": torch.int32,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "long": torch.int64,
}
"""Type names of the option; plain ``float`` takes the model's own precision."""

_FORMAT = "[NAME=][TYPE:]8x3x224x224[:BOUND]"
_SPEC = re.compile(
    r"(?:(?P<name>[^=:]*)=)?(?:(?P<type>[A-Za-z]\w*):)?"
    r"(?P<shape>[^:]*)(?::(?P<high>[^:]*))?"
)
_MAX_ELEMENTS = 2**33


def parse_input(text: str) -> tuple[str | None, TensorForm]:
    """Returns the name (None if positional) and the form of one ``--input``.

    Raises:
        BadConfig: the text is not a shape, or a type or bound is wrong.
    """
    match = _SPEC.fullmatch(text.strip())
    if match is None:
        raise _wrong(text, f"the format is {_FORMAT}")
    name = match["name"]
    if name is not None and not name.isidentifier():
        raise _wrong(text, f"{name!r} is not an argument name")
    dtype = _type(text, match["type"])
    shape = _shape(text, match["shape"])
    high = _bound(text, match["high"], dtype=dtype)
    fixed = match["type"] not in (None, "float")
    return name, TensorForm(
        shape=shape, dtype=dtype, fill=_fill(dtype), high=high, fixed_type=fixed
    )


def call_from_inputs(
    inputs: Sequence[str], model: nn.Module, batch_size: int | None = None
) -> CallForm:
    """Returns the call that several ``--input`` options describe.

    ``batch_size`` replaces the first dimension. Ids without a bound stay below
    the size of the model's smallest embedding.

    Raises:
        BadConfig: a text is wrong, or the arguments do not fit ``forward``.
    """
    args: list[TensorForm] = []
    kwargs: dict[str, TensorForm] = {}
    for text in inputs:
        name, form = parse_input(text)
        form = _bounded(text, form, model)
        if name is None:
            args.append(form)
        elif name in kwargs:
            raise BadConfig(f"--input {name!r} is given twice")
        else:
            kwargs[name] = form
    _check_fit(model, args, kwargs)
    size = next(form.shape[0] for form in (*args, *kwargs.values()))
    call = CallForm(args=tuple(args), kwargs=dict(kwargs), size=size, why="given")
    return call if batch_size is None else call.sized(batch_size)


def _wrong(text: str, reason: str) -> BadConfig:
    return BadConfig(
        f"--input {text!r}: {reason}",
        hint="examples: --input 8x3x224x224, --input input_ids=long:4x16:1000",
    )


def _type(text: str, name: str | None) -> torch.dtype:
    if name is None:
        return torch.float32
    if name not in TYPES:
        near = get_close_matches(name, TYPES, n=1)
        also = f"; did you mean {near[0]!r}?" if near else ""
        raise _wrong(text, f"unknown type {name!r}{also}")
    return TYPES[name]


def _shape(text: str, shape: str) -> tuple[int, ...]:
    parts = shape.split("x")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise _wrong(text, f"{shape!r} is not a shape like 8x3x224x224")
    extents = tuple(int(part) for part in parts)
    elements = 1
    for extent in extents:
        elements *= extent
    if elements == 0:
        raise _wrong(text, "a dimension is 0")
    if elements > _MAX_ELEMENTS:
        raise _wrong(text, f"{elements:,} elements are too many")
    return extents


def _bound(text: str, high: str | None, *, dtype: torch.dtype) -> int:
    if high is None:
        return 0
    if _fill(dtype) != "ids":
        name = str(dtype).removeprefix("torch.")
        raise _wrong(text, f"a bound needs whole numbers, not {name}")
    if not (high.isascii() and high.isdigit()) or int(high) < 1:
        raise _wrong(text, f"the bound {high!r} is not a number from 1")
    if int(high) - 1 > torch.iinfo(dtype).max:
        raise _wrong(text, f"the bound {high} does not fit the type")
    return int(high)


def _fill(dtype: torch.dtype) -> Fill:
    if dtype is torch.bool:
        return "bits"
    return "normal" if dtype.is_floating_point or dtype.is_complex else "ids"


def _bounded(text: str, form: TensorForm, model: nn.Module) -> TensorForm:
    if form.fill != "ids" or form.high:
        return form
    tables = [
        m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)
    ]
    if not tables:
        raise _wrong(text, "whole numbers need a bound, as in long:4x16:1000")
    smallest = min(table.num_embeddings for table in tables)
    return TensorForm(
        shape=form.shape,
        dtype=form.dtype,
        fill="ids",
        high=min(smallest, torch.iinfo(form.dtype).max + 1),
        fixed_type=True,
    )


def _check_fit(
    model: nn.Module, args: list[TensorForm], kwargs: dict[str, TensorForm]
) -> None:
    signature = forward_signature(model)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for name in kwargs:
        if name not in signature.parameters and not takes_any:
            guess = nearest(name, signature.parameters)
            raise BadConfig(
                f"--input {name!r}: the model takes no argument of this name",
                hint=f"{guess}its signature is {describe(model)}",
            )
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise BadConfig(
            f"the --input options do not fit the model: {error}",
            hint=f"its signature is {describe(model)}",
        ) from None
