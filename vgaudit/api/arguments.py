"""Checks of what a function of the API was given, before anything is done with it.

Annotations promise nothing at run time: without these checks a text where a module
belongs fails deep inside, and ``epochs=1.5`` trains for some number of epochs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import torch
from torch import nn

from vgaudit.declared import SHOWN, check_fields, check_kind, fits, wrong
from vgaudit.errors import BadConfig
from vgaudit.plain import visible

T = TypeVar("T")

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
        text = visible(str(model), length=SHOWN)
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
            f"{name} is a text, '{visible(str(data), length=SHOWN)}', and no samples",
            hint="give (x, y), a Dataset, a DataLoader or a list of batches",
        )


def check_loss(loss: object) -> None:
    """Refuses what is neither the name of a loss nor a function.

    Raises:
        BadConfig: it is not.
    """
    if not (loss is None or isinstance(loss, str) or callable(loss)):
        raise wrong(
            "loss", loss, "a name such as 'mse', or a function of output and labels"
        )


def check_folder(name: str, place: object) -> None:
    """Refuses what is no path.

    Raises:
        BadConfig: it is none.
    """
    if not isinstance(place, (str, Path, NoneType)):
        raise wrong(name, place, "a path")


def check_interval(every: object) -> None:
    """Refuses what is no number of steps.

    Raises:
        BadConfig: it is no whole number from 1.
    """
    if not fits(every, int) or every < 1:  # type: ignore[operator]
        raise wrong("every", every, "a whole number of steps, 1 or more")


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
    raise wrong(name, given, f"a list or tuple of texts, such as [{example}]")


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
