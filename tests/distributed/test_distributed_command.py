"""``torchrun -m vgaudit``: one report, one voice, one error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.networks import LIMIT, free_port
from tests.distributed.test_distributed_scan import differences

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "fixtures/models.py"
SICK = ("scan", f"{MODELS}:deep_sigmoid_mlp")
FAILING = """
import os, signal
from torch import nn

class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        if os.environ["RANK"] == "1" and len(x) > 1:
            if os.environ["WAY"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("the batch is bad")
        return self.layer(x)
"""


def torchrun(
    folder: Path, *words: object, ranks: int = 2, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command with several ranks, each output under its rank's name."""
    launcher = (
        *("-m", "torch.distributed.run", "--nproc-per-node", str(ranks)),
        *("--master-port", str(free_port()), "-m", "vgaudit"),
    )
    return shell(folder, *launcher, *words, **variables)


def shell(
    folder: Path, *words: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def audit(path: Path) -> Any:
    report = json.loads(path.read_text())
    codes = [finding["code"] for finding in report["findings"]]
    return report["audit"], codes, report["exit_code"]


def same(one: Path, other: Path) -> None:
    """Holds two reports against each other, but for what tells of the run."""
    (first, codes, status), (second, others, also) = audit(one), audit(other)
    assert (codes, status) == (others, also)
    assert (1, 2) == (first["run"]["world_size"], second["run"]["world_size"])
    assert "TCP open for torch.distributed" in second["run"]["sandbox"] or (
        "not sandboxed" in second["run"]["sandbox"]
    )
    for found in (first, second):
        del found["run"]
    assert not list(differences(first, second))


def test_a_scan_of_two_ranks_is_that_of_one(tmp_path: Path) -> None:
    report = ("--report", "json=one.json", "--no-progress")
    alone = shell(tmp_path, "-m", "vgaudit", *SICK, *report)
    done = torchrun(tmp_path, *SICK, "--report", "json=two.json", "--no-progress")

    assert 1 == alone.returncode == done.returncode
    assert alone.stdout.replace("one.json", "two.json") == done.stdout
    same(tmp_path / "one.json", tmp_path / "two.json")


@pytest.mark.slow
def test_a_sharded_scan_says_the_same(tmp_path: Path) -> None:
    shell(tmp_path, "-m", "vgaudit", *SICK, "--report", "json=one.json")
    torchrun(tmp_path, *SICK, "--report", "json=two.json", "--parallel", "fsdp")

    same(tmp_path / "one.json", tmp_path / "two.json")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("way", "error"),
    [
        (
            "raises",
            "rank 1 failed: the model (Failing) failed on input [8, 4] float32: "
            "the batch is bad",
        ),
        ("killed", "rank 1 failed: its process ended without a word"),
    ],
)
def test_a_failing_rank_ends_the_scan_with_one_error(
    tmp_path: Path, way: str, error: str, parallel: str
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    words = ("scan", "failing.py:Failing", "--input", "8x4", "--format", "json")

    done = torchrun(tmp_path, *words, "--parallel", parallel, WAY=way)

    document = json.loads(done.stdout)
    assert [error] == [found["message"] for found in document["errors"]]
    assert 3 == document["exit_code"]
    assert 1 == done.stderr.count("error: ")
    assert f"error: {error}" in done.stderr
    # torchrun's own code is 1; its summary has that of the rank.
    assert 1 == done.returncode
    assert "exitcode  : 3" in done.stderr


@pytest.mark.slow
def test_what_all_ranks_find_wrong_is_said_once(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "scan", "missing.pt")

    assert 1 == done.stderr.count("error: no such file: missing.pt\n")
    assert "rank" not in done.stderr.partition("help:")[0].partition("error:")[2]


@pytest.mark.slow
def test_a_check_shares_each_of_its_scans(tmp_path: Path) -> None:
    targets = "".join(
        f'[[targets]]\nname = "{name}"\nmodel = "{MODELS}:{name}"\n'
        for name in ("deep_sigmoid_mlp", "healthy_residual_net")
    )
    (tmp_path / "vgaudit.toml").write_text(targets)

    done = torchrun(
        *(tmp_path, "check", "--allow-code", "--allow-no-baseline"),
        *("--format", "json", "--no-progress"),
    )

    found = json.loads(done.stdout)["targets"]
    status = {entry["name"]: entry["report"]["status"] for entry in found}
    sizes = [entry["report"]["audit"]["run"]["world_size"] for entry in found]
    assert {"deep_sigmoid_mlp": "fail", "healthy_residual_net": "pass"} == status
    assert [2, 2] == sizes


@pytest.mark.slow
def test_what_cannot_be_shared_is_done_once(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "explain", "VG101")

    assert 0 == done.returncode
    assert done.stdout == shell(tmp_path, "-m", "vgaudit", "explain", "VG101").stdout


def test_one_process_cannot_spread_a_model(tmp_path: Path) -> None:
    done = shell(tmp_path, "-m", "vgaudit", *SICK, "--parallel", "fsdp")

    assert 2 == done.returncode
    assert "--parallel fsdp spreads a model over several processes" in done.stderr
