"""The parent's side of the worker: start it, listen, and leave no orphan.

The worker runs in a process group of its own. However the conversation ends, by
an answer, a time limit, a signal or an error, the whole group is killed; and should
this process be killed, the worker notices that its standard input ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from vgaudit.cli.ending import Ending
from vgaudit.errors import CannotRun, VgauditError, from_dict
from vgaudit.job import ScanJob
from vgaudit.plain import to_json, visible
from vgaudit.ranks import launched
from vgaudit.sandbox import Rules, environment

MOST_BYTES = 512 * 2**20
"""The longest answer that is read: a result with some hundred thousand layers."""

TAIL = 30
_BOOT = Path(__file__).resolve().parents[1] / "boot.py"


class Watcher(Protocol):
    """Who is told what the worker does."""

    def phase(self, name: str) -> None:
        """Begins a phase, such as ``loading``."""

    def note(self, line: str) -> None:
        """Shows a line that the model's own code wrote."""


class WorkerBug(Exception):
    """An error in the worker that is nobody's but vgaudit's own."""

    def __init__(self, message: str, details: str) -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a worker may use: wall-clock seconds, bytes of memory, and the sandbox."""

    timeout: float | None = None
    max_memory: int | None = None
    rules: Rules = field(default_factory=Rules)


class Leash:
    """Holds the workers that other threads talk to; a context manager.

    Threads are cut off where the command is interrupted, before they could end their
    workers, or while they clean up. What leaves this one ends all workers, with the
    processes they started, and removes their folders.
    """

    def __init__(self) -> None:
        self._held: list[tuple[_Conversation, str]] = []
        self._lock = threading.Lock()
        self._cut = False

    def hold(self, conversation: _Conversation, folder: str) -> None:
        """Takes a worker and its folder; one that comes too late ends at once."""
        with self._lock:
            self._held.append((conversation, folder))
            if self._cut:
                conversation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        with self._lock:
            self._cut = True
            for conversation, folder in self._held:
                conversation.close()
                shutil.rmtree(folder, ignore_errors=True)


def run(
    task: str,
    job: Any,
    *,
    limits: Limits,
    watcher: Watcher,
    ending: Ending | None = None,
    leash: Leash | None = None,
) -> Any:
    """Returns the result of a task, as plain values.

    Args:
        task: a name in ``vgaudit.worker.TASKS``.
        job: its job, a dataclass or plain values.
        limits: the worker is killed beyond them.
        watcher: told of phases and of lines on standard error.
        ending: for tasks that save what they have when they are interrupted.
        leash: for a run in another thread than the main one.

    Raises:
        VgauditError: what the worker raised; ``CannotRun`` where it was killed,
            crashed, or ran beyond a limit.
        WorkerBug: an error in vgaudit itself.
    """
    limits = meeting(limits, task)
    with _scratch() as folder:
        conversation = _Conversation(_started(limits.rules, folder), watcher)
        if leash is not None:
            leash.hold(conversation, folder)
        try:
            conversation.ask(_request(task, job, limits, folder))
            if ending is None:
                return conversation.answer(limits.timeout)
            with ending.listening(lambda: conversation.end(ending.words)):
                return conversation.answer(limits.timeout, ending)
        except _Ended as end:
            raise _why(end, conversation, job) from None
        finally:
            conversation.close()


def meeting(limits: Limits, name: str) -> Limits:
    """Lets the worker meet those of the other ranks, where there are any.

    Args:
        limits: for a command that the ranks share.
        name: of the meeting, if it has none yet; each worker needs another one.
    """
    if launched() is None or limits.rules.meeting:
        return limits
    return replace(limits, rules=replace(limits.rules, meeting=name))


def _request(task: str, job: Any, limits: Limits, folder: str) -> bytes:
    request = {
        "task": task,
        "job": job,
        "max_memory": limits.max_memory,
        "sandbox": limits.rules,
        "scratch": folder,
    }
    return to_json(request).encode("ascii") + b"\n"


def _started(rules: Rules, folder: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        _command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=os.name == "posix",
        env=environment(rules, os.environ, folder),
    )


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Returns a folder for the worker's temporary files, gone with the worker."""
    try:
        return tempfile.TemporaryDirectory(
            prefix="vgaudit-", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise CannotRun(
            f"no folder for temporary files: {error.strerror or error}",
            hint="free some space, or set TMPDIR to a folder that can be written to",
        ) from error


def _command() -> list[str]:
    return [sys.executable, "-P", str(_BOOT)]


class _Ended(Exception):
    """The worker is gone without an answer; it left this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Conversation:
    """One request, and the lines that come back."""

    def __init__(self, process: subprocess.Popen[bytes], watcher: Watcher) -> None:
        self.process = process
        self.watcher = watcher
        self.phase = "starting"
        self._closing, self._closed = threading.Lock(), False
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self.ears = [
            threading.Thread(target=self._listen, args=(process.stdout,), daemon=True),
            threading.Thread(
                target=self._overhear, args=(process.stderr,), daemon=True
            ),
        ]
        for ear in self.ears:
            ear.start()

    def ask(self, request: bytes) -> None:
        """Sends the request and leaves the pipe open, as a sign of life."""
        pipe = self.process.stdin
        if pipe is not None:
            # A worker that died at once is noticed by its missing answer.
            with contextlib.suppress(BrokenPipeError):
                pipe.write(request)
                pipe.flush()

    def end(self, words: str) -> None:
        """Asks the worker to end after its step, and tells the user of it."""
        self.watcher.phase(f"{words}; once more ends at once")
        self.ask(b"end\n")

    def answer(self, timeout: float | None, ending: Ending | None = None) -> Any:
        """Returns the result; passes phases on until it comes.

        Raises:
            CannotRun: the time is over, and the worker did not end by itself.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        grace = ending.grace if ending is not None else 0.0
        advance = ending.advance if ending is not None else None
        while True:
            try:
                message = self._next(deadline)
            except queue.Empty:
                if ending is None or deadline is None or not grace:
                    raise self._overrun(timeout) from None
                self._time_is_over(timeout, ending)
                deadline, grace = deadline + grace, 0.0
                continue
            if advance and isinstance(message.get("progress"), dict):
                advance(message["progress"])
            elif "progress" in message:
                self.phase = visible(str(message["progress"]))
                self.watcher.phase(self.phase)
            elif "error" in message:
                raise _error(message["error"])
            elif "crash" in message:
                crash = message["crash"]
                raise WorkerBug(crash["message"], crash["traceback"])
            else:
                return message["result"]

    def close(self) -> None:
        """Kills what is left of the worker and of the processes it started; once."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._kill()

    def _kill(self) -> None:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        elif self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for ear in self.ears:
            ear.join(timeout=1.0)

    def _time_is_over(self, timeout: float | None, ending: Ending) -> None:
        """Asks for the end as a signal does, unless one has done so before."""
        if not ending.status:
            ending.status = CannotRun.exit_code
            self.end(f"ran longer than {timeout:g} s: {ending.words}")

    def _overrun(self, timeout: float | None) -> CannotRun:
        return CannotRun(
            f"ran longer than {timeout:g} s and was stopped (while {self.phase})",
            hint="raise --timeout, or lower --batch-size or --batches",
        )

    def _next(self, deadline: float | None) -> dict[str, Any]:
        """Returns the worker's next message.

        Raises:
            queue.Empty: none came before the deadline.
        """
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        line = self.lines.get(timeout=left)
        if line is None:
            raise _Ended(self.process.wait())
        if len(line) > MOST_BYTES:
            raise CannotRun(
                f"the result is larger than {MOST_BYTES >> 20} MiB",
                hint="scan a part of the model",
            )
        message: dict[str, Any] = json.loads(line)
        return message

    def _listen(self, stream: BinaryIO) -> None:
        while line := stream.readline(MOST_BYTES + 1):
            self.lines.put(line)
        self.lines.put(None)

    def _overhear(self, stream: BinaryIO) -> None:
        while line := stream.readline(4096):
            text = visible(line.decode("utf-8", "replace").rstrip("\n"), length=1000)
            self.tail.append(text)
            self.watcher.note(text)


def _error(record: dict[str, Any]) -> VgauditError:
    error = from_dict(record)
    error.add_note(str(record.get("traceback", "")))
    return error


def _why(end: _Ended, conversation: _Conversation, job: Any) -> VgauditError:
    """Returns what to tell the user about a worker that went without an answer."""
    phase = conversation.phase
    if end.status == -signal.SIGKILL:
        error = CannotRun(
            f"out of memory: the system killed the process (while {phase})",
            hint=f"try --batch-size {_smaller(job)}",
        )
    elif end.status < 0:
        name = signal.strsignal(-end.status) or "unknown signal"
        error = CannotRun(
            f"the process crashed: {name} (signal {-end.status}, while {phase})",
            hint="native code of the model or of torch failed; --debug shows more",
        )
    else:
        error = CannotRun(
            f"the process ended by itself with exit code {end.status} (while {phase})",
            hint="code of the model may have called os._exit; --debug shows more",
        )
    error.add_note("\n".join(conversation.tail))
    return error


def _smaller(job: Any) -> int:
    size = job.data.batch_size if isinstance(job, ScanJob) else None
    return max((size or 8) // 2, 1)
