"""Two gloo processes against one: DDP with curvature, FSDP2 without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.optim.networks import batches, mlp, values_of
from vgaudit.errors import CannotRun
from vgaudit.optim import SDAGD, CenteredAdam
from vgaudit.optim.curvature import draw, generator_for, pull_back

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available(), reason="no torch.distributed"),
]

RANKS, STEPS = 2, 5


def spread(work: Callable[..., Any], folder: Path) -> list[Any]:
    """Runs ``work(rank)`` in two processes; returns what each returned."""
    mp.spawn(_process, args=(work, str(folder)), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def _process(rank: int, work: Callable[[int], Any], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=RANKS
    )
    try:
        torch.save(work(rank), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, rank: int | None
) -> list[Tensor]:
    """Trains on this rank's half of each batch, or on all of it."""
    for x, y in batches(STEPS, 5, 3):
        if rank is not None:
            x, y = x.chunk(RANKS)[rank], y.chunk(RANKS)[rank]
        optimizer.zero_grad()
        output = model(x)
        if isinstance(optimizer, SDAGD):
            optimizer.observe(output, "cross-entropy")
        cross_entropy(output, y).backward()
        optimizer.step()
    return values_of(model)


def with_ddp(rank: int) -> dict[str, list[Tensor]]:
    model = mlp(5, 6, 3)
    optimizer = SDAGD(model.named_parameters(), lr=0.1, kappa=20.0, every=100)
    parallel = nn.parallel.DistributedDataParallel(model)
    values = train(parallel, optimizer, rank)
    curvature = [optimizer.state[p]["curvature"] for p in model.parameters()]
    weight = optimizer.state[model[0].weight]["curvature_weight"]
    return {"values": values, "curvature": [h / weight for h in curvature]}


def test_ddp_averages_squares_and_equals_one_process(tmp_path: Path) -> None:
    ranks = spread(with_ddp, tmp_path)

    # One process: the same draws on the same halves, squares averaged by hand.
    model = mlp(5, 6, 3)
    x, _ = next(batches(1, 5, 3))
    squares = []
    for rank, half in enumerate(x.chunk(RANKS)):
        output = model(half)
        generator = generator_for(output.device, 0, 0, rank, 0)
        cotangent = draw(output, "cross-entropy", None, generator)
        found = pull_back(output, cotangent, list(model.parameters()))
        squares.append([vector**2 for vector in found])
    expected = [(one + two) / 2 for one, two in zip(*squares, strict=True)]
    optimizer = SDAGD(model.named_parameters(), lr=0.1, kappa=20.0, every=100)
    for parameter, square in zip(model.parameters(), expected, strict=True):
        optimizer.state[parameter].update(curvature=square, curvature_weight=1.0)
    optimizer.param_groups[0]["steps"] = 1
    alone = train(model, optimizer, None)

    for rank in ranks:
        # The sum over processes is taken in float32.
        torch.testing.assert_close(rank["curvature"], expected, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(rank["values"], alone, rtol=1e-6, atol=1e-8)
    assert all(map(torch.equal, ranks[0]["values"], ranks[1]["values"]))


BUILD: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sdagd": lambda m: SDAGD(m.named_parameters(), lr=0.1, adapt=True),
    "layer": lambda m: SDAGD(m.named_parameters(), lr=0.1, scope="layer"),
    "trust": lambda m: SDAGD(m.named_parameters(), lr=0.1, solve="trust"),
    "adam": lambda m: CenteredAdam(m.named_parameters(), lr=0.01),
}


def with_fsdp(rank: int) -> dict[str, Any]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    found: dict[str, Any] = {}
    for kind, build in BUILD.items():
        # Seven rows over two processes: the shards differ in size.
        model = mlp(5, 7, 3)
        mesh = init_device_mesh("cpu", (RANKS,))
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = build(model)
        train(model, optimizer, rank)
        found[kind] = [p.full_tensor().detach() for p in model.parameters()]
    found["shape"] = tuple(optimizer.state[model[0].weight]["exp_avg"].shape)
    found["local"] = tuple(optimizer.state[model[0].weight]["exp_avg"].to_local().shape)
    found["refusal"] = refusal(model)
    return found


def refusal(model: nn.Module) -> str:
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)
    try:
        optimizer.observe(model(torch.zeros(2, 5, dtype=torch.float64)), "mse")
    except CannotRun as error:
        return error.message
    return ""


def test_fsdp2_equals_one_process(tmp_path: Path) -> None:
    ranks = spread(with_fsdp, tmp_path)

    for kind, build in BUILD.items():
        model = mlp(5, 7, 3)
        alone = train(model, build(model), None)
        for rank in ranks:
            torch.testing.assert_close(rank[kind], alone)
    assert (7, 5) == ranks[0]["shape"]
    assert (4, 5) == ranks[0]["local"]
    assert "curvature cannot be observed on sharded parameters" == ranks[1]["refusal"]
