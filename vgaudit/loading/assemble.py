"""Joins the contents of a file with an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from vgaudit.errors import CannotLoad, UnknownSource
from vgaudit.job import LoadOptions
from vgaudit.loading import factory, huggingface, timm_zoo, torchvision_zoo
from vgaudit.loading.built import Built, has_ties, on_meta
from vgaudit.loading.checkpoint import Entry, select
from vgaudit.loading.contents import Contents
from vgaudit.loading.dcp import format_within
from vgaudit.loading.fit import Weights, fit
from vgaudit.loading.loaded import KeyReport, LoadedModel, Origin, finish
from vgaudit.loading.module_tree import check_tree, state_of
from vgaudit.loading.recognise import recognise
from vgaudit.loading.spec import parse
from vgaudit.loading.tensors import sound
from vgaudit.loading.wording import listed, shorten

BUILDERS = (torchvision_zoo, timm_zoo, huggingface, factory)
"""What can build an architecture; the first that matches is asked."""


def architecture(text: str, options: LoadOptions, *, meta: bool) -> Built:
    """Returns the architecture that ``--arch`` names.

    Args:
        text: a zoo name, a factory, or a directory of transformers.
        options: arguments and seed.
        meta: parameters need no memory yet.

    Raises:
        UnknownSource: nothing builds it.
    """
    # The digest pins the weights, not the code; their key is no key of it.
    options = replace(options, sha256=None, key=None, pretrained=False)
    spec = parse(text, options)
    for builder in BUILDERS:
        if builder.matches(spec):
            built: Built = builder.build(spec, options, on_meta=meta)
            return built
    raise UnknownSource(
        f"{text} names no architecture",
        hint="give torchvision:NAME, timm:NAME, hf:NAME or file.py:factory",
    )


def assemble(
    contents: Contents, key: str | None, arch: str | None, options: LoadOptions
) -> LoadedModel:
    """Returns the model that a file holds, alone or with an architecture.

    Args:
        contents: of the file.
        key: which entry of a checkpoint to take.
        arch: what builds the module for bare weights.
        options: trust, arguments, seed.

    Raises:
        BadConfig: several entries hold weights.
        CannotLoad: none does, or it does not fit.
    """
    place = contents.origin.spec
    entry = select(contents.root, key, place)
    if contents.pending is not None and isinstance(entry.value, Mapping):
        entry = replace(entry, value=contents.pending(entry.value))
    origin = noted(contents.origin, entry)
    if isinstance(entry.value, nn.Module):
        return whole_module(entry.value, origin, arch, options)
    state, notes = sound(entry.value, place)
    versions = getattr(entry.value, "_metadata", None)
    weights = Weights(
        state=state,
        versions=versions if isinstance(versions, Mapping) else None,
        place=place,
    )
    origin = replace(origin, notes=(*origin.notes, *notes))
    return with_architecture(weights, origin, arch, options)


def noted(origin: Origin, entry: Entry) -> Origin:
    """Returns the origin with a note on the entry that was taken."""
    if not entry.key:
        return origin
    is_module = isinstance(entry.value, nn.Module)
    kind = "module-pickle" if is_module else format_within(origin.format)
    note = f"taken from the entry {shorten(entry.key)}"
    return replace(origin, format=kind, notes=(*origin.notes, note))


def whole_module(
    module: nn.Module, origin: Origin, arch: str | None, options: LoadOptions
) -> LoadedModel:
    """Returns a pickled module, or an architecture with its weights."""
    origin = replace(origin, format="module-pickle")
    notes = check_tree(module, origin.spec)
    origin = replace(origin, notes=(*origin.notes, *notes))
    if arch is None:
        return finish(module, origin)
    state = state_of(module, origin.spec)
    weights = Weights(
        state=dict(state),
        versions=getattr(state, "_metadata", None),
        place=origin.spec,
    )
    return with_architecture(weights, origin, arch, options)


def with_architecture(
    weights: Weights, origin: Origin, arch: str | None, options: LoadOptions
) -> LoadedModel:
    """Returns the architecture with the weights in it.

    Raises:
        CannotLoad: no architecture is given, and none is recognised.
    """
    if arch is None:
        guess = recognise(weights.state)
        if guess is None:
            raise unknown_architecture(weights)
        note = f"recognised as {guess}, by keys and shapes"
        origin = replace(origin, notes=(*origin.notes, note))
        arguments = {**guess.arguments, **options.model_args}
        arch, options = guess.spec, replace(options, model_args=arguments)
    built, keys = fitted(weights, arch, options)
    # How a zoo initialised what is overwritten now is no news.
    notes = built.notes if built.format == "factory" else ()
    origin = replace(
        origin, tier=max(origin.tier, built.tier), notes=(*origin.notes, *notes)
    )
    return finish(
        built.module, origin, architecture=built.name, keys=keys, example=built.example
    )


def fitted(
    weights: Weights, arch: str, options: LoadOptions
) -> tuple[Built, KeyReport]:
    """Returns the architecture with the weights in it, and how they fitted.

    Zoo models are built without memory first. Where that leaves anything
    without data, or would untie tied weights, they are built in full.
    """
    allow_missing = options.allow_missing
    light = without_memory(arch, options)
    if light is not None:
        keys = fit(light.module, weights, allow_missing=allow_missing)
        if not on_meta(light.module):
            return light, keys
    built = architecture(arch, options, meta=False)
    return built, fit(built.module, weights, allow_missing=allow_missing)


def without_memory(arch: str, options: LoadOptions) -> Built | None:
    """Returns a zoo model on the meta device, or None where that is not sound."""
    if not arch.startswith((f"{torchvision_zoo.SCHEME}:", f"{timm_zoo.SCHEME}:")):
        return None
    try:
        built = architecture(arch, options, meta=True)
    except CannotLoad:  # its builder computes with weights; in full it may work
        return None
    return None if has_ties(built.module) else built


def unknown_architecture(weights: Weights) -> CannotLoad:
    """Returns the error for weights alone that fit no known architecture."""
    keys: list[Any] = list(weights.state)
    return CannotLoad(
        f"{weights.place} holds weights without an architecture: {listed(keys)}",
        hint="add --arch file.py:factory, torchvision:NAME, timm:NAME or hf:NAME",
    )
