"""Several gloo processes train as one: the same steps, losses, weights and record."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.networks import together
from tests.training import together as work
from tests.training.courses import options
from vgaudit.errors import BadConfig
from vgaudit.retraining import RetrainOptions
from vgaudit.training.crew import Part

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="no torch.distributed"
)

METHODS: dict[str, dict[str, Any]] = {
    "sdagd": {"method": "sdagd"},
    "adamw": {"method": "adamw", "weight_decay": 0.01, "clip": 0.7},
    "rai": {"method": "rai"},
    "sgd": {"method": "sgd", "accumulate": 2},
}


def asked(kind: str, **given: Any) -> RetrainOptions:
    known = dict(METHODS[kind])
    return options(known.pop("method"), epochs=2, batch_size=15, **known, **given)


@functools.cache
def alone(name: str, kind: str) -> dict[str, Any]:
    return work.answer(name, asked(kind))


def assert_same(
    found: dict[str, Any], expected: dict[str, Any], rel: float = 1e-5
) -> None:
    for name, tensor in expected["weights"].items():
        other = found["weights"][name]
        torch.testing.assert_close(other, tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert found["losses"][1:] == pytest.approx(expected["losses"][1:], rel=rel)
    assert found["attenuation"] == pytest.approx(expected["attenuation"], abs=1e-4)
    for mine, theirs in zip(found["scores"], expected["scores"], strict=True):
        assert mine == pytest.approx(theirs, rel=rel)
    assert found["controls"] == pytest.approx(expected["controls"], rel=rel)
    for mine, theirs in zip(found["layers"], expected["layers"], strict=True):
        assert [n for n, _ in mine] == [n for n, _ in theirs]
        assert [v for _, v in mine] == pytest.approx(
            [v for _, v in theirs], rel=10 * rel
        )
    for count in ("steps", "skipped", "best"):
        assert found[count] == expected[count]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", METHODS)
def test_ranks_take_the_steps_of_one_process(kind, parallel, ranks) -> None:
    """108 samples in steps of 15: shares differ in size, and the last batch has 3."""
    found = together(work.share, ranks, "mlp", asked(kind, parallel=parallel))

    assert_same(found[0], alone("mlp", kind))
    assert any(f"{ranks} processes ({parallel}" in n for n in found[0]["notes"])


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ranks_give_back_the_model_as_it_came(parallel) -> None:
    given = options("adact", epochs=2, batch_size=15, lr=1e-9)
    expected = work.answer("mlp", given)
    found = together(work.share, 2, "mlp", replace(given, parallel=parallel))

    assert expected["best"] == 0
    assert_same(found[0], expected)
    assert found[0]["converted"] == pytest.approx(expected["converted"], rel=1e-5)
    assert found[0]["converted"] != pytest.approx(found[0]["scores"][0][0], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", ["sdagd", "adamw"])
@pytest.mark.parametrize("name", ["words", "resnet18"])
def test_larger_models_train_the_same(name, kind, parallel) -> None:
    # Small steps: where the loss explodes, rounding does, too.
    lr = {"sdagd": 0.005, "adamw": 1e-4}[kind]
    found = together(work.share, 2, name, asked(kind, parallel=parallel, lr=lr))

    # Weights agree to 1e-5 there, too; a deep net without its normalization turns that
    # into more.
    rel = 1e-4 if name == "resnet18" else 1e-5
    assert_same(found[0], work.answer(name, asked(kind, lr=lr)), rel)


# ---------------------------------------------------------------- the shares


def test_the_shares_of_a_batch_are_the_batch() -> None:
    rows = torch.arange(100, 111)
    for size in (1, 2, 3, 4):
        shares = [Part(rank, size).of(rows, least=1) for rank in range(size)]

        assert all(counts for _, counts in shares)
        assert torch.equal(rows, torch.cat([found for found, _ in shares]))
        lengths = [len(found) for found, _ in shares]
        assert max(lengths) - min(lengths) <= 1


def test_too_few_samples_leave_stand_ins() -> None:
    rows = torch.arange(5)
    shares = [Part(rank, 4).of(rows, least=2) for rank in range(4)]

    assert [True, True, False, False] == [counts for _, counts in shares]
    assert [3, 2, 2, 2] == [len(found) for found, _ in shares]


# ----------------------------------------------------------- what is not equal


def test_batch_normalization_is_each_ranks_own_and_said() -> None:
    found = together(work.share, 2, "norm", asked("sgd"))

    assert any(
        "batch normalization used the statistics" in n for n in found[0]["notes"]
    )
    assert all(torch.isfinite(t).all() for t in found[0]["weights"].values())


def test_ranks_draw_dropout_masks_of_their_own_and_stay_equal() -> None:
    found = together(work.share, 2, "dropout", asked("adamw"))

    assert found[0]["scores"] == found[1]["scores"]
    assert found[0]["losses"][1:] == found[1]["losses"][1:]


def test_a_batch_that_is_bad_on_one_rank_is_left_out_by_all() -> None:
    found = together(work.share, 2, "poisoned", asked("sgd"))
    expected = work.answer("poisoned", asked("sgd"))

    assert 2 == found[0]["skipped"]
    assert_same(found[0], expected)


# ----------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4)])
def test_another_number_of_ranks_goes_on(tmp_path, before, after, parallel) -> None:
    place = str(tmp_path / "run")
    given = asked("sdagd", controls=("adam",))
    spread = asked("sdagd", controls=("adam",), parallel=parallel)

    def trained(size: int, what: Any, function: Any) -> Any:
        if size == 1:
            return what(None, "mlp", given, folder=place)
        return together(function, size, spread, place)[0]

    if before == 1:
        first = work.interrupted(None, "mlp", given, folder=place, steps=11)
    else:
        first = together(work.step_then_stop, before, spread, place)[0]
    assert "after 10 of 16 steps" in first["early"]
    assert Path(place, "checkpoint.pt").is_file()
    done = trained(after, work.resumed, work.go_on)

    assert_same(done, work.answer("mlp", given))


def test_all_ranks_stop_at_the_same_step(tmp_path) -> None:
    """The last rank was asked to; the first one saves."""
    found = together(work.step_then_stop, 4, asked("adamw"), str(tmp_path / "run"))

    assert 1 == len({answer["early"] for answer in found})
    assert "after 10 of 16 steps" in found[0]["early"]


# -------------------------------------------------------------------- failures


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_rank_that_fails_ends_the_training_of_all(tmp_path, parallel) -> None:
    told = tmp_path / "told"
    given = asked("sgd", parallel=parallel)
    _, failed = together(work.failing, 2, given, 1, str(told))

    message = "the model fails on its data: RuntimeError: a wire came off"
    assert ("CannotRun", message) == failed
    assert f"rank 1 failed: {message}" in told.read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (options("rai", settings={"mode": "table"}), "mode=table keeps targets"),
        (options("adact", solver="classic"), "--solver classic solves for all"),
    ],
)
def test_what_needs_all_samples_is_refused_with_the_way_out(given, message) -> None:
    for kind, said in together(work.share, 2, "mlp", given):
        assert "BadConfig" == kind
        assert f"2 processes cannot train so: {message}" in said


def test_one_process_cannot_shard() -> None:
    with pytest.raises(BadConfig, match="--parallel fsdp spreads a model over"):
        work.answer("mlp", asked("sgd", parallel="fsdp"))
