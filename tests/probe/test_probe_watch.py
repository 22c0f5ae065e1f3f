"""What watching a training loop measures."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fixtures import models
from tests.probe.scans import activation, layer, noise, parameters
from vgaudit.errors import NothingMeasured
from vgaudit.probe import Watch

# ------------------------------------------------------------ figures


def smooth() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    ).double()


def test_a_watched_pass_has_the_gradients_of_autograd() -> None:
    model, x = smooth(), noise(5, 6).double()
    target = torch.arange(5) % 3
    with Watch(model) as seen:
        F.cross_entropy(model(x), target).backward()
    flow = seen.flow()

    kept, value = [], x
    for module in model:
        value = module(value)
        kept.append(value)
    gradients = torch.autograd.grad(F.cross_entropy(value, target), kept)
    reference = float(gradients[-1].norm())
    for place, gradient in enumerate(gradients):
        expected = math.log10(float(gradient.norm()) / reference)
        found = layer(flow, str(place)).attenuation
        assert found is not None
        assert found.value == pytest.approx(expected, abs=1e-10)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameters(flow)[name].grad_norm == pytest.approx(
            float(parameter.grad.norm()), rel=1e-10
        )
    assert activation(flow, "1").samples == 5
    assert (flow.probe, flow.mode, flow.batches, flow.samples) == (
        "loss",
        "train",
        1,
        5,
    )


def test_every_nth_pass_is_measured_and_no_other_leaks_into_it() -> None:
    model = smooth()
    expected = []
    with Watch(model, every=3) as seen:
        for step in range(7):
            model.zero_grad()
            out = model(noise(4, 6, seed=step).double())
            (10.0**step * out.square().mean()).backward()
            if step % 3 == 0:
                expected.append(float(model[0].weight.grad.norm()))
    flow = seen.flow()

    assert (flow.batches, flow.samples) == (3, 12)
    assert activation(flow, "1").samples == 12
    assert parameters(flow)["0.weight"].grad_norm == pytest.approx(
        sum(expected) / 3, rel=1e-9
    )


def test_scaling_and_accumulating_leave_the_decades() -> None:
    model, x = smooth(), noise(5, 6).double()
    flows = []
    for scale in (1.0, 2.0**16):
        with Watch(model) as seen:
            (scale * model(x).square().mean()).backward()
        flows.append(seen.flow())

    one, two = flows
    assert one.attenuation.value == pytest.approx(two.attenuation.value, abs=1e-9)
    for a, b in zip(one.layers, two.layers, strict=True):
        assert a.attenuation.value == pytest.approx(b.attenuation.value, abs=1e-9)


def test_an_overflowing_step_of_a_scaler_is_no_vanishing_gradient() -> None:
    model, x = smooth().float(), noise(5, 6)
    with Watch(model) as seen:
        (math.inf * model(x).square().mean()).backward()
        model(x).square().mean().backward()
    flow = seen.flow()

    assert flow.attenuation is not None
    assert math.isfinite(flow.attenuation.value)
    assert flow.attenuation.n == 1
    assert parameters(flow)["0.weight"].nonfinite > 0


def test_passes_without_backward_are_not_counted() -> None:
    model = smooth()
    with Watch(model) as seen:
        model(noise(4, 6).double())
        with torch.no_grad():
            model(noise(4, 6).double())
    with pytest.raises(NothingMeasured) as caught:
        seen.flow()

    assert caught.value.message == "no backward pass was seen"
    assert caught.value.exit_code == 4


def test_the_loop_may_be_watched_through_its_wrapper() -> None:
    inner = smooth().float()
    for wrapped in (nn.DataParallel(inner), torch.compile(inner, backend="eager")):
        with Watch(wrapped) as seen:
            wrapped(noise(4, 6)).sum().backward()

        assert [r.path for r in seen.flow().layers if r.weighted] == ["0", "2", "4"]


def test_a_watched_loop_holds_no_graph() -> None:
    """Nodes of old passes keep tensors alive, and a long run would fill memory."""
    model = smooth()
    alive: list[weakref.ref[Tensor]] = []
    with Watch(model) as seen:
        for step in range(4):
            hidden = model[:3](noise(4, 6, seed=step).double())
            del hidden
            out = model(noise(4, 6, seed=step).double())
            node = out.grad_fn
            node.metadata["tag"] = tag = torch.zeros(1)
            alive.append(weakref.ref(tag))
            out.sum().backward()
            del out, node, tag

        gc.collect()
        assert [ref() is None for ref in alive] == [True] * 4
    assert seen.flow().batches == 4


def test_activation_checkpointing_is_watched() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
            self.block = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            x = checkpoint(self.block, self.first(x), use_reentrant=False)
            return self.last(x)

    torch.manual_seed(0)
    model = Checkpointed().double()
    bare = copy.deepcopy(model)
    bare.forward = lambda x: bare.last(bare.block(bare.first(x)))  # type: ignore
    flows = []
    for module in (model, bare):
        with Watch(module) as seen:
            module(noise(4, 6).double()).square().sum().backward()
        flows.append(seen.flow())

    one, two = flows
    assert [r.path for r in one.layers] == [r.path for r in two.layers]
    for a, b in zip(one.layers, two.layers, strict=True):
        assert a.attenuation.value == pytest.approx(b.attenuation.value, abs=1e-12)


def test_the_source_is_never_the_loop() -> None:
    model = smooth()
    with Watch(model) as seen:
        model(noise(4, 6).double()).sum().backward()

    assert {r.source for r in seen.flow().layers} == {None}


def test_watching_two_models_at_once() -> None:
    one, two = smooth(), models.functional_activations().double()
    with Watch(one) as first, Watch(two) as second:
        one(noise(4, 6).double()).sum().backward()
        two(noise(4, 32).double()).sum().backward()

    assert [r.path for r in first.flow().layers] == ["0", "1", "2", "3", "4"]
    assert len(second.flow().layers) == 15


def test_kwargs_and_nested_outputs() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, *, given: dict[str, Tensor]) -> dict[str, Any]:
            hidden = torch.tanh(self.first(given["x"]))
            return {"out": [self.last(hidden)], "hidden": hidden}

    model = Nested()
    with Watch(model) as seen:
        out = model(given={"x": noise(5, 6)})
        out["out"][0].sum().backward()

    flow = seen.flow()
    assert flow.samples == 5
    assert [r.path for r in flow.layers] == ["first", "tanh#1", "last"]
    assert layer(flow, "last").attenuation.value == pytest.approx(0.0, abs=0.2)
