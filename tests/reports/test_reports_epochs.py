"""Which epochs text shows: both ends and the kept one, and gaps where they are."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from typer.main import get_command

from tests.reports_html.test_reports_html_change import FOUND
from tests.reports_html.test_reports_html_change import training as trained
from vgaudit.cli.app import app
from vgaudit.reports import comparison, retraining
from vgaudit.reports.epochs import rows
from vgaudit.retraining import Epoch, Retraining


def course(last: int, *, best: int | None = None) -> Retraining:
    """A training of epochs 0 to ``last``, of which ``best`` was kept."""
    done = trained()
    (model, *_) = done.run.epochs
    epochs: tuple[Epoch, ...] = tuple(replace(model, number=i) for i in range(last + 1))
    kept = last if best is None else best
    return replace(done, run=replace(done.run, epochs=epochs, best=kept))


def table(done: Retraining, top: int) -> tuple[list[int | None], str]:
    """The numbers of the rows, None for a gap, and what stands below them."""
    _, *lines = rows(done, top)
    said = lines.pop() if lines[-1].startswith("  … stands") else ""
    cells = [line.replace("*", " ").split()[0] for line in lines]
    return [None if cell == "…" else int(cell) for cell in cells], said


@pytest.mark.parametrize("last", [0, 1, 11, 12, 13])
def test_a_table_that_would_be_hardly_shorter_is_whole(last: int) -> None:
    # The 13 rows of 12 epochs fit where 12 are asked for, give or take two.
    assert table(course(last), 12) == (list(range(last + 1)), "")


def test_a_gap_stands_where_it_is() -> None:
    shown, said = table(course(30), 12)

    # By hand: four at either end leave 23 between them, which are three rows and four
    # gaps of five: twelve rows, had the kept one not been the last.
    assert shown == [
        *[0, 1, 2, 3, None, 9, None, 15, None, 21, None, 27, 28, 29, 30],
    ]
    assert said == "  … stands for 20 of 31 epochs; --format json has all"


@pytest.mark.parametrize("top", [1, 2, 3, 5, 12, 20, 60])
@pytest.mark.parametrize("last", [3, 12, 19, 30, 57, 300])
@pytest.mark.parametrize("place", [0.0, 0.1, 0.47, 1.0])
def test_laws_of_every_table(top: int, last: int, place: float) -> None:
    best = round(last * place)
    shown, said = table(course(last, best=best), top)
    numbers = [x for x in shown if x is not None]

    assert numbers == sorted(set(numbers))
    assert {0, best, last} <= set(numbers)
    # Nothing is missing but where a gap says so, and no gap saves less than three.
    for at, (left, right) in enumerate(itertools.pairwise(shown)):
        if left is None or right is None:
            continue
        assert right == left + 1, (at, shown)
    gaps = [at for at, x in enumerate(shown) if x is None]
    sizes = []
    for at in gaps:
        left, right = shown[at - 1], shown[at + 1]
        assert left is not None
        assert right is not None
        sizes.append(right - left - 1)
    assert all(size - 1 >= 3 for size in sizes)
    assert len(numbers) + sum(sizes) == last + 1
    assert bool(said) == bool(gaps)
    # About as many as were asked for: the kept one, and what fills small gaps.
    assert len(numbers) <= max(top, 2) + 1 + 2 * 3
    if last + 1 <= top:
        assert not gaps


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (
            "retrain",
            lambda done, top: retraining.render(done, FOUND, form="text", top=top),
        ),
        ("compare", lambda _, top: comparison.render(FOUND, form="text", top=top)),
    ],
)
def test_an_archived_report_shows_as_much_as_its_command(
    cli, tmp_path, command, text
) -> None:
    (option,) = [
        x for x in get_command(app).commands[command].params if x.name == "top"
    ]
    done = course(30)
    made = {
        "retrain": retraining.render(done, FOUND, form="json"),
        "compare": comparison.render(FOUND, form="json"),
    }
    place = tmp_path / "change.json"
    place.write_text(made[command], encoding="utf-8")

    assert cli("report", str(place)).out == text(done, option.default)
    assert cli("report", str(place), "--top", "40").out == text(done, 40)
