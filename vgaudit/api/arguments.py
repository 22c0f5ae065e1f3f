"""Checks of what a function of the API was given, before anything is done with it.

Annotations promise nothing at run time: without these checks a text where a module
belongs fails deep inside, and ``epochs=1.5`` trains for some number of epochs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import nn

from vgaudit.errors import BadConfig
from vgaudit.plain import nearest, visible

T = TypeVar("T")

_SHOWN = 60
_WANTED: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    NoneType: "None",
    tuple: "a tuple of texts, such as ('a', 'b')",
    Mapping: "a dict",
}

_SPOKEN: Mapping[str, type] = {
    "device": torch.device,
    "dtype": torch.dtype,
    "data": Path,
    "output": int,
}


def check_module(model: object) -> nn.Module:
    """Returns what was given as a model.

    Raises:
        BadConfig: it is no module, with how to get one.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, (str, Path)):
        text = visible(str(model), length=_SHOWN)
        raise BadConfig(
            f"the model is a text, '{text}', and no module",
            hint=f"vgaudit.load('{text}') opens a model spec and returns the module",
        )
    if isinstance(model, Mapping):
        raise BadConfig(
            f"the model is of type {type(model).__name__}: names, and no module",
            hint="build the module, and give weights to its load_state_dict",
        )
    if callable(model):
        name = visible(getattr(model, "__name__", type(model).__name__))
        what = "class" if isinstance(model, type) else "function"
        raise BadConfig(
            f"the model is the {what} {name}, and no module",
            hint=f"call it, and give what it returns: {name}(…)",
        )
    raise BadConfig(
        f"the model is of type {type(model).__name__}, and no module",
        hint="give a torch.nn.Module",
    )


def check_samples(name: str, data: object) -> None:
    """Refuses a text where samples belong.

    Raises:
        BadConfig: it is one.
    """
    if isinstance(data, (str, Path)):
        raise BadConfig(
            f"{name} is a text, '{visible(str(data), length=_SHOWN)}', and no samples",
            hint="give (x, y), a Dataset, a DataLoader or a list of batches",
        )


def check_loss(loss: object) -> None:
    """Refuses what is neither the name of a loss nor a function.

    Raises:
        BadConfig: it is not.
    """
    if not (loss is None or isinstance(loss, str) or callable(loss)):
        raise _wrong(
            "loss", loss, "a name such as 'mse', or a function of output and labels"
        )


def check_folder(name: str, place: object) -> None:
    """Refuses what is no path.

    Raises:
        BadConfig: it is none.
    """
    if not isinstance(place, (str, Path, NoneType)):
        raise _wrong(name, place, "a path")


def check_interval(every: object) -> None:
    """Refuses what is no number of steps.

    Raises:
        BadConfig: it is no whole number from 1.
    """
    if not _fits(every, int) or every < 1:  # type: ignore[operator]
        raise _wrong("every", every, "a whole number of steps, 1 or more")


def texts(name: str, given: object) -> tuple[str, ...]:
    """Returns several texts as a tuple; a single text is not taken for its letters.

    Raises:
        BadConfig: they are something else.
    """
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        found = tuple(given)
        if all(isinstance(text, str) for text in found):
            return found
    example = repr(given) if isinstance(given, str) else "'a'"
    raise _wrong(name, given, f"a list or tuple of texts, such as [{example}]")


def check_kind(name: str, given: object, kind: type[T]) -> T:
    """Returns what was given, if it is of a kind.

    Raises:
        BadConfig: it is not.
    """
    if not isinstance(given, kind):
        raise _wrong(name, given, f"{kind.__name__}(…)")
    return given


def check_options(name: str, given: T | None, kind: type[T]) -> T:
    """Returns options of a kind, its defaults for None.

    A device, a type, a path and the index of an output are taken by their text.

    Raises:
        BadConfig: they are of another kind, or a field does not fit.
    """
    found: Any = check_kind(name, kind() if given is None else given, kind)
    spoken = {
        field: str(getattr(found, field)).removeprefix("torch.")
        for field, type_ in _SPOKEN.items()
        if isinstance(getattr(found, field, None), type_)
    }
    return check_fields(name, dataclasses.replace(found, **spoken), kind)


def check_fields(
    name: str, options: object, kind: type[T], *, later: Collection[str] = ()
) -> T:
    """Returns options of a kind, every field of which has the type it is declared with.

    Args:
        name: of the argument, for the message.
        options: as the user gave them.
        kind: the dataclass that they should be.
        later: fields that are checked elsewhere.

    Raises:
        BadConfig: they are of another kind, or the first field that does not fit.
    """
    found = check_kind(name, options, kind)
    assert dataclasses.is_dataclass(kind)
    for field, declared in get_type_hints(kind).items():
        value = getattr(found, field)
        if field not in later and not _fits(value, declared):
            guess = nearest(value, _words(declared)) if isinstance(value, str) else ""
            raise _wrong(field, value, _wanted(declared), guess)
    return found


def _fits(value: Any, kind: Any) -> bool:
    """Tells whether a value has a declared type; others than plain ones are taken."""
    origin = get_origin(kind) or kind
    if origin in (UnionType, Union):
        return any(_fits(value, one) for one in get_args(kind))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if origin is tuple:
        inner = get_args(kind)[0]
        several = isinstance(value, Collection) and not isinstance(value, (str, bytes))
        return several and all(_fits(v, inner) for v in value)
    if origin in (int, float):
        number = Integral if origin is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, origin) if origin in _WANTED else True


def _words(kind: Any) -> tuple[str, ...]:
    """Returns the words that a declared type allows."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(word for one in get_args(kind) for word in _words(one))


def _wanted(kind: Any) -> str:
    if get_origin(kind) in (UnionType, Union):
        return " or ".join(_wanted(one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return _WANTED.get(get_origin(kind) or kind, str(kind))


def _wrong(name: str, value: object, wanted: str, guess: str = "") -> BadConfig:
    shown = visible(repr(value), length=_SHOWN)
    return BadConfig(f"{name} is {shown}", hint=f"{guess}give {wanted}")
