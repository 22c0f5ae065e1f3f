"""What the sandbox holds a worker to, tried from within one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vgaudit.cli.permissions import rules
from vgaudit.errors import BadConfig
from vgaudit.sandbox import Rules, environment, landlock_version

ROOT = Path(__file__).resolve().parents[2]
landlocked = pytest.mark.skipif(
    landlock_version() < 6, reason="needs Landlock 6 (Linux 6.12)"
)


def inside(body: str, closed: Rules, **env: str) -> list[str]:
    """Returns what a process prints that runs ``body`` in a sandbox."""
    script = (
        "import os, socket, subprocess, sys, tempfile\n"
        f"sys.path.append({str(ROOT)!r})\n"
        "from vgaudit.sandbox import Rules, close\n"
        f"print(close({closed!r}))\n" + textwrap.dedent(body)
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


@landlocked
def test_files_are_written_below_the_output_and_nowhere_else(tmp_path) -> None:
    out, scratch, other = tmp_path / "out", tmp_path / "scratch", tmp_path / "other"
    for folder in (out, scratch, other):
        folder.mkdir()
    old = other / "old"
    old.write_text("kept")
    body = f"""
    def attempt(name, act):
        try:
            act()
            print(name, "done")
        except PermissionError:
            print(name, "refused")
    attempt("output", lambda: open({str(out / "new")!r}, "w"))
    attempt("rename", lambda: os.replace({str(out / "new")!r}, {str(out / "n")!r}))
    attempt("scratch", lambda: tempfile.mkstemp())
    attempt("null", lambda: open(os.devnull, "w").write("x"))
    attempt("read", lambda: open({str(old)!r}).read())
    attempt("new file", lambda: open({str(other / "new")!r}, "w"))
    attempt("old file", lambda: open({str(old)!r}, "a"))
    attempt("truncate", lambda: os.truncate({str(old)!r}, 0))
    attempt("remove", lambda: os.unlink({str(old)!r}))
    attempt("folder", lambda: os.mkdir({str(other / "folder")!r}))
    attempt("link", lambda: os.symlink("x", {str(other / "link")!r}))
    """

    said = inside(body, Rules(writable=(str(out),)), TMPDIR=str(scratch))

    assert said[1:] == [
        *("output done", "rename done", "scratch done", "null done", "read done"),
        *("new file refused", "old file refused", "truncate refused"),
        *("remove refused", "folder refused", "link refused"),
    ]
    assert old.read_text() == "kept"
    assert sorted(path.name for path in other.iterdir()) == ["old"]


@landlocked
def test_no_program_starts_no_connection_opens_no_signal_leaves() -> None:
    body = """
    for act in (
        lambda: subprocess.run([sys.executable, "-c", ""]),
        lambda: socket.socket().connect(("127.0.0.1", 9)),
        lambda: socket.socket().bind(("127.0.0.1", 0)),
        lambda: os.kill(os.getppid(), 0),
    ):
        try:
            act()
            print("done")
        except PermissionError:
            print("refused")
    """

    said = inside(body, Rules())

    assert said[0].startswith("Landlock ")
    assert said[1:] == ["refused"] * 4


@landlocked
def test_what_was_asked_for_may_be_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = inside(
            f"socket.create_connection(('127.0.0.1', {port})); print('connected')",
            Rules(network=True),
        )

    assert said[1:] == ["connected"]
    assert "no TCP" not in said[0]


@landlocked
def test_a_process_that_the_sandbox_let_start_is_held_too(tmp_path) -> None:
    body = f"""
    child = os.fork()
    if child == 0:
        try:
            open({str(tmp_path / "x")!r}, "w")
            os._exit(0)
        except PermissionError:
            os._exit(5)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    assert inside(body, Rules(), TMPDIR=str(scratch))[1:] == ["5"]


def test_switched_off_it_says_so() -> None:
    said = inside("open(os.devnull, 'w')", Rules(mode="off"))

    assert said == ["not sandboxed (switched off)"]


def test_where_there_is_no_landlock_it_says_so_or_refuses() -> None:
    lacking = """
    import vgaudit.sandbox.landlock as landlock
    from vgaudit.errors import CannotRun
    landlock.version = lambda: 0
    print(close(Rules()))
    try:
        close(Rules(mode="require"))
    except CannotRun as error:
        print(error.message)
    """

    assert inside(lacking, Rules(mode="off"))[1:] == [
        "not sandboxed (this system has no Landlock)",
        "--require-sandbox: this system has no Landlock",
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD"),
        *("OPENAI_API_KEY", "NPM_TOKEN", "SSH_AUTH_SOCK", "WANDB_API_KEY"),
        *("DATABASE_URL", "MY_PRIVATE_KEY", "SESSION_COOKIE", "gitlab_token"),
    ],
)
@pytest.mark.parametrize("own_code", [False, True])
def test_secrets_stay_outside(name: str, own_code: bool) -> None:
    given = {name: "s3cret", "PATH": "/bin"}

    seen = environment(Rules(own_code=own_code), given, "/scratch")

    assert name not in seen
    assert seen["PATH"] == "/bin"
    passed = environment(Rules(passed=(name,)), given, "/scratch")
    assert passed[name] == "s3cret"


def test_code_that_the_user_named_sees_variables_of_its_own() -> None:
    given = {"DATA_ROOT": "/data", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "1"}

    alone = environment(Rules(), given, "/scratch")
    named = environment(Rules(own_code=True), given, "/scratch")

    assert "DATA_ROOT" not in alone
    assert alone["OMP_NUM_THREADS"] == "2"
    assert alone["CUDA_VISIBLE_DEVICES"] == "1"
    assert named["DATA_ROOT"] == "/data"
    assert named["TMPDIR"] == "/scratch"


@pytest.mark.parametrize(
    ("given", "network", "own_code"),
    [
        ({"model": "model.pt"}, False, False),
        ({"model": "torchvision:resnet18"}, False, False),
        ({"model": "torchvision:resnet18", "pretrained": True}, True, False),
        ({"model": "hf:gpt2"}, True, False),
        ({"model": "hf:/"}, False, False),
        ({"model": "net.py:make"}, False, True),
        ({"model": "w.safetensors", "arch": "package.nets:make"}, False, True),
        ({"model": "w.pt", "arch": "timm:vit"}, False, False),
        ({"model": "w.pt", "data": "imagefolder:pictures"}, False, False),
        ({"model": "w.pt", "data": "loader.py:make"}, False, True),
        ({"model": "w.pt", "allow_code": True}, False, True),
        ({"model": "w.pt", "data": "x.npz", "valid_data": "v.py:f"}, False, True),
    ],
)
def test_a_command_opens_no_more_than_it_needs(
    given, network, own_code, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    found = rules(given)

    assert (found.network, found.own_code) == (network, own_code)
    assert bool(found.writable) == network


def test_what_a_command_writes_itself_is_writable(tmp_path) -> None:
    found = rules({"model": "w.pt", "out": tmp_path / "out.safetensors"})

    assert found.writable == (str(tmp_path),)
    runs = tmp_path / "new" / "run"
    assert rules({"model": "w.pt", "run_folder": runs}).writable == (str(runs),)
    assert runs.is_dir()


@pytest.mark.parametrize(
    "given",
    [
        {"require_sandbox": True, "no_sandbox": True},
        {"env": ["A=1"]},
        {"env": [""]},
    ],
)
def test_options_that_mean_nothing_are_refused(given) -> None:
    with pytest.raises(BadConfig):
        rules({"model": "w.pt", **given})
