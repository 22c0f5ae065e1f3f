"""``vgaudit fix``: the worker's task, the files, and the report in every form."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import vgaudit
from tests.fixing.models import healthy, sick_and_short, task
from tests.fixing.test_fixing_repair import only
from vgaudit.cli.repair import seconds
from vgaudit.errors import BadConfig
from vgaudit.fixing import Arm, Fixing, FixOptions
from vgaudit.job import DataOptions, LoadOptions, ProbeOptions, ScanJob
from vgaudit.judge import DEFAULT
from vgaudit.plain import to_plain
from vgaudit.repair import job as repair
from vgaudit.reports.fixing import parse, render
from vgaudit.training.retrain import Listener

ADAM = Arm(name="ar + adam", family="treatment", start="ar", method="adam")
ROTATED = Arm(name="ar + sdagd", family="treatment", start="ar", method="sdagd")

NET = """
from tests.fixing.models import healthy, sick_and_short as sick
"""


def job(folder: Path, name: str, *, command: str = "vgaudit fix") -> repair.FixJob:
    """Returns a repair of a factory beside its data."""
    (folder / "net.py").write_text(NET)
    x, y = task(1000)
    torch.save({"x": x, "y": y}, folder / "data.pt")
    return repair.FixJob(
        scan=ScanJob(
            spec=f"{folder / 'net.py'}:{name}",
            load=LoadOptions(allow_code=True),
            data=DataOptions(data=str(folder / "data.pt")),
            probe=ProbeOptions(),
        ),
        options=FixOptions(budget=600.0, most_steps=150),
        policy=DEFAULT,
        output=str(folder / "out.safetensors"),
        command=command,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fix")


@pytest.fixture(scope="module")
def done(place: Path) -> Fixing:
    with pytest.MonkeyPatch.context() as patch:
        only(patch, ADAM, ROTATED)
        return repair.run(job(place, "sick"), Listener())


def test_a_repaired_model_is_written_with_its_recipe_and_loads(
    place: Path, done: Fixing
) -> None:
    assert done.status == "repaired"
    assert {Path(name).name for name in done.written} == {
        "out.safetensors",
        "out.recipe.json",
    }
    model = vgaudit.load(place / "out.safetensors", arch=sick_and_short)
    plain = vgaudit.convert(model, to="plain", data=task(64)).model
    x, y = task(3000, seed=2)
    with torch.no_grad():
        outputs, baked = model.eval()(x), plain.eval()(x)
    right = float((outputs.argmax(1) == y).float().mean())

    assert right > 0.5 > (done.base or 0.0)
    torch.testing.assert_close(baked, outputs, atol=1e-4, rtol=1e-4)
    assert not (place / "out.safetensors.run").exists()


def test_a_healthy_model_writes_nothing(tmp_path: Path) -> None:
    found = repair.run(job(tmp_path, "healthy"), Listener())

    assert found.status == "healthy"
    assert found.written == ()
    assert {path.name for path in tmp_path.glob("out*")} == set()


def test_an_unfinished_repair_is_not_begun_anew_by_accident(tmp_path: Path) -> None:
    folder = tmp_path / "out.safetensors.run"
    folder.mkdir()
    (folder / "fix.json").write_text("{}")

    with pytest.raises(BadConfig, match="unfinished repair"):
        repair.run(job(tmp_path, "sick"), Listener())


def test_resume_needs_a_folder(tmp_path: Path) -> None:
    asked = dataclasses.replace(job(tmp_path, "sick"), output=None, resume=True)

    with pytest.raises(BadConfig, match="--resume needs"):
        repair.run(asked, Listener())


def test_what_the_worker_sends_is_read_back_equal(done: Fixing) -> None:
    plain = to_plain(done)
    back = to_plain(parse(json.loads(json.dumps(plain))))

    # Where a figure is left out by hand, numbers and texts must all be the same.
    assert back == plain


def test_text_names_every_arm_with_its_interval_and_what_is_kept(done: Fixing) -> None:
    text = render(done, form="text")

    assert done.plan is not None
    for arm in done.plan.arms:
        assert arm.name in text
    kept = next(line for line in text.splitlines() if line.startswith("* "))
    assert kept.split("treatment")[0].strip("* ") == "ar + sdagd"
    assert f"{100 * done.estimate('ar + sdagd').mean:.1f} %" in kept
    assert "recommended without evidence: normalise" in text
    assert f"{done.plan.trainings} trainings of {done.plan.trainings}" in text


def test_an_interrupted_repair_says_how_to_go_on(done: Fixing) -> None:
    early = dataclasses.replace(
        done, status="interrupted", early="in training 2", folder="out.run", kept=""
    )
    text = render(early, form="text", resume="vgaudit fix m --resume")

    assert "kept in out.run; to continue: vgaudit fix m --resume" in text


def test_the_page_shows_every_curve_and_every_budget(done: Fixing) -> None:
    page = render(done, form="html")

    assert done.plan is not None
    budgets = page[page.index("Gradient budgets after training") :]
    curves = page[page.index("<h2>Learning</h2>") : page.index("Gradient budgets")]
    for arm in done.plan.arms:
        assert arm.name in curves
        if arm.family == "treatment" or done.proofs(arm.name):
            assert arm.name in budgets
    assert "as it came" in budgets


def test_a_healthy_report_has_no_table() -> None:
    found = vgaudit.fix(healthy(), task(400)).fixing

    assert render(found, form="text").startswith("healthy: left alone")
    assert json.loads(render(found, form="json"))["fixing"]["attempts"] == []
    assert "What was tried" not in render(found, form="html")


@pytest.mark.parametrize(
    ("text", "wanted"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)]
)
def test_budgets_are_times(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["0m", "ten", "-5", "10d", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadConfig, match="not a time"):
        seconds(text)
