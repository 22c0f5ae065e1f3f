"""``hf:NAME``, ``hf:DIR`` and directories with a ``config.json`` of transformers.

The weights of a directory are checked as any other file before transformers
opens them, code of the repository runs only where that was allowed, and weights
that do not fit are refused, where transformers initialises them anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from vgaudit.errors import CannotLoad
from vgaudit.job import LoadOptions
from vgaudit.loading.built import Built
from vgaudit.loading.hf_example import example
from vgaudit.loading.hf_hub import import_transformers
from vgaudit.loading.hf_repository import (
    CONFIG,
    SCHEME,
    Repository,
    check_weights,
    find_weights,
    open_repository,
)
from vgaudit.loading.loaded import KeyReport, LoadedModel, Origin, finish
from vgaudit.loading.seeding import seeded
from vgaudit.loading.spec import Spec, existing
from vgaudit.loading.wording import SHOWN, listed, one_line, shorten


def matches(spec: Spec) -> bool:
    """Returns whether the specification names a model of transformers."""
    if spec.is_directory:
        return spec.path is not None and (spec.path / CONFIG).exists()
    return spec.has_scheme(SCHEME)


def build(spec: Spec, options: LoadOptions, *, on_meta: bool = False) -> Built:
    """Returns the architecture of a configuration, randomly initialised.

    Raises:
        CannotLoad: it cannot be fetched, needs code, or cannot be built.
    """
    repository = open_repository(spec, options)
    module = construct(repository, options)
    return Built(
        module=module,
        name=type(module).__name__,
        format="huggingface",
        tier="T2" if repository.remote_code else "T0",
        notes=() if on_meta else (f"initialised, seed {options.seed}",),
        example=example(module),
    )


def load(spec: Spec, options: LoadOptions) -> LoadedModel:
    """Returns the model with the weights of its directory.

    A name alone is randomly initialised unless pretrained weights are asked
    for, as with the other zoos.

    Raises:
        CannotLoad: it cannot be fetched, is damaged, needs code, or its weights
            do not fit.
    """
    repository = open_repository(spec, options)
    weights = find_weights(repository.folder)
    named = spec.has_scheme(SCHEME) and existing(spec.body[len(SCHEME) + 1 :]) is None
    if weights is None or (named and not options.pretrained):
        built = build(spec, options)
        origin = Origin(
            spec=spec.text, format=built.format, tier=built.tier, notes=built.notes
        )
        return finish(
            built.module, origin, architecture=built.name, example=built.example
        )
    file = check_weights(repository.folder / weights, options)
    module, keys = restore(repository, options)
    origin = Origin(
        spec=spec.text,
        format="huggingface",
        tier="T2" if repository.remote_code else "T0",
        sha256=file.sha256,
    )
    return finish(module, origin, keys=keys, example=example(module))


def architecture(repository: Repository) -> Any:
    """Returns the class that builds the model: the one that was saved, else a base.

    The name comes from the configuration, so it may only be a model's.
    """
    transformers = import_transformers()
    names = repository.config.get("architectures")
    for name in names if isinstance(names, list) else []:
        found = getattr(transformers, name, None) if isinstance(name, str) else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    auto_map = repository.config.get("auto_map")
    if repository.remote_code and isinstance(auto_map, dict):
        for name in auto_map:
            if name.startswith("AutoModel") and hasattr(transformers, name):
                return getattr(transformers, name)
    return transformers.AutoModel


def construct(repository: Repository, options: LoadOptions) -> nn.Module:
    """Returns the module with seeded weights."""
    transformers = import_transformers()
    code = repository.remote_code
    with reporting(repository), quiet(transformers), seeded(options.seed):
        config = transformers.AutoConfig.from_pretrained(
            repository.folder, local_files_only=True, trust_remote_code=code
        )
        found = architecture(repository)
        if found.__name__.startswith("Auto"):
            made = found.from_config(config, trust_remote_code=code)
        else:
            made = found(config)
    module: nn.Module = made
    return module


def restore(
    repository: Repository, options: LoadOptions
) -> tuple[nn.Module, KeyReport]:
    """Returns the module with its saved weights, and how their keys fitted.

    Raises:
        CannotLoad: keys or shapes differ, and ``allow_missing`` is not set.
    """
    transformers = import_transformers()
    with reporting(repository), quiet(transformers), seeded(options.seed):
        module, report = architecture(repository).from_pretrained(
            repository.folder,
            local_files_only=True,
            trust_remote_code=repository.remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    keys = KeyReport(
        missing=tuple(sorted(report["missing_keys"])),
        unexpected=tuple(sorted(report["unexpected_keys"])),
        notes=tuple(
            f"{shorten(key)} is {list(given)} in the file, {list(wanted)} in the "
            "architecture: left as initialised"
            for key, given, wanted in sorted(report["mismatched_keys"])
        ),
    )
    if not options.allow_missing:
        refuse_misfit(repository.folder, type(module).__name__, keys)
    return module, keys


def refuse_misfit(folder: Path, name: str, keys: KeyReport) -> None:
    """Refuses weights that do not fit, with the first keys of each kind.

    Raises:
        CannotLoad: where any key or shape differs.
    """
    parts = []
    if keys.missing:
        parts.append(f"{len(keys.missing)} missing: {listed(keys.missing)}")
    if keys.unexpected:
        parts.append(f"{len(keys.unexpected)} unexpected: {listed(keys.unexpected)}")
    if keys.notes:
        parts.append(f"{len(keys.notes)} of another shape: {keys.notes[:SHOWN]}")
    if parts:
        raise CannotLoad(
            f"{folder} does not fit {name}: {'; '.join(parts)}",
            hint="load what fits: --allow-missing",
        )


@contextmanager
def reporting(repository: Repository) -> Iterator[None]:
    """Turns what transformers raises into one line.

    Raises:
        CannotLoad: for every exception inside but our own.
    """
    try:
        yield
    except CannotLoad:
        raise
    except Exception as error:
        text = one_line(error)
        raise CannotLoad(
            f"{repository.folder}: transformers cannot load it: {text}",
            hint="check that the directory is complete",
        ) from error


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Silences transformers' own reports and progress bars inside."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
