"""Every source of models, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from vgaudit.errors import BadConfig, UnknownSource
from vgaudit.job import LoadOptions
from vgaudit.loading import (
    exported,
    factory,
    hf_repository,
    huggingface,
    scripted,
    timm_zoo,
    torchvision_zoo,
)
from vgaudit.loading.assemble import assemble
from vgaudit.loading.built import Built, loaded
from vgaudit.loading.contents import read
from vgaudit.loading.folder import is_distributed, weights_of
from vgaudit.loading.loaded import LoadedModel
from vgaudit.loading.spec import Spec, existing, no_such_file, parse
from vgaudit.loading.user_code import forget_folders

UNDERSTOOD = (
    "give a file, a directory, torchvision:NAME, timm:NAME, hf:NAME_OR_DIR, "
    "package.module:factory or file.py:factory"
)


Load = Callable[[Spec, LoadOptions], LoadedModel]
"""Loads the model that a specification names."""


class Build(Protocol):
    """Builds an architecture from a specification."""

    def __call__(
        self, spec: Spec, options: LoadOptions, *, on_meta: bool = False
    ) -> Built:
        """Returns the architecture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """One source of models.

    Attributes:
        name: of the source.
        matches: whether a specification is its own.
        load: the model.
    """

    name: str
    matches: Callable[[Spec], bool]
    load: Load


def load(text: str, options: LoadOptions) -> LoadedModel:
    """Returns the model that a specification names.

    Raises:
        BadConfig: options that contradict each other, or a torch too old to
            read files safely.
        UnknownSource: no loader understands the specification.
        CannotLoad: the file is refused, damaged or does not fit.
    """
    spec = parse(text, options)
    loader = find(spec)
    forget_folders()
    return loader.load(spec, options)


def find(spec: Spec) -> Loader:
    """Returns the first loader that understands a specification.

    Raises:
        CannotLoad: it looks like a path, and nothing is there.
        UnknownSource: none.
    """
    for loader in LOADERS:
        if loader.matches(spec):
            return loader
    if "/" in spec.body or "." in spec.body:
        raise no_such_file(Path(spec.body))
    raise UnknownSource(f"no loader understands {spec.text!r}", hint=UNDERSTOOD)


def from_builder(build: Build) -> Load:
    """Returns the loader of an architecture, with ``--weights`` if given."""

    def load_built(spec: Spec, options: LoadOptions) -> LoadedModel:
        refuse_arch(spec, options)
        if options.weights is not None:
            return with_weights(spec, options)
        check_pinned(spec, options)
        return loaded(build(spec, options), spec)

    return load_built


def check_pinned(spec: Spec, options: LoadOptions) -> None:
    """Refuses a digest for a specification without a file.

    Raises:
        BadConfig: nothing there has a digest.
    """
    place = spec.body.rpartition(":")[0]
    if options.sha256 and not place.endswith(factory.PYTHON):
        raise BadConfig(
            f"--sha256 pins a file, and {spec.text} names none",
            hint="leave --sha256 out",
        )


def refuse_arch(spec: Spec, options: LoadOptions) -> None:
    """Refuses ``--arch`` for a specification that is an architecture itself.

    Raises:
        BadConfig: both are given.
    """
    if options.arch is not None:
        raise BadConfig(
            f"{spec.text} is an architecture already, and --arch {options.arch} "
            "names another",
            hint="give the weights as the model, or by --weights FILE",
        )


def with_weights(spec: Spec, options: LoadOptions) -> LoadedModel:
    """Returns the architecture that was named, with the weights of a file."""
    weights = parse(options.weights or "", options)
    if weights.path is None:
        raise no_such_file(Path(weights.body))
    contents = read(weights_of(weights.path), options.weights or "", options)
    found = assemble(contents, weights.key, spec.body, options)
    return replace(found, target=replace(found.target, spec=spec.text))


def load_file(spec: Spec, options: LoadOptions) -> LoadedModel:
    """Returns the model in a file, with ``--arch`` if given."""
    refuse_weights(spec, options)
    assert spec.path is not None
    contents = read(spec.path, spec.text, options)
    return assemble(contents, spec.key, options.arch, options)


def refuse_weights(spec: Spec, options: LoadOptions) -> None:
    """Refuses ``--weights`` for a specification that holds weights itself.

    Raises:
        BadConfig: both are given.
    """
    if options.weights is not None:
        raise BadConfig(
            f"{spec.text} holds weights already, and --weights names others",
            hint="give one of them, and the architecture by --arch",
        )


def load_directory(spec: Spec, options: LoadOptions) -> LoadedModel:
    """Returns the model in a directory.

    Raises:
        CannotLoad: none of the usual files is there.
    """
    refuse_weights(spec, options)
    assert spec.path is not None
    arch = options.arch
    if arch is None and huggingface.matches(spec):
        if not is_distributed(spec.path):
            return huggingface.load(spec, options)
        # transformers reads no such weights: it builds the model, and we fill it.
        arch = f"{hf_repository.SCHEME}:{spec.path}"
    contents = read(weights_of(spec.path), spec.text, options)
    return assemble(contents, spec.key, arch, options)


def load_hub(spec: Spec, options: LoadOptions) -> LoadedModel:
    """Returns ``hf:NAME`` or ``hf:DIR``."""
    refuse_arch(spec, options)
    if options.weights is not None:
        return with_weights(spec, options)
    folder = existing(spec.body.removeprefix(f"{hf_repository.SCHEME}:"))
    if folder is not None and folder.is_dir() and is_distributed(folder):
        return load_directory(replace(spec, path=folder), options)
    return huggingface.load(spec, options)


def from_program(load_program: Load) -> Load:
    """Returns the loader of a file that is architecture and weights in one."""

    def load_whole(spec: Spec, options: LoadOptions) -> LoadedModel:
        refuse_weights(spec, options)
        refuse_arch(spec, options)
        return load_program(spec, options)

    return load_whole


def is_file(spec: Spec) -> bool:
    """Returns whether the specification names a file that is no Python code."""
    return spec.is_file and not factory.matches(spec)


LOADERS: tuple[Loader, ...] = (
    Loader(
        name="torchvision",
        matches=torchvision_zoo.matches,
        load=from_builder(torchvision_zoo.build),
    ),
    Loader(name="timm", matches=timm_zoo.matches, load=from_builder(timm_zoo.build)),
    Loader(
        name="hub",
        matches=lambda spec: spec.has_scheme(hf_repository.SCHEME),
        load=load_hub,
    ),
    Loader(
        name="directory", matches=lambda spec: spec.is_directory, load=load_directory
    ),
    Loader(name="exported", matches=exported.matches, load=from_program(exported.load)),
    Loader(name="scripted", matches=scripted.matches, load=from_program(scripted.load)),
    Loader(name="file", matches=is_file, load=load_file),
    Loader(name="factory", matches=factory.matches, load=from_builder(factory.build)),
)
