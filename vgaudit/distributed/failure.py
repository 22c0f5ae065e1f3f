"""Which rank failed first, and which has gone without a word.

The store that all ranks met at is written by whoever fails, before the ranks that
wait for it notice; so all of them can name the cause, and not its echo.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch.distributed as dist

from vgaudit.errors import CannotRun, VgauditError, from_dict
from vgaudit.plain import to_json, visible
from vgaudit.ranks import Ranks

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_FAILED = "failed"
_BEAT = 0.25
_LOOK_EVERY = 4
_PATIENCE = 3.0
_SILENCE = 30.0
_GRACE = 5.0
_WORDLESS = "its process ended without a word"
_WORDLESS_HINT = (
    "the system may have killed it for its memory: try a smaller --batch-size, or "
    "fewer ranks on one machine"
)
# What gloo, NCCL and the store say when somebody else has gone.
_ECHOES = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
_ECHO_TYPES: tuple[type[Exception], ...] = ()
if dist.is_available():
    _ECHO_TYPES = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)

Lost = Callable[[VgauditError], object]


class Pulse(threading.Thread):
    """Shows the other ranks that this one lives, by a number that grows.

    It also watches theirs. Where one has failed or fallen silent, and this rank does
    not notice by itself (it computes, or waits in a collective that nothing ends),
    ``lost`` is called.

    Args:
        store: where all ranks meet.
        ranks: the place of this one.
        lost: takes the error that ends the run; None to leave it to the collectives.
    """

    def __init__(self, store: Store, ranks: Ranks, lost: Lost | None) -> None:
        super().__init__(name="vgaudit-pulse", daemon=True)
        self._store, self._ranks, self._lost = store, ranks, lost
        self._others = [r for r in range(ranks.size) if r != ranks.rank]
        self._seen = {other: (b"", time.monotonic()) for other in self._others}
        self._ended = threading.Event()

    def run(self) -> None:
        """Beats and looks until it is ended, or a rank is lost."""
        beats, error = 0, None
        store = self._store
        try:
            # All keys are there before anybody asks for them.
            store.add(_pulse(self._ranks.rank), 1)
            store.wait([_pulse(other) for other in self._others])
            while error is None and not self._ended.wait(_BEAT):
                store.add(_pulse(self._ranks.rank), 1)
                beats += 1
                if beats % _LOOK_EVERY == 0:
                    error = self._looked()
        except RuntimeError:
            error = _vanished([] if self._ranks.first else [0])
        if error is not None and not self._ended.wait(_GRACE) and self._lost:
            self._lost(error)

    def end(self) -> None:
        """Stops; to be called before the store goes."""
        self._ended.set()
        self.join(timeout=2 * _BEAT)

    def _looked(self) -> VgauditError | None:
        told = _told(self._store, patient=False)
        if told is not None:
            who, error = told
            return error if who == self._ranks.rank else _named(who, error)
        now = time.monotonic()
        pulses = self._store.multi_get([_pulse(other) for other in self._others])
        for other, pulse in zip(self._others, pulses, strict=True):
            if pulse != self._seen[other][0]:
                self._seen[other] = (pulse, now)
        silent = [o for o in self._others if now - self._seen[o][1] > _SILENCE]
        return _vanished(silent) if silent else None


def _pulse(rank: int) -> str:
    return f"pulse/{rank}"


def report(store: Store, rank: int, error: BaseException) -> None:
    """Tells all ranks why this one ends; the first who tells is the cause."""
    with contextlib.suppress(RuntimeError):
        store.compare_set(_FAILED, "", f"{rank} {record(error)}")


def cause(store: Store, ranks: Ranks, error: Exception) -> Exception:
    """Returns what to raise on this rank, where ``error`` came up.

    That is the error of whoever failed first. Where ``error`` only says that another
    rank has gone, and none has told why, it names the rank whose pulse has stopped.
    """
    if not is_echo(error):
        report(store, ranks.rank, error)
    try:
        told = _told(store, patient=is_echo(error)) or _missed(store, ranks)
        if told is None:
            return _vanished([])
    except RuntimeError:
        # The store lives with the first rank, or with the launcher, and has gone with
        # it: what went wrong here says more than that.
        if not is_echo(error):
            return error
        return _vanished([] if ranks.first else [0])
    who, found = told
    same = isinstance(error, VgauditError) and error.message == found.message
    return error if who == ranks.rank or same else _named(who, found)


def agreed(
    failed: Sequence[tuple[int, str]], ranks: Ranks, error: BaseException | None
) -> Exception:
    """Returns what to raise on this rank, where all know of all errors.

    Args:
        failed: the ranks that failed, each with its ``record``.
        ranks: the place of this one.
        error: what came up on this one.
    """
    rank, text = failed[0]
    found = _told_by(text)
    alike = len(failed) == ranks.size and len({text for _, text in failed}) == 1
    if isinstance(error, VgauditError) and (alike or rank == ranks.rank):
        return error
    return found if alike else _named(rank, found)


def _named(rank: int, error: VgauditError) -> VgauditError:
    """Returns the error with the rank that it came up on."""
    return type(error)(f"rank {rank} failed: {error.message}", hint=error.hint)


def is_echo(error: BaseException) -> bool:
    """Tells whether an error says no more than that another rank has gone."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, _ECHO_TYPES) or any(e in str(found) for e in _ECHOES):
            return True
        found = found.__cause__ or found.__context__
    return False


def record(error: BaseException | None) -> str:
    """Returns an error as text, empty for none."""
    if error is None:
        return ""
    if not isinstance(error, VgauditError):
        said = visible(str(error) or "without a message", length=500)
        error = CannotRun(f"{type(error).__name__}: {said}")
    return to_json(error.to_dict())


def _told_by(text: str) -> VgauditError:
    return from_dict(json.loads(text))


def _told(store: Store, *, patient: bool) -> tuple[int, VgauditError] | None:
    for _ in _moments(_PATIENCE if patient else 0.0):
        if store.check([_FAILED]):
            rank, _, text = store.get(_FAILED).decode().partition(" ")
            return int(rank), _told_by(text)
    return None


def _moments(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    yield
    while time.monotonic() < deadline:
        time.sleep(0.05)
        yield


def _missed(store: Store, ranks: Ranks) -> tuple[int, VgauditError] | None:
    """Tells all, in its place, that a rank has died; returns who and what is told.

    Ranks notice one after another. Those that leave first would be taken for dead by
    the others, if they did not say whom they missed.
    """
    silent = _silent(store, ranks)
    if silent and not store.check([_FAILED]):
        report(store, silent[0], CannotRun(_WORDLESS, hint=_WORDLESS_HINT))
    return _told(store, patient=False)


def _silent(store: Store, ranks: Ranks) -> list[int]:
    """Returns the ranks whose pulse has stopped."""
    others = [other for other in range(ranks.size) if other != ranks.rank]
    before = {other: store.add(_pulse(other), 0) for other in others}
    time.sleep(6 * _BEAT)
    return [other for other in others if store.add(_pulse(other), 0) == before[other]]


def _vanished(ranks: list[int]) -> VgauditError:
    who = ", ".join(map(str, ranks)) or "another"
    return CannotRun(
        f"rank {who} failed: {_WORDLESS}",
        hint=_WORDLESS_HINT,
    )
