"""``hf:NAME``, ``hf:DIR`` and directories with a ``config.json`` of transformers.

The weights of a directory are checked as any other file before transformers
opens them, code of the repository runs only where that was allowed, and weights
that do not fit are refused, where transformers initialises them anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vgaudit.errors import CannotLoad, UnknownSource
from vgaudit.job import LoadOptions
from vgaudit.loading.built import Built
from vgaudit.loading.contents import read_index, shard_path
from vgaudit.loading.hf_example import example
from vgaudit.loading.hf_hub import fetch, import_transformers
from vgaudit.loading.loaded import KeyReport, LoadedModel, Origin, finish
from vgaudit.loading.local_file import LocalFile, examine, regular_size
from vgaudit.loading.safetensors_file import read_header
from vgaudit.loading.seeding import seeded
from vgaudit.loading.spec import Spec, existing, no_such_file
from vgaudit.loading.survey import survey
from vgaudit.loading.wording import SHOWN, listed, one_line, shorten

SCHEME = "hf"
CONFIG = "config.json"
ADAPTER = "adapter_config.json"
MAX_CONFIG = 16 * 2**20

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Weights of a directory, in the order in which transformers prefers them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A directory with a model of transformers.

    Attributes:
        folder: where it is.
        config: its ``config.json``.
        remote_code: its architecture is code of its own.
    """

    folder: Path
    config: dict[str, Any]
    remote_code: bool


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


def open_repository(spec: Spec, options: LoadOptions) -> Repository:
    """Returns the directory of a model, its configuration read and judged."""
    if spec.is_directory and spec.path is not None:
        folder = spec.path
    else:
        name = spec.body.removeprefix(f"{SCHEME}:")
        local = existing(name)
        if local is None and name.startswith((".", "/", "~")):
            raise no_such_file(Path(name))
        folder = local or fetch(name, weights=options.pretrained)
    config = read_config(folder)
    refuse_config(folder, config)
    remote = needs_code(config)
    if remote and not options.allow_code:
        kind = shorten(config["model_type"])
        raise CannotLoad(
            f"{folder} refused: its architecture {kind} is code of the repository "
            "(tier T2)",
            hint="read that code; if you trust it, --allow-code",
        )
    return Repository(folder=folder, config=config, remote_code=remote)


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the configuration of a directory.

    Raises:
        CannotLoad: missing, or no JSON object.
    """
    path = folder / CONFIG
    if not folder.is_dir() or regular_size(path) > MAX_CONFIG:
        raise CannotLoad(f"{folder} is no model directory", hint=f"it needs {CONFIG}")
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CannotLoad(f"{path} is no JSON", hint="download it again") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise CannotLoad(
            f"{path} names no model_type: not a model of transformers",
            hint="give the weights file in it and --arch",
        )
    return config


def refuse_config(folder: Path, config: dict[str, Any]) -> None:
    """Refuses quantised models, adapters, and kernels to be downloaded.

    Raises:
        CannotLoad: which of them.
    """
    if config.get("quantization_config"):
        raise CannotLoad(
            f"{folder} is quantised: there are no trainable float weights",
            hint="give the model before quantisation",
        )
    if (folder / ADAPTER).exists():
        raise CannotLoad(
            f"{folder} holds an adapter, not a model",
            hint="merge it into its base model and give that",
        )
    for key, value in config.items():
        if "attn_implementation" in key and "/" in str(value):
            raise CannotLoad(
                f"{folder} refused: {key} names a kernel to download",
                hint=f"remove {key} from {CONFIG}",
            )


def needs_code(config: dict[str, Any]) -> bool:
    """Returns whether transformers has no architecture of that type itself.

    Raises:
        UnknownSource: nor does the repository bring one.
    """
    transformers = import_transformers()
    kind = config["model_type"]
    if kind in transformers.CONFIG_MAPPING:
        return False
    if "auto_map" not in config:
        raise UnknownSource(
            f"transformers {transformers.__version__} has no model type "
            f"{shorten(kind)!r}",
            hint="a newer transformers may have it",
        )
    return True


def find_weights(folder: Path) -> str | None:
    """Returns the file of weights, or index, that transformers would read."""
    return next((name for name in WEIGHTS if (folder / name).exists()), None)


def check_weights(path: Path, options: LoadOptions) -> LocalFile:
    """Returns the weights' file, checked with its shards before it is opened."""
    file = examine(path, options.sha256)
    if path.suffix != ".json":
        check_file(file)
        return file
    for name in sorted(set(read_index(file).values())):
        check_file(examine(shard_path(path, name)))
    return file


def check_file(file: LocalFile) -> None:
    """Refuses a file of weights that is damaged or needs more trust than none.

    Raises:
        CannotLoad: which.
    """
    if file.path.suffix == ".safetensors":
        read_header(file)
        return
    verdict = survey(file).verdict
    if verdict.tier != "T0":
        raise CannotLoad(
            f"{file.path} refused: needs global{'s' if verdict.unsafe else ''} "
            f"{listed(verdict.unsafe) or 'of module classes'} "
            f"(tier {verdict.tier}, sha256 {file.sha256})",
            hint="a directory may only hold plain weights: save it as safetensors",
        )


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
