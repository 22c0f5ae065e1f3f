"""Groups of options: what typer sees, and what the command gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from vgaudit.cli.grouping import grouped

Height = Annotated[int, typer.Option(help="In metres.")]


@dataclass(frozen=True, kw_only=True)
class Size:
    """A group."""

    height: Height = 3
    wide: Annotated[bool, typer.Option("--wide")] = False


@dataclass(frozen=True, kw_only=True)
class Room(Size):
    """A group on top of a group."""

    doors: Annotated[list[str] | None, typer.Option()] = None


SEEN: list[object] = []


@grouped
def build(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument()],
    *,
    first: Annotated[int, typer.Option()] = 1,
    room: Room,
    last: Annotated[int, typer.Option()] = 9,
) -> int:
    """Build a room."""
    SEEN[:] = [name, first, room, last, dict(ctx.params)]
    return 0


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(build)
    return lambda *typed: CliRunner().invoke(app, typed)


def test_a_group_is_handed_over_whole(run) -> None:
    outcome = run(
        "hall", "--height", "5", "--doors", "a", "--doors", "b", "--last", "2"
    )

    assert 0 == outcome.exit_code
    assert ["hall", 1, Room(height=5, wide=False, doors=["a", "b"]), 2] == SEEN[:4]


def test_the_context_has_every_option_by_its_name(run) -> None:
    run("hall", "--wide")

    names = {"name", "first", "height", "wide", "doors", "last"}
    assert names == SEEN[4].keys()
    assert SEEN[4]["wide"] is True


def test_help_shows_the_options_of_a_group_in_its_place(run) -> None:
    text = run("--help").stdout
    places = [text.index(word) for word in ("--first", "--height", "--wide", "--doors")]

    assert sorted(places) == places < [text.index("--last")]
    assert "In metres." in text
    assert "Build a room." in text


def test_a_wrong_value_is_refused_as_usual(run) -> None:
    assert 2 == run("hall", "--height", "tall").exit_code
    assert 2 == run("hall", "--room", "x").exit_code
