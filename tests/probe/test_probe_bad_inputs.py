"""What the user is told when a model or its data cannot be measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fixtures import models
from tests.probe.scans import audit, batch, layer, parameters, scan, scan_all
from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import BadConfig, CannotRun, NothingMeasured, VgauditError
from vgaudit.flow import GradientFlow
from vgaudit.judge import judge
from vgaudit.probe import probe, structure


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tower(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), *middle, nn.Linear(6, 3))


class Two(nn.Module):
    """Two linear layers ``a`` and ``b``, put together by a function."""

    def __init__(self, together: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.together = together
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *given: Any) -> Any:
        return self.together(self, *given)


def refused(act: Callable[[], Any], kind: type[VgauditError]) -> tuple[str, str]:
    """Returns message and hint of the one error that ``act`` must raise."""
    with pytest.raises(kind) as caught:
        act()
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value.message, caught.value.hint


# ------------------------------------------------------------ shapes and types


@pytest.mark.parametrize(
    ("net", "x", "start", "end"),
    [
        (
            tower(nn.ReLU()),
            noise(4, 5),
            "0 (Linear) failed on input [4, 5] float32; it takes 6 input features: ",
            "mat1 and mat2 shapes cannot be multiplied (4x5 and 6x6)",
        ),
        (
            tower(nn.ReLU(), nn.Linear(7, 6)),
            noise(4, 6),
            "2 (Linear) failed on input [4, 6] float32; it takes 7 input features: ",
            "mat1 and mat2 shapes cannot be multiplied (4x6 and 7x6)",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
            noise(2, 1, 8, 8),
            "0 (Conv2d) failed on input [2, 1, 8, 8] float32; it takes 3 input "
            "channels: ",
            "but got 1 channels instead",
        ),
        (
            tower(),
            torch.ones(4, 6, dtype=torch.long),
            "0 (Linear) failed on input [4, 6] int64; it takes 6 input features: ",
            "must have the same dtype, but got Long and Float",
        ),
        (
            nn.Sequential(nn.Embedding(5, 6), nn.Linear(6, 2)),
            torch.full((4, 5), 9),
            "0 (Embedding) failed on input [4, 5] int64: ",
            "index out of range in self",
        ),
    ],
)
def test_a_wrong_input_names_the_module_what_it_got_and_what_it_takes(
    net: nn.Module, x: Tensor, start: str, end: str
) -> None:
    message, hint = refused(lambda: scan(net, x), CannotRun)

    assert message.startswith(start)
    assert message.endswith(end)
    assert hint == "check the shape and type of the input: --input, --data"


def test_a_missing_argument_says_which_to_give() -> None:
    net = Two(lambda s, x, y: s.a(x) + s.b(y))
    message, hint = refused(lambda: scan(net, noise(4, 6)), CannotRun)

    assert message.startswith("the model (Two) failed on input [4, 6] float32: ")
    assert "missing 1 required positional argument: 'y'" in message
    assert hint == "give every input of forward: --input name=SHAPE for each"


def test_batch_norm_on_one_sample_asks_for_two() -> None:
    net = tower(nn.BatchNorm1d(6))
    message, hint = refused(lambda: scan(net, noise(1, 6)), CannotRun)

    assert message == (
        "1 (BatchNorm1d) failed on input [1, 6] float32: Expected more than 1 value "
        "per channel when training, got input size torch.Size([1, 6])"
    )
    assert hint == "batch normalisation needs a batch of 2 or more: --batch-size 2"
    assert scan(net, noise(1, 6), mode="eval").uncalibrated == ("1",)


def test_a_forward_that_leaves_torch_says_so() -> None:
    net = Two(lambda s, x: s.a(x).numpy())
    message, _ = refused(lambda: scan(net, noise(4, 6)), CannotRun)

    assert message == (
        "the model (Two) failed on input [4, 6] float32: Can't call numpy() on Tensor "
        "that requires grad. Use tensor.detach().numpy() instead."
    )


@pytest.mark.parametrize("where", ["forward", "structure"])
def test_a_lazy_model_that_cannot_run_is_refused(where: str) -> None:
    net = nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.Linear(5, 2))
    act = {
        "forward": lambda: scan(net, noise(4, 6)),
        "structure": lambda: structure(net, batch(noise(4, 6))),
    }[where]
    message, hint = refused(act, CannotRun)

    assert message.startswith(
        "0.weight has no shape yet, and a first forward pass failed: "
    )
    assert message.endswith("mat1 and mat2 shapes cannot be multiplied (4x6 and 5x2)")
    assert hint == "run the model once on a batch before it is scanned or saved"


# ------------------------------------------------------------ no gradient


def no_grad(s: Two, x: Tensor) -> Tensor:
    with torch.no_grad():
        return s.a(x)


def inference(s: Two, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return s.a(x)


LOOK = (
    "return a tensor that depends on the weights; look for detach(), no_grad() or "
    "argmax() in forward"
)


@pytest.mark.parametrize(
    ("together", "message", "hint"),
    [
        (lambda s, x: s.a(x).detach(), "the output is detached", LOOK),
        (no_grad, "the output is detached", LOOK),
        (inference, "the output is made under inference_mode", LOOK),
        (lambda s, x: s.a(x).argmax(1), "the output is of type int64", LOOK),
    ],
)
def test_an_output_without_gradient_says_why(
    together: Callable[..., Any], message: str, hint: str
) -> None:
    assert refused(lambda: scan(Two(together), noise(4, 6)), CannotRun) == (
        f"no gradient can flow: {message}",
        hint,
    )


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), ("text", "str")])
def test_an_output_without_a_tensor_is_refused(value: Any, kind: str) -> None:
    net = Two(lambda s, x: value)

    assert refused(lambda: scan(net, noise(4, 6)), CannotRun) == (
        f"the output holds no tensor: {kind}",
        "choose a part of it with --output",
    )


def test_a_frozen_model_is_refused_and_can_be_unfrozen() -> None:
    net = tower(nn.ReLU()).requires_grad_(False)

    assert refused(lambda: scan(net, noise(4, 6)), CannotRun) == (
        "0 of 4 parameters are trainable",
        "measure the frozen ones with --unfreeze (unfreeze=True)",
    )
    flow = scan(net, noise(4, 6), unfreeze=True)
    thawed = scan(net.requires_grad_(True), noise(4, 6))
    assert flow.attenuation == thawed.attenuation
    assert all(p.connected for p in flow.parameters)


def test_a_model_without_parameters_leaves_nothing_to_measure() -> None:
    assert refused(lambda: scan(nn.ReLU(), noise(4, 6)), NothingMeasured) == (
        "the model has no parameters",
        "nothing in it can be trained; scan the model that holds the weights",
    )


def test_one_layer_is_too_little_to_compare() -> None:
    report = judge(audit(scan(nn.Linear(6, 3), noise(4, 6))))

    assert (report.status, report.exit_code) == ("inconclusive", 4)
    assert report.warnings == (
        "inconclusive: nothing to compare, only one weight layer has a gradient",
    )


def test_a_failing_backward_pass_is_told_from_a_failing_forward_pass() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise RuntimeError("no way back\nsecond line")

    net = Two(lambda s, x: s.b(Broken.apply(s.a(x))))

    assert refused(lambda: scan(net, noise(4, 6)), CannotRun) == (
        "the backward pass failed: no way back",
        "the model cannot be trained as it is; torch's message above names the "
        "operation",
    )


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


# ------------------------------------------------------------ options


def test_options_that_do_not_exist_are_refused() -> None:
    act = {
        "device": lambda: scan(tower(), noise(4, 6), device="nowhere"),
        "index": lambda: scan(tower(), noise(4, 6), device="cuda:99"),
        "dtype": lambda: scan(tower(), noise(4, 6), dtype="float8"),
    }
    for name in ("device", "index"):
        message, hint = refused(act[name], BadConfig)
        assert message.startswith(
            f"device '{'nowhere' if name == 'device' else 'cuda:99'}'"
        )
        assert hint == "use --device cpu"
    assert refused(act["dtype"], BadConfig) == (
        "'float8' is no floating-point type to measure in",
        "use auto or one of bfloat16, float16, float32, float64",
    )


# ------------------------------------------------------------ losses


@pytest.mark.parametrize(
    ("loss", "message", "hint"),
    [
        (
            lambda out, _: None,
            "the loss mine is not a single number but NoneType",
            "reduce it, for example with .mean()",
        ),
        (
            lambda out, _: out.sum(1),
            "the loss mine is not a single number but [4]",
            "reduce it, for example with .mean()",
        ),
        (
            lambda out, _: out.sum().detach(),
            "the loss mine has no gradient",
            "it was detached, or made under no_grad or inference_mode",
        ),
        (
            lambda out, _: F.cross_entropy(out, torch.full((4,), 9)),
            "the loss mine failed: Target 9 is out of bounds.",
            "check that labels and output fit; --loss chooses another",
        ),
    ],
)
def test_a_loss_that_cannot_be_followed_says_why(
    loss: Callable[..., Any], message: str, hint: str
) -> None:
    act = lambda: scan(tower(), noise(4, 6), loss=Loss("mine", loss))  # noqa: E731

    assert refused(act, CannotRun) == (message, hint)


def test_a_loss_that_is_not_a_number_is_counted() -> None:
    calls = iter([math.nan, 1.0, math.inf])
    loss = Loss("mine", lambda out, _: out.square().sum() * next(calls))
    flow = scan_all(tower(), [batch(noise(4, 6, seed=s)) for s in range(3)], loss=loss)

    assert flow.loss is not None
    assert flow.loss.nonfinite == 2
    assert math.isfinite(flow.loss.value)
    assert flow.attenuation is not None
    assert flow.attenuation.n == 1
    assert parameters(flow)["0.weight"].nonfinite > 0


def test_a_constant_loss_has_no_gradient_anywhere() -> None:
    loss = Loss("mine", lambda out, _: 0 * out.sum())
    flow = scan(tower(nn.ReLU()), noise(4, 6), loss=loss)

    assert flow.attenuation is None
    assert all(row.zero_gradient for row in flow.layers)
    assert flow.loss is not None
    assert (flow.loss.value, flow.loss.std) == (0.0, 0.0)


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
def test_torchscript_is_refused() -> None:
    scripted = torch.jit.trace(tower(), noise(4, 6))
    for net in (scripted, nn.Sequential(tower(), scripted)):
        message, hint = refused(lambda net=net: scan(net, noise(4, 6)), CannotRun)

        assert message.endswith("is TorchScript, whose calls cannot be watched")
        assert hint == "pass the eager module that was scripted"


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
