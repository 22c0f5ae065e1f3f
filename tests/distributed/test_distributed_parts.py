"""Weights that no rank reads whole: safetensors, in one file and behind an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.distributed.networks import together
from tests.distributed.test_distributed_scan import differences
from tests.distributed.test_distributed_watch import whole
from vgaudit.distributed import Ranks, joined, sharding
from vgaudit.errors import CannotLoad
from vgaudit.job import DataOptions, LoadOptions, ProbeOptions, ScanJob
from vgaudit.loading.in_parts import open_in_parts
from vgaudit.loading.loaded import nonfinite
from vgaudit.measure import measure
from vgaudit.plain import to_plain

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Linear(7, 7) for _ in range(3)))
        self.norm = nn.BatchNorm1d(7)
        self.head = nn.Linear(7, 3)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("shift", torch.arange(7.0), persistent=False)

    def forward(self, x):
        x = torch.tanh(self.blocks(x + self.shift))
        return self.head(self.norm(x)) * self.scale
"""


def written(folder: Path, *, shards: int = 1) -> ScanJob:
    """Writes a model with random weights, and returns a job that scans it."""
    code = folder / "net.py"
    code.write_text(MODEL)
    scope: dict[str, Any] = {}
    exec(MODEL, scope)  # noqa: S102 - the text above
    torch.manual_seed(5)
    model: nn.Module = scope["Net"]()
    nn.init.normal_(model.get_parameter("norm.weight"))
    state = model.state_dict()
    if shards == 1:
        spec = folder / "net.safetensors"
        save_file(state, spec)
    else:
        spec = folder / "net.safetensors.index.json"
        places = {key: f"part{n % shards}.safetensors" for n, key in enumerate(state)}
        for place in set(places.values()):
            part = {key: t for key, t in state.items() if places[key] == place}
            save_file(part, folder / place)
        spec.write_text(json.dumps({"weight_map": places}))
    return ScanJob(
        spec=str(spec),
        load=LoadOptions(arch=f"{code}:Net"),
        data=DataOptions(inputs=("5x7",), batches=3),
    )


def scanned(ranks: Ranks, job: ScanJob) -> Any:
    with joined(ranks) as group:
        audit = measure(job, group=group)
    return to_plain(audit.flow), to_plain(audit.target)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_model_read_in_parts_is_scanned_like_one_read_whole(
    tmp_path: Path, shards: int
) -> None:
    job = written(tmp_path, shards=shards)
    alone = measure(job)
    probe = ProbeOptions(parallel="fsdp")
    spread = ScanJob(spec=job.spec, load=job.load, data=job.data, probe=probe)

    for flow, target in together(scanned, 2, spread):
        assert not list(differences(to_plain(alone.flow), flow))
        assert "each process read its own part of the weights" in target["notes"]
        assert alone.target.parameters == target["parameters"]
        assert alone.target.sha256 == target["sha256"]


def held(ranks: Ranks, job: ScanJob) -> tuple[list[list[float]], int, int]:
    """Returns the weights as they came together, and how many a rank keeps."""
    with joined(ranks):
        parts = open_in_parts(job.spec, job.load)
        assert parts is not None
        bytes_of_hull = sum(
            p.untyped_storage().nbytes() for p in parts.loaded.module.parameters()
        )
        model = parts.empty(None)
        sharding.shard(model, torch.device("cpu"), ranks.size, scalars=True)
        parts.fill(model, torch.device("cpu"))
        own = sum(sharding.local(p).numel() for p in model.parameters())
        gathered = [whole(parameter) for parameter in model.parameters()]
    return gathered, own, bytes_of_hull


def test_each_rank_holds_its_rows_and_no_more(tmp_path: Path) -> None:
    job = written(tmp_path)
    model = measure_model(job)
    total = sum(p.numel() for p in model.parameters())

    first, second = together(held, 2, job)

    assert [p.flatten().tolist() for p in model.parameters()] == first[0] == second[0]
    # Both have the scalar.
    assert total + 1 == first[1] + second[1]
    # Rows of 7 are cut into 4 and 3, and those of 3 into 2 and 1.
    assert max(first[1], second[1]) < 0.7 * total
    assert first[2] <= 4 * len(list(model.parameters()))


def measure_model(job: ScanJob) -> nn.Module:
    from vgaudit.treatments import open_model

    return open_model(job.spec, job.load).module


def refused(ranks: Ranks, job: ScanJob) -> None:
    with joined(ranks):
        sharding.shard(measure_model(job), torch.device("cpu"), ranks.size)


def test_a_training_is_not_left_with_a_scalar_that_nobody_averages(
    tmp_path: Path,
) -> None:
    said = ("CannotRun", "FSDP2 cannot spread scale, which has no dimensions")

    assert [said] * 2 == together(refused, 2, written(tmp_path))


def test_weights_that_are_not_finite_are_named_wherever_they_lie(
    tmp_path: Path,
) -> None:
    job = written(tmp_path)
    state = measure_model(job).state_dict()
    state["blocks.1.weight"][6, 0] = torch.nan
    save_file(dict(state), job.spec)
    probe = ProbeOptions(parallel="fsdp")
    spread = ScanJob(spec=job.spec, load=job.load, data=job.data, probe=probe)

    for _, target in together(scanned, 2, spread):
        assert ["blocks.1.weight"] == target["nonfinite_weights"]


def test_other_keys_than_the_architecture_has_are_read_whole(tmp_path: Path) -> None:
    job = written(tmp_path)
    state = measure_model(job).state_dict()
    save_file({**state, "other": torch.ones(2)}, job.spec)

    assert open_in_parts(job.spec, job.load) is None
    assert open_in_parts(job.spec, LoadOptions()) is None


def test_prefixes_of_wrappers_are_stripped_from_parts(tmp_path: Path) -> None:
    job = written(tmp_path)
    model = measure_model(job)
    wrapped = {f"module.{key}": value for key, value in model.state_dict().items()}
    save_file(wrapped, job.spec)

    parts = open_in_parts(job.spec, job.load)

    assert parts is not None
    assert ("module.",) == parts.loaded.target.stripped_prefixes
    filled = parts.fill(parts.empty(None), torch.device("cpu")).state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, filled[key]), key


def test_the_type_of_the_architecture_wins_and_is_said(tmp_path: Path) -> None:
    job = written(tmp_path)
    state = measure_model(job).state_dict()
    kinds = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(kinds, job.spec)

    parts = open_in_parts(job.spec, job.load)

    assert parts is not None
    assert "float16 weights are loaded as float32" in parts.loaded.target.notes
    save_file({**kinds, "head.bias": torch.ones(3, dtype=torch.int8)}, job.spec)
    with pytest.raises(CannotLoad, match=r"head\.bias holds int8 where the arch"):
        open_in_parts(job.spec, job.load)


def unfit(ranks: Ranks, value: float, row: int) -> tuple[str, ...]:
    """Returns what is not finite in a spread model, one number of which is set."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 6, bias=False))
    with torch.no_grad():
        model[2].weight[row, 1] = value
    with joined(ranks):
        sharding.shard(model, torch.device("cpu"), ranks.size)
        return nonfinite(model)


@pytest.mark.parametrize("row", [0, 5])
def test_a_number_on_one_rank_that_is_not_finite_is_known_to_all(row: int) -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        assert together(unfit, 2, value, row) == [("2.weight",)] * 2
    assert together(unfit, 2, 3e38, row) == [()] * 2
