"""The configuration: what it says, what it may not say, and what comes first."""

from __future__ import annotations

import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from vgaudit.config import Settings, settings
from vgaudit.config.environment import KINDS
from vgaudit.config.tables import ProjectTable, Shared, TargetTable, spellings
from vgaudit.config.trust import code
from vgaudit.errors import BadConfig
from vgaudit.rules.gate.metrics import METRICS
from vgaudit.terms import Budget

ROOT = Path(__file__).resolve().parents[2]


def read(text: str, name: str = "vgaudit.toml", **environ: str) -> Settings:
    """Returns the settings of a file with that text."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text, encoding="utf-8")
        return settings(str(path), environ)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("fail-onn = 1", "unknown key 'fail-onn'", "did you mean fail-on? "),
        ("Seed = 1", "unknown key 'Seed'", "did you mean seed? "),
        (
            '[[targets]]\nname = "a"\nmodel = "b"\nmodell = "c"',
            "unknown key 'modell' in targets.0",
            "did you mean model? ",
        ),
        (
            '[[ignores]]\nrules = ["VG1"]\nreason = "x"\nexpire = 2027-01-01',
            "unknown key 'expire' in ignores.0",
            "did you mean expires? ",
        ),
        (
            "[budgets]\nattenuation = { limit = 1, levle = 2 }",
            "unknown key 'levle' in budgets.attenuation",
            "did you mean level? ",
        ),
        ("[budgets]\natenuation = 1", "unknown budget 'atenuation'", "attenuation? "),
        ("[budgets]\ndead-units = true", "budgets.dead-units: ", "docs/config.md"),
        ('seed = "3"', "seed: Input should be a valid integer", "docs/config.md"),
        ('fail-on = "errors"', "fail-on: Input should be 'error'", "docs/config.md"),
        ("batches = 0", "batches: Input should be greater", "docs/config.md"),
        ('[[targets]]\nname = "a"', "targets.0.model: Field required", "docs/"),
        ('[[ignores]]\nrules = ["VG1"]', "ignores.0.reason: Field required", "docs/"),
        (
            "[thresholds.vanishing-gradient]\nsgd = 1",
            "VG101 vanishing-gradient has no threshold 'sgd'",
            "did you mean sgd_error? ",
        ),
        ("[thresholds.vanishing-gradiant]\nx = 1", "unknown rule", "did you mean van"),
        ("x = ", "vgaudit.toml cannot be read: ", "mend the file"),
        (
            'seed = 1\n[[tool.vgaudit.targets]]\nname = "a"\nmodel = "b"',
            "'seed' stands beside [tool.vgaudit]",
            "in vgaudit.toml leave 'tool.vgaudit.' out",
        ),
        (
            '[[targets]]\nname = "a"\nmodel = "b"\n' * 2,
            "two targets are called 'a'",
            "a name of its own",
        ),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str, hint: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read(text)

    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "key", ["trust-pickle", "trust_pickle", "allow-code", "import-path", "env"]
)
@pytest.mark.parametrize("place", ["", '[[targets]]\nname = "a"\nmodel = "b"\n'])
def test_trust_in_a_file_is_refused(key: str, place: str) -> None:
    with pytest.raises(BadConfig, match="trust flags are command-line only"):
        read(f"{place}{key} = true")


@pytest.mark.parametrize("name", ["VGAUDIT_ALLOW_CODE", "VGAUDIT_TRUST_PICKLE"])
def test_trust_in_the_environment_is_refused(name: str) -> None:
    with pytest.raises(BadConfig, match="trust flags are command-line only"):
        settings("", {name: "1"}, start=Path("/"))


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("VGAUDIT_FAILON", "error", "unknown environment variable VGAUDIT_FAILON"),
        ("VGAUDIT_SEED", "x", "VGAUDIT_SEED=x is not a number"),
        ("VGAUDIT_REQUIRE_SANDBOX", "2", "is not true or false"),
        ("VGAUDIT_FAIL_ON", "errors", "the environment: fail-on: "),
    ],
)
def test_a_wrong_variable_is_an_error(variable, value, message) -> None:
    with pytest.raises(BadConfig) as caught:
        settings("", {variable: value}, start=Path("/"))

    assert message in caught.value.message


def test_the_environment_comes_before_the_file() -> None:
    found = read('seed = 1\nselect = ["VG1"]', VGAUDIT_SEED="2")

    assert {"seed": 2, "select": ["VG1"]} == found.values


def test_a_target_replaces_the_project_and_the_environment_both() -> None:
    text = (
        'seed = 1\nfail-on = "warning"\n'
        '[[targets]]\nname = "a"\nmodel = "m"\nseed = 3\npreset = "all"\n'
    )
    (own,) = read(text).targets
    (changed,) = read(text, VGAUDIT_SEED="2").targets

    assert (3, "info") == (own.values["seed"], own.values["fail_on"])
    assert 2 == changed.values["seed"]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ('preset = "recommended"', "error"),
        ('preset = "strict"', "warning"),
        ('preset = "all"', "info"),
        ('preset = "all"\nfail-on = "error"', "error"),
    ],
)
def test_a_preset_says_what_fails(text: str, level: str) -> None:
    assert level == read(text).values["fail_on"]


def test_tables_become_terms() -> None:
    found = read(
        "[budgets]\nattenuation = -3\n"
        'dead-units = { limit = 0.2, level = "warning" }\n'
        '[[ignores]]\nrules = ["VG302"]\nlayers = ["a.*"]\nreason = "why"\n'
        "expires = 2027-01-31\n"
        "[thresholds.VG101]\nsgd_error = -4\n"
    )

    assert found.budgets == (
        Budget(metric="attenuation", limit=-3.0),
        Budget(metric="dead-units", limit=0.2, level="warning"),
    )
    assert datetime.date(2027, 1, 31) == found.ignores[0].expires
    assert {"VG101.sgd_error": -4.0} == found.thresholds


def test_the_nearest_file_above_counts(tmp_path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.vgaudit]\nseed = 1\n")
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'x'\n")

    assert {"seed": 1} == settings(None, {}, start=below).values
    (below / "vgaudit.toml").write_text("seed = 2\n")
    assert {"seed": 2} == settings(None, {}, start=below).values
    (below / "pyproject.toml").write_text("[tool.vgaudit]\nseed = 3\n")
    with pytest.raises(BadConfig, match="two configurations"):
        settings(None, {}, start=below)


def test_a_file_that_is_named_must_be_there(tmp_path) -> None:
    with pytest.raises(BadConfig, match="no such configuration file"):
        settings(str(tmp_path / "nowhere.toml"), {})
    with pytest.raises(BadConfig, match="no such configuration file"):
        settings(None, {"VGAUDIT_CONFIG": str(tmp_path / "nowhere.toml")})


@pytest.mark.parametrize(
    ("values", "spec"),
    [
        ({"model": "models.py:net"}, "models.py:net"),
        ({"model": "package.models:net"}, "package.models:net"),
        ({"model": "weights.pt", "arch": "models.py:net"}, "models.py:net"),
        ({"model": "weights.pt", "loss": "losses:mine"}, "losses:mine"),
        ({"model": "weights.pt", "data": "batches.py:make"}, "batches.py:make"),
        ({"model": "torchvision:resnet18"}, ""),
        ({"model": "hf:owner/name"}, ""),
        ({"model": "weights.pt#ema", "loss": "cross-entropy"}, ""),
        ({"model": "a.pt", "data": "torchvision:MNIST@data"}, ""),
        ({"model": "C:\\models\\a.pt"}, ""),
    ],
)
def test_code_in_a_target_is_seen(values, spec) -> None:
    assert spec == code(values)


def test_every_key_is_documented() -> None:
    page = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    keys = {*spellings(ProjectTable), *spellings(TargetTable), *METRICS}

    assert [] == sorted(key for key in keys if f"`{key}`" not in page)


def test_the_environment_sets_what_all_targets_share() -> None:
    tables = {"thresholds", "budgets"}

    assert set(KINDS) == set(spellings(Shared)) - tables | {"baseline", "jobs"}


@pytest.mark.parametrize(
    ("name", "text", "table"),
    [
        ("vgaudit.toml", "seed = 1\n", "targets"),
        ("vgaudit.toml", "", "targets"),
        ("vgaudit.toml", "[tool.vgaudit]\nseed = 1\n", "tool.vgaudit.targets"),
        ("pyproject.toml", "[tool.vgaudit]\nseed = 1\n", "tool.vgaudit.targets"),
        ("pyproject.toml", '[project]\nname = "p"\n', "tool.vgaudit.targets"),
    ],
)
def test_the_table_that_is_missing_is_named_as_that_file_needs_it(
    name: str, text: str, table: str
) -> None:
    with pytest.raises(BadConfig, match="no targets: ") as caught:
        read(text, name).chosen(())

    assert caught.value.message.endswith(f"{name} has no [[{table}]]")
    done = read(f'{text}\n[[{table}]]\nname = "a"\nmodel = "b"\n', name)
    assert ["a"] == [target.name for target in done.chosen(())]
