"""The child process of the command line: it loads and runs models.

The parent writes one line of JSON to its standard input (the task, its job, and
the memory limit) and keeps that pipe open. The worker answers in lines of JSON on
what was its standard output: ``{"progress": …}`` any number of times, then one of
``{"result": …}``, ``{"error": …}`` or ``{"crash": …}``.

What a user's model prints must not reach that channel, so the descriptors move
before anything else happens: whatever writes to standard output afterwards writes
to standard error. A further line on standard input asks a training to end after its
step, and a scan after its batch; when standard input ends, the parent is gone, and
so is this process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, get_args, get_type_hints

from vgaudit.errors import BadConfig, CannotRun, VgauditError
from vgaudit.flow import Audit
from vgaudit.job import DataOptions, LoadOptions, ProbeOptions, ScanJob
from vgaudit.plain import UNSPELLED, to_json, to_plain
from vgaudit.ranks import launched
from vgaudit.sandbox import OPEN, Rules, close

if TYPE_CHECKING:
    from vgaudit.distributed import Group

__all__ = ["TASKS", "main"]

Progress = Callable[[str], None]

REPORT_EVERY = 0.2
"""Seconds between two reports of how far a training is."""


class Parent:
    """The process that asked: hears of phases, and may ask for an early end.

    Args:
        send: writes one message, of a kind.
    """

    def __init__(self, send: Callable[[str, Any], None]) -> None:
        self._send = send
        self._asked = threading.Event()
        self._last: tuple[float, int, str] = (0.0, 0, "")

    def __call__(self, phase: str) -> None:
        """Tells that a phase begins."""
        self._send("progress", phase)

    def report(self, progress: Any) -> None:
        """Tells how far a training is; at every epoch, else not too often."""
        sent, epoch, run = self._last
        now = time.monotonic()
        news = (progress.finished, progress.run) != (epoch, run)
        if news or now - sent >= REPORT_EVERY:
            self._last = (now, progress.finished, progress.run)
            self._send("progress", progress)

    def lost(self, error: VgauditError) -> None:
        """Ends this process, stuck as it is, because another rank is gone."""
        self._send("error", _traced(error.to_dict()))
        os._exit(0)

    @property
    def stopping(self) -> bool:
        """Whether the parent asked to end after the current step."""
        return self._asked.is_set()

    def listen(self, requests: BinaryIO, scratch: str | None) -> None:
        """Hears every further line as the wish to end; no more lines, as its death."""
        for _line in requests:
            self._asked.set()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)


Task = Callable[[dict[str, Any], Parent], Any]


def scan(record: dict[str, Any], parent: Parent) -> Any:
    """Returns the audit of a scan job, of fewer batches where the parent asks so."""
    parent("starting torch")
    from vgaudit.measure import measure

    def say(phase: str) -> bool:
        parent(phase)
        return parent.stopping

    job = _scan_job(record)
    with _among_ranks(parent, job.probe.device) as group:
        return measure(job, say, group)


@contextlib.contextmanager
def _among_ranks(
    parent: Parent, device: str, *, longer: float = 0.0
) -> Iterator[Group | None]:
    """Meets the other ranks for the time of a task, where there are any.

    Args:
        parent: told of it, and of ranks that are lost.
        device: where the task runs.
        longer: seconds beyond the usual ones that a rank may wait for another.
    """
    ranks = launched()
    if ranks is None:
        yield None
        return
    from vgaudit.distributed import joined
    from vgaudit.distributed.group import TIMEOUT

    parent(f"waiting for {ranks.size} ranks")
    with joined(ranks, device, timeout=TIMEOUT + longer, lost=parent.lost) as group:
        yield group


def score(record: dict[str, Any], parent: Parent) -> Any:
    """Returns the audit of a scan job, and how good its model is on labelled data."""
    parent("starting torch")
    from vgaudit.scoring import measure_and_score

    job = _scan_job(record)
    with _among_ranks(parent, job.probe.device) as group:
        return measure_and_score(job, parent, group)


def inspect(record: dict[str, Any], progress: Progress) -> Any:
    """Returns what a file is, without running anything that is in it."""
    progress("starting torch")
    from vgaudit import loading

    progress("reading")
    return loading.inspect(record["spec"], _options(LoadOptions, record["load"]))


def structure(record: dict[str, Any], progress: Progress) -> Any:
    """Returns the dataflow of a scan job's model, found without computing."""
    progress("starting torch")
    from vgaudit.measure import outline

    return outline(_scan_job(record), progress)


def retrain(record: dict[str, Any], parent: Parent) -> Any:
    """Returns what a training did; ends early, saved, where the parent asks for it."""
    parent("starting torch")
    from vgaudit.retraining import RetrainOptions
    from vgaudit.training.crew import Crew
    from vgaudit.training.retrain import Listener, RetrainJob
    from vgaudit.training.retrain import retrain as retrained
    from vgaudit.training.signals import asked_to_stop

    plain = {k: v for k, v in record.items() if k not in ("scan", "options")}
    job = RetrainJob(
        scan=_scan_job(record["scan"]),
        options=_options(RetrainOptions, record["options"]),
        **plain,
    )
    with asked_to_stop() as asked:
        listener = Listener(
            say=parent, report=parent.report, stop=lambda: asked() or parent.stopping
        )
        with _among_ranks(parent, job.scan.probe.device) as group:
            return retrained(job, listener, Crew(group))


def fix(record: dict[str, Any], parent: Parent) -> Any:
    """Returns what a repair tried; ends early, kept, where the parent asks for it."""
    parent("starting torch")
    from vgaudit.fixing import FixOptions
    from vgaudit.judge import Policy
    from vgaudit.repair.job import FixJob, run
    from vgaudit.training.crew import Crew
    from vgaudit.training.retrain import Listener
    from vgaudit.training.signals import asked_to_stop

    plain = {k: v for k, v in record.items() if k not in ("scan", "options", "policy")}
    job = FixJob(
        scan=_scan_job(record["scan"]),
        options=_options(FixOptions, record["options"]),
        policy=_options(Policy, record["policy"]),
        **plain,
    )
    with asked_to_stop() as asked:
        listener = Listener(
            say=parent, report=parent.report, stop=lambda: asked() or parent.stopping
        )
        # Each waits for the longest of the trainings that run beside its own.
        budget, device = job.options.budget, job.scan.probe.device
        with _among_ranks(parent, device, longer=2 * budget) as group:
            return run(job, listener, Crew(group))


def convert(record: dict[str, Any], progress: Progress) -> Any:
    """Returns what a conversion did, with the scans before and after."""
    progress("starting torch")
    from vgaudit.conversion import ConvertOptions
    from vgaudit.treatments import ConvertJob
    from vgaudit.treatments import convert as converted

    job = ConvertJob(
        scan=_scan_job(record["scan"]),
        options=_options(ConvertOptions, record["options"]),
        output=record["output"],
        force=record["force"],
        command=record["command"],
    )
    return converted(job, progress)


def doctor(record: dict[str, Any], progress: Progress) -> Any:
    """Returns what torch finds on this machine."""
    progress("starting torch")
    from vgaudit.doctor import examine

    return examine(progress)


TASKS: dict[str, Task] = {
    "convert": convert,
    "doctor": doctor,
    "fix": fix,
    "inspect": inspect,
    "retrain": retrain,
    "scan": scan,
    "score": score,
    "structure": structure,
}


def main() -> None:
    """Runs one task for the parent process, then ends this process."""
    requests, answers = _take_channels()
    request = _request(requests)
    # Only threads that start later are held to the sandbox.
    held = _sandboxed(request)

    def send(kind: str, value: Any) -> None:
        answers.write(to_json({kind: value}).encode("ascii") + b"\n")
        answers.flush()

    parent = Parent(send)
    ears = (requests, request.get("scratch"))
    threading.Thread(target=parent.listen, args=ears, daemon=True).start()
    send(*_outcome(request, held, parent))
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads and exit functions of the user's code must not keep the worker alive.
    os._exit(0)


def _sandboxed(request: dict[str, Any]) -> str | VgauditError:
    """Closes the sandbox; returns what held, or why the task must not begin."""
    try:
        return close(_options(Rules, request.get("sandbox") or {}))
    except VgauditError as error:
        return error


def _outcome(
    request: dict[str, Any], held: str | VgauditError, parent: Parent
) -> tuple[str, Any]:
    """Returns what kind of answer a task came to, and the answer as plain values."""
    try:
        if isinstance(held, VgauditError):
            raise held
        _limit_memory(request["max_memory"])
        answer = TASKS[request["task"]](request["job"], parent)
        return "result", to_plain(_stating(held, answer))
    except VgauditError as error:
        return "error", _traced(_with_way_out(error, held).to_dict())
    except MemoryError:
        hint = "try a smaller --batch-size, or raise --max-memory"
        return "error", _traced(CannotRun("out of memory", hint=hint).to_dict())
    except SystemExit as stop:
        ended = CannotRun(
            f"the model's own code ended the process: sys.exit({stop.code!r})",
            hint="remove the call from the code that builds or runs the model",
        )
        return "error", _traced(ended.to_dict())
    except BaseException as bug:
        kind = type(bug).__name__
        return "crash", _traced({"message": f"{kind}: {bug}"})


def _stating(held: str, answer: Any) -> Any:
    """Returns an answer whose audits say what the sandbox held them to."""
    if isinstance(answer, Audit):
        return replace(answer, run=replace(answer.run, sandbox=held))
    if not is_dataclass(answer) or isinstance(answer, type):
        return answer
    audits = {
        field.name: _stating(held, value)
        for field in fields(answer)
        if isinstance(value := getattr(answer, field.name), Audit)
    }
    return replace(answer, **audits) if audits else answer


def _with_way_out(error: VgauditError, held: str | VgauditError) -> VgauditError:
    """Returns the error, with a word on the sandbox where that may have caused it."""
    if isinstance(held, VgauditError) or held.startswith(OPEN):
        return error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PermissionError):
            error.hint = (
                f"{error.hint}; " if error.hint else ""
            ) + "the sandbox may have refused it: --no-sandbox, if you trust the code"
            break
        cause = cause.__cause__ or cause.__context__
    return error


def _traced(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "traceback": traceback.format_exc()}


def _take_channels() -> tuple[BinaryIO, BinaryIO]:
    """Moves standard input and output to private descriptors and returns them."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True, errors="backslashreplace")
    return requests, answers


def _request(requests: BinaryIO) -> dict[str, Any]:
    import json

    request: dict[str, Any] = json.loads(requests.readline())
    return request


def _limit_memory(limit: int | None) -> None:
    """Lets allocations beyond ``limit`` bytes fail, where the system can.

    The limit is on private writable memory: one on address space would count the
    libraries and the large empty ranges that CUDA reserves.
    """
    if limit is None:
        return
    try:
        import resource
    except ImportError as error:
        raise BadConfig(
            "--max-memory does not work on this system",
            hint="leave it out; limit the memory of the whole container instead",
        ) from error
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


def _scan_job(record: dict[str, Any]) -> ScanJob:
    """Returns a scan job, on the device of this rank where there are several."""
    probe: ProbeOptions = _options(ProbeOptions, record["probe"])
    if (ranks := launched()) is not None:
        probe = replace(probe, device=ranks.device(probe.device))
    return ScanJob(
        spec=record["spec"],
        load=_options(LoadOptions, record["load"]),
        data=_options(DataOptions, record["data"]),
        probe=probe,
    )


def _options(kind: Callable[..., Any], record: dict[str, Any]) -> Any:
    """Returns options whose lists are tuples again, and numbers numbers.

    JSON has no word for NaN and infinity: they come as text, and are refused by name.
    """
    hints = get_type_hints(kind)

    def own(name: str, value: Any) -> Any:
        if value in UNSPELLED and float in (hints[name], *get_args(hints[name])):
            return float(value)
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: own(name, value) for name, value in record.items()})
