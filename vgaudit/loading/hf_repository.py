"""A directory of transformers, its configuration and weights, before either is used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgaudit.errors import CannotLoad, UnknownSource
from vgaudit.job import LoadOptions
from vgaudit.loading.contents import check_plain, read_index
from vgaudit.loading.hf_hub import fetch, import_transformers
from vgaudit.loading.local_file import (
    LocalFile,
    examine,
    regular_size,
    shard_path,
)
from vgaudit.loading.spec import Spec, existing, no_such_file
from vgaudit.loading.wording import shorten

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
        check_plain(file)
        return file
    for name in sorted(set(read_index(file).values())):
        check_plain(examine(shard_path(path, name)))
    return file
