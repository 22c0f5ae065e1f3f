"""What a scan holds: clones without memory of their own, and one gradient at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.probe.scans import batch, l2, noise, parameters, scan, scan_all
from vgaudit.data.batch import Loss
from vgaudit.probe import state
from vgaudit.probe.state import Twin

SIDE = 600
"""A weight of this side has more than a megabyte, in float32."""


def wide(side: int = SIDE) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(side, side), nn.Tanh(), nn.Linear(side, side))


def clone_of(model: nn.Module, name: str, dtype: torch.dtype | None = None) -> Tensor:
    return Twin(model, device=torch.device("cpu"), dtype=dtype).state[name]


def is_lazy(tensor: Tensor) -> bool:
    return bool(torch._C._is_cow_tensor(tensor))


def test_a_large_weight_is_copied_when_it_is_written_to() -> None:
    model = wide()
    kept = model[0].weight.detach().clone()
    twin = Twin(model, device=torch.device("cpu"), dtype=None)
    clone = twin.state["0.weight"]

    assert is_lazy(clone)
    # A page at least, for parameters: less saves nothing.
    assert not is_lazy(twin.state["0.bias"])
    with torch.no_grad():
        clone.mul_(2.0)
    assert torch.equal(kept, model[0].weight)
    assert torch.equal(2.0 * kept, clone)


def test_parameters_of_a_page_are_shared_and_small_buffers_are_not() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(1024))
    twin = Twin(model, device=torch.device("cpu"), dtype=None)
    shared = {name for name, tensor in twin.state.items() if is_lazy(tensor)}

    assert {"0.weight", "1.weight", "1.bias"} == shared


def test_what_the_user_writes_does_not_reach_the_clone() -> None:
    model = wide()
    kept = model[0].weight.detach().clone()
    clone = clone_of(model, "0.weight")
    with torch.no_grad():
        model[0].weight.zero_()

    assert torch.equal(kept, clone)


@pytest.mark.parametrize("kind", ["type", "view", "numpy"])
def test_what_cannot_be_shared_is_copied_at_once(kind: str) -> None:
    model, dtype = wide(), torch.float64 if kind == "type" else None
    weight = model[0].weight
    if kind == "view":
        whole = torch.cat([weight.detach(), weight.detach()])
        model[0].weight = nn.Parameter(whole[:SIDE])
    if kind == "numpy":
        model[0].weight = nn.Parameter(torch.from_numpy(weight.detach().numpy().copy()))
    clone = clone_of(model, "0.weight", dtype)

    assert not is_lazy(clone)
    assert torch.equal(weight.to(clone.dtype), clone)


class Clamping(nn.Module):
    """Writes to its own weight in each forward pass."""

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        self.inner = wide(side)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.inner[0].weight.clamp_(-0.01, 0.01)
        out: Tensor = self.inner(x)
        return out


class Through(Clamping):
    """Writes to its own weight behind torch's back, through an array of numpy."""

    def forward(self, x: Tensor) -> Tensor:
        values = self.inner[0].weight.detach().numpy()
        values[:] = values.clip(-0.01, 0.01)
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize("kind", [Clamping, Through])
@pytest.mark.parametrize("side", [8, 64, SIDE])
def test_a_model_that_writes_to_its_weights_keeps_them(
    kind: type[Clamping], side: int
) -> None:
    model = kind(side)
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    place = model.inner[0].weight.untyped_storage()._cdata

    flow = scan_all(model, [batch(noise(4, side, seed=seed)) for seed in range(2)])

    assert all(torch.equal(kept[n], p) for n, p in model.named_parameters())
    assert place == model.inner[0].weight.untyped_storage()._cdata
    assert parameters(flow)["inner.0.weight"].weight_rms == pytest.approx(
        float(kept["inner.0.weight"].square().mean().sqrt()), rel=1e-5
    )


def test_a_scan_does_not_move_the_users_memory() -> None:
    model = wide()
    before = [p.data_ptr() for p in model.parameters()]

    scan(model, noise(4, SIDE))
    scan(model.bfloat16(), noise(4, SIDE).bfloat16())
    again = wide()
    place = [p.data_ptr() for p in again.parameters()]
    scan(again, noise(4, SIDE))

    assert len(before) == len(place)
    assert place == [p.data_ptr() for p in again.parameters()]


def test_figures_outlive_the_values_of_weights() -> None:
    weights = state.weights_of(wide())
    shapes = {
        name: (p.shape, p.requires_grad) for name, p in weights.parameters.items()
    }
    weights.forget_values()

    assert all(p.is_meta for p in weights.parameters.values())
    assert shapes == {
        n: (p.shape, p.requires_grad) for n, p in weights.parameters.items()
    }


# ---------------------------------------------------------------- gradients


class Counting(nn.Module):
    """Notes, in the backward pass of each layer, how many gradients are held.

    Passes on what it gets, so the gradient of what is above has arrived.
    """

    def __init__(self, model: nn.Sequential, note: Callable[[int], None]) -> None:
        super().__init__()
        self.model, self.note = model, note

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.model:
            x = layer(x)
            x.register_hook(self._note)
        return x

    def _note(self, gradient: Tensor) -> None:
        weights = (p for p in self.model.parameters() if p.dim() > 1)
        self.note(sum(p.grad is not None for p in weights))


def test_no_gradient_is_held_when_the_next_one_is_computed() -> None:
    layers = [nn.Linear(32, 32) for _ in range(5)]
    held: list[int] = []
    model = Counting(nn.Sequential(*layers), held.append)
    model(noise(4, 32)).sum().backward()
    assert held == [0, 1, 2, 3, 4]

    held.clear()
    scan_all(model, [batch(noise(4, 32, seed=seed)) for seed in range(3)])
    assert held == [0] * 3 * len(layers)


class Within(torch.autograd.Function):
    """A linear map whose backward pass runs another one, as reversible layers do."""

    @staticmethod
    def forward(context, x, weight):  # type: ignore[no-untyped-def]
        context.save_for_backward(x)
        context.weight = weight
        return x @ weight.detach()

    @staticmethod
    def backward(context, gradient):  # type: ignore[no-untyped-def]
        (x,) = context.saved_tensors
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            (again @ context.weight).backward(gradient)
        return again.grad, None


class Reversible(nn.Module):
    """One weight whose gradient comes in as many parts as it is used."""

    def __init__(self, uses: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.uses = nn.Parameter(noise(40, 40) / 6), uses
        self.first = nn.Linear(40, 40)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(self.uses):
            x = Within.apply(x, self.weight)
        return x


@pytest.mark.parametrize("uses", [1, 3])
def test_a_gradient_that_comes_in_parts_is_their_sum(uses: int) -> None:
    model, x = Reversible(uses), noise(4, 40)

    def loss(output: Tensor, _: object) -> Tensor:
        return output.square().sum()

    flow = scan_all(
        model, [batch(x), batch(x)], loss=Loss("squares", loss), mode="train"
    )
    double = Reversible(uses).double()
    out = double.first(x.double())
    for _ in range(uses):
        out = out @ double.weight
    out.square().sum().backward()

    found = {name: figure.grad_norm for name, figure in parameters(flow).items()}
    named = double.named_parameters()
    expected = {name: l2(p.grad) for name, p in named if p.grad is not None}
    assert model.weight.grad is None
    assert set(found) == set(expected)
    assert expected == pytest.approx(found, rel=1e-5)
