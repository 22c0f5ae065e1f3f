"""Whatever mode, default or transform the caller has set, the figures are the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.probe.scans import batch, layer, noise, parameters, scan
from vgaudit.errors import CannotRun
from vgaudit.probe import structure
from vgaudit.probe.step import cotangent


def tower(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), *middle, nn.Linear(6, 3))


class Two(nn.Module):
    """Two linear layers, put together by a function."""

    def __init__(self, together: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.together, self.a, self.b = together, nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Any:
        return self.together(self, x)


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "surrounding",
    [
        torch.no_grad,
        torch.inference_mode,
        torch.enable_grad,
        default_dtype,
        deterministic,
        torch.autograd.set_detect_anomaly,
    ],
)
def test_the_surroundings_change_nothing(surrounding: Callable[..., Any]) -> None:
    net, x = tower(nn.GELU()), noise(4, 6)
    expected = scan(net, x)
    takes_mode = surrounding is torch.autograd.set_detect_anomaly
    with surrounding(True) if takes_mode else surrounding():
        found = scan(net, x)
        inside = scan(net, x.clone())
        rows = structure(net, batch(x)).rows

    assert found == inside == expected
    assert len(rows) == 3


def test_cotangents_are_drawn_on_the_cpu_whatever_the_default() -> None:
    output = noise(3, 4)
    expected = cotangent(output, 1, 2, 3)
    with torch.device("meta"):
        found = cotangent(output, 1, 2, 3)

    assert torch.equal(expected, found)
    assert torch.equal(cotangent(output.bfloat16(), 1, 2, 3), expected.bfloat16())
    assert not torch.equal(expected, cotangent(output, 1, 3, 2))


def test_a_compiled_function_runs_eagerly() -> None:
    @torch.compile(backend="eager")
    def compiled(z: Tensor) -> Tensor:
        return torch.relu(z) * 2

    flow = scan(Two(lambda s, x: s.b(compiled(s.a(x)))), noise(4, 6))
    plain = scan(Two(lambda s, x: s.b(torch.relu(s.a(x)) * 2)), noise(4, 6))

    assert [r.path for r in flow.layers] == ["a", "relu#1", "b"]
    assert flow.attenuation == plain.attenuation


def test_activations_inside_of_transforms_are_listed_as_not_measured() -> None:
    def together(s: Two, x: Tensor) -> Tensor:
        return s.b(torch.vmap(lambda row: torch.nn.functional.elu(row))(s.a(x)))

    flow = scan(Two(together), noise(4, 6))

    assert {gap.path: gap.reason for gap in flow.not_measured} == {
        "elu": "it runs inside torch.vmap or another transform of functions"
    }
    assert [r.path for r in flow.layers] == ["a", "b"]
    assert flow.attenuation is not None


def test_gradients_taken_inside_of_forward_are_followed() -> None:
    """As physics-informed nets do: the output holds a derivative of the net."""

    def together(s: Two, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        made = torch.tanh(s.a(x))
        (slope,) = torch.autograd.grad(made.sum(), x, create_graph=True)
        return s.b(made) + slope

    net, x = Two(together).double(), noise(4, 6).double()
    flow = scan(net, x)

    out = net(x.clone())
    named = dict(net.named_parameters())
    gradients = torch.autograd.grad(out, list(named.values()), cotangent(out, 0, 0, 0))
    for name, gradient in zip(named, gradients, strict=True):
        assert parameters(flow)[name].grad_norm == pytest.approx(
            float(gradient.norm()), rel=1e-10
        )
    assert layer(flow, "b").attenuation.value == pytest.approx(0.0, abs=1e-12)
    assert layer(flow, "a").depth == 1


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(CannotRun) as caught:
        scan(tower(nn.ReLU()), noise(0, 6))

    assert caught.value.message == "no gradient can flow: the output is empty"
    assert caught.value.hint == "give a batch of at least one sample"


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_model_is_refused() -> None:
    try:
        quantised = torch.ao.quantization.quantize_dynamic(
            tower(nn.ReLU()), {nn.Linear}, dtype=torch.qint8
        )
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f"this build of torch cannot quantise: {error}")
    with pytest.raises(CannotRun) as caught:
        scan(quantised, noise(4, 6))

    assert caught.value.message == (
        "the model is quantised: it has no trainable floating-point weights"
    )
    assert caught.value.hint == "scan the model that was quantised"
