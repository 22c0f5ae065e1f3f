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
