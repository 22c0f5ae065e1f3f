"""A scan that several ranks share is the scan of one process."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tests.distributed import models
from tests.distributed.networks import together
from vgaudit.distributed import Ranks, joined, sharding
from vgaudit.job import ProbeOptions
from vgaudit.plain import to_json
from vgaudit.probe import probe
from vgaudit.probe.spread import Sharing


def alone(name: str, count: int) -> str:
    flow = probe(
        models.build(name),
        models.batches(name, count),
        loss=models.CROSS_ENTROPY,
        options=ProbeOptions(seed=2),
    )
    return to_json(flow)


def shared(ranks: Ranks, name: str, count: int, parallel: str = "ddp") -> str:
    def fresh(dtype: torch.dtype | None) -> nn.Module:
        whole = models.build(name).to(dtype)
        return sharding.shard(whole, torch.device("cpu"), ranks.size)

    with joined(ranks) as group:
        flow = probe(
            models.build(name),
            models.batches(name, count),
            loss=models.CROSS_ENTROPY,
            options=ProbeOptions(seed=2),
            sharing=Sharing(group, fresh if parallel == "fsdp" else None),
        )
    return to_json(flow)


DECADES = 1e-5 / math.log(10)
SLACK = {
    "cross": 2e-5,
    **dict.fromkeys(("value", "lo", "hi", "norm", "total"), DECADES),
}
"""By how much logarithms, and squares less 1, change where a norm does by 1e-5."""


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Yields what differs by more than 1e-5, or at all where it is no float."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        for key in one:
            yield from differences(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{path}: {len(one)} and {len(other)} entries"
        for place, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, f"{path}[{place}]")
    elif isinstance(one, float) and isinstance(other, float):
        slack = SLACK.get(path.rpartition(".")[2], 1e-12)
        if not math.isclose(one, other, rel_tol=1e-5, abs_tol=slack):
            yield f"{path}: {one} and {other}"
    elif one != other:
        yield f"{path}: {one!r} and {other!r}"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mlp", 4),
        ("mlp", 5),
        ("mlp", 1),
        ("transformer", 3),
        ("branching", 6),
        # Measured again in float64, on all ranks.
        ("deep", 2),
        # A zero weight is replaced before anything else is measured.
        ("zeroed", 3),
    ],
)
def test_two_ranks_measure_what_one_process_does(name: str, count: int) -> None:
    whole = alone(name, count)

    assert [whole] * 2 == together(shared, 2, name, count)
    assert (name == "deep") == ('"measured": "float64"' in whole)


@pytest.mark.parametrize(
    ("name", "count"),
    [("mlp", 3), ("mlp", 1), ("transformer", 3), ("deep", 2), ("zeroed", 3)],
)
def test_a_model_in_shards_measures_the_same(name: str, count: int) -> None:
    whole = json.loads(alone(name, count))

    for found in together(shared, 2, name, count, "fsdp"):
        assert not list(differences(whole, json.loads(found)))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["mlp", "resnet18", "transformer", "deep"])
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_measure_what_one_process_does(
    name: str, size: int, parallel: str
) -> None:
    whole = json.loads(alone(name, 6))

    for found in together(shared, size, name, 6, parallel):
        assert not list(differences(whole, json.loads(found)))


def cut_short(ranks: Ranks) -> tuple[int, tuple[str, ...]]:
    """The second rank alone is asked to end, in its second batch."""

    def say(phase: str) -> bool:
        return ranks.rank == 1 and phase != "batch 2 of 6"

    with joined(ranks) as group:
        flow = probe(
            models.build("mlp"),
            models.batches("mlp", 6),
            loss=models.CROSS_ENTROPY,
            options=ProbeOptions(seed=2),
            progress=say,
            sharing=Sharing(group),
        )
    return flow.batches, flow.notes


def test_a_rank_that_is_ended_alone_is_named() -> None:
    for batches, notes in together(cut_short, 2):
        assert 4 == batches
        assert "rank 1 was ended early" in notes
