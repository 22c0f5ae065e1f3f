"""Checkpoints of torch.distributed.checkpoint, written and read by several ranks."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel

from tests.distributed.networks import together
from tests.distributed.test_distributed_command import audit, shell, torchrun
from tests.distributed.test_distributed_parts import (
    held,
    measure_model,
    scanned,
    written,
)
from tests.distributed.test_distributed_scan import differences
from vgaudit.distributed import Ranks, joined, sharding
from vgaudit.job import DataOptions, LoadOptions, ProbeOptions, ScanJob
from vgaudit.loading import dcp as reading
from vgaudit.loading.dcp import open_checkpoint
from vgaudit.loading.in_parts import open_in_parts
from vgaudit.loading.local_file import examine
from vgaudit.measure import measure
from vgaudit.plain import to_plain


def saving(ranks: Ranks, job: ScanJob, folder: str, way: str) -> str:
    """Writes what a training of several ranks writes: model, optimizer, progress."""
    with joined(ranks):
        model: nn.Module = measure_model(job)
        if way == "fsdp":
            sharding.shard(model, torch.device("cpu"), ranks.size, scalars=True)
        elif way == "fsdp1":
            model.scale = nn.Parameter(model.scale.detach().reshape(1))
            model = FullyShardedDataParallel(
                model, device_id=torch.device("cpu"), use_orig_params=True
            )
        else:
            model = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.Adam(model.parameters())
        # With a rate of 0 the weights stay what they are.
        optimizer.param_groups[0]["lr"] = 0.0
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        state = {
            "model": model.state_dict()
            if way == "ddp"
            else get_model_state_dict(model),
            "optim": optimizer.state_dict(),
            "step": 7,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save(state, checkpoint_id=folder)
    return "saved"


def alone_saved(state: dict[str, Any], folder: Path) -> None:
    """Writes a checkpoint by one process, without what torch says about that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, no_dist=True)


@pytest.mark.slow
def test_what_fsdp1_wrote_is_read(tmp_path: Path) -> None:
    job, folder = written(tmp_path), tmp_path / "step"
    assert ["saved"] * 2 == together(saving, 2, job, str(folder), "fsdp1")
    code = tmp_path / "flat.py"
    text = (tmp_path / "net.py").read_text()
    code.write_text(text.replace("torch.tensor(2.0)", "torch.tensor([2.0])"))

    found = measure_model(
        replace(job, spec=str(folder), load=LoadOptions(arch=f"{code}:Net"))
    )

    for name, tensor in measure_model(job).state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name].reshape(tensor.shape))


@pytest.fixture(params=["fsdp", "ddp"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ScanJob, ScanJob]:
    """A scan of safetensors, and that of a checkpoint of two ranks with its weights."""
    job, folder = written(tmp_path), tmp_path / "step"
    assert ["saved"] * 2 == together(saving, 2, job, str(folder), request.param)
    assert 2 == len(list(folder.glob("*.distcp")))
    return job, replace(job, spec=str(folder))


def test_what_two_ranks_wrote_is_read_by_one(saved: tuple[ScanJob, ScanJob]) -> None:
    plain, distributed = saved
    expected, found = (measure_model(job).state_dict() for job in saved)

    assert list(expected) == list(found)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    one, other = measure(plain), measure(distributed)
    assert to_plain(one.flow) == to_plain(other.flow)
    assert "distributed-checkpoint" == other.target.format
    assert "taken from the entry model" in other.target.notes


def test_each_rank_reads_its_part_of_what_two_ranks_wrote(
    saved: tuple[ScanJob, ScanJob],
) -> None:
    plain, distributed = saved
    alone = measure(plain)
    spread = replace(distributed, probe=ProbeOptions(parallel="fsdp"))

    for flow, target in together(scanned, 2, spread):
        assert not list(differences(to_plain(alone.flow), flow))
        assert "each process read its own part of the weights" in target["notes"]
        assert alone.target.parameters == target["parameters"]


def test_each_rank_holds_its_rows_of_it(saved: tuple[ScanJob, ScanJob]) -> None:
    plain, distributed = saved
    weights = [p.flatten().tolist() for p in measure_model(plain).parameters()]

    first, second = together(held, 2, distributed)

    assert weights == first[0] == second[0]
    assert sum(map(len, weights)) + 1 == first[1] + second[1]


def opened(ranks: Ranks, job: ScanJob) -> dict[str, list[str]]:
    """Returns which files a rank opens for each entry that it fills its part from."""
    files: dict[str, list[str]] = {}
    before = reading._loaded

    def watched(metadata: Any, name: str, place: Any) -> Any:
        files.setdefault(name, []).append(place.file)
        return before(metadata, name, place)

    reading._loaded = watched
    try:
        held(ranks, job)
    finally:
        reading._loaded = before
    return files


def test_a_rank_opens_the_chunks_that_its_rows_are_in(tmp_path: Path) -> None:
    job, folder = written(tmp_path), tmp_path / "step"
    together(saving, 2, job, str(folder), "fsdp")

    found = together(opened, 2, replace(job, spec=str(folder)))

    for rank, files in enumerate(found):
        own = [f"__{rank}_0.distcp"]
        spread = [name for name in files if "weight" in name or "bias" in name]
        assert 10 == len(spread)
        assert all(files[name] == own for name in spread)


def columns(ranks: Ranks, folder: str) -> str:
    """Writes tensors that are cut along their second and along both dimensions."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    with joined(ranks):
        mesh = init_device_mesh("cpu", (ranks.size,))
        square = torch.arange(35.0).reshape(7, 5)
        state = {
            "columns": distribute_tensor(square, mesh, [Shard(1)]),
            "rows": distribute_tensor(square, mesh, [Shard(0)]),
            "alike": distribute_tensor(square, mesh, [Replicate()]),
        }
        if ranks.size == 4:
            plane = init_device_mesh("cpu", (2, 2))
            state["both"] = distribute_tensor(square, plane, [Shard(0), Shard(1)])
        dcp.save(state, checkpoint_id=folder)
    return "saved"


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_rows_of_tensors_cut_in_any_way(tmp_path: Path, size: int) -> None:
    together(columns, size, str(tmp_path / "step"))
    square = torch.arange(35.0).reshape(7, 5)

    found = open_checkpoint(examine(tmp_path / "step" / ".metadata"))

    assert (3 if size == 2 else 4) == len(found.root)
    for value in found.root.values():
        parts = found.rows(value)
        for first in range(8):
            for last in range(first, 8):
                assert torch.equal(square[first:last], parts.rows(first, last))
    for value in found.fetched(found.root).values():
        assert torch.equal(square, value)


TIED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.blocks = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.blocks(self.embed(x)))
"""


@pytest.mark.parametrize("form", ["both names", "one name", "safetensors"])
def test_tied_weights_stay_tied(tmp_path: Path, form: str) -> None:
    code = tmp_path / "tied.py"
    code.write_text(TIED)
    scope: dict[str, Any] = {}
    exec(TIED, scope)  # noqa: S102 - the text above
    torch.manual_seed(8)
    state: dict[str, Tensor] = scope["Net"]().state_dict()
    whole = tmp_path / "whole.pt"
    torch.save(state, whole)
    if form != "both names":
        del state["head.weight"]
    if form == "safetensors":
        spec = tmp_path / "net.safetensors"
        save_file(state, spec)
    else:
        spec = tmp_path / "step"
        alone_saved(state, spec)
    data = DataOptions(inputs=("x=long:4x5:11",), batches=2)
    load = LoadOptions(arch=f"{code}:Net")
    alone = measure(ScanJob(spec=str(whole), load=load, data=data))
    probe = ProbeOptions(parallel="fsdp")

    spread = ScanJob(spec=str(spec), load=load, data=data, probe=probe)
    for flow, target in together(scanned, 2, spread):
        assert not list(differences(to_plain(alone.flow), flow))
        assert "each process read its own part of the weights" in target["notes"]


def test_what_does_not_fit_is_read_whole_to_say_why(tmp_path: Path) -> None:
    job = written(tmp_path)
    state = dict(measure_model(job).state_dict())
    state["other"] = state.pop("head.bias")
    alone_saved({"model": state}, tmp_path / "step")

    assert open_in_parts(str(tmp_path / "step"), job.load) is None


@pytest.mark.slow
def test_the_command_line_reads_it_with_two_ranks(tmp_path: Path) -> None:
    job, folder = written(tmp_path), tmp_path / "step"
    together(saving, 2, job, str(folder), "fsdp")
    words = ("--arch", job.load.arch, "--input", "5x7", "--no-progress")

    shell(tmp_path, "-m", "vgaudit", "scan", job.spec, *words, "--report", "json=a")
    done = torchrun(
        *(tmp_path, "scan", folder, *words, "--parallel", "fsdp"),
        *("--report", "json=b"),
    )

    (one, codes, status), (other, also, ended) = (
        audit(tmp_path / "a"),
        audit(tmp_path / "b"),
    )
    assert (codes, status) == (also, ended)
    assert status == (1 if done.returncode else 0)
    assert not list(differences(one["flow"], other["flow"]))


@pytest.mark.slow
def test_hostile_metadata_ends_all_ranks_with_one_error(tmp_path: Path) -> None:
    job, folder = written(tmp_path), tmp_path / "step"
    alone_saved(measure_model(job).state_dict(), folder)
    (folder / ".metadata").write_bytes(b"cos\nmkdir\n(S'marker'\ntR.")

    done = torchrun(
        *(tmp_path, "scan", folder, "--arch", job.load.arch, "--input", "5x7"),
        *("--parallel", "fsdp"),
    )

    assert 1 == done.stderr.count("error: ")
    assert "refused: needs global os.mkdir (tier T3" in done.stderr
    assert "exitcode  : 3" in done.stderr
    assert not (tmp_path / "marker").exists()
