"""A file before anything in it is believed: kind, size, digest, first bytes."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.loading.spec import no_such_file
from vgaudit.loading.wording import shorten

OLDEST_TORCH = (2, 10)
"""Below it, ``torch.load(weights_only=True)`` has known holes.

CVE-2025-32434 and CVE-2026-24747.
"""

HEAD_BYTES = 4096

KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """A regular file of known size, or a part of one.

    Attributes:
        path: where it is. size: bytes. sha256: of the whole file, empty for a part.
        head: its first 4096 bytes.
        begin: of a part in its file; None for a whole file.
    """

    path: Path
    size: int
    sha256: str
    head: bytes
    begin: int | None = None

    def open(self) -> BinaryIO:
        """Returns the file opened for reading."""
        if self.begin is None:
            return open(self.path, "rb")
        return cast(BinaryIO, Window(open(self.path, "rb"), self.begin, self.size))

    def part(self, begin: int, size: int) -> LocalFile:
        """Returns some bytes of it as a file of their own."""
        found = replace(self, begin=begin, size=size, sha256="", head=b"")
        with found.open() as stream:
            return replace(found, head=stream.read(HEAD_BYTES))

    def damaged(self, detail: str = "") -> CannotLoad:
        """Returns the error for a file that is cut off or corrupt."""
        reason = f" ({detail})" if detail else ""
        return CannotLoad(
            f"{self.path} is truncated or corrupt; {self.size} bytes{reason}",
            hint="copy or download it again",
        )


class Window(io.RawIOBase):
    """Some bytes of an open file as a stream of their own; closes it with itself."""

    def __init__(self, stream: BinaryIO, begin: int, size: int) -> None:
        super().__init__()
        self._stream, self._begin, self._size = stream, begin, size
        self._at = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """Its position can be set."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Sets the position; returns it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("a position before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Reads what is left, or as much as the buffer holds; returns how much."""
        room = memoryview(buffer).cast("B")
        left = max(0, min(len(room), self._size - self._at))
        self._stream.seek(self._begin + self._at)
        count = self._stream.readinto(room[:left])  # type: ignore[attr-defined]
        self._at += count
        return int(count)

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()
        super().close()


def require_torch() -> None:
    """Refuses to read model files under a torch with known holes.

    Raises:
        BadConfig: torch is older than 2.10.
    """
    found = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if found and (int(found[1]), int(found[2])) < OLDEST_TORCH:
        raise BadConfig(
            f"torch {torch.__version__} is too old to read model files safely",
            hint="its safe reader has known holes (CVE-2025-32434, "
            "CVE-2026-24747): install torch 2.10 or newer",
        )


def examine(path: Path, sha256: str | None = None) -> LocalFile:
    """Returns what can be said of a file without believing it.

    Args:
        path: the file; links are followed.
        sha256: refuse every other digest.

    Raises:
        BadConfig: torch is too old.
        CannotLoad: missing, unreadable, empty, no regular file, or not the
            file that ``sha256`` names.
    """
    require_torch()
    size = regular_size(path)
    try:
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error
    if sha256 and digest != plain_digest(sha256):
        raise CannotLoad(
            f"{path} is not the file expected: its sha256 is {digest}",
            hint=f"--sha256 asked for {plain_digest(sha256)}",
        )
    return LocalFile(path=path, size=size, sha256=digest, head=head)


def regular_size(path: Path) -> int:
    """Returns the size of a non-empty regular file without opening it.

    Raises:
        CannotLoad: anything else. Opening a pipe or a device could hang.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        if path.is_symlink():
            target = os.readlink(path)
            raise CannotLoad(
                f"{path} is a link to {target}, where nothing is",
                hint="restore the file it points to",
            ) from error
        raise no_such_file(path) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = next((k for test, k in KINDS if test(status.st_mode)), "special")
        raise CannotLoad(
            f"{path} is {kind}, not a regular file",
            hint="copy its content to a file first",
        )
    if status.st_size == 0:
        raise CannotLoad(f"{path} is an empty file", hint="save or download it again")
    return status.st_size


def shard_path(index: Path, name: str) -> Path:
    """Returns the path of a shard, which must lie beside the index.

    A link may only lead to where the Hugging Face cache keeps its files:
    ``blobs`` beside the ``snapshots`` that the index is in.

    Raises:
        CannotLoad: it lies elsewhere, or is missing.
    """
    shown = shorten(name)
    if name != Path(name).name or "\\" in name or name in ("", ".", ".."):
        raise CannotLoad(
            f"{index} refused: the shard {shown} is not a plain file name",
            hint="an index may only name files beside it",
        )
    folder = index.parent.resolve()
    path = index.parent / name
    if not os.path.lexists(path):
        raise CannotLoad(
            f"{index}: the shard {shown} is missing",
            hint=f"download it to {index.parent}",
        )
    home = path.resolve().parent
    cached = folder.parent.name == "snapshots" and home == folder.parents[1] / "blobs"
    if home != folder and not cached:
        raise CannotLoad(
            f"{index} refused: the shard {shown} is a link out of its folder",
            hint="copy the file itself there",
        )
    regular_size(path)
    return path


def unreadable(path: Path, error: OSError) -> CannotLoad:
    """Returns the error for a file the system does not let us read."""
    if isinstance(error, PermissionError):
        hint = f"no permission to read it: chmod u+r {path}"
    else:
        hint = "check the path and the disk"
    return CannotLoad(f"cannot read {path}: {error.strerror}", hint=hint)


def plain_digest(text: str) -> str:
    """Returns the 64 hexadecimal digits of ``sha256:HEX`` or ``HEX``.

    Raises:
        BadConfig: not a SHA-256 digest.
    """
    digits = text.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise BadConfig(
            f"not a SHA-256 digest: {text!r}",
            hint="give sha256: and 64 hexadecimal digits, as vgaudit inspect shows",
        )
    return digits
