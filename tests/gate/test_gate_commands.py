"""gate, report and baseline on the command line; every exit code; no torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vgaudit.cli import process
from vgaudit.errors import CannotRun
from vgaudit.judge import Policy, failed, judge
from vgaudit.plain import to_plain
from vgaudit.reports import REPORTS
from vgaudit.reports.json import render
from vgaudit.rules.examples import chain, having, loaded

ROOT = Path(__file__).resolve().parents[2]
SICK = chain([-9.0, -7.0, -5.0, -3.0, -1.0, 0.0])
HEAVY = ("torch", "torchvision", "numpy", "scipy", "transformers", "timm")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def stored(name: str, audit=SICK, policy: Policy | None = None) -> str:
    """Writes a report and returns its path."""
    report = failed(audit) if isinstance(audit, Exception) else None
    Path(name).write_text(render(report or judge(audit, policy or Policy())))
    return name


@pytest.mark.parametrize(
    ("audit", "arguments", "code"),
    [
        (chain(), [], 0),
        (SICK, [], 1),
        (SICK, ["--exit-zero"], 0),
        (SICK, ["--ignore", "VG101,VG102"], 0),
        (SICK, ["--fail-on", "never"], 0),
        (SICK, ["--set", "VG101.sgd_error=-12", "--ignore", "VG102"], 0),
        (SICK, ["--select", "VG999"], 2),
        (SICK, ["--format", "sarfi"], 2),
        (SICK, ["--preset", "strictt"], 2),
        (SICK, ["--baseline", "nowhere.json"], 2),
        (CannotRun("broken"), [], 3),
        (CannotRun("broken"), ["--exit-zero"], 3),
        (chain((0.0,)), [], 4),
        (chain((0.0,)), ["--exit-zero"], 4),
        (having(chain(), layers=()), ["--exit-zero"], 4),
    ],
)
def test_gate_exits_as_documented(cli, audit, arguments, code) -> None:
    outcome = cli("gate", stored("report.json", audit), *arguments)

    assert code == outcome.code, outcome.err


def test_a_preset_fails_what_was_a_warning(cli) -> None:
    warned = chain((-4.0, -2.0, 0.0))
    path = stored("report.json", warned, Policy(optimizer="adam"))

    assert 0 == cli("gate", path).code
    assert 1 == cli("gate", path, "--preset", "strict").code
    assert 0 == cli("gate", path, "--preset", "strict", "--fail-on", "error").code


def test_the_gate_keeps_what_the_report_was_judged_by(cli) -> None:
    warned = chain((-4.0, -2.0, 0.0))
    strict = Policy(optimizer="adam", fail_on="warning")

    assert 1 == cli("gate", stored("report.json", warned, strict)).code


def test_a_baseline_lets_the_known_pass_and_nothing_else(cli) -> None:
    report = stored("report.json")

    assert 0 == cli("baseline", "write", report, "-o", "b.json").code
    assert 3 == cli("baseline", "write", report, "-o", "b.json").code
    assert 0 == cli("baseline", "write", report, "-o", "b.json", "--force").code
    assert 0 == cli("gate", report, "--baseline", "b.json").code
    worse = stored("worse.json", chain([-19.0, -15.0, -9.0, -3.0, -1.0, 0.0]))
    assert 1 == cli("gate", worse, "--baseline", "b.json").code
    shown = cli("baseline", "show", "b.json")
    assert "VG101 vanishing-gradient" in shown.out
    assert "attenuation              −9.0 decades" in shown.out
    assert 0 == cli("baseline", "show", "b.json", "--format", "json").code


def test_a_missing_baseline_is_an_error_unless_it_may_be(cli) -> None:
    report = stored("report.json", chain())
    missing = cli("gate", report, "--baseline", "nowhere.json")
    allowed = cli("gate", report, "--baseline", "nowhere.json", "--allow-no-baseline")

    assert (2, "") == (missing.code, missing.out)
    assert "--allow-no-baseline goes on without" in missing.err
    assert 0 == allowed.code
    assert "all findings count" in allowed.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline_format": 2}, "is of format 2 with figures of version 1"),
        ({"metrics_version": 0}, "is of format 1 with figures of version 0"),
        ({"targets": []}, "is no baseline: targets"),
        ({"targets": {}}, "the baseline knows nothing of model.safetensors"),
    ],
)
def test_a_baseline_of_another_version_is_refused(cli, change, message) -> None:
    report = stored("report.json")
    cli("baseline", "write", report, "-o", "b.json")
    record = {**json.loads(Path("b.json").read_text()), **change}
    Path("b.json").write_text(json.dumps(record))
    outcome = cli("gate", report, "--baseline", "b.json")

    assert (2, "") == (outcome.code, outcome.out)
    assert message in outcome.err


@pytest.mark.parametrize("text", ["", "{}", "[]", "no json", "[" * 100_000])
def test_what_is_no_baseline_is_refused(cli, text) -> None:
    Path("b.json").write_text(text)

    assert 2 == cli("gate", stored("report.json"), "--baseline", "b.json").code


def test_the_baseline_of_another_model_is_refused(cli) -> None:
    cli("baseline", "write", stored("report.json"), "-o", "b.json")
    other = stored("other.json", loaded(SICK, architecture="Other"))
    outcome = cli("gate", other, "--baseline", "b.json")

    assert (2, "") == (outcome.code, outcome.out)
    assert "another model's: architecture Net there, Other here" in outcome.err


@pytest.mark.parametrize(
    ("audit", "code"), [(chain((0.0,)), 4), (CannotRun("broken"), 2)]
)
def test_no_baseline_is_made_of_nothing(cli, audit, code) -> None:
    report = stored("report.json", audit)

    assert code == cli("baseline", "write", report, "-o", "b.json").code
    assert not Path("b.json").exists()


def test_several_reports_are_one_gate(cli) -> None:
    first = stored("first.json", loaded(chain(), spec="first.pt"))
    second = stored("second.json", loaded(SICK, spec="second.pt"))
    outcome = cli("gate", first, second)

    assert 1 == outcome.code
    assert "1 of 2 targets pass · exit 1" in outcome.out
    twice = cli("gate", first, first)
    assert (2, "") == (twice.code, twice.out)


@pytest.mark.parametrize("form", REPORTS)
def test_report_renders_every_format(cli, form) -> None:
    path = stored("report.json")
    outcome = cli("report", path, "--to", form)
    both = cli(
        "report", path, stored("b.json", loaded(chain(), spec="b")), "--to", form
    )

    assert (0, "") == (outcome.code, outcome.err)
    assert (0, "") == (both.code, both.err)
    if form != "text":
        assert REPORTS[form](judge(SICK)) == outcome.out


def test_settings_of_the_project_reach_every_command(cli, monkeypatch) -> None:
    Path("vgaudit.toml").write_text('fail-on = "never"\n')
    path = stored("report.json")

    assert 0 == cli("gate", path).code
    assert 1 == cli("gate", path, "--fail-on", "error").code
    assert 1 == cli("gate", path, "--config", "none").code
    monkeypatch.setenv("VGAUDIT_FAIL_ON", "error")
    assert 1 == cli("gate", path).code
    monkeypatch.setattr(process, "run", lambda *_, **__: to_plain(SICK))
    monkeypatch.delenv("VGAUDIT_FAIL_ON")
    assert 0 == cli("scan", "model.pt").code


# --- processes


SHOW = """
import json, sys
sys.argv = ["vgaudit", *json.loads(sys.argv[1])]
from vgaudit.cli import main
try:
    main()
finally:
    sys.stderr.write(json.dumps(sorted({x.partition(".")[0] for x in sys.modules})))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("gate", "report.json", "--baseline", "b.json"),
        ("report", "report.json", "--to", "sarif"),
        ("report", "report.json", "--to", "html"),
        ("explain", "VG901"),
        ("baseline", "show", "b.json"),
        ("baseline", "write", "report.json", "-o", "new.json"),
        ("baseline", "prune", "report.json", "-o", "b.json"),
    ],
    ids=" ".join,
)
def test_deciding_needs_no_torch(cli, arguments) -> None:
    cli("baseline", "write", stored("report.json"), "-o", "b.json")
    done = subprocess.run(
        [sys.executable, "-c", SHOW, json.dumps(arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        timeout=60,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert not set(HEAVY) & set(json.loads(done.stderr.splitlines()[-1]))


def test_an_internal_error_is_70(cli, monkeypatch, tmp_path) -> None:
    def bug(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(process, "run", bug)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    Path("vgaudit.toml").write_text('[[targets]]\nname = "a"\nmodel = "a.pt"\n')

    assert 70 == cli("scan", "model.pt", "--exit-zero").code
    outcome = cli("check", "--exit-zero")
    assert 70 == outcome.code
    assert "internal error: a bug" in outcome.out


SLEEPER = """
import sys
from vgaudit.cli import main, process
def run(*_, **__):
    sys.stderr.write("sleeping\\n"); sys.stderr.flush()
    import time; time.sleep(60)
process.run = run
main(["check", "--no-progress"])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_a_check(number, code) -> None:
    Path("vgaudit.toml").write_text(
        'jobs = 2\n[[targets]]\nname = "a"\nmodel = "a.pt"\n'
        '[[targets]]\nname = "b"\nmodel = "b.pt"\n'
    )
    process_ = subprocess.Popen(
        [sys.executable, "-c", SLEEPER],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process_.stderr is not None
    assert b"sleeping\n" == process_.stderr.readline()
    process_.send_signal(number)
    out, _ = process_.communicate(timeout=20)

    assert (code, b"") == (process_.returncode, out)


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_closed_pipe_is_141() -> None:
    path = stored("report.json", replace(SICK, warnings=("x" * 100,) * 5000))
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "vgaudit", "report", path, "--to", "sarif"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    os.close(write_end)

    assert (141, b"") == (done.returncode, done.stderr)


def test_a_wrong_choice_is_told_without_the_words_of_a_library(cli) -> None:
    outcome = cli("gate", "report.json", "--preset", "strictt")

    assert "Invalid value for '--preset': 'strictt' is not one of" in outcome.err
