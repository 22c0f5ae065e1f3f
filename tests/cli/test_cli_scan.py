"""Real models through the command line: the good, the bad, and the hostile."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest

from vgaudit.cli import process
from vgaudit.cli.progress import Phases
from vgaudit.errors import VgauditError
from vgaudit.job import ScanJob
from vgaudit.reports.json import parse, schema

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
MODELS = FIXTURES / "models.py"
SCHEMA = jsonschema.Draft202012Validator(json.loads(schema()))


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "net.py"
    path.write_text(f"import torch\nfrom torch import nn\n\n{text}\n")
    return str(path)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "code", "rules"),
    [
        ("deep_sigmoid_mlp", 1, ["VG101"]),
        ("healthy_relu_mlp", 0, []),
        ("healthy_residual_net", 0, []),
        ("tiny_transformer", 0, []),
        ("zero_head_vit", 0, ["VG103"]),
        ("layer_scale_net", 0, []),
        ("exploding_mlp", 1, ["VG201", "VG203"]),
        ("saturated_tanh_mlp", 1, ["VG301"]),
        ("dead_relu_mlp", 1, ["VG103", "VG302"]),
        ("detached_branch", 1, ["VG104"]),
    ],
)
def test_fixtures_get_the_verdict_of_their_name(cli, name, code, rules) -> None:
    outcome = cli("scan", f"{MODELS}:{name}", "--format", "json")
    report = parse(outcome.out)

    SCHEMA.validate(json.loads(outcome.out))
    assert code == outcome.code
    assert rules == list(dict.fromkeys(finding.code for finding in report.findings))


@pytest.mark.usefixtures("here")
def test_the_optimizer_decides_over_ten_relu_layers(cli) -> None:
    arguments = ("scan", f"{MODELS}:relu_mlp", "--model-arg", "depth=10")

    assert 1 == cli(*arguments).code
    assert 0 == cli(*arguments, "--optimizer", "adam").code
    assert 1 == cli(*arguments, "--optimizer", "adam", "--fail-on", "warning").code


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"import torch\nprint('hello')\n", "not a PyTorch file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (bytes(range(256)) * 8, "not a PyTorch file"),
    ],
)
def test_what_is_no_model_exits_3_in_two_lines(cli, tmp_path, content, message) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    outcome = cli("scan", str(path), "--no-progress")
    reason, way_out = outcome.err.splitlines()

    assert (3, "") == (outcome.code, outcome.out)
    assert message in outcome.err
    assert reason.startswith("error: ")
    assert way_out.startswith("help: ")
    assert "weights_only" not in outcome.err


@pytest.mark.usefixtures("here")
def test_a_missing_file_exits_3(cli, tmp_path) -> None:
    outcome = cli("scan", str(tmp_path / "nowhere.pt"), "--no-progress")

    assert (3, "") == (outcome.code, outcome.out)
    assert "no such file" in outcome.err


@pytest.mark.usefixtures("here")
def test_one_layer_is_inconclusive(cli, tmp_path) -> None:
    spec = file(tmp_path, "def net():\n    return nn.Linear(4, 2)")
    outcome = cli("scan", f"{spec}:net", "--exit-zero")

    assert 4 == outcome.code
    assert "nothing to compare" in outcome.out


@pytest.mark.usefixtures("here")
def test_weights_that_are_nan_are_named_and_not_run(cli, tmp_path) -> None:
    spec = file(
        tmp_path,
        "def net():\n"
        "    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))\n"
        "    model[2].weight.data[0, 0] = float('nan')\n"
        "    return model",
    )
    stopped = cli("scan", f"{spec}:net", "--format", "json")
    report = parse(stopped.out)
    ran = parse(cli("scan", f"{spec}:net", "--format", "json", "--allow-nonfinite").out)

    assert (1, ["VG001"]) == (stopped.code, [f.code for f in report.findings])
    assert ("2.weight",) == report.findings[0].layers
    assert () == report.audit.flow.layers
    assert {"VG001", "VG107"} <= {f.code for f in ran.findings}
    assert ran.audit.flow.layers


@pytest.mark.usefixtures("here")
def test_an_uncalibrated_net_is_inconclusive_in_eval_mode(cli) -> None:
    spec = f"{MODELS}:healthy_residual_net"
    outcome = cli("scan", spec, "--mode", "eval", "--format", "json")
    report = parse(outcome.out)

    assert (4, "inconclusive") == (outcome.code, report.status)
    assert ["VG004"] == [finding.code for finding in report.findings]


@pytest.mark.usefixtures("here")
def test_hostile_names_reach_no_terminal(cli, tmp_path) -> None:
    names = ["[red]x[/red]", "\x1b[2Jy", "a\n::error::b", "\u202eevil", "x" * 5000]
    body = "\n".join(f"    net.add_module({name!r}, nn.Linear(8, 8))" for name in names)
    spec = file(
        tmp_path, f"def net():\n    net = nn.Sequential()\n{body}\n    return net"
    )
    for form in ("text", "json"):
        out = cli("scan", f"{spec}:net", "--format", form, "--verbose").out

        assert out
        assert all(ch.isprintable() or ch == "\n" for ch in out)


@pytest.mark.usefixtures("here")
def test_two_runs_are_one(cli) -> None:
    def figures() -> object:
        out = cli("scan", f"{MODELS}:tiny_transformer", "--format", "json").out
        report = parse(out)
        return report.audit.flow, report.findings

    assert figures() == figures()


@pytest.mark.usefixtures("here")
def test_the_graph_needs_no_figures(cli) -> None:
    outcome = cli("inspect", f"{MODELS}:healthy_residual_net", "--graph")

    assert 0 == outcome.code
    assert "on the longest path" in outcome.out
    assert "models.py:" in outcome.out


# --- in a process of its own ---------------------------------------------------------


def test_what_a_factory_prints_stays_out_of_the_report(shell, tmp_path) -> None:
    spec = file(
        tmp_path,
        "class Net(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        print('in forward')\n"
        "        return super().forward(x)\n\n"
        "def net():\n"
        "    print('building')\n"
        "    return Net(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))",
    )
    outcome = shell("scan", f"{spec}:net", "--format", "json")

    assert 0 == outcome.code, outcome.err
    assert "pass" == json.loads(outcome.out)["status"]
    assert "building" in outcome.err
    assert "in forward" in outcome.err


def test_an_endless_forward_is_stopped(shell, tmp_path) -> None:
    spec = file(
        tmp_path,
        "class Net(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        while True: pass\n\n"
        "def net():\n"
        "    return Net(4, 2)",
    )
    outcome = shell("scan", f"{spec}:net", "--timeout", "6", "--input", "2x4")

    assert (3, "") == (outcome.code, outcome.out)
    assert "error: ran longer than 6 s and was stopped (while " in outcome.err


def test_a_factory_that_exits_is_said(shell, tmp_path) -> None:
    spec = file(tmp_path, "import sys\n\ndef net():\n    sys.exit(0)")
    outcome = shell("scan", f"{spec}:net")

    assert (3, "") == (outcome.code, outcome.out)
    assert "sys.exit" in outcome.err


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA of Linux")
def test_memory_beyond_the_limit_is_said(shell, tmp_path) -> None:
    layers = "nn.Linear(2**15, 2**15), nn.Linear(2**15, 2)"
    spec = file(tmp_path, f"def net():\n    return nn.Sequential({layers})")
    env = {"OMP_NUM_THREADS": "1"}
    outcome = shell("scan", f"{spec}:net", "--max-memory", "2G", env=env)

    assert (3, "") == (outcome.code, outcome.out)
    assert "memory" in outcome.err


def test_the_working_folder_shadows_nothing(tmp_path, monkeypatch) -> None:
    for name in ("html.py", "json.py", "torch.py", "typing_extensions.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')\n")
    monkeypatch.chdir(tmp_path)
    job, limits = ScanJob(spec="nowhere.pt"), process.Limits()
    watcher = Phases(silent=True, quiet=True)

    with pytest.raises(VgauditError, match="no such file"):
        process.run("inspect", job, limits=limits, watcher=watcher)
