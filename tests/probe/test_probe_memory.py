"""Clones that take no memory until they are written to, and the user's tensors then."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.probe.scans import noise, parameters, scan
from vgaudit.probe import state
from vgaudit.probe.state import Twin

SIDE = 600
"""A weight of this side has more than a megabyte, in float32."""


def wide() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(SIDE, SIDE), nn.Tanh(), nn.Linear(SIDE, SIDE))


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
    assert not is_lazy(twin.state["0.bias"])
    with torch.no_grad():
        clone.mul_(2.0)
    assert torch.equal(kept, model[0].weight)
    assert torch.equal(2.0 * kept, clone)


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
    """Writes to its own large weight in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = wide()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.inner[0].weight.clamp_(-0.01, 0.01)
        out: Tensor = self.inner(x)
        return out


def test_a_model_that_writes_to_its_weights_keeps_them() -> None:
    model = Clamping()
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    place = model.inner[0].weight.untyped_storage()._cdata

    flow = scan(model, noise(4, SIDE))

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
