"""A scan that several ranks share is the scan of one process."""

from __future__ import annotations

import pytest

from tests.distributed import models
from tests.distributed.networks import together
from vgaudit.distributed import Ranks, joined
from vgaudit.job import ProbeOptions
from vgaudit.plain import to_json
from vgaudit.probe import probe


def alone(name: str, count: int) -> str:
    flow = probe(
        models.build(name),
        models.batches(name, count),
        loss=models.CROSS_ENTROPY,
        options=ProbeOptions(seed=2),
    )
    return to_json(flow)


def shared(ranks: Ranks, name: str, count: int) -> str:
    with joined(ranks) as group:
        flow = probe(
            models.build(name),
            models.batches(name, count),
            loss=models.CROSS_ENTROPY,
            options=ProbeOptions(seed=2),
            group=group,
        )
    return to_json(flow)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "resnet18", "transformer"])
@pytest.mark.parametrize("size", [2, 4])
def test_ranks_measure_what_one_process_does(name: str, size: int) -> None:
    assert [alone(name, 6)] * size == together(shared, size, name, 6)
