"""``vgaudit convert`` and ``vgaudit compare`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vgaudit
from vgaudit.reports.json import render

DEEP = ("fixtures/models.py:deep_sigmoid_mlp", "--input", "64x64")


def write_report(path: Path, spec: str, *, status: str) -> None:
    """Writes the JSON report of a scan; a converted model needs its architecture."""
    arch = (
        None if spec.startswith("fixtures") else "fixtures/models.py:deep_sigmoid_mlp"
    )
    report = vgaudit.scan(
        spec,
        load_options=vgaudit.LoadOptions(arch=arch),
        data_options=vgaudit.DataOptions(inputs=("64x64",)),
    )
    assert report.status == status
    path.write_text(render(report))


def test_convert_writes_a_model_that_scans_clean(
    shell: Any, cli: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    done = shell("convert", *DEEP, "--to", "ar", "-o", str(out))
    assert done.code == 0, done.err
    assert "converted to ar: 10 edits, 0 activations not" in done.out
    assert "better: 1 finding gone" in done.out
    assert "made-up inputs" in done.out
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    write_report(before, "fixtures/models.py:deep_sigmoid_mlp", status="fail")
    write_report(after, str(out), status="pass")
    compared = cli("compare", str(before), str(after))
    assert compared.code == 0
    assert "gone  error    VG101" in compared.out
    back = cli("compare", str(after), str(before), "--format", "json")
    assert back.code == 1
    assert json.loads(back.out)["comparison"]["verdict"] == "worse"


def test_without_out_nothing_is_written(shell: Any, tmp_path: Path) -> None:
    done = shell("convert", *DEEP, "--to", "adact", "--preserve", "--format", "json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["conversion"]["preserved"] is True
    assert record["conversion"]["max_abs_diff"] == 0.0
    assert len(record["conversion"]["edits"]) == 10
    assert record["conversion"]["written"] == []
    assert record["comparison"]["verdict"] == "same"


def test_nothing_converted_is_exit_3(shell: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    model = ("fixtures/models.py:healthy_residual_net", "--input", "8x3x16x16")
    done = shell("convert", *model, "--to", "ar", "-o", str(out))
    assert done.code == 3
    assert "VG701 nothing was converted" in done.err
    assert "its scale cancels in norm" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["out.bin", "missing/out.safetensors"])
def test_a_bad_place_is_told_before_any_work(
    cli: Any, tmp_path: Path, place: str
) -> None:
    done = cli("convert", *DEEP, "--to", "ar", "-o", str(tmp_path / place))
    assert done.code in (2, 3)
    assert place.rpartition("/")[2] in done.err or "no folder" in done.err


def test_the_input_is_never_the_output(cli: Any, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    done = cli("convert", str(model), "--to", "ar", "-o", str(model), "--force")
    assert done.code == 3
    assert "inputs are never written over" in done.err
    assert model.read_bytes() == b"weights"


def test_an_existing_recipe_is_kept(cli: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "out.recipe.json"
    recipe.write_text("mine")
    out = str(tmp_path / "out.safetensors")
    done = cli("convert", *DEEP, "--to", "ar", "-o", out)
    assert done.code == 3
    assert "exists already" in done.err
    assert recipe.read_text() == "mine"


def test_compare_refuses_what_is_no_report(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    done = cli("compare", str(path), str(path))
    assert done.code == 3


def test_compare_takes_a_model_beside_a_report(shell: Any, tmp_path: Path) -> None:
    report = tmp_path / "before.json"
    write_report(report, DEEP[0], status="fail")
    same = ("--input", "64x64")
    done = shell("compare", str(report), DEEP[0], *same)
    assert done.code == 0, done.err
    assert "same: 0 findings gone, 0 findings new, 1 finding kept" in done.out
    other = "fixtures/models.py:saturated_tanh_mlp"
    both = shell("compare", other, DEEP[0], *same, "--format", "json")
    assert both.code == 1
    comparison = json.loads(both.out)["comparison"]
    assert comparison["verdict"] in ("worse", "mixed")
    assert "VG101" in [finding["code"] for finding in comparison["new"]]


def test_convert_writes_reports_beside_the_screen(shell: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ("--to", "ar", "--denominator", "xq-max", "--limit-from", "value")
    wanted = ("--report", f"json={report}", "--ar-type", "frozen-shared")
    done = shell("convert", *DEEP, *options, *wanted)
    assert done.code == 0, done.err
    assert "ar does not bound |z| by L" in done.out
    record = json.loads(report.read_text())["conversion"]
    assert record["options"]["denominator"] == "xq-max"
    assert record["options"]["limit_type"] == "frozen-shared"
    assert all(0 <= edit["exceeding"] <= 1 for edit in record["edits"])


@pytest.mark.parametrize("name", ["ar", "adact", "rescale", "plain"])
def test_every_treatment_has_a_page(cli: Any, name: str) -> None:
    done = cli("explain", name)
    assert done.code == 0
    for heading in ("What it changes", "What it preserves", "When it refuses", "Cost"):
        assert f"\n{heading}\n" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_the_page_of_ar_says_that_the_bound_is_false(cli: Any) -> None:
    """Its counter-example, computed: w = (1, -1), b = 0.1, inputs in [0, 1]."""
    import torch

    page = cli("explain", "ar").out
    assert "does not bound |z| by L" in page
    assert "z = 11·L" in page
    w, b = torch.tensor([1.0, -1.0]), 0.1
    x_q = 2 * 0.0 - 1.0
    rho = 1.0 / abs(float(w.sum()) * x_q + b)
    assert rho * float(w @ torch.tensor([1.0, 0.0]) + b) == pytest.approx(11.0)
