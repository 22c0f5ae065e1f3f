"""The callback inside the real trainer of transformers."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

from fixtures import models  # noqa: E402
from vgaudit.integrations.transformers import (  # noqa: E402
    GradientAudit,
    UnhealthyGradient,
)
from vgaudit.judge import Policy  # noqa: E402


def bert(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=50,
            num_labels=2,
        )
    )


def trainer_of(model, folder, **options):
    generator = torch.Generator().manual_seed(0)
    data = [
        {
            "input_ids": torch.randint(0, 50, (8,), generator=generator),
            "labels": torch.tensor(number % 2),
        }
        for number in range(24)
    ]
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_steps": 1000,
    }
    args = transformers.TrainingArguments(**(defaults | options))
    return transformers.Trainer(model, args, train_dataset=data)


def test_the_figures_reach_the_history_and_the_file(tmp_path) -> None:
    trainer = trainer_of(bert(), tmp_path)
    audit = GradientAudit(trainer, every=2, report=tmp_path / "last.md")
    trainer.add_callback(audit)
    trainer.train()

    logged = [
        entry["vgaudit/attenuation"]
        for entry in trainer.state.log_history
        if "vgaudit/attenuation" in entry
    ]
    assert [0, 2, 4] == [point.step for point in audit.history]
    assert [p.figures["vgaudit/attenuation"] for p in audit.history] == logged
    assert -1.5 < logged[0] < 0.5  # The loss, a second output, is no reference.
    assert "adam" == audit.report.optimizer
    assert "BertForSequenceClassification" in (tmp_path / "last.md").read_text()


def test_the_training_is_that_without_it(tmp_path) -> None:
    alone, watched = bert(), bert()
    trainer_of(alone, tmp_path).train()
    trainer = trainer_of(watched, tmp_path)
    trainer.add_callback(GradientAudit(every=1))
    trainer.train()

    for one, two in zip(alone.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not any(part._forward_hooks for part in watched.modules())


def test_accumulated_batches_are_one_step(tmp_path) -> None:
    trainer = trainer_of(bert(), tmp_path, gradient_accumulation_steps=3)
    audit = GradientAudit(every=1)
    trainer.add_callback(audit)
    trainer.train()

    assert [0, 1] == [point.step for point in audit.history]
    assert 3 == audit.report.audit.flow.batches


class Sick(torch.nn.Module):
    """A deep sigmoid net that returns its loss, as the trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = models.deep_sigmoid_mlp()

    def forward(self, input_ids, labels):
        logits = self.net(torch.nn.functional.pad(input_ids.float(), (0, 56)))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def test_a_finding_of_the_level_stops_the_training(tmp_path) -> None:
    trainer = trainer_of(Sick(), tmp_path)
    audit = GradientAudit(policy=Policy(optimizer="sgd"), fail_on="error")
    trainer.add_callback(audit)

    with pytest.raises(UnhealthyGradient, match=r"at step 0\nVG101"):
        trainer.train()
    assert "fail" == audit.report.status


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_segments_leave_the_figures(tmp_path, reentrant) -> None:
    seen = []
    for options in (
        {},
        {
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": reentrant},
        },
    ):
        trainer = trainer_of(bert(), tmp_path, gradient_accumulation_steps=3, **options)
        audit = GradientAudit(every=1)
        trainer.add_callback(audit)
        trainer.train()
        flow = audit.report.audit.flow
        seen.append({p.name: p.grad_norm for p in flow.parameters if p.connected})
        assert 3 == flow.batches

    assert len(seen[0]) > 20
    assert seen[0] == pytest.approx(seen[1], rel=1e-4)
