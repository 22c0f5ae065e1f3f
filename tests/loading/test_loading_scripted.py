"""TorchScript: refused by default, then the gradients of its parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vgaudit
from vgaudit.data import open_batches
from vgaudit.data.inputs.traceless import stand_ins
from vgaudit.errors import CannotLoad
from vgaudit.job import DataOptions, LoadOptions, ProbeOptions
from vgaudit.loading import load

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ALLOWED = LoadOptions(allow_code=True)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Sigmoid(), nn.Linear(7, 3))
    )


class Writes(nn.Module):
    """Makes a file when it runs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = torch.from_file(self.path, shared=True, size=4)
        return self.layer(x) + made.sum() * 0


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.left = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x) + self.left(x).detach()


def scripted(module: nn.Module, path: Path) -> str:
    torch.jit.save(torch.jit.script(module), path)
    return str(path)


def test_it_is_refused_without_permission(tmp_path: Path) -> None:
    spec = scripted(net(), tmp_path / "model.pt")

    with pytest.raises(CannotLoad, match="TorchScript, which is compiled code") as told:
        load(spec, LoadOptions())
    assert "--allow-code" in told.value.hint


def test_nothing_in_it_runs_by_default(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    spec = scripted(Writes(str(marker)), tmp_path / "model.pt")

    with pytest.raises(CannotLoad):
        vgaudit.scan(spec, torch.randn(4, 5))
    assert not marker.exists()
    vgaudit.scan(spec, torch.randn(4, 5), load_options=ALLOWED)
    assert marker.exists(), "the marker marks nothing"


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_gradients_are_those_of_plain_autograd(mode: str, tmp_path: Path) -> None:
    spec = scripted(net(), tmp_path / "model.pt")
    x, y = torch.randn(16, 5), torch.randint(0, 3, (16,))

    report = vgaudit.scan(
        spec,
        (x, y),
        loss="cross-entropy",
        load_options=ALLOWED,
        probe_options=ProbeOptions(mode=mode),  # type: ignore[arg-type]
    )

    eager = net().train(mode == "train")
    nn.functional.cross_entropy(eager(x), y).backward()
    wanted = {n: float(p.grad.double().norm()) for n, p in eager.named_parameters()}
    assert report.audit is not None
    got = {p.name: p.grad_norm for p in report.audit.flow.parameters}
    # Before batch norm the gradient of a bias is 0 up to rounding.
    assert got == pytest.approx(wanted, rel=1e-4, abs=1e-7)
    assert report.status == "inconclusive"
    assert report.exit_code == 4


def test_a_parameter_without_gradient_is_found(tmp_path: Path) -> None:
    spec = scripted(Unused(), tmp_path / "model.pt")

    report = vgaudit.scan(spec, torch.randn(4, 5), load_options=ALLOWED)

    found = [finding for finding in report.findings if finding.code == "VG104"]
    assert found
    assert "left" in found[0].layer + " ".join(found[0].layers)


def test_the_module_stays_as_it_was() -> None:
    model = torch.jit.script(net().train())
    before = {name: value.clone() for name, value in model.state_dict().items()}

    vgaudit.scan(model, torch.randn(16, 5), probe_options=ProbeOptions(mode="eval"))
    vgaudit.scan(model, torch.randn(16, 5))

    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training


def _state(model: nn.Module) -> list[tuple[int, bool, Tensor]]:
    """Returns what a model holds: where, whether it learns, and the numbers."""
    held = [*model.parameters(), *model.buffers()]
    return [(t.data_ptr(), t.requires_grad, t.detach().clone()) for t in held]


@pytest.mark.parametrize("inside", [False, True], ids=["a script", "a script inside"])
def test_opening_data_leaves_a_script_as_it_was(inside: bool) -> None:
    compiled = torch.jit.script(net())
    model = nn.Sequential(nn.Linear(5, 5), compiled) if inside else compiled
    before = _state(model)

    open_batches(model, DataOptions(inputs=("6x5",)), None)
    with stand_ins(model), torch.no_grad():
        model(torch.randn(6, 5))

    for old, new in zip(before, _state(model), strict=True):
        assert old[:2] == new[:2]
        assert torch.equal(old[2], new[2])


def test_a_file_of_samples_gives_a_script_the_gradients_of_its_eager_model(
    tmp_path: Path,
) -> None:
    inputs, labels = torch.randn(12, 5), torch.arange(12) % 3
    torch.save((inputs, labels), tmp_path / "data.pt")
    spec = scripted(net(), tmp_path / "model.pt")
    samples = DataOptions(data=str(tmp_path / "data.pt"), batches=1, batch_size=12)

    report = vgaudit.scan(
        spec, loss="cross-entropy", load_options=ALLOWED, data_options=samples
    )

    model = net()
    nn.functional.cross_entropy(model(inputs), labels).backward()
    wanted = {n: float(p.grad.norm()) for n, p in model.named_parameters()}  # type: ignore[union-attr]
    assert report.audit is not None
    got = {p.name: p.grad_norm for p in report.audit.flow.parameters}
    assert got == pytest.approx(wanted, rel=1e-4, abs=1e-7)
