"""Which file of a folder a model is read from."""

from __future__ import annotations

from pathlib import Path

from vgaudit.errors import CannotLoad
from vgaudit.loading.dcp_metadata import METADATA, SUFFIX
from vgaudit.loading.hf_repository import CONFIG, WEIGHTS, find_weights


def is_distributed(folder: Path) -> bool:
    """Returns whether the weights of a folder are a distributed checkpoint."""
    return find_weights(folder) is None and (folder / METADATA).exists()


def weights_of(path: Path) -> Path:
    """Returns the file that describes the weights of a folder; a file as it is.

    Raises:
        CannotLoad: none of the usual files is there.
    """
    if not path.is_dir():
        return path
    name = find_weights(path)
    if name is None and (path / METADATA).exists():
        name = METADATA
    if name is not None:
        return path / name
    if any(path.glob(f"*{SUFFIX}")):
        raise CannotLoad(
            f"{path} holds a distributed checkpoint without its {METADATA}",
            hint="it is written last: the saving did not end, or the copy left out "
            "what begins with a dot",
        )
    raise CannotLoad(
        f"{path} is a directory without a model: looked for "
        f"{', '.join((CONFIG, *WEIGHTS, METADATA))}",
        hint="name the file in it",
    )
