"""A file before anything in it is believed: kind, size, digest, first bytes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.loading.spec import no_such_file

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
    """A regular file of known size.

    Attributes:
        path: where it is. size: bytes. sha256: of the whole file.
        head: its first 4096 bytes.
    """

    path: Path
    size: int
    sha256: str
    head: bytes

    def open(self) -> BinaryIO:
        """Returns the file opened for reading."""
        return open(self.path, "rb")

    def damaged(self, detail: str = "") -> CannotLoad:
        """Returns the error for a file that is cut off or corrupt."""
        reason = f" ({detail})" if detail else ""
        return CannotLoad(
            f"{self.path} is truncated or corrupt; {self.size} bytes{reason}",
            hint="copy or download it again",
        )


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
