"""The arguments of a call, each with the forms it may take."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from vgaudit.data.inputs.consumers import Entry, Use, consumers, registered_entries
from vgaudit.data.inputs.families import families, without_layer
from vgaudit.data.inputs.family import Family
from vgaudit.data.inputs.names import by_name, hidden_width
from vgaudit.data.inputs.signature import annotated, required, unwrap

_MAX_ENTRIES = 6
"""Layers in order of registration that are tried for one argument."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of a call.

    Attributes:
        argument: the argument it belongs to.
        key: its place inside the argument; None if it is the argument.
        choices: the forms it may take, most likely first.
    """

    argument: str
    key: str | int | None
    choices: tuple[Family, ...]


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of ``forward``.

    Attributes:
        name: of the argument.
        by_name: it can only be passed by name.
        assemble: builds its value from the members' values.
        slots: its tensors.
    """

    name: str
    by_name: bool
    assemble: Callable[[dict[str | int | None, Any]], Any]
    slots: tuple[Slot, ...]


def read_arguments(model: nn.Module) -> list[Argument]:
    """Returns the arguments that must be given, each with its slots."""
    model = unwrap(model)
    uses, types = consumers(model), annotated(model)
    registered = registered_entries(model)
    wanted = required(model)
    return [
        _argument(
            parameter,
            use=uses.get(parameter.name, Use()),
            annotation=types.get(parameter.name),
            # Of several arguments, the i-th starts looking at the i-th layer.
            guesses=registered[index:] + registered[:index],
            model=model,
        )
        for index, parameter in enumerate(wanted)
    ]


def _argument(
    parameter: inspect.Parameter,
    *,
    use: Use,
    annotation: Any,
    guesses: list[Entry],
    model: nn.Module,
) -> Argument:
    name = parameter.name
    by_name = parameter.kind is parameter.KEYWORD_ONLY
    members, assemble = _members(use, annotation)
    if members:
        slots = tuple(
            Slot(name, key, _choices(str(key), member, guesses, model))
            for key, member in members.items()
        )
        return Argument(name, by_name, assemble, slots)
    choices = _constant(annotation, parameter) or _choices(name, use, guesses, model)
    return Argument(
        name, by_name, lambda values: values[None], (Slot(name, None, choices),)
    )


def _members(
    use: Use, annotation: Any
) -> tuple[dict[str | int, Use], Callable[[dict[Any, Any]], Any]]:
    """Returns the members of a container argument, and what puts them together."""
    origin = typing.get_origin(annotation) or annotation
    texts = {key: item for key, item in use.members.items() if isinstance(key, str)}
    if texts or typing.is_typeddict(annotation):
        declared = getattr(annotation, "__annotations__", {})
        keys = dict.fromkeys([*texts, *declared])
        return {key: texts.get(key, Use()) for key in keys}, dict
    numbers = {key: item for key, item in use.members.items() if isinstance(key, int)}
    if origin in (list, tuple) and numbers and min(numbers) >= 0:
        count = max(numbers) + 1
        return (
            {index: numbers.get(index, Use()) for index in range(count)},
            lambda values: origin(values[index] for index in range(count)),
        )
    if isinstance(origin, type) and hasattr(origin, "_fields"):
        names = list(origin._fields)
    elif isinstance(origin, type) and dataclasses.is_dataclass(origin):
        names = [f.name for f in dataclasses.fields(origin) if f.init]
    else:
        return {}, dict
    maker: Any = origin
    return (
        {name: use.attributes.get(name, Use()) for name in names},
        lambda values: maker(**values),
    )


def _choices(
    name: str, use: Use, guesses: list[Entry], model: nn.Module
) -> tuple[Family, ...]:
    """Orders the forms of a slot: telltale names, traced layers, other layers."""
    found = by_name(name, model)
    for entry in use.entries:
        found += _shared(entry, model) if entry.sharers else families(entry)
    distinct: dict[tuple[Any, ...], Entry] = {}
    for entry in guesses:
        distinct.setdefault(_kind(entry), entry)
    for entry in list(distinct.values())[:_MAX_ENTRIES]:
        found += families(entry)
    return tuple(found + without_layer())


def _shared(entry: Entry, model: nn.Module) -> list[Family]:
    """Returns the forms of an argument that is concatenated with others.

    Their widths are known together only: a state takes the width that the model
    calls hidden, else all take the same.
    """
    total = entry.width or 0
    state = hidden_width(model)
    widths = [total - state, state] if 0 < state < total else []
    if total % (entry.sharers + 1) == 0:
        widths.append(total // (entry.sharers + 1))
    found = []
    for width in widths:
        part = dataclasses.replace(entry, width=width, sharers=0)
        found += families(part)[:1]
    return found


def _kind(entry: Entry) -> tuple[Any, ...]:
    """Layers of one kind and width take the same inputs."""
    if isinstance(entry.layer, nn.Parameter):
        return ("parameter", tuple(entry.layer.shape))
    extents = ("in_features", "in_channels", "num_embeddings", "input_size")
    return (
        type(entry.layer),
        *(getattr(entry.layer, extent, None) for extent in extents),
    )


def _constant(annotation: Any, parameter: inspect.Parameter) -> tuple[Family, ...]:
    plain = {int: 2, float: 1.0, bool: False}
    if annotation in plain:
        value = plain[annotation]
        return (Family(lambda n, s: value),)
    return ()
