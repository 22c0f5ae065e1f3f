"""The command line from end to end, with a stand-in for the worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vgaudit.cli import process
from vgaudit.cli.process import WorkerBug
from vgaudit.errors import CannotRun, NothingMeasured
from vgaudit.flow import NotMeasured, Source, Structure, StructureRow
from vgaudit.plain import to_plain
from vgaudit.reports import REPORTS
from vgaudit.reports.json import parse
from vgaudit.rules.examples import chain, having

ROOT = Path(__file__).resolve().parents[2]
SICK = chain((-9.6, -8.0, -6.1, -4.0, -2.0, 0.0))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch):
    """Lets the worker answer with an audit, or raise."""
    asked: list[tuple] = []

    def install(answer):
        def run(task, job, *, limits, watcher, ending=None):
            asked.append((task, job, limits))
            if isinstance(answer, Exception):
                raise answer
            return to_plain(answer)

        monkeypatch.setattr(process, "run", run)
        return asked

    return install


@pytest.mark.parametrize(
    ("audit", "arguments", "code"),
    [
        (chain(), [], 0),
        (SICK, [], 1),
        (SICK, ["--exit-zero"], 0),
        (SICK, ["--ignore", "VG101"], 0),
        (SICK, ["--select", "VG3,dead-units"], 0),
        (SICK, ["--set", "VG101.sgd_error=-12"], 0),
        (SICK, ["--fail-on", "never"], 0),
        (chain((-4.0, -2.0, 0.0)), ["--optimizer", "adam"], 0),
        (chain((-4.0, -2.0, 0.0)), ["--optimizer", "adam", "--fail-on", "warning"], 1),
        (chain((0.0,)), [], 4),
        (having(chain(), uncalibrated=("bn",)), ["--exit-zero"], 4),
        (CannotRun("x"), [], 3),
        (NothingMeasured("x"), [], 4),
    ],
)
def test_exit_codes(cli, worker, audit, arguments, code) -> None:
    worker(audit)

    assert code == cli("scan", "model.pt", *arguments).code


def test_standard_output_is_the_report_and_nothing_else(cli, worker) -> None:
    worker(SICK)
    outcome = cli("scan", "model.pt")

    assert outcome.out.startswith("model.safetensors\n")
    assert "FAIL" in outcome.out
    assert outcome.err == ""


def test_json_is_the_whole_report(cli, worker) -> None:
    worker(SICK)
    outcome = cli("scan", "model.pt", "--format", "json")
    report = parse(outcome.out)

    assert (1, "fail", SICK) == (outcome.code, report.status, report.audit)
    assert "vgaudit scan model.pt --format json" == report.command


def test_an_error_is_two_lines(cli, worker) -> None:
    worker(CannotRun("layer x\nfailed", hint="look at x"))
    outcome = cli("scan", "model.pt")

    assert "" == outcome.out
    assert "error: layer x\\nfailed\nhelp: look at x\n" == outcome.err


def test_an_error_is_a_document_where_json_was_asked_for(cli, worker, tmp_path) -> None:
    worker(CannotRun("layer x failed", hint="look at x"))
    path = tmp_path / "report.json"
    outcome = cli("scan", "model.pt", "--format=json", "--report", f"json={path}")

    for text in (outcome.out, path.read_text()):
        report = parse(text)
        assert ("error", 3) == (report.status, report.exit_code)
        assert "layer x failed" == report.errors[0]["message"]
    assert 3 == outcome.code


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ["scan", "m", "--select", "VG12"],
            "unknown rule 'VG12'",
            "did you mean VG102? see `vgaudit rules`",
        ),
        (
            ["scan", "m", "--format", "jsn"],
            "unknown report format 'jsn'",
            f"did you mean json? known: {', '.join(REPORTS)}",
        ),
        (
            ["scan", "m", "--report", "report.json"],
            "--report report.json: not of the form FORMAT=PATH",
            "for example --report json=report.json",
        ),
        (
            ["scan", "m", "--model-arg", "10"],
            "--model-arg 10: not of the form NAME=VALUE",
            "for example --model-arg num_classes=10",
        ),
        (
            ["scan", "m", "--trust-pickle=sure"],
            "--trust-pickle=sure: neither empty nor sha256:HEX",
            "`vgaudit inspect FILE` prints the sha256 of the file",
        ),
        (
            ["scan", "m", "--max-memory", "lots"],
            "--max-memory lots: not a size",
            "a number of bytes, or with K, M, G or T: --max-memory 8G",
        ),
        (
            ["explain", "VG11"],
            "unknown rule 'VG11'",
            "did you mean VG101? see `vgaudit rules`",
        ),
    ],
)
def test_wrong_usage_exits_2_with_a_way_out(cli, arguments, message, hint) -> None:
    outcome = cli(*arguments)

    assert 2 == outcome.code
    assert f"error: {message}\nhelp: {hint}\n" == outcome.err
    assert "" == outcome.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scn", "m"], "'scan'"),
        (["scan"], "Missing argument"),
        (["scan", "m", "--formt", "json"], "--format"),
        (["scan", "m", "--batches", "many"], "--batches"),
        (["scan", "m", "--batches", "0"], "--batches"),
        (["scan", "m", "--mode", "both"], "--mode"),
        (["--colour"], "--colour"),
    ],
)
def test_typer_s_own_errors_exit_2_too(cli, arguments, words) -> None:
    outcome = cli(*arguments)

    assert (2, "") == (outcome.code, outcome.out)
    assert outcome.err.startswith("error: ")
    assert words in outcome.err
    assert "help: see `vgaudit" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "guess"),
    [
        (["retrain", "m", "--with", "sdgd"], "did you mean sdagd? "),
        (["retrain", "m", "--with", "adma"], "did you mean adam? "),
        (["retrain", "m", "--with", "zzzz"], ""),
        (["retrain", "m", "--with", "adam", "--schedule", "cos"], "did you mean"),
        (["convert", "m", "--to", "rescael"], "did you mean rescale? "),
        (["scan", "m", "--mode", "trian"], "did you mean train? "),
    ],
)
def test_a_choice_that_is_none_is_told_with_the_nearest(cli, arguments, guess) -> None:
    outcome = cli(*arguments)
    told = outcome.err.splitlines()

    assert outcome.code == 2
    assert "is not one of" in told[0]
    assert told[1].startswith(f"help: {guess}")
    assert told[1].endswith(f"see `vgaudit {arguments[0]} --help`")
    assert guess or "did you mean" not in told[1]


def test_wrong_usage_is_a_document_too(cli) -> None:
    outcome = cli("scan", "m", "--format", "json", "--formt")

    assert (2, "BadConfig") == (
        outcome.code,
        json.loads(outcome.out)["errors"][0]["code"],
    )


@pytest.mark.parametrize(
    "bug", [RuntimeError("boom"), WorkerBug("KeyError: 'x'", "in w")]
)
def test_a_bug_exits_70_and_leaves_a_file(cli, worker, bug) -> None:
    worker(bug)
    outcome = cli("scan", "model.pt", "--format", "json")
    first, second = outcome.err.splitlines()
    path = Path(second.rpartition(" ")[2])
    details = path.read_text()
    path.unlink()

    assert 70 == outcome.code
    assert first.startswith("internal error: ")
    assert str(bug) in first
    assert second.startswith("help: this is a bug in vgaudit; please report it with ")
    assert "Traceback" in details
    assert str(getattr(bug, "details", "")) in details
    assert "vgaudit scan model.pt" in details
    assert 70 == json.loads(outcome.out)["exit_code"]
    assert "Traceback" not in outcome.err


def test_debug_shows_the_traceback(cli, worker) -> None:
    worker(CannotRun("layer x failed"))

    assert "Traceback" in cli("scan", "model.pt", "--debug").err


def test_no_arguments_is_the_help(cli) -> None:
    assert cli().out == cli("--help").out
    assert (0, 0) == (cli().code, cli("-h").code)


def test_version(cli) -> None:
    outcome = cli("--version")

    assert 0 == outcome.code
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert f"vgaudit {metadata['project']['version']}\n" == outcome.out


def test_quiet_keeps_json_and_drops_text(cli, worker) -> None:
    worker(SICK)

    assert (1, "", "") == tuple(vars(cli("scan", "m", "--quiet")).values())
    assert cli("scan", "m", "--quiet", "--format", "json").out


# --- every option reaches its place -------------------------------------------------

DIGEST = "AB" * 32
OPTIONS = [
    ("--arch x.py:net", "load.arch", "x.py:net"),
    ("--weights w.pt", "load.weights", "w.pt"),
    ("--key ema", "load.key", "ema"),
    ("--allow-code", "load.allow_code", True),
    ("--trust-pickle", "load.trust_pickle", "yes"),
    (f"--trust-pickle=sha256:{DIGEST}", "load.trust_pickle", DIGEST.lower()),
    ("--allow-missing", "load.allow_missing", True),
    ("--pretrained", "load.pretrained", True),
    (f"--sha256 {DIGEST}", "load.sha256", DIGEST),
    ("--model-arg a=1 --model-arg b=x=y", "load.model_args", {"a": "1", "b": "x=y"}),
    ("--import-path a --import-path b", "load.import_paths", ("a", "b")),
    ("--seed 7", "load.seed", 7),
    ("--data d.npz", "data.data", "d.npz"),
    ("--input 8x3 --input i=long:4", "data.inputs", ("8x3", "i=long:4")),
    ("--loss mse", "data.loss", "mse"),
    ("--batches 2", "data.batches", 2),
    ("--batch-size 3", "data.batch_size", 3),
    ("--seed 7", "data.seed", 7),
    ("--mode eval", "probe.mode", "eval"),
    ("--device cuda:1", "probe.device", "cuda:1"),
    ("--dtype float64", "probe.dtype", "float64"),
    ("--seed 7", "probe.seed", 7),
    ("--output logits", "probe.output", "logits"),
    ("--unfreeze", "probe.unfreeze", True),
    ("--allow-nonfinite", "probe.allow_nonfinite", True),
]


@pytest.mark.parametrize(("typed", "place", "value"), OPTIONS)
def test_an_option_reaches_the_job(cli, worker, typed, place, value) -> None:
    asked = worker(chain())
    assert 0 == cli("scan", "model.pt", *typed.split()).code
    (_, job, _) = asked[0]
    part, name = place.split(".")

    assert value == getattr(getattr(job, part), name)
    assert type(value) is type(getattr(getattr(job, part), name))


def test_without_options_the_job_is_the_default(cli, worker) -> None:
    from vgaudit.job import ScanJob

    asked = worker(chain())
    cli("scan", "model.pt")

    assert ("scan", ScanJob(spec="model.pt")) == asked[0][:2]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("8G", 2**33),
        ("1.5M", 3 * 2**19),
        ("2GiB", 2**31),
        ("4kb", 4096),
    ],
)
def test_sizes(cli, worker, text, size) -> None:
    asked = worker(chain())
    cli("scan", "model.pt", "--max-memory", text, "--timeout", "9")

    assert (size, 9.0) == (asked[0][2].max_memory, asked[0][2].timeout)


# --- the other commands ---------------------------------------------------------------


def test_a_report_renders_again(cli, worker, tmp_path) -> None:
    worker(SICK)
    path = tmp_path / "report.json"
    scanned = cli("scan", "model.pt", "--report", f"json={path}")

    assert scanned.out == cli("report", str(path)).out
    assert path.read_text() == cli("report", str(path), "--to", "json").out
    assert 0 == cli("report", str(path)).code


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file: "),
        (b"", "not a JSON report: Expecting value: line 1 column 1 (char 0)"),
        (b"\xff\xfe", "cannot be read as text: "),
        (b"{}", "not a report that this version reads: schema_version missing"),
    ],
)
def test_what_is_no_report_exits_3(cli, tmp_path, content, message) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)
    outcome = cli("report", str(path))

    assert (3, "") == (outcome.code, outcome.out)
    assert message in outcome.err
    assert outcome.err.splitlines()[-1].startswith("help: ")


def test_explain_takes_a_family(cli) -> None:
    out = cli("explain", "VG3").out

    assert "VG301 saturated-activation" in out
    assert "VG302 dead-units" in out
    assert "VG101" not in out


def test_inspect_shows_what_the_worker_found(cli, worker) -> None:
    asked = worker(
        {"format": "safetensors", "size": 12345, "safe": True, "globals": ["a", "b"]}
    )
    outcome = cli("inspect", "model.pt", "--key", "ema")

    assert "inspect" == asked[0][0]
    assert "ema" == asked[0][1].load.key
    assert [
        "format              safetensors",
        "size                12,345",
        "safe                yes",
        "globals             a",
        "                    b",
    ] == outcome.out.splitlines()
    assert 12345 == json.loads(cli("inspect", "m", "--format", "json").out)["size"]


def test_inspect_graph_shows_the_trunk(cli, worker) -> None:
    def row(path: str, *, trunk: bool, depth: int | None) -> StructureRow:
        source = Source(file="/a/net.py", line=7)
        return StructureRow(
            path=path,
            type="Linear",
            depth=depth,
            trunk=trunk,
            weighted=True,
            activation=False,
            parameters=4160,
            source=source,
        )

    found = Structure(
        rows=(row("fc1", trunk=True, depth=1), row("side", trunk=False, depth=None)),
        weight_layers=2,
        cut_nodes=5,
        branches=1,
        unused=("spare.weight",),
        not_measured=(NotMeasured(path="rnn", reason="fused"),),
    )
    asked = worker(found)
    outcome = cli("inspect", "torchvision:resnet18", "--graph", "--input", "2x3x32x32")

    assert ("structure", ("2x3x32x32",)) == (asked[0][0], asked[0][1].data.inputs)
    assert [
        "2 weight layers on the longest path, 5 cut nodes, 1 branch",
        "│ on the trunk, ┆ beside it; depth from the output",
        "",
        "│  fc1   Linear     1         4,160  net.py:7",
        "┆  side  Linear               4,160  net.py:7",
        "",
        "not connected: spare.weight",
        "not measured: rnn: fused",
    ] == outcome.out.splitlines()
    text = cli("inspect", "m", "--graph", "--format", "json").out
    assert to_plain(found) == json.loads(text)


# --- terminals and pipes -----------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("arguments", [["explain", "VG101"], ["rules"], ["--help"]])
def test_a_terminal_without_unicode(shell, encoding, arguments) -> None:
    outcome = shell(*arguments, env={"PYTHONIOENCODING": encoding})

    assert (0, "") == (outcome.code, outcome.err)
    assert outcome.out


def test_a_pipe_that_closes_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "vgaudit", "explain", "VG"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        timeout=60,
    )
    os.close(writer)

    assert (141, b"") == (done.returncode, done.stderr)
