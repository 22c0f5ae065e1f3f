"""``inspect``: what can be said of any model specification."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vgaudit.job import LoadOptions
from vgaudit.loading import factory, hf_repository, huggingface
from vgaudit.loading.assemble import architecture
from vgaudit.loading.folder import is_distributed, weights_of
from vgaudit.loading.inspect_file import of_file
from vgaudit.loading.inspection import Inspection, of_tensors
from vgaudit.loading.loaders import find
from vgaudit.loading.local_file import examine
from vgaudit.loading.spec import Spec, parse
from vgaudit.loading.wording import shorten


def inspect(text: str, options: LoadOptions) -> Inspection:
    """Returns what can be said of a model without running anything of it.

    Zoo models are built, files are read; a pickle that needs more trust than
    none is described by its opcodes, and user code by its name.

    Raises:
        BadConfig, UnknownSource, CannotLoad: as ``load``.
    """
    spec = parse(text, options)
    if spec.is_directory:
        return of_directory(spec, options)
    loader = find(spec)
    if loader.name == "factory":
        return of_code(spec, options)
    if loader.name in ("file", "exported", "scripted"):
        return of_file(spec, options)
    return of_zoo(spec, options)


def of_code(spec: Spec, options: LoadOptions) -> Inspection:
    """Returns the little that can be said of a factory that is not run."""
    place, _, name = spec.body.rpartition(":")
    result = Inspection(
        spec=spec.text,
        format="factory",
        tier="T2",
        architecture=shorten(name),
        notes=("Python code: it runs when the model is loaded, not here",),
    )
    if spec.path is not None or not place:
        raise factory.unnamed(spec)
    if not place.endswith(factory.PYTHON):
        return result
    file = examine(Path(place), options.sha256)
    return replace(result, path=place, size=file.size, sha256=file.sha256)


def of_zoo(spec: Spec, options: LoadOptions) -> Inspection:
    """Returns the figures of an architecture that a zoo builds."""
    built = architecture(spec.body, options, meta=True)
    result = Inspection(spec=spec.text, format=built.format, tier=built.tier)
    described = of_tensors(result, built.module.state_dict())
    return replace(described, architecture=built.name, notes=built.notes)


def of_directory(spec: Spec, options: LoadOptions) -> Inspection:
    """Returns the figures of a directory's weights, and its configuration."""
    assert spec.path is not None
    known = Inspection(spec=spec.text, format="huggingface", tier="T0")
    described = huggingface.matches(spec)
    bare = hf_repository.find_weights(spec.path) is None
    if not (described and bare and not is_distributed(spec.path)):
        known = of_file(replace(spec, path=weights_of(spec.path)), options)
    if not described:
        return known
    config = hf_repository.read_config(spec.path)
    hf_repository.refuse_config(spec.path, config)
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else config["model_type"]
    metadata = {**known.metadata, "model_type": shorten(config["model_type"])}
    known = replace(
        known,
        format="huggingface",
        architecture=shorten(str(first)),
        metadata=metadata,
    )
    if "auto_map" not in config:
        return known
    note = "config.json names code of the repository: --allow-code may be needed"
    return replace(known, notes=(*known.notes, note))
