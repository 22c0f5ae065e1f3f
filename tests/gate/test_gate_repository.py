"""A repository from red to green and back: the way a team meets the gate."""

from __future__ import annotations

import json

import jsonschema
import pytest

from tests.gate.repository import CONFIG, WHOLE, made
from vgaudit.reports.suites import parse_suite

pytestmark = pytest.mark.usefixtures("here")
CHECK = ("check", "--allow-code", "--force")


def codes(path) -> dict[str, list[str]]:
    """Returns the codes of the findings of each target in a report."""
    suite = parse_suite(path.read_text())
    return {x.name: [f.code for f in x.report.findings] for x in suite.entries}


def test_from_red_to_green_and_back(cli, tmp_path, monkeypatch) -> None:
    root = made(tmp_path / "repository", CONFIG + WHOLE)
    lines = sum(len(x.read_text().splitlines()) for x in root.rglob("*.py"))
    assert 200 <= lines
    monkeypatch.chdir(root)
    report = root / "report.json"
    asked = (*CHECK, "--report", f"json={report}")

    missing = cli(*asked)
    assert (2, "") == (missing.code, missing.out)
    assert "vgaudit-baseline.json does not exist" in missing.err

    red = cli(*asked, "--allow-no-baseline")
    assert 1 == red.code
    sound = {"images": [], "text": []}
    assert {"legacy": ["VG101"], "residual": [], **sound} == codes(report)

    assert 0 == cli("baseline", "write", str(report)).code
    green = cli(*asked)
    assert 0 == green.code
    assert {"legacy": [], "residual": [], **sound} == codes(report)
    assert "1 known from the baseline" in cli(*CHECK, "--verbose").out
    assert 0 == cli("gate", str(report)).code

    _edit(root / "pyproject.toml", "skips = true", "skips = true, carry = 0.0")
    _edit(root / "pyproject.toml", '"Tanh"', '"Sigmoid"')
    again = cli(*asked)
    assert 1 == again.code
    found = codes(report)
    assert {"legacy": [], **sound} == {x: found[x] for x in ("legacy", *sound)}
    assert {"VG101", "VG901"} <= set(found["residual"])
    assert 1 == cli("gate", str(report)).code
    sarif = json.loads(cli("report", str(report), "--to", "sarif").out)
    assert [f"vgaudit/{name}/" for name in ("legacy", "residual", *sound)] == [
        run["automationDetails"]["id"] for run in sarif["runs"]
    ]
    assert {"VG101"} == {
        result["ruleId"]
        for result in sarif["runs"][0]["results"]
        if "suppressions" in result
    }


def test_the_document_of_several_targets_has_a_schema(
    cli, tmp_path, monkeypatch
) -> None:
    config = CONFIG + '[[tool.vgaudit.targets]]\nname = "failing"\n'
    config += 'model = "src/models.py:failing"\ninput = ["4x8"]\n'
    monkeypatch.chdir(made(tmp_path / "repository", config))
    printed = cli("schema", "check")
    schema = json.loads(printed.out)
    jsonschema.Draft202012Validator.check_schema(schema)

    outcome = cli(*CHECK, "--allow-no-baseline", "--format", "json")
    record = json.loads(outcome.out)

    assert (0, 3) == (printed.code, outcome.code)
    jsonschema.Draft202012Validator(schema).validate(record)
    assert ["legacy", "residual", "failing"] == [x["name"] for x in record["targets"]]
    del record["targets"][0]["report"]["summary"]
    with pytest.raises(jsonschema.ValidationError, match="'summary' is a required"):
        jsonschema.Draft202012Validator(schema).validate(record)


def test_a_target_is_measured_as_deep_as_it_says_or_as_was_typed(
    cli, tmp_path, monkeypatch
) -> None:
    config = CONFIG.replace("carry", "").replace(
        'name = "legacy"\n', 'name = "legacy"\ndeep = true\n'
    )
    config = config.replace('name = "residual"\n', 'name = "residual"\nstatic = true\n')
    monkeypatch.chdir(made(tmp_path / "repository", config))

    def measured(*options: str) -> dict[str, tuple[bool, bool]]:
        out = cli(*CHECK, "--allow-no-baseline", "--format", "json", *options).out
        flows = {
            x.name: x.report.audit.flow
            for x in parse_suite(out).entries
            if x.report.audit is not None
        }
        return {n: (f.deep is not None, f.static is not None) for n, f in flows.items()}

    assert {"legacy": (True, False), "residual": (False, True)} == measured()
    every = {"legacy": (False, True), "residual": (False, True)}
    assert every == measured("--static")
    assert {"residual": (True, False)} == measured("--deep", "residual")
    both = cli(*CHECK, "--allow-no-baseline", "--deep", "--static")
    assert 2 == both.code
    assert "exclude each other" in both.err


def _edit(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_mended_model_is_pruned_and_may_not_fall_back(
    cli, tmp_path, monkeypatch
) -> None:
    root = made(tmp_path / "repository")
    monkeypatch.chdir(root)
    report = str(root / "report.json")
    scan = ("scan", "src/models.py:classifier", "--report", f"json={report}", "--force")
    sick, sound = (
        ("--model-arg", "depth=12"),
        (
            "--model-arg",
            "activation=SELU",
        ),
    )

    cli(*scan, *sick)
    assert 0 == cli("baseline", "write", report, "--target", "legacy").code
    cli(*scan, *sound)
    assert 0 == cli("baseline", "prune", report).code
    shown = cli("baseline", "show").out
    assert "VG101" not in shown
    cli(*scan, *sick)
    fallen = cli("gate", report, "--format", "json")

    assert 1 == fallen.code
    assert {"VG101", "VG901"} <= {f["code"] for f in json.loads(fallen.out)["findings"]}


def test_every_outcome_in_one_run(cli, tmp_path, monkeypatch) -> None:
    config = CONFIG.replace('baseline = "vgaudit-baseline.json"', "").replace(
        "[tool.vgaudit.budgets]\nnonfinite-gradients = 0\n", ""
    )
    for name in ("single", "failing"):
        config += (
            f'\n[[tool.vgaudit.targets]]\nname = "{name}"\n'
            f'model = "src/models.py:{name}"\ninput = ["4x8"]\n'
        )
    monkeypatch.chdir(made(tmp_path / "repository", config))

    outcome = cli(*CHECK, "--jobs", "1")
    assert 3 == outcome.code
    for word in ("FAIL", "PASS", "INCONCLUSIVE", "ERROR", "this layer is broken"):
        assert word in outcome.out
    assert 1 == cli(*CHECK, "legacy", "residual").code
    assert 4 == cli(*CHECK, "single", "legacy", "--exit-zero").code
    assert 3 == cli(*CHECK, "failing", "legacy", "--exit-zero").code
    assert 0 == cli(*CHECK, "legacy", "--exit-zero").code
    assert 0 == cli(*CHECK, "residual").code
    unknown = cli(*CHECK, "residul")
    assert (2, "") == (unknown.code, unknown.out)


def test_code_in_a_configuration_needs_a_word_on_the_command_line(
    cli, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(made(tmp_path / "repository"))
    outcome = cli("check", "--allow-no-baseline")

    assert (2, "") == (outcome.code, outcome.out)
    assert "target 'legacy' runs code: src/models.py:classifier" in outcome.err
    assert "--allow-code" in outcome.err


def test_the_configuration_is_found_from_below(cli, tmp_path, monkeypatch) -> None:
    root = made(tmp_path / "repository", CONFIG.replace("baseline =", "# baseline ="))
    _edit(root / "pyproject.toml", "# baseline", "jobs = 2\n# baseline")
    monkeypatch.chdir(root / "src")
    outcome = cli(*CHECK, "residual", "--report", "csv=layers.csv")

    assert 0 == outcome.code, outcome.err
    assert (root / "src" / "layers.csv").is_file()
    assert not (root / "layers.csv").exists()


def test_each_target_has_a_file_of_its_own_where_asked(
    cli, tmp_path, monkeypatch
) -> None:
    root = made(tmp_path / "repository", CONFIG.replace("baseline =", "# baseline ="))
    _edit(root / "pyproject.toml", "# baseline =", "jobs = 1 # baseline =")
    monkeypatch.chdir(root)
    asked = ("--report", "sarif={target}.sarif", "--report", "junit=all.xml")
    cli(*CHECK, *asked, "--format", "markdown")

    assert {"legacy.sarif", "residual.sarif", "all.xml"} <= {
        path.name for path in root.iterdir()
    }


def test_the_step_summary_gets_markdown(cli, tmp_path, monkeypatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.chdir(made(tmp_path / "repository"))
    cli("scan", "src/models.py:classifier")
    lines = summary.read_text().splitlines()

    assert ["before", "## FAIL: src/models.py:classifier"] == lines[:2]
