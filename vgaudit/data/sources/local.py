"""Files that are safe to open: regular, readable, not empty."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from vgaudit.errors import CannotLoad
from vgaudit.plain import visible


def regular_file(text: str) -> Path:
    """Returns the path of a file that can be read at once.

    Raises:
        CannotLoad: it is missing, no regular file, unreadable or empty.
    """
    path = Path(text)
    try:
        facts = path.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise CannotLoad(
                f"no such file: {visible(text)}", hint=_nearest(path)
            ) from None
        raise CannotLoad(f"cannot read {visible(text)}: {error.strerror}") from None
    except ValueError as error:  # a null byte
        raise CannotLoad(f"not a file name: {visible(text)} ({error})") from None
    if not stat.S_ISREG(facts.st_mode):
        kind = "a directory" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
        raise CannotLoad(
            f"{visible(text)} is {kind}",
            hint="give a file; for a folder of images, imagefolder:DIR",
        )
    if facts.st_size == 0:
        raise CannotLoad(f"{visible(text)} is an empty file")
    if not os.access(path, os.R_OK):
        raise CannotLoad(f"no permission to read {visible(text)}")
    return path


@contextlib.contextmanager
def reading_archive(name: str) -> Iterator[None]:
    """Turns whatever a damaged zip archive makes ``zipfile`` raise into ours.

    Raises:
        CannotLoad: the block failed.
    """
    try:
        yield
    except CannotLoad:
        raise
    except MemoryError:
        raise CannotLoad(f"{name} does not fit into memory") from None
    except Exception as error:  # text, numbers and offsets in it may all be wrong
        reason = visible(str(error)) or type(error).__name__
        raise CannotLoad(
            f"{name} is damaged or no archive: {reason}",
            hint="copy, download or save it again",
        ) from None


def missing(spec: str) -> str:
    """Returns a remark for a spec that is a path to something or nothing."""
    try:
        path = Path(spec)
        if path.is_dir():
            return ", a directory (for images: imagefolder:DIR)"
        return "" if path.exists() else ", and no such file exists"
    except (OSError, ValueError):
        return ""


def _nearest(path: Path) -> str:
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return f"there is no folder {visible(str(path.parent))} either"
    near = get_close_matches(path.name, names, n=3)
    if not near:
        return "check its name, and the folder that it is relative to"
    return f"near it: {', '.join(visible(name) for name in near)}"
