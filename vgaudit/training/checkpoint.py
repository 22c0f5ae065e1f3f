"""Checkpoints of a training: whole or not at all, the one before kept, no pickle."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from vgaudit.errors import BadConfig, CannotLoad, CannotWrite
from vgaudit.plain import visible
from vgaudit.retraining import is_given

SCHEMA = 3
"""Of the checkpoint's content; another number is another form."""

CURRENT, PREVIOUS, LOCK = "checkpoint.pt", "checkpoint.previous.pt", "lock"
_PART = ".vgaudit-part"

ANEW = "to begin anew, give --force in place of --resume, or remove the folder"
"""The way on from checkpoints that are of no use."""

CONTENTS = "contents of the data"
VALID_CONTENTS = "contents of the validation data"
_LATER = ("--output", CONTENTS, VALID_CONTENTS)
"""What checkpoints of older versions do not name; hashes are empty where none is."""


class Interrupted(Exception):
    """A training that was asked to end, after its checkpoint was written."""


class RunFolder:
    """The folder of one training's checkpoints.

    Args:
        path: made when it is first needed, and removed in the end; an empty folder that
            is there already stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stays = is_given(path)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other trainings out of the folder.

        Raises:
            CannotWrite: it cannot be made, or another process trains in it.
        """
        shown = visible(str(self.path))
        try:
            self.path.mkdir(exist_ok=True)
            stream = (self.path / LOCK).open("a+b")
        except OSError as error:
            raise CannotWrite(
                f"{shown} cannot be used for checkpoints: {error.strerror or error}",
                hint="choose another folder with --run-folder",
            ) from error
        with stream:
            if not _locked(stream):
                raise CannotWrite(
                    f"another process trains in {shown}",
                    hint="wait for it, or choose another folder with --run-folder",
                )
            try:
                yield
            finally:
                if not self.holds_checkpoint():
                    self.clear()

    def holds_checkpoint(self) -> bool:
        """Tells whether there is something to resume."""
        return any((self.path / name).is_file() for name in (CURRENT, PREVIOUS))

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint; the last one stays until this one is whole.

        Raises:
            CannotWrite: the system refuses; the last checkpoint is untouched.
        """
        current, temporary = self.path / CURRENT, ""
        try:
            handle, temporary = tempfile.mkstemp(dir=self.path, suffix=_PART)
            with os.fdopen(handle, "wb") as stream:
                torch.save({**state, "schema": SCHEMA}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            if current.is_file():
                os.replace(current, self.path / PREVIOUS)
            os.replace(temporary, current)
        except (OSError, RuntimeError) as error:
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            raise CannotWrite(
                f"the checkpoint in {visible(str(self.path))} cannot be written: "
                f"{visible(str(error))}",
                hint="free some space; --resume continues from the last checkpoint",
            ) from error

    def load(self) -> tuple[dict[str, Any], str]:
        """Returns the last checkpoint that is whole, and what to say about it.

        Raises:
            CannotLoad: there is none.
            BadConfig: it was written in another form.
        """
        reasons = []
        for name in (CURRENT, PREVIOUS):
            path = self.path / name
            if not path.is_file():
                continue
            try:
                state = _read(path)
            except Exception as error:
                first = (str(error).splitlines() or [""])[0]
                reasons.append(f"{name} is damaged ({visible(first, length=80)})")
                continue
            _check_schema(state, path)
            note = f"{reasons[0]}: the one before it was used" if reasons else ""
            return state, note
        shown = visible(str(self.path))
        raise CannotLoad(
            f"there is no checkpoint to resume in {shown}"
            + (f": {', '.join(reasons)}" if reasons else ""),
            hint=ANEW,
        )

    def clear(self) -> None:
        """Removes the checkpoints, and the folder if nothing else is in it."""
        for name in (CURRENT, PREVIOUS, LOCK):
            (self.path / name).unlink(missing_ok=True)
        for left in self.path.glob(f"*{_PART}"):
            left.unlink(missing_ok=True)
        if not self._stays:
            with contextlib.suppress(OSError):
                self.path.rmdir()


def _read(path: Path) -> dict[str, Any]:
    """Returns a checkpoint whose checksums are right.

    Raises:
        Exception: of whatever kind, where it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise CannotLoad(f"the checksum of {damaged} is wrong")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _check_schema(state: Mapping[str, Any], path: Path) -> None:
    found = state.get("schema")
    if found != SCHEMA:
        raise BadConfig(
            f"{visible(str(path))} has schema {visible(str(found))}, and this version "
            f"reads {SCHEMA}",
            hint=f"resume with the version of vgaudit that wrote it; {ANEW}",
        )


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns what differs between the training of a checkpoint and this one.

    What one of them does not know of itself is not compared.
    """
    unknown = {name for name in _LATER if "" in (stored.get(name, ""), now.get(name))}
    names = [n for n in dict.fromkeys([*stored, *now]) if n not in unknown]
    pairs = {name: (_told(stored.get(name)), _told(now.get(name))) for name in names}
    return [
        f"{name}: {old} in the checkpoint, {new} now"
        for name, (old, new) in pairs.items()
        if stored.get(name) != now.get(name)
    ]


def _told(value: Any) -> str:
    return "nothing" if value in (None, "", (), [], {}) else visible(str(value))


def _locked(stream: IO[bytes]) -> bool:
    """Takes the lock, which ends with the process; always free where there is none."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks
        return True
    return True
