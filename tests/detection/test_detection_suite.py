"""The suite is what the grid says, builds, and always builds the same."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.build import DEAD_BIAS, Spec, build
from benchmarks.detection.grid import (
    FRESH,
    LAST,
    LATER,
    UNSEEN,
    digest,
    drawn,
    grid,
    half,
    load,
    members,
    named,
)
from benchmarks.detection.tasks import PRIORS, loss_of, task

SPECS = load()
PARTS = ("fit", "seen", "report")
ONE_OF_EACH = list({s.family: s for s in reversed(SPECS)}.values())


def test_the_files_are_the_grid_and_what_is_drawn_from_it() -> None:
    draws = map(drawn, (FRESH, UNSEEN, LATER, LAST))
    rows = [*map(named, grid()), *chain.from_iterable(draws)]
    specs = {Spec(**row) for row in rows}  # type: ignore[arg-type]
    assert len(rows) == len(SPECS)
    assert specs == set(SPECS)


def test_models_serve_for_what_their_draw_does() -> None:
    parts = {part: [s for s in SPECS if half(s.name) == part] for part in PARTS}
    first = [s for s in SPECS if s.name in members("seen")]
    rest = [s for s in SPECS if s.name in members("unseen")]

    assert [len(parts[part]) for part in PARTS] == [664, 800, 400]
    assert (len(first), len(rest)) == (270, 130)
    assert max(map(digest, first)) < min(map(digest, rest))


def test_the_suite_is_large_enough_and_no_model_reported_on_is_an_old_one() -> None:
    names = {spec.name for spec in SPECS}
    unseen = [spec for spec in SPECS if half(spec.name) == "report"]
    old = {replace(s, name="") for s in SPECS if half(s.name) != "report"}

    assert len(names) == len(SPECS) >= 1000
    assert old.isdisjoint(replace(spec, name="") for spec in unseen)


@pytest.mark.parametrize("spec", ONE_OF_EACH, ids=lambda s: s.family)
def test_a_spec_always_gives_the_same_weights_and_fits_its_task(spec: Spec) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, two = build(spec), build(spec)

    assert torch.equal(before, torch.random.get_rng_state())
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    data = task(spec.task)
    output = one(data.x[:8].to(getattr(torch, spec.dtype)))
    loss_of(output, data.y[:8]).backward()
    assert output.shape[0] == 8


def test_initialisations_scale_the_default_one() -> None:
    base = asdict(next(s for s in SPECS if s.name == "mlp-d3-w64-relu"))
    plain = build(Spec(**base)).state_dict()["0.weight"]
    large = build(Spec(**{**base, "init": "large"})).state_dict()["0.weight"]
    dead = build(Spec(**{**base, "init": "dead"})).state_dict()

    torch.testing.assert_close(large, 4 * plain)
    assert {float(b) for b in dead["0.bias"]} == {DEAD_BIAS}
    assert not bool((dead["6.bias"] == DEAD_BIAS).any())


def test_chance_is_the_entropy_of_the_class_frequencies() -> None:
    expected = -sum(p * math.log(p) for p in PRIORS)
    data = task("blobs")
    shares = torch.bincount(data.y) / len(data.y)

    assert data.chance == pytest.approx(expected, abs=1e-3)
    constant = shares.log().expand(len(data.y), -1)
    assert float(loss_of(constant, data.y)) == pytest.approx(data.chance, abs=1e-6)


def test_chance_of_a_reconstruction_is_the_variance() -> None:
    data = task("reconstruct")
    mean = data.y.mean(0).expand_as(data.y)

    assert float(loss_of(mean, data.y)) == pytest.approx(data.chance, rel=1e-5)


def test_recall_hides_its_answer_in_the_first_letter_alone() -> None:
    data = task("recall:6")

    assert data.x.shape == (1024, 7, 4)
    assert torch.equal(data.x[:, 0].argmax(1), data.y)
