"""Closes the sandbox around the calling process, and says what held."""

from __future__ import annotations

import tempfile

from vgaudit.errors import CannotRun
from vgaudit.sandbox import landlock
from vgaudit.sandbox.rules import Rules

DEVICES = ("/dev", "/proc/self")
SHARED_MEMORY = "/dev/shm"

OPEN = "not sandboxed"


def close(rules: Rules) -> str:
    """Gives up what the rules do not allow, for this process and all it starts.

    To be called while the process has one thread.

    Returns:
        What the system holds the process to, for the report.

    Raises:
        CannotRun: the rules require a sandbox, and the system has none.
    """
    if rules.mode == "off":
        return f"{OPEN} (switched off)"
    _no_core_dumps()
    own = (*rules.writable, tempfile.gettempdir(), SHARED_MEMORY)
    try:
        held = landlock.restrict(
            writable=own,
            devices=DEVICES,
            network=rules.network or bool(rules.meeting),
            peers=bool(rules.meeting),
        )
        reason = "this system has no Landlock"
    except OSError as error:
        held, reason = None, str(error)
    if rules.mode == "require":
        _demand(held, reason, rules)
    return f"{OPEN} ({reason})" if held is None else _described(held, rules)


def _demand(held: landlock.Held | None, reason: str, rules: Rules) -> None:
    if held is None:
        raise CannotRun(
            f"--require-sandbox: {reason}",
            hint="run on Linux 6.7 or later with Landlock enabled, or leave it out",
        )
    if not rules.network and not rules.meeting and not held.tcp:
        raise CannotRun(
            f"--require-sandbox: Landlock {held.version} cannot hold back TCP",
            hint="run on Linux 6.7 or later, or leave --require-sandbox out",
        )


def _described(held: landlock.Held, rules: Rules) -> str:
    promises = ["writes only to its output"]
    if not rules.writable:
        promises = ["no writes"]
    promises.append("no programs")
    if held.tcp:
        promises.append("no TCP")
    elif rules.meeting:
        promises.append("TCP open for torch.distributed")
    if held.signals:
        promises.append("no signals")
    return f"Landlock {held.version}: {', '.join(promises)}"


def _no_core_dumps() -> None:
    """A crash must not leave the model, or a secret, in a file."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
