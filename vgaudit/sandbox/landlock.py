"""Linux Landlock by its three system calls: rights that a process gives up.

Landlock (Linux 5.13) restricts the calling thread and everything it starts from
then on, without privileges and for good. Constants and structures are those of
``linux/landlock.h``; each version of the interface knows more rights.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION = 1
PATH_BENEATH = 1
NO_NEW_PRIVILEGES = 38

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK = 1 << 6, 1 << 7, 1 << 8, 1 << 9
MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 1 << 10, 1 << 11, 1 << 12
REFER, TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1

_WRITES = (
    *(WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK),
    *(MAKE_FIFO, MAKE_BLOCK, MAKE_SYM),
)
_SINCE = {REFER: 2, TRUNCATE: 3, IOCTL_DEVICE: 5}
_ON_FILES = WRITE_FILE | TRUNCATE | IOCTL_DEVICE


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What Landlock holds a process to.

    Attributes:
        version: of the interface.
        writes, execution: of files. tcp: connections. signals: to other processes.
    """

    version: int
    writes: bool
    execution: bool
    tcp: bool
    signals: bool


def version() -> int:
    """Returns the version of Landlock that the kernel offers, 0 without any."""
    if not sys.platform.startswith("linux"):
        return 0
    found: int = _call(CREATE_RULESET, None, 0, ASK_VERSION)
    return max(found, 0)


def restrict(
    *,
    writable: Iterable[str],
    devices: Iterable[str],
    network: bool,
    peers: bool = False,
) -> Held | None:
    """Gives up writing elsewhere, executing programs and TCP; None without Landlock.

    Args:
        writable: folders below which everything may be written.
        devices: folders below which existing files may be written to.
        network: keep TCP.
        peers: keep abstract sockets, by which NCCL's processes on one machine meet.

    Raises:
        OSError: the kernel offers Landlock and refuses it here.
    """
    known = version()
    if not known:
        return None
    files = _file_rights(known)
    tcp = known >= 4 and not network
    signals = known >= 6
    attributes = _Ruleset(
        EXECUTE | files,
        BIND_TCP | CONNECT_TCP if tcp else 0,
        (SIGNALS if peers else ABSTRACT_SOCKETS | SIGNALS) if signals else 0,
    )
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    ruleset = _checked(CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        for folder in writable:
            _allow(ruleset, folder, files)
        for folder in devices:
            _allow(ruleset, folder, files & _ON_FILES)
        _give_up_privileges()
        _checked(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return Held(version=known, writes=True, execution=True, tcp=tcp, signals=signals)


def _file_rights(known: int) -> int:
    later = (right for right, since in _SINCE.items() if known >= since)
    rights = 0
    for right in (*_WRITES, *later):
        rights |= right
    return rights


def _allow(ruleset: int, folder: str, rights: int) -> None:
    # A folder that is not there needs no permission.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        handle = os.open(folder, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
        try:
            beneath = _Beneath(rights, handle)
            _checked(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(beneath), 0)
        finally:
            os.close(handle)


def _give_up_privileges() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")


def _checked(number: int, *arguments: object) -> int:
    found = _call(number, *arguments)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return found


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    found: int = libc.syscall(ctypes.c_long(number), *arguments)
    return found
