"""The callback inside Lightning's real trainer."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from fixtures import models
from vgaudit.errors import BadConfig

lightning = pytest.importorskip("lightning.pytorch")

from vgaudit.integrations.lightning import (  # noqa: E402
    GradientAudit,
    UnhealthyGradient,
)


class Net(lightning.LightningModule):
    """A module of one net; training_step calls the net, not the module."""

    def __init__(self, net: nn.Module, *, optimizer=torch.optim.SGD) -> None:
        super().__init__()
        self.net, self.kind = net, optimizer

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return self.kind(self.parameters(), lr=0.01)


class Direct(Net):
    """The same, as a module that is called itself."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)


class Kept(lightning.loggers.logger.DummyLogger):
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics, step=None) -> None:
        self.points.append((step, dict(metrics)))


def train(module, callbacks, **options):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(48, 64, generator=generator)
    y = torch.randint(0, 10, (48,), generator=generator)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
        trainer = lightning.Trainer(callbacks=callbacks, **(defaults | options))
        trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=8))
    return trainer


def test_the_figures_reach_the_logger_and_the_file(tmp_path) -> None:
    audit = GradientAudit(every=2, report=tmp_path / "last.html")
    logger = Kept()
    trainer = train(Net(models.deep_sigmoid_mlp()), [audit], logger=logger)

    assert [0, 2, 4] == [point.step for point in audit.history]
    logged = [(step, seen) for step, seen in logger.points if "vgaudit/errors" in seen]
    assert [point.figures for point in audit.history] == [seen for _, seen in logged]
    assert [1, 3, 5] == [step for step, _ in logged]
    assert logged[-1][1]["vgaudit/attenuation"] == pytest.approx(
        float(trainer.callback_metrics["vgaudit/attenuation"])
    )
    assert logged[-1][1]["vgaudit/attenuation"] < -3.6
    assert "vanishing-gradient" in (tmp_path / "last.html").read_text()


def test_the_training_is_that_without_it() -> None:
    torch.manual_seed(0)
    alone = Net(models.healthy_relu_mlp())
    watched = Net(models.healthy_relu_mlp())
    watched.load_state_dict(alone.state_dict())
    train(alone, [])
    train(watched, [GradientAudit(every=1)])

    for one, two in zip(alone.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, two)


def test_accumulated_batches_are_one_step() -> None:
    audit = GradientAudit(every=1)
    train(Net(models.healthy_relu_mlp()), [audit], accumulate_grad_batches=3)

    assert [0, 1] == [point.step for point in audit.history]
    assert 3 == audit.report.audit.flow.batches


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_it_judges_for_the_optimizer_that_trains(optimizer) -> None:
    audit = GradientAudit()
    train(Net(models.healthy_relu_mlp(), optimizer=optimizer), [audit])

    expected = "sgd" if optimizer is torch.optim.SGD else "adam"
    assert expected == audit.report.optimizer


def test_a_sick_net_is_stopped_and_no_hook_stays() -> None:
    module = Net(models.deep_sigmoid_mlp())
    with pytest.raises(UnhealthyGradient, match="VG101"):
        train(module, [GradientAudit(fail_on="error")])

    assert not any(part._forward_hooks for part in module.modules())


def test_a_module_that_is_called_itself_is_watched_as_a_whole() -> None:
    audit = GradientAudit()
    train(Direct(models.healthy_relu_mlp()), [audit])

    paths = {layer.path for layer in audit.report.audit.flow.layers}
    assert any(path.startswith("net.") for path in paths)


def test_the_module_can_be_named() -> None:
    audit = GradientAudit(module="net")
    train(Direct(models.healthy_relu_mlp()), [audit])
    assert audit.history

    with pytest.raises(BadConfig, match="Direct has no module 'nett'"):
        train(Direct(models.healthy_relu_mlp()), [GradientAudit(module="nett")])


def test_under_amp_gradients_are_stated_without_the_scale() -> None:
    seen = []
    for scale in (None, 64.0):
        audit, plugins = GradientAudit(), []
        if scale is not None:
            scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            plugins = [
                lightning.plugins.MixedPrecision("16-mixed", "cpu", scaler=scaler)
            ]
        torch.manual_seed(0)
        train(Net(models.healthy_relu_mlp()), [audit], plugins=plugins)
        seen.append([p.grad_norm for p in audit.report.audit.flow.parameters])

    assert seen[0] == pytest.approx(seen[1], rel=0.05)  # float16 against float32
