"""What the user is told when a model, its data or its loss cannot be measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.probe.scans import audit, batch, noise, parameters, scan, scan_all
from tests.probe.towers import Two, refused, tower
from vgaudit.data.batch import Loss
from vgaudit.errors import BadConfig, CannotRun, NothingMeasured
from vgaudit.judge import judge
from vgaudit.probe import structure

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
