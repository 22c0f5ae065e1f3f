"""Records made into typed values: what comes back, and what a fault says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vgaudit.baseline import Baseline
from vgaudit.conversion import Conversion
from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.fixing import Fixing
from vgaudit.reports import comparison, fixing, json, retraining, structure
from vgaudit.retraining import Retraining
from vgaudit.typed import Mismatch, adapter, typed


@dataclass(frozen=True)
class Leaf:
    """One number."""

    size: int


@dataclass(frozen=True)
class Tree:
    """Several numbers."""

    name: str
    leaves: tuple[Leaf, ...]


def test_a_record_becomes_what_it_says() -> None:
    record = {"name": "oak", "leaves": [{"size": 1}, {"size": 2}]}

    assert typed(Tree, record) == Tree("oak", (Leaf(1), Leaf(2)))


def test_the_first_fault_has_its_place() -> None:
    with pytest.raises(Mismatch, match=r"^leaves\.1\.size: .*integer") as caught:
        typed(Tree, {"name": "oak", "leaves": [{"size": 1}, {"size": "wide"}]})

    assert caught.value.path == ("leaves", "1", "size")
    assert caught.value.kind == "int_parsing"


def test_a_fault_of_the_whole_record_says_so() -> None:
    with pytest.raises(Mismatch, match=r"^top level: "):
        typed(Tree, 7)


def test_nothing_of_the_record_is_hidden_in_the_words() -> None:
    with pytest.raises(Mismatch) as caught:
        typed(dict[str, int], {"\x1b[31m\n::error::": "x"})

    assert str(caught.value).isprintable()
    assert "\\x1b" in str(caught.value)


def test_a_kind_is_looked_at_once() -> None:
    assert adapter(Tree) is adapter(Tree)


@pytest.mark.parametrize(
    ("parse", "words"),
    [
        (comparison.parse_conversion, "not a conversion: "),
        (fixing.parse, "not a repair: "),
        (retraining.parse, "not a training: "),
        (structure.parse, "the worker sent no structure: "),
        (json.parse_audit, "not a vgaudit measurement: "),
    ],
)
def test_what_a_worker_sent_wrongly_is_named(parse, words) -> None:
    with pytest.raises(CannotLoad) as caught:
        parse({"before": "x\x1b"})

    assert caught.value.message.startswith(words)
    assert caught.value.message.isprintable()


def test_each_kind_can_be_checked() -> None:
    for kind in (Baseline, Conversion, Fixing, Retraining):
        with pytest.raises(Mismatch):
            typed(kind, [])


def test_a_configuration_keeps_its_own_words(tmp_path) -> None:
    from vgaudit.config import settings

    file = tmp_path / "vgaudit.toml"
    file.write_text("jobs = 'many'\n")
    with pytest.raises(BadConfig, match=r"^vgaudit.toml: jobs: ") as caught:
        settings(str(file), {})
    assert "docs/config.md" in caught.value.hint
