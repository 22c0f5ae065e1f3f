"""Models in and out: a spec becomes a module, a module a file, or a description."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import nn

from vgaudit import loading, treatments
from vgaudit.api.arguments import check_module
from vgaudit.errors import BadConfig
from vgaudit.flow import Target
from vgaudit.job import LoadOptions
from vgaudit.loading.loaded import Origin, finish


def load(
    spec: str | Path,
    options: LoadOptions | None = None,
    *,
    arch: str | nn.Module | Callable[[], nn.Module] | None = None,
) -> nn.Module:
    """Returns the model behind a model spec; nothing in the file is executed.

    Args:
        spec: a file, directory, ``torchvision:NAME``, ``file.py:factory`` …; a
            converted model, if its recipe lies beside its weights.
        options: architecture, entry of a checkpoint, trust.
        arch: what builds the module for bare or converted weights: a model spec, or
            for converted ones also a fresh module or a function that returns one.

    Raises:
        UnknownSource: no loader understands ``spec``.
        CannotLoad: the file is refused, damaged or does not fit.
        BadConfig: ``arch`` is no spec, and ``spec`` no converted model.
    """
    text, wanted = str(spec), options or LoadOptions()
    if treatments.has_recipe(text):
        return treatments.load(text, arch, options=wanted)
    if arch is not None and not isinstance(arch, str):
        raise BadConfig(
            f"{text} has no recipe beside it, and arch is no model spec",
            hint="build the module yourself and call its load_state_dict",
        )
    if arch is not None:
        wanted = dataclasses.replace(wanted, arch=arch)
    return loading.load(text, wanted).module


def save(
    model: nn.Module,
    path: str | Path,
    *,
    arch: str = "",
    force: bool = False,
) -> tuple[Path, ...]:
    """Writes a model as weights with a recipe beside them, whole or not at all.

    Args:
        model: converted or not.
        path: ``OUT.safetensors``; or ``OUT.pt``, the whole module by pickle.
        arch: how to build the original architecture, ``torchvision:vgg11``; without
            it, whoever loads the model must name it.
        force: replace files that exist.

    Raises:
        CannotWrite: the place is taken, missing or full.
    """
    origin = treatments.Origin(architecture=arch)
    return treatments.save(check_module(model), path, origin=origin, force=force)


def describe(model: nn.Module) -> Target:
    """Returns what is known of a model that was given as an object."""
    origin = Origin(spec=type(model).__name__, format="object", tier="T0")
    return finish(model, origin, architecture=type(model).__qualname__).target
