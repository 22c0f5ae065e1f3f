"""Files that are safe to open: regular, readable, not empty."""

from __future__ import annotations

import os
import stat
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
    return f"near it: {', '.join(visible(name) for name in near)}" if near else ""
