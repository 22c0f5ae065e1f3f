"""The worker as a process: what comes back, what cannot, and that nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vgaudit.cli import process
from vgaudit.cli.ending import Ending
from vgaudit.cli.process import Limits, WorkerBug, run
from vgaudit.errors import CannotRun
from vgaudit.job import DataOptions, ScanJob
from vgaudit.sandbox import Rules

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


class Listener:
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def note(self, line: str) -> None:
        self.notes.append(line)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch):
    """Makes a task of the real worker out of the body of a function."""

    def install(body: str) -> None:
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        boot = (
            "import os, sys, time, signal, subprocess\n"
            f"sys.path.append({str(ROOT)!r})\n"
            "import vgaudit.worker as w\n"
            "from vgaudit.errors import CannotRun\n"
            f"def task(job, progress):\n{lines}\n"
            "w.TASKS['fake'] = task\n"
            "w.main()\n"
        )
        monkeypatch.setattr(process, "_command", lambda: [sys.executable, "-c", boot])

    return install


def ask(listener: Listener, job: object = None, **limits) -> object:
    return run("fake", job or {}, limits=Limits(**limits), watcher=listener)


def test_a_result_comes_back_as_plain_values(fake, listener) -> None:
    fake("progress('one'); progress('two')\nreturn {'got': job, 'n': float('inf')}")

    assert {"got": {"a": [1, 2]}, "n": "inf"} == ask(listener, {"a": (1, 2)})
    assert ["one", "two"] == listener.phases


def test_what_the_model_prints_does_not_reach_the_answer(fake, listener) -> None:
    fake(
        "print('{\"result\": 1}')\n"
        "os.write(1, b'raw\\n')\n"
        "subprocess.run(['echo', 'from a child'])\n"
        "sys.stdout.write('unfinished')\n"
        "assert sys.stdin.read() == ''\n"
        "return 2"
    )

    assert 2 == ask(listener, rules=Rules(mode="off"))
    assert ['{"result": 1}', "raw", "from a child", "unfinished"] == listener.notes


def test_an_error_comes_back_as_itself(fake, listener) -> None:
    fake("raise CannotRun('layer x failed', hint='look at x')")

    with pytest.raises(CannotRun) as caught:
        ask(listener)
    assert ("layer x failed", "look at x") == (caught.value.message, caught.value.hint)
    assert "line" in caught.value.__notes__[0]


def test_a_bug_comes_back_with_its_traceback(fake, listener) -> None:
    fake("return {}['missing']")

    with pytest.raises(WorkerBug, match="KeyError: 'missing'") as caught:
        ask(listener)
    assert "in task" in caught.value.details


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        (
            "sys.exit(7)",
            "the model's own code ended the process: sys.exit(7)",
            "remove the call from the code that builds or runs the model",
        ),
        (
            "os._exit(7)",
            "the process ended by itself with exit code 7 (while starting)",
            "code of the model may have called os._exit; --debug shows more",
        ),
        (
            "raise MemoryError",
            "out of memory",
            "try a smaller --batch-size, or raise --max-memory",
        ),
        pytest.param(
            "progress('batch 1'); os.kill(os.getpid(), signal.SIGSEGV)",
            "the process crashed: Segmentation fault (signal 11, while batch 1)",
            "native code of the model or of torch failed; --debug shows more",
            marks=posix,
        ),
        pytest.param(
            "progress('batch 1'); os.kill(os.getpid(), signal.SIGKILL)",
            "out of memory: the system killed the process (while batch 1)",
            "try --batch-size 4",
            marks=posix,
        ),
    ],
)
def test_an_end_without_an_answer_is_said_plainly(
    fake, listener, body, message, hint
) -> None:
    fake(body)

    with pytest.raises(CannotRun) as caught:
        ask(listener)
    assert (message, hint) == (caught.value.message, caught.value.hint)


@posix
def test_the_hint_for_memory_halves_the_batch_asked_for(fake, listener) -> None:
    fake("os.kill(os.getpid(), signal.SIGKILL)")
    job = ScanJob(spec="x", data=DataOptions(batch_size=32))

    with pytest.raises(CannotRun) as caught:
        ask(listener, job)
    assert "try --batch-size 16" == caught.value.hint


def test_a_time_limit_ends_an_endless_loop(fake, listener) -> None:
    fake("progress('batch 1')\nwhile True: pass")
    started = time.monotonic()

    with pytest.raises(CannotRun) as caught:
        ask(listener, timeout=1.5)
    assert (
        "ran longer than 1.5 s and was stopped (while batch 1)" == caught.value.message
    )
    assert time.monotonic() - started < 5


def test_a_time_limit_lets_a_task_that_saves_end_by_itself(fake, listener) -> None:
    fake("while not progress.stopping: time.sleep(0.01)\nreturn 'saved'")
    ending = Ending("saving", grace=30.0)
    found = run("fake", {}, limits=Limits(timeout=3.0), watcher=listener, ending=ending)

    assert found == "saved"
    assert ending.status == 3
    assert "ran longer than 3 s: saving; once more ends at once" in listener.phases


def test_a_task_that_saves_gets_no_more_than_its_grace(fake, listener) -> None:
    fake("progress('batch 1')\nwhile True: pass")
    ending = Ending("saving", grace=1.0)

    with pytest.raises(CannotRun, match=r"ran longer than 1.5 s and was stopped"):
        run("fake", {}, limits=Limits(timeout=1.5), watcher=listener, ending=ending)


@posix
def test_grandchildren_go_with_the_worker(fake, listener, tmp_path) -> None:
    pid_file = tmp_path / "pid"
    fake(
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "return 1"
    )

    assert 1 == ask(listener, rules=Rules(mode="off"))
    assert gone(int(pid_file.read_text()))


def test_a_result_beyond_the_cap_is_refused(fake, listener, monkeypatch) -> None:
    monkeypatch.setattr(process, "MOST_BYTES", 2**20)
    fake("return 'x' * (2 * 2**20)")

    with pytest.raises(CannotRun, match="the result is larger than 1 MiB"):
        ask(listener)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA of Linux")
def test_a_memory_limit_holds(fake, listener) -> None:
    fake("return len(bytearray(job['bytes']))")

    assert 2**20 == ask(listener, {"bytes": 2**20}, max_memory=512 * 2**20)
    with pytest.raises(CannotRun, match="out of memory"):
        ask(listener, {"bytes": 2**30}, max_memory=512 * 2**20)


def test_the_working_folder_shadows_nothing(listener, tmp_path, monkeypatch) -> None:
    for name in ("json.py", "vgaudit.py", "torch.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(WorkerBug, match="KeyError: 'no such task'"):
        run("no such task", {}, limits=Limits(), watcher=listener)


PARENT = """
import sys
sys.path.insert(0, {root!r})
import vgaudit.cli, vgaudit.cli.process as process
import vgaudit.cli.app as app

boot = '''
import os, sys, time
sys.path.append({root!r})
import vgaudit.worker as w
def task(job, progress):
    open({pid!r}, 'w').write(str(os.getpid()))
    time.sleep(600)
w.TASKS['scan'] = task
w.main()
'''
process._command = lambda: [sys.executable, '-c', boot]
vgaudit.cli.main(['scan', 'model.pt', '--no-progress', '--no-sandbox'])
"""


@posix
@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "interrupted\n"),
        (signal.SIGTERM, 143, "terminated\n"),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_no_worker_outlives_its_parent(tmp_path, number, code, words) -> None:
    pid_file = tmp_path / "pid"
    script = PARENT.format(root=str(ROOT), pid=str(pid_file))
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    worker = int(eventually(lambda: pid_file.exists() and pid_file.read_text()))
    parent.send_signal(number)
    out, err = parent.communicate(timeout=20)

    assert (code, b"", words) == (parent.returncode, out, err.decode())
    assert gone(worker)


def eventually(condition, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def gone(pid: int) -> bool:
    """Tells whether a process ends soon; one that waits for its parent has ended."""

    def ended() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return not alive(pid)
        return state == "Z"

    return bool(eventually(ended))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
