"""TorchScript: refused by default, then the gradients of its parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vgaudit
from vgaudit.errors import CannotLoad
from vgaudit.job import LoadOptions, ProbeOptions
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
