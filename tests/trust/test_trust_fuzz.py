"""Whatever is in a file, reading it ends in a value or in one clear error.

The seeds are honest files, made here; what hypothesis does to them is replace,
insert, delete, cut, and change members of archives with their checksums mended.
``VGAUDIT_FUZZ_EXAMPLES`` asks for more examples than the default.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trust import seeds
from vgaudit import baseline, config
from vgaudit.errors import VgauditError
from vgaudit.job import LoadOptions
from vgaudit.loading import inspect, load
from vgaudit.reports import json as report
from vgaudit.treatments import recipe

MORE = int(os.environ.get("VGAUDIT_FUZZ_EXAMPLES", "0"))


def examples(default: int) -> settings:
    return settings(
        max_examples=MORE or default, suppress_health_check=list(HealthCheck)
    )


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete", "cut", "repeat", "member"]),
        st.integers(0, 10**6),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, change in edits:
        at = place % max(len(content), 1)
        if kind == "member" and content.startswith(b"PK"):
            with contextlib.suppress(Exception):
                content = seeds.rezipped(content, place, change, place // 7)
        elif kind == "replace":
            content = content[:at] + change + content[at + len(change) :]
        elif kind == "insert":
            content = content[:at] + change + content[at:]
        elif kind == "delete":
            content = content[:at] + content[at + len(change) :]
        elif kind == "repeat":
            content = content[:at] + content[at : at + 64] * 2 + content[at + 64 :]
        elif kind == "cut":
            content = content[:at]
    return content


def ends_clearly(act: Callable[[], object]) -> None:
    """Runs it; any error but vgaudit's own, or one without words, fails the test."""
    refused: VgauditError | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            act()
        except VgauditError as error:
            refused = error
    if refused is not None:
        assert refused.message
        assert "\n" not in refused.message
        assert "Traceback" not in refused.message


@pytest.mark.parametrize("name", sorted(seeds.models()))
@pytest.mark.parametrize("allow_code", [False, True], ids=["plain", "allowed"])
def test_model_files(name: str, allow_code: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    options = LoadOptions(allow_code=allow_code)

    @examples(60)
    @given(EDITS)
    def holds(edits: list[tuple[str, int, bytes]]) -> None:
        path.write_bytes(damaged(seeds.models()[name], edits))
        ends_clearly(lambda: inspect(str(path), options))
        ends_clearly(lambda: load(str(path), options))
        ends_clearly(lambda: load(f"{path}#model", options))

    holds()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".pt2", ".bin", ".npz", ""])
def test_bytes_of_nothing(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    starts = [b"", b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY", b"\x10" + b"\0" * 7 + b"{"]

    @examples(60)
    @given(st.sampled_from(starts), st.binary(max_size=200))
    def holds(start: bytes, rest: bytes) -> None:
        path.write_bytes(start + rest)
        ends_clearly(lambda: inspect(str(path), LoadOptions()))
        ends_clearly(lambda: load(str(path), LoadOptions()))

    holds()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["nan", "inf", "../x", "torchvision:resnet18", "\x1b[31m"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def test_reports_with_another_value_anywhere() -> None:
    @examples(150)
    @given(st.integers(0, 10**6), VALUES)
    def holds(place: int, value: object) -> None:
        text = seeds.with_value(seeds.report_json(), place, value)
        ends_clearly(lambda: report.parse(text))

    holds()


def test_baselines_with_another_value_anywhere() -> None:
    @examples(150)
    @given(st.integers(0, 10**6), VALUES)
    def holds(place: int, value: object) -> None:
        text = seeds.with_value(seeds.baseline_json(), place, value)
        ends_clearly(lambda: baseline.parse(text, "baseline.json"))

    holds()


@pytest.mark.parametrize("kind", ["report", "baseline", "recipe"])
def test_damaged_json(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    text = {
        "report": seeds.report_json,
        "baseline": seeds.baseline_json,
        "recipe": lambda: seeds.recipe_json(str(tmp_path)),
    }[kind]()

    @examples(80)
    @given(EDITS)
    def holds(edits: list[tuple[str, int, bytes]]) -> None:
        content = damaged(text.encode(), edits)
        path.write_bytes(content)
        if kind == "report":
            ends_clearly(lambda: report.parse(content.decode("utf-8", "replace")))
        elif kind == "baseline":
            ends_clearly(lambda: baseline.load(path))
        else:
            ends_clearly(lambda: recipe.parse(path))

    holds()


def test_recipes_with_another_value_anywhere(tmp_path: Path) -> None:
    """The weights are honest; whatever the recipe says, only known layers are made."""
    text = seeds.recipe_json(str(tmp_path))
    path = tmp_path / "out.recipe.json"
    weights = tmp_path / "out.safetensors"

    @examples(80)
    @given(st.integers(0, 10**6), VALUES)
    def holds(place: int, value: object) -> None:
        path.write_text(seeds.with_value(text, place, value), encoding="utf-8")
        import vgaudit

        ends_clearly(lambda: vgaudit.load(weights, arch=seeds.net))

    holds()


def test_configurations(tmp_path: Path) -> None:
    path = tmp_path / "vgaudit.toml"
    honest = (
        b'select = ["VG1"]\nfail-on = "warning"\npreset = "strict"\n'
        b'[[targets]]\nmodel = "torchvision:resnet18"\nname = "a"\n'
        b'[[ignores]]\nrule = "VG301"\nlayer = "x.*"\nreason = "known"\n'
        b"[budgets]\nattenuation = -3.0\n"
    )

    @examples(150)
    @given(EDITS)
    def holds(edits: list[tuple[str, int, bytes]]) -> None:
        path.write_bytes(damaged(honest, edits))
        ends_clearly(lambda: config.settings(str(path), {}))

    holds()


def test_configurations_of_any_shape(tmp_path: Path) -> None:
    path = tmp_path / "vgaudit.toml"
    keys = st.sampled_from(
        [
            *("select", "ignore", "fail-on", "preset", "targets", "ignores", "set"),
            *("budgets", "baseline", "allow-code", "trust-pickle", "seed", "unknown"),
        ]
    )

    @examples(150)
    @given(st.dictionaries(keys, VALUES, max_size=4))
    def holds(record: dict[str, object]) -> None:
        lines = [f"{key} = {toml(value)}" for key, value in record.items()]
        path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
        ends_clearly(lambda: config.settings(str(path), {}))

    holds()


def toml(value: object) -> str:
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {toml(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return '"none"' if value is None else json.dumps(value)
