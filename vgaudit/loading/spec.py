"""A model specification taken apart: path, entry of a checkpoint, text."""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.job import LoadOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A model specification.

    Attributes:
        text: as the user gave it.
        body: without the ``#key`` at its end.
        key: which entry of a checkpoint holds the weights.
        path: ``body`` as a path, where something exists there.
    """

    text: str
    body: str
    key: str | None
    path: Path | None

    @property
    def is_file(self) -> bool:
        """Whether it names something that exists and is no directory."""
        return self.path is not None and not self.path.is_dir()

    @property
    def is_directory(self) -> bool:
        """Whether it names a directory."""
        return self.path is not None and self.path.is_dir()

    def has_scheme(self, scheme: str) -> bool:
        """Returns whether it starts with ``scheme:`` and is no path."""
        return self.path is None and self.body.startswith(f"{scheme}:")


def parse(text: str, options: LoadOptions) -> Spec:
    """Returns the specification; a file whose name holds ``#`` wins over a key.

    Raises:
        BadConfig: empty, or two different keys.
    """
    if not text.strip():
        raise BadConfig(
            "the model specification is empty",
            hint="give a file, a directory, torchvision:NAME or file.py:factory",
        )
    body, key = text, None
    if existing(text) is None and "#" in text:
        body, _, key = text.rpartition("#")
    if key and options.key and key != options.key:
        raise BadConfig(
            f"two keys given: #{key} and --key {options.key}",
            hint="give one of them",
        )
    return Spec(text=text, body=body, key=key or options.key, path=existing(body))


def existing(text: str) -> Path | None:
    """Returns the path where something, if only a dangling link, exists."""
    try:
        return Path(text) if text and os.path.lexists(text) else None
    except ValueError:  # a null character inside
        return None


def no_such_file(path: Path) -> CannotLoad:
    """Returns the error for a path where nothing is, with the nearest names."""
    folder = path.parent
    if not folder.is_dir():
        hint = f"the directory {folder} does not exist either"
        return CannotLoad(f"no such file: {path}", hint=hint)
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        names = []
    near = get_close_matches(path.name, names, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(str(folder / name) for name in near) + "?"
    else:
        hint = f"nothing in {folder} has a name like it"
    return CannotLoad(f"no such file: {path}", hint=hint)
