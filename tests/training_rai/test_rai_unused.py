"""Options that a treatment has no use for are named in its report."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.courses import net, options, record
from vgaudit.reports import retraining as words
from vgaudit.retraining import RetrainOptions
from vgaudit.training.unused import unused

REFERENCE = {"mode": "reference"}
STEPS = {
    "lr": 5.0,
    "schedule": "step",
    "clip": 0.1,
    "batch_size": 7,
    "momentum": 0.3,
    "weight_decay": 0.3,
}


def named(method: str, settings: dict[str, str] | None = None, **given: Any) -> str:
    asked = RetrainOptions(method=method, settings=settings or {}, **given)  # type: ignore[arg-type]
    return " ".join(unused(asked))


def test_what_the_reference_mode_does_not_read() -> None:
    assert named("rai", REFERENCE, **STEPS) == (
        "--batch-size, --lr, --weight-decay, --momentum, --schedule, --clip are of no "
        "use to rai with mode=reference and left unused"
    )
    assert named("rai", {**REFERENCE, "ridge": "1", "hidden": "l1"}) == ""


def test_what_a_sweep_does_not_read() -> None:
    given = {"ridge": "3", "inner": "3", "hidden": "l1"}

    assert named("rai", given) == (
        "--setting ridge, --setting inner, --setting hidden are of no use to rai with "
        "mode=sweep and left unused"
    )
    assert named("rai", {"scale": "1", "per": "sample", "place": "post"}) == ""
    assert named("rai", **{**STEPS, "batch_size": 7}) == ""


@pytest.mark.parametrize(
    ("method", "given", "name"),
    [
        ("sdagd", {"momentum": 0.5}, "--momentum is of no use to sdagd"),
        ("adam", {"momentum": 0.5}, "--momentum is of no use to adam"),
        ("sgd", {"momentum": 0.5}, ""),
        ("sgd", {"warmup": 0.2, "schedule": "constant"}, "--warmup is of no use"),
        ("sgd", {"warmup": 0.2, "schedule": "cosine"}, ""),
        ("rai", {"momentum": 0.5, "settings": {"optimizer": "adam"}}, "--momentum is"),
        ("sdagd", {"settings": {"every": "5"}}, "--setting every is of no use"),
        ("sdagd", {"settings": {"every": "5", "kappa": "1"}}, ""),
        ("sdagd", {"settings": {"every": "5", "literal": "yes"}}, ""),
    ],
)
def test_what_others_do_not_read(method: str, given: dict[str, Any], name: str) -> None:
    found = named(method, **given)

    assert found.startswith(name) if name else found == ""


def test_the_classic_solver_has_neither_rate_nor_batches() -> None:
    found = named("adact", solver="classic", lr=0.1, batch_size=32, accumulate=2)

    assert found == (
        "--batch-size, --lr are of no use to adact --solver classic and left unused"
    )


def test_every_report_names_them() -> None:
    asked = options("rai", settings=REFERENCE, lr=5.0)
    done = record(net(), asked)
    sentence = "--batch-size, --lr are of no use to rai with mode=reference"

    for form in ("text", "json", "html"):
        assert sentence in words.render(done, None, form=form)


@pytest.mark.parametrize("mode", ["reference", "sweep"])
def test_what_is_named_really_changes_nothing(mode: str) -> None:
    settings = {"mode": mode}
    more = {"hidden": "l1", "ridge": "3"} if mode == "sweep" else {}
    given = {} if mode == "sweep" else {"lr": 5.0, "momentum": 0.3, "clip": 0.1}
    plain = record(net(), options("rai", settings=settings))
    other = record(net(), options("rai", settings={**settings, **more}, **given))

    assert unused(other.options)
    losses = [[e.valid_loss for e in done.run.epochs] for done in (plain, other)]
    assert losses[0] == losses[1]
