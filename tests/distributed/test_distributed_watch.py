"""Watching a training that several processes share: DDP, FSDP2, compiled."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import torch
from torch import nn

import vgaudit
from tests.distributed import models
from tests.distributed.networks import together
from tests.distributed.test_distributed_scan import differences
from vgaudit.distributed import Ranks, joined, sharding
from vgaudit.plain import to_plain

STEPS = 3


def wrapped(name: str, ranks: Ranks, parallel: str) -> Any:
    model = models.build(name)
    if parallel.startswith("fsdp"):
        sharding.shard(model, torch.device("cpu"), ranks.size)
    else:
        model = nn.parallel.DistributedDataParallel(model)
    # Not inductor: its kernels round otherwise than those of the watched, eager pass.
    return torch.compile(model, backend="eager") if "compiled" in parallel else model


def trained(
    ranks: Ranks, name: str, parallel: str, watched: bool, alone: bool = False
) -> dict[str, Any]:
    """Trains for some steps; returns the weights, and what was measured."""
    batches = models.batches(name, STEPS * ranks.size)
    with joined(ranks):
        model = wrapped(name, ranks, parallel)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        probe = vgaudit.watch(model, alone=alone)
        with probe if watched else contextlib.nullcontext():
            for step in range(STEPS):
                batch = batches[step * ranks.size + ranks.rank]
                optimizer.zero_grad()
                loss = models.CROSS_ENTROPY.function(model(*batch.args), batch.labels)
                loss.backward()
                optimizer.step()
        found: dict[str, Any] = {"weights": [whole(p) for p in model.parameters()]}
        if watched:
            found["flow"] = to_plain(probe.flow())
            report = probe.report()
            found["codes"] = sorted(finding.code for finding in report.findings)
            found["ranks"] = report.audit.run.world_size
    return found


def whole(parameter: torch.Tensor) -> list[float]:
    values: Any = parameter.detach()
    entire = values.full_tensor() if sharding.is_sharded(values) else values
    return entire.flatten().tolist()


def in_turns(name: str, size: int) -> dict[str, Any]:
    """Returns what one process measures that takes every rank's batch in turn."""
    batches = models.batches(name, STEPS * size)
    model = models.build(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with vgaudit.watch(model) as probe:
        for step in range(STEPS):
            optimizer.zero_grad()
            for batch in batches[step * size : (step + 1) * size]:
                loss = models.CROSS_ENTROPY.function(model(*batch.args), batch.labels)
                loss.backward()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= size
            optimizer.step()
    codes = sorted(finding.code for finding in probe.report().findings)
    return {"flow": to_plain(probe.flow()), "codes": codes}


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_a_watched_training_trains_the_same_and_measures_all(
    name: str, parallel: str
) -> None:
    check(name, parallel, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parallel", "size"),
    [
        ("mlp", "ddp, compiled", 2),
        ("mlp", "fsdp, compiled", 2),
        ("resnet18", "ddp", 2),
        ("resnet18", "fsdp", 2),
        ("mlp", "ddp", 4),
        ("transformer", "fsdp", 4),
    ],
)
def test_larger_watched_trainings(name: str, parallel: str, size: int) -> None:
    check(name, parallel, size)


def check(name: str, parallel: str, size: int) -> None:
    expected = in_turns(name, size)

    watched = together(trained, size, name, parallel, True)
    plain = together(trained, size, name, parallel, False)

    for one, other in zip(watched, plain, strict=True):
        assert other["weights"] == one["weights"]
        assert not list(differences(expected["flow"], one["flow"]))
        assert expected["codes"] == one["codes"]
        assert size == one["ranks"]


def test_each_process_may_ask_for_its_own() -> None:
    own = together(trained, 2, "mlp", "ddp", True, True)
    shared = json.loads(json.dumps(in_turns("mlp", 2)["flow"]))

    assert [STEPS, STEPS] == [found["flow"]["batches"] for found in own]
    assert 2 * STEPS == shared["batches"]
    assert own[0]["flow"] != own[1]["flow"]
    assert [1, 1] == [found["ranks"] for found in own]
