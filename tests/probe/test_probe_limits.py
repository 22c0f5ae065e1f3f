"""Bad batches, too little memory, checkpointing, wrappers and precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fixtures import models
from tests.probe.scans import batch, layer, noise, parameters, scan, scan_all
from tests.probe.towers import Two, refused, tower
from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import CannotRun, NothingMeasured
from vgaudit.flow import GradientFlow
from vgaudit.probe import probe, structure

# ------------------------------------------------------------ batches


def test_bad_batches_are_skipped_and_counted() -> None:
    good, bad = noise(4, 6), noise(4, 6)
    bad[2, 3] = math.nan
    infinite = noise(4, 6) / 0
    net = tower(nn.ReLU())
    flow = scan_all(net, [batch(bad), batch(good), batch(infinite)])

    assert (flow.batches, flow.skipped, flow.samples) == (1, 2, 4)
    assert flow.attenuation is not None
    alone = scan_all(net, [batch(noise(4, 6, seed=3)), batch(good)])
    assert alone.skipped == 0


@pytest.mark.parametrize("given", [
    [Batch(args=(noise(2, 6) * math.nan,), size=2)],
    [Batch(kwargs={"x": noise(2, 6) / 0}, size=2)] * 3,
])  # fmt: skip
def test_only_bad_batches_leave_nothing_to_measure(given: list[Batch]) -> None:
    message, hint = refused(lambda: scan_all(tower(), given), NothingMeasured)

    assert message == (
        f"none of {len(given)} batches could be measured: all hold NaN or infinite "
        "values"
    )
    assert hint == "check the data, or measure on synthetic inputs without --data"


def test_no_batch_at_all_leaves_nothing_to_measure() -> None:
    message, _ = refused(lambda: scan_all(tower(), []), NothingMeasured)

    assert message == "there was no batch to measure"


class Hungry(nn.Module):
    """Runs out of memory above a number of samples."""

    def __init__(self, most: int, error: Exception | None = None) -> None:
        super().__init__()
        self.inner, self.most = tower(nn.ReLU()), most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried …")
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        SIZES.append(x.shape[0])
        if x.shape[0] > self.most:
            raise self.error
        return self.inner(x)


SIZES: list[int] = []


@pytest.mark.parametrize(
    "error",
    [
        None,
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_batch_too_large_for_memory_is_halved(error: Exception | None) -> None:
    SIZES.clear()
    given = [batch(noise(16, 6)), batch(noise(3, 6))]
    flow = scan_all(Hungry(3, error), given)

    assert SIZES[:4] == [16, 8, 4, 2]
    assert (flow.batch_size, flow.samples) == (2, 5)
    assert flow.notes == ("out of memory: batch 1 cut to 2 samples",)
    assert (
        flow.layers[0].attenuation
        == scan_all(tower(nn.ReLU()), [batch(noise(16, 6)[:2]), given[1]])
        .layers[0]
        .attenuation
    )


def test_memory_that_suffices_for_no_sample_ends_the_scan() -> None:
    assert refused(lambda: scan(Hungry(0), noise(16, 6)), CannotRun) == (
        "out of memory even with one sample",
        "use a smaller input, --device cpu, or a machine with more memory",
    )


def test_memory_that_ends_in_the_loss_halves_the_batch_too() -> None:
    def loss(output: Tensor, labels: Tensor) -> Tensor:
        if len(output) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return F.cross_entropy(output, labels)

    flow = scan(
        tower(), noise(8, 6), loss=Loss("mine", loss), labels=torch.ones(8).long()
    )

    assert flow.samples == 4


# ------------------------------------------------------------ checkpointing


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool, first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 6) if first else nn.Identity()
        self.block = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
        self.last = nn.Linear(6, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(checkpoint(self.block, x, use_reentrant=self.reentrant))


def attenuations(flow: GradientFlow) -> dict[str, float]:
    return {
        row.path: row.attenuation.value
        for row in flow.layers
        if row.attenuation is not None
    }


def test_checkpointing_changes_no_figure() -> None:
    x = noise(4, 6)
    bare = Checkpointed(reentrant=False)
    bare.forward = lambda x: bare.last(bare.block(bare.first(x)))  # type: ignore
    plain = attenuations(scan(bare, x))
    without = attenuations(scan(Checkpointed(reentrant=False), x))
    reentrant = scan(Checkpointed(reentrant=True), x)

    assert without == pytest.approx(plain)
    assert attenuations(reentrant) == pytest.approx(
        {path: value for path, value in plain.items() if path != "block.1"}
    )
    assert all(p.connected and p.called for p in reentrant.parameters)
    reasons = {gap.path: gap.reason for gap in reentrant.not_measured}
    assert reasons["checkpointed segments"] == (
        "their inner trunk: reentrant checkpointing hides it; use_reentrant=False "
        "shows it"
    )
    assert [row.path for row in reentrant.layers][:2] == ["first", "block.1"]


def test_reentrant_checkpointing_of_the_input_loses_the_gradients_and_says_so() -> None:
    flow = scan(Checkpointed(reentrant=True, first=False), noise(4, 6))

    found = parameters(flow)
    assert not found["block.0.weight"].connected
    assert found["block.0.weight"].called
    assert found["last.weight"].connected
    reasons = {gap.path: gap.reason for gap in flow.not_measured}
    assert reasons["activation checkpointing"] == (
        "a segment whose input needs no gradient: reentrant checkpointing leaves its "
        "parameters without one; checkpoint(..., use_reentrant=False) does not"
    )


def test_reentrant_checkpointing_of_the_whole_model_is_refused() -> None:
    net = Two(lambda s, x: checkpoint(s.a, x, use_reentrant=True))

    assert refused(lambda: scan(net, noise(4, 6)), CannotRun) == (
        "no gradient can flow: reentrant activation checkpointing got an input that "
        "needs no gradient",
        "use checkpoint(..., use_reentrant=False)",
    )


# ------------------------------------------------------------ wrappers


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_gives_the_gradients_of_its_parameters_only() -> None:
    scripted = torch.jit.trace(tower(), noise(4, 6))
    for net in (scripted, nn.Sequential(nn.Linear(6, 6), scripted)):
        flow = scan(net, noise(4, 6))

        assert flow.parameters_only
        assert flow.attenuation is None
        names = [name for name, _ in net.named_parameters()]
        assert [p.name for p in flow.parameters] == names
        assert all(p.connected and p.grad_norm > 0 for p in flow.parameters)


def test_sharded_models_are_refused() -> None:
    class FullyShardedDataParallel(nn.Module):
        pass

    assert refused(lambda: probe(FullyShardedDataParallel(), []), CannotRun) == (
        "the model is wrapped in FSDP, and its parameters are sharded",
        "scan the model before wrapping it",
    )


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, lambda net: torch.compile(net, backend="eager")],
    ids=["data parallel", "compiled"],
)
def test_wrappers_are_looked_through(wrap: Callable[[nn.Module], nn.Module]) -> None:
    x = noise(4, 6)

    assert scan(wrap(tower(nn.ReLU())), x) == scan(tower(nn.ReLU()), x)
    outer = nn.Sequential(wrap(tower(nn.ReLU())), nn.Linear(3, 2))
    assert len([row for row in scan(outer, x).layers if row.weighted]) == 3


def test_uninitialised_lazy_models_are_measured_in_a_copy() -> None:
    net = nn.Sequential(
        nn.LazyLinear(6), nn.ReLU(), nn.LazyBatchNorm1d(), nn.LazyLinear(2)
    )
    flow = scan(net, noise(4, 6))

    assert [row.path for row in flow.layers] == ["0", "1", "2", "3"]
    assert layer(flow, "0").parameters[0].shape == (6, 6)
    assert flow.notes == (
        "lazy modules were initialised by the first batch, in a copy of the model",
    )
    assert isinstance(net[0].weight, nn.UninitializedParameter)
    assert flow == scan(net, noise(4, 6))
    rows = structure(net, batch(noise(4, 6))).rows
    assert [row.path for row in rows] == ["0", "1", "2", "3"]


# ------------------------------------------------------------ precision


def test_half_precision_is_measured_again_and_what_it_loses_is_told() -> None:
    net = models.sigmoid_mlp(depth=12)
    x = noise(4, 64)
    flow = scan(net.half(), x)

    assert flow.precision.dtype == "float16"
    assert flow.precision.measured == "float32"
    assert flow.precision.reason == "gradients in float16 may underflow"
    assert flow.precision.own_attenuation == -math.inf
    assert flow.precision.lost is not None
    assert flow.precision.lost > 0.3
    assert flow.attenuation.value == pytest.approx(
        scan(net.float(), x).attenuation.value, abs=0.01
    )


def test_bfloat16_loses_nothing_where_its_range_suffices() -> None:
    flow = scan(tower(nn.Tanh()).bfloat16(), noise(4, 6))

    assert (flow.precision.dtype, flow.precision.measured) == ("bfloat16", "float32")
    assert flow.precision.lost == 0.0
    assert flow.precision.own_attenuation == pytest.approx(
        flow.attenuation.value, abs=0.05
    )


def test_what_cannot_run_in_half_precision_is_measured_in_float32() -> None:
    class NoHalf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            if x.dtype == torch.float16:
                raise RuntimeError("\"op\" not implemented for 'Half'")
            return self.last(x)

    flow = scan(NoHalf().half(), noise(4, 6))

    assert (flow.precision.dtype, flow.precision.measured) == ("float16", "float32")
    assert flow.notes == (
        "not measured in float16: the model (NoHalf) failed on input [4, 6] float16: "
        "\"op\" not implemented for 'Half'",
    )
    assert refused(
        lambda: scan(NoHalf().half(), noise(4, 6), dtype="float16"), CannotRun
    )[0].endswith("not implemented for 'Half'")


def test_what_cannot_run_in_float64_keeps_its_figures_and_says_so() -> None:
    class NoDouble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)
            self.table = [torch.eye(6)]
            nn.init.constant_(self.first.bias, -9.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x)) @ self.table[0])

    flow = scan(NoDouble(), noise(4, 6))

    assert flow.precision.measured == "float32"
    assert layer(flow, "first").zero_gradient
    assert len(flow.notes) == 1
    assert flow.notes[0].startswith(
        "not measured again in float64: the model (NoDouble)"
    )
