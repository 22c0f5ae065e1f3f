"""What ``vgaudit doctor`` looks at: this process's side, and the worker's."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from vgaudit import __version__
from vgaudit.cli.process import Limits, WorkerBug, run
from vgaudit.cli.progress import Phases
from vgaudit.errors import VgauditError
from vgaudit.plain import visible
from vgaudit.reports.escaping import inert
from vgaudit.sandbox import Rules, landlock_version

State = Literal["ok", "note", "bad"]

OLDEST_PYTHON, OLDEST_TORCH = (3, 11), (2, 10)
OPTIONAL = ("timm", "transformers", "matplotlib", "lightning", "pytest")
ENOUGH = 256 * 2**20
"""Bytes of free space from which temporary files of a scan have room."""

TIMEOUT = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that was looked at.

    Attributes:
        name: of the thing.
        state: ``bad`` where no audit can run, ``note`` where something is missing.
        text: what was found, and what to do.
    """

    name: str
    state: State
    text: str


def examined(*, silent: bool) -> list[Fact]:
    """Returns all that was looked at; torch runs in the worker only."""
    return [*_python(), *_worker(silent), *_sandbox(), *_folders(), *_packages()]


def exit_code(facts: list[Fact]) -> int:
    """Returns 3 where an audit cannot run."""
    return 3 if any(fact.state == "bad" for fact in facts) else 0


def words(facts: list[Fact]) -> str:
    """Returns the facts as text."""
    wide = max(len(fact.name) for fact in facts)
    lines = [
        f"{fact.state:<5} {fact.name:<{wide}}  {visible(fact.text, length=300)}"
        for fact in facts
    ]
    bad = sum(fact.state == "bad" for fact in facts)
    closing = f"{bad} of {len(facts)} need mending" if bad else "audits can run here"
    return inert("\n".join([*lines, "", closing]) + "\n")


def _python() -> Iterator[Fact]:
    old = sys.version_info < OLDEST_PYTHON
    advice = ": 3.11 or later is needed" if old else ""
    yield Fact(name="vgaudit", state="ok", text=__version__)
    yield Fact(
        name="python",
        state="bad" if old else "ok",
        text=f"{platform.python_version()} on {platform.system()} "
        f"{platform.machine()}{advice}",
    )
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    text = f"{os.cpu_count()}"
    if usable is not None and usable != os.cpu_count():
        text += f", {usable} of them for this process"
    yield Fact(name="cores", state="ok", text=text)


def _worker(silent: bool) -> Iterator[Fact]:
    """Yields what the worker finds: whether torch is there and differentiates."""
    limits = Limits(timeout=TIMEOUT, rules=Rules())
    try:
        with Phases(silent=silent, quiet=True) as phases:
            found: dict[str, Any] = run("doctor", {}, limits=limits, watcher=phases)
    except (VgauditError, WorkerBug) as error:
        text = f"the worker cannot start: {error}; reinstall torch"
        yield Fact(name="torch", state="bad", text=text)
        return
    yield _torch(str(found["torch"]))
    yield Fact(
        name="gradient",
        state="ok" if found["gradient"] else "bad",
        text="backward works" if found["gradient"] else "backward gives a wrong value",
    )
    yield Fact(name="devices", state="ok", text=", ".join(found["devices"]))
    yield Fact(name="threads", state="ok", text=f"{found['threads']} of torch")
    for name in ("torchvision", "safetensors"):
        state: State = "ok" if found[name] == "works" else "note"
        yield Fact(name=name, state=state, text=str(found[name]))


def _torch(text: str) -> Fact:
    numbers = tuple(int(x) for x in text.split("+")[0].split(".")[:2] if x.isdigit())
    if numbers >= OLDEST_TORCH:
        return Fact(name="torch", state="ok", text=text)
    return Fact(
        name="torch",
        state="bad",
        text=f"{text}: reading files safely needs 2.10 or later (CVE-2025-32434, "
        "CVE-2026-24747)",
    )


def _sandbox() -> Iterator[Fact]:
    known = landlock_version()
    if known:
        text = f"Landlock {known}"
        text += "" if known >= 4 else "; from 4 on it holds back TCP too"
    else:
        text = "none: this kernel has no Landlock; runs are not sandboxed"
    yield Fact(name="sandbox", state="ok" if known else "note", text=text)


def _folders() -> Iterator[Fact]:
    yield _folder("temporary files", Path(tempfile.gettempdir()), needed=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    yield _folder("cache", cache, needed=False)


def _folder(name: str, path: Path, *, needed: bool) -> Fact:
    """Returns whether a file can be written into a folder."""
    refused: State = "bad" if needed else "note"
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.write(b"vgaudit")
        statistics = os.statvfs(place) if hasattr(os, "statvfs") else None
    except OSError as error:
        why = error.strerror or str(error)
        return Fact(name=name, state=refused, text=f"{path}: {why}")
    free = statistics.f_bavail * statistics.f_frsize if statistics else ENOUGH
    if free < ENOUGH:
        text = f"{path}: only {free >> 20} MiB are free"
        return Fact(name=name, state="note", text=text)
    return Fact(name=name, state="ok", text=str(path))


def _packages() -> Iterator[Fact]:
    """Yields the optional packages by their metadata; none is imported."""
    for name in OPTIONAL:
        try:
            yield Fact(name=name, state="ok", text=version(name))
        except PackageNotFoundError:
            yield Fact(name=name, state="note", text="not installed (optional)")
