"""From what was typed to what the worker may do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vgaudit.errors import BadConfig
from vgaudit.plain import visible
from vgaudit.sandbox import Rules

_DATA_NAMES = ("imagefolder:", "torchvision:")
_ZOOS = ("torchvision:", "timm:")
_HUB = "hf:"


def rules(given: Mapping[str, Any]) -> Rules:
    """Returns the sandbox that a command's options leave open no wider than needed.

    Args:
        given: the parameters of the command by name.

    Raises:
        BadConfig: the options contradict each other.
    """
    if given.get("require_sandbox") and given.get("no_sandbox"):
        raise BadConfig(
            "--require-sandbox and --no-sandbox contradict each other",
            hint="leave one of them out",
        )
    network = _fetches(given)
    folders = [*_outputs(given), *(_caches() if network else ())]
    return Rules(
        mode="require"
        if given.get("require_sandbox")
        else "off"
        if given.get("no_sandbox")
        else "auto",
        writable=tuple(dict.fromkeys(str(folder) for folder in folders)),
        network=network,
        passed=_names(given.get("env")),
        own_code=_runs_code(given),
    )


def _outputs(given: Mapping[str, Any]) -> Iterator[Path]:
    """Yields the folders that the worker itself writes to."""
    if given.get("out") is not None:
        yield Path(given["out"]).absolute().parent
    if given.get("run_folder") is not None:
        folder = Path(given["run_folder"]).absolute()
        # The sandbox can only be told of a folder that is there.
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        yield folder


def _fetches(given: Mapping[str, Any]) -> bool:
    """Returns whether weights that were asked for may have to be downloaded."""
    specs = [spec for spec in (given.get("model"), given.get("arch")) if spec]
    hub = any(
        spec.startswith(_HUB) and not Path(spec.removeprefix(_HUB)).is_dir()
        for spec in specs
    )
    return hub or bool(given.get("pretrained"))


def _caches() -> Iterator[Path]:
    """Yields where torch's and Hugging Face's downloads are kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for name, folder in (("TORCH_HOME", "torch"), ("HF_HOME", "huggingface")):
        place = Path(os.environ.get(name) or home / folder)
        place.mkdir(parents=True, exist_ok=True)
        yield place


def _runs_code(given: Mapping[str, Any]) -> bool:
    if given.get("allow_code") or given.get("trust_pickle"):
        return True
    models = (given.get("model"), given.get("arch"), given.get("loss"))
    named = any(_is_factory(spec, (*_ZOOS, _HUB)) for spec in models)
    data = (given.get("data"), given.get("valid_data"))
    return named or any(_is_factory(spec, _DATA_NAMES) for spec in data)


def _is_factory(spec: str | None, known: tuple[str, ...]) -> bool:
    return spec is not None and ":" in spec and not spec.startswith(known)


def _names(values: list[str] | None) -> tuple[str, ...]:
    names = tuple(values or ())
    for name in names:
        if "=" in name or not name:
            raise BadConfig(
                f"--env {visible(name)}: not the name of a variable",
                hint="set it before the command and pass its name: X=1 vgaudit … "
                "--env X",
            )
    return names
