"""PiecewiseLinear at the edges: non-finite input, half precision, layouts, wrappers."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from vgaudit.nn import Grid, PiecewiseLinear, auto_rotate, fold_

INF, NAN = torch.inf, torch.nan


@pytest.mark.parametrize("grid", [Grid.uniform(), Grid.at([-2.0, 0.0, 1.0, 4.0])])
def test_nan_goes_through_and_infinity_follows_the_end_segment(grid) -> None:
    x = torch.tensor([NAN, INF, -INF, 1e300, -1e300])
    relu = PiecewiseLinear(grid=grid).double()
    assert torch.equal(relu(x).nan_to_num(-1), x.relu().nan_to_num(-1))
    assert bool(relu(x)[0].isnan())

    clamped = PiecewiseLinear(grid=Grid(grid.positions, "clamp")).double()
    wanted = torch.tensor([-1.0, 4.0, 0.0, 4.0, 0.0])
    assert torch.equal(clamped(x).nan_to_num(-1), wanted)

    leaky = PiecewiseLinear(start="leaky", grid=grid).double()
    assert [INF, -INF] == leaky(x)[1:3].tolist()


def test_nan_in_one_channel_does_not_reach_the_values_of_another() -> None:
    layer = PiecewiseLinear(2)
    x = torch.randn(10, 2)
    x[3, 0] = NAN
    layer(x).sum().backward()

    assert bool(layer.values.grad[0].isnan().any())
    assert bool(layer.values.grad[1].isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(dtype) -> None:
    """The result is that of float32 on the same numbers, rounded once."""
    layer = PiecewiseLinear(3, start="tanh", grid=Grid.uniform(-5, 5, 33)).float()
    x = (3 * torch.randn(50, 3, 4)).to(dtype)
    wide = x.float().requires_grad_()
    narrow = x.clone().requires_grad_()
    wanted, found = layer(wide), layer(narrow)
    direction = torch.randn(50, 3, 4).to(dtype)
    wanted.backward(direction.float())
    wanted_values, layer.values.grad = layer.values.grad, None
    found.backward(direction)

    assert torch.equal(found, wanted.to(dtype))
    assert torch.equal(narrow.grad, wide.grad.to(dtype))
    assert torch.equal(layer.values.grad, wanted_values)


def test_autocast_keeps_the_type_of_the_input() -> None:
    model = nn.Sequential(nn.Linear(4, 3), PiecewiseLinear(3)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.bfloat16 == model(torch.randn(5, 4).float()).dtype


@pytest.mark.parametrize("channels", [None, 6])
def test_channels_last_stays_and_other_strides_work(channels) -> None:
    layer = PiecewiseLinear(channels, start="tanh")
    x = torch.randn(4, 6, 5, 7).to(memory_format=torch.channels_last)
    plain = x.contiguous()
    direction = torch.randn(4, 6, 5, 7)
    found, wanted = [], []
    for kept, source in ((found, x), (wanted, plain)):
        leaf = source.detach().requires_grad_()
        y = layer(leaf)
        kept += [y, *torch.autograd.grad(y, (leaf, layer.values), direction)]

    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)
    strided = torch.randn(8, 6, 14)[::2, :, ::2]
    assert torch.equal(layer(strided), layer(strided.contiguous()))


def test_result_may_be_changed_in_place() -> None:
    layer = PiecewiseLinear(3)
    for x in (torch.randn(4, 3, 5), torch.randn(4, 5, 3).movedim(-1, 1)):
        y = layer(x)
        y.mul_(2)
        y.sum().backward()


def test_checkpoint_gives_the_same_gradients() -> None:
    layer = PiecewiseLinear(3, start="tanh")
    x = torch.randn(6, 3, requires_grad=True)
    wanted = torch.autograd.grad(layer(x).square().sum(), (x, layer.values))
    again = checkpoint(layer, x, use_reentrant=False).square().sum()

    for a, b in zip(torch.autograd.grad(again, (x, layer.values)), wanted, strict=True):
        assert torch.equal(a, b)


def test_compiles_and_exports_in_one_graph() -> None:
    """With auto-rotated layers beside it; gradients too, and a second batch size."""
    model = nn.Sequential(
        fold_(auto_rotate(nn.Conv2d(2, 3, 3))),
        PiecewiseLinear(3, start="tanh"),
        nn.Flatten(),
        auto_rotate(nn.Linear(12, 2)),
        PiecewiseLinear(grid=Grid.at([-2.0, -0.5, 0.0, 1.0], outside="clamp")),
    )
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    parameters = list(model.parameters())
    for batch in (2, 5):
        x = torch.rand(batch, 2, 4, 4)
        wanted = torch.autograd.grad(model(x).sum(), parameters)
        found = torch.autograd.grad(compiled(x).sum(), parameters)

        assert torch.allclose(compiled(x), model(x), rtol=1e-12)
        for a, b in zip(found, wanted, strict=True):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)
    exported = torch.export.export(model, (x,)).module()
    assert torch.allclose(exported(x), model(x), rtol=1e-12)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_jit_trace_sees_plain_operations() -> None:
    layer = PiecewiseLinear(3, start="tanh")
    x = torch.randn(4, 3)
    traced = torch.jit.trace(layer, (x,))

    assert torch.allclose(traced(x + 0.5), layer(x + 0.5), rtol=1e-12)


def test_trains_under_distributed_data_parallel(tmp_path, monkeypatch) -> None:
    model = nn.Sequential(
        fold_(auto_rotate(nn.Linear(4, 8))), PiecewiseLinear(8), nn.Linear(8, 1)
    )
    x = torch.randn(16, 4)
    wanted = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        DistributedDataParallel(model)(x).square().mean().backward()
    finally:
        dist.destroy_process_group()

    for parameter, grad in zip(model.parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, grad, rtol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu_and_repeats_when_determinism_is_asked_for() -> None:
    layer = PiecewiseLinear(32, start="tanh").float()
    x, direction = torch.randn(64, 32, 16, 16).float(), torch.randn(64, 32, 16, 16)
    layer(x).backward(direction.float())
    wanted = layer.values.grad.clone()
    layer.cuda()
    torch.use_deterministic_algorithms(True)
    found = []
    for _ in range(2):
        layer.zero_grad()
        layer(x.cuda()).backward(direction.float().cuda())
        found.append(layer.values.grad.clone())
    torch.use_deterministic_algorithms(False)

    assert torch.equal(*found)
    assert torch.allclose(found[0].cpu(), wanted, rtol=1e-4, atol=1e-3)
