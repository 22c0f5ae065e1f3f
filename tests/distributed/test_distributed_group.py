"""Ranks that gather, agree, fail and die."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from tests.distributed.networks import together
from vgaudit.distributed import Group, Ranks, failure, joined, launched
from vgaudit.errors import BadConfig, CannotRun

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}


def test_torchrun_says_who_this_is() -> None:
    assert Ranks(1, 4, 0) == launched(TORCHRUN)
    assert launched({}) is None
    assert launched({"LOCAL_RANK": "0"}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RANK": "4"}, "RANK is 4 and WORLD_SIZE is 4"),
        ({"RANK": "-1"}, "RANK, WORLD_SIZE and LOCAL_RANK are '-1', '4', '0'"),
        ({"MASTER_PORT": None}, "RANK is set and MASTER_PORT is not"),
    ],
)
def test_half_a_launch_is_refused(change: dict[str, Any], message: str) -> None:
    given = {k: v for k, v in {**TORCHRUN, **change}.items() if v is not None}

    with pytest.raises(BadConfig) as caught:
        launched(given)

    assert message == caught.value.message


def test_cuda_alone_is_the_device_of_the_local_rank() -> None:
    assert "cuda:3" == Ranks(7, 8, 3).device("cuda")
    assert "cuda:1" == Ranks(7, 8, 3).device("cuda:1")
    assert "cpu" == Ranks(7, 8, 3).device("cpu")


# ------------------------------------------------------- what ranks do together


def exchanged(ranks: Ranks) -> Any:
    with joined(ranks) as group:
        value = {"rank": ranks.rank, "values": torch.arange(ranks.rank + 1), "x": 1e400}
        everywhere = group.everywhere(value)
        told = [(v["rank"], v["values"].tolist(), v["x"]) for v in everywhere]
        gathered = group.gather(ranks.rank)
        total = group.reduce_sum(torch.tensor([1.0, float(ranks.rank)]))
        group.agree()
        return told, gathered, total.tolist(), (group.rank, group.size, group.first)


def test_values_of_different_sizes_are_gathered_and_sums_are_added() -> None:
    first, second = together(exchanged, 2)

    told = [(0, [0], float("inf")), (1, [0, 1], float("inf"))]
    assert (told, [0, 1], [2.0, 1.0], (0, 2, True)) == first
    assert (told, None, [2.0, 1.0], (1, 2, False)) == second


def twice(ranks: Ranks) -> list[Any]:
    found = []
    for name in ("a", "b"):
        with joined(ranks, name=name) as group:
            found.append(group.everywhere((name, ranks.rank)))
    return found


def test_one_launch_may_join_several_times() -> None:
    assert [[[("a", 0), ("a", 1)], [("b", 0), ("b", 1)]]] * 2 == together(twice, 2)


# --------------------------------------------------------------------- failures


def disagreeing(ranks: Ranks, failing: tuple[int, ...]) -> str:
    with joined(ranks) as group:
        error = None
        if ranks.rank in failing:
            error = CannotRun("the layer is ill", hint="cure it")
        group.agree(error)
    return "went on"


def test_all_ranks_raise_the_error_of_the_one_that_failed() -> None:
    named = ("CannotRun", "rank 1 failed: the layer is ill")

    assert [named, ("CannotRun", "the layer is ill")] == together(disagreeing, 2, (1,))


def test_what_all_ranks_say_needs_no_rank() -> None:
    assert [("CannotRun", "the layer is ill")] * 2 == together(disagreeing, 2, (0, 1))


def caught_and_gone_on(ranks: Ranks) -> str:
    with joined(ranks) as group:
        for attempt in range(2):
            ill = CannotRun("no half") if not attempt and ranks.rank else None
            try:
                group.agree(ill)
            except CannotRun as error:
                said = error.message
        return said


def test_after_an_agreed_error_the_ranks_can_go_on() -> None:
    assert ["rank 1 failed: no half", "no half"] == together(caught_and_gone_on, 2)


def raising(ranks: Ranks, way: str) -> str:
    """Rank 1 ends in some way while the others wait for it in a collective."""
    with joined(ranks) as group:
        group.agree()
        if ranks.rank == 1:
            _end(way)
        _wait(group)
    return "went on"


def _end(way: str) -> None:
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "exit":
        os._exit(7)
    raise CannotRun("the batch is bad") if way == "raises" else ValueError("x < 0")


def _wait(group: Group) -> None:
    for _ in range(50):
        group.reduce_sum(torch.ones(3))


def test_a_rank_that_raises_ends_the_others_with_its_error() -> None:
    first, second = together(raising, 2, "raises")

    assert ("CannotRun", "rank 1 failed: the batch is bad") == first
    assert ("CannotRun", "the batch is bad") == second


def test_an_unforeseen_error_is_told_with_its_type() -> None:
    first, second = together(raising, 2, "bug")

    assert ("CannotRun", "rank 1 failed: ValueError: x < 0") == first
    assert second is None


@pytest.mark.parametrize("way", ["killed", "exit"])
def test_a_rank_that_dies_ends_the_others_with_one_error(way: str) -> None:
    first, second = together(raising, 2, way)

    dead = "rank 1 failed: its process ended without a word"
    assert ("CannotRun", dead) == first
    assert second is None


@pytest.mark.slow
@pytest.mark.parametrize("way", ["killed", "raises"])
def test_four_ranks_end_with_the_error_of_one(way: str) -> None:
    found = together(raising, 4, way)

    said = "the batch is bad" if way == "raises" else "its process ended without a word"
    others = [found[rank] for rank in (0, 2, 3)]
    assert [("CannotRun", f"rank 1 failed: {said}")] * 3 == others


def causes(ranks: Ranks, collectively: bool) -> list[str]:
    """Returns the chain of causes of an error that all ranks came to themselves."""
    chain: list[str] = []
    try:
        with (
            joined(ranks) as group,
            group.agreeing() if collectively else nullcontext(),
        ):
            try:
                raise FileNotFoundError("x.pt")
            except FileNotFoundError as error:
                raise CannotRun("no such file") from error
    except CannotRun as caught:
        found: BaseException | None = caught
        while found is not None and len(chain) < 9:
            chain.append(type(found).__name__)
            found = found.__cause__
    return chain


@pytest.mark.parametrize("collectively", [True, False])
def test_an_error_keeps_its_causes_and_is_not_its_own(collectively: bool) -> None:
    chain = ["CannotRun", "FileNotFoundError"]

    assert [chain] * 2 == together(causes, 2, collectively)


class Gone:
    """A store whose process has ended."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("Connection reset by peer")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CannotRun("too large for one batch"), "too large for one batch"),
        (
            RuntimeError("Broken pipe"),
            "rank 0 failed: its process ended without a word",
        ),
    ],
    ids=["its own error", "an echo"],
)
def test_without_the_store_a_rank_says_what_it_knows(
    error: Exception, expected: str
) -> None:
    found = failure.cause(Gone(), Ranks(1, 2, 1), error)  # type: ignore[arg-type]

    assert str(found).startswith(expected)
