"""What users do with converted models: copy, compile, checkpoint, train on ranks."""

from __future__ import annotations

import copy
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.treatments import treat

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (8,), generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A convolution, activations as module, function and method, and a Linear head."""

    def __init__(self, *, saves_memory: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.hidden = nn.Linear(256, 16)
        self.last = nn.Linear(16, 3)
        self.saves_memory = saves_memory

    def body(self, x: Tensor) -> Tensor:
        return torch.tanh(self.second(self.act(self.first(x))))

    def forward(self, x: Tensor) -> Tensor:
        if self.saves_memory:
            z = checkpoint(self.body, x, use_reentrant=False)
        else:
            z = self.body(x)
        return self.last(self.hidden(z.flatten(1)).sigmoid())


def converted(to: str, **options: Any) -> nn.Module:
    model = Net(saves_memory=options.pop("saves_memory", False))
    wanted = ConvertOptions(to=to, **options)  # type: ignore[arg-type]
    return treat(model, [Batch(args=(X,), size=len(X))], wanted).model


def gradients(model: nn.Module, x: Tensor = X, y: Tensor = Y) -> dict[str, Tensor]:
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}  # type: ignore[union-attr]


TREATMENTS = pytest.mark.parametrize("to", ["ar", "adact"])


@TREATMENTS
def test_a_copy_trains_alone(to: str) -> None:
    model = converted(to)
    before = model(X).detach()
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
    gradients(twin)
    optimizer.step()
    assert torch.equal(model(X), before)
    assert not torch.equal(twin(X), before)


@TREATMENTS
def test_checkpointing_recomputes_the_converted_layers(to: str) -> None:
    plain, saving = converted(to), converted(to, saves_memory=True)
    wanted, found = gradients(plain), gradients(saving)
    assert list(wanted) == list(found)
    for name, gradient in wanted.items():
        assert torch.allclose(gradient, found[name], rtol=0, atol=1e-6), name


@pytest.mark.slow
@TREATMENTS
def test_it_compiles_in_one_graph(to: str) -> None:
    model = converted(to)
    wanted = gradients(model)
    compiled = torch.compile(model, fullgraph=True)
    found = gradients(compiled)
    for name, gradient in wanted.items():
        other = found[f"_orig_mod.{name}"]
        assert torch.allclose(gradient, other, rtol=1e-4, atol=1e-5), name


def _train(rank: int, port: int, to: str, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(converted(to))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        part = slice(4 * rank, 4 * rank + 4)
        gradients(model, X[part], Y[part])
        optimizer.step()
    torch.save(model.module.state_dict(), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@TREATMENTS
def test_two_ranks_train_as_one_process_on_the_whole_batch(
    to: str, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_train, args=(port, to, str(tmp_path)), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = converted(to)
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    for _ in range(2):
        gradients(alone)
        optimizer.step()
    for name, value in alone.state_dict().items():
        assert torch.equal(one[name], two[name]), name
        assert torch.allclose(one[name], value, rtol=1e-4, atol=1e-6), name
