"""The targets that curvature needs: when they are missing, left out, or no classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vgaudit.errors import BadConfig
from vgaudit.optim import SDAGD
from vgaudit.optim.curvature import draw

CLASSES = 4
X = torch.arange(15.0, dtype=torch.float64).view(5, 3).sin()
TARGETS = torch.tensor([0, 3, 1, 2, 1])


def drawn(loss: object, targets: torch.Tensor | None) -> torch.Tensor:
    output = torch.arange(20.0, dtype=torch.float64).view(5, CLASSES).cos()
    return draw(output, loss, targets, torch.Generator().manual_seed(1))


def observe(loss: nn.Module | str, targets: torch.Tensor | None = None) -> bool:
    model = nn.Linear(3, CLASSES, dtype=torch.float64)
    optimizer = SDAGD(model.named_parameters(), kappa=1.0)
    return optimizer.observe(model(X), loss, targets)


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.NLLLoss])
@pytest.mark.parametrize("ignored", [0, 2, -1])
def test_labels_that_are_left_out_need_targets(kind, ignored) -> None:
    loss = kind(ignore_index=ignored)

    with pytest.raises(BadConfig) as error:
        observe(loss)

    message = f"ignore_index={ignored} changes the curvature with the label"
    assert message == error.value.message
    assert "pass the targets to observe()" == error.value.hint
    assert observe(loss, TARGETS)


@pytest.mark.parametrize("loss", ["cross-entropy", nn.CrossEntropyLoss()])
def test_the_usual_loss_needs_no_targets(loss) -> None:
    assert observe(loss)
    assert torch.equal(drawn(loss, None), drawn(loss, TARGETS))


@pytest.mark.parametrize(
    "loss",
    [
        "cross-entropy",
        "nll",
        nn.CrossEntropyLoss(weight=torch.ones(CLASSES, dtype=torch.float64)),
        nn.NLLLoss(ignore_index=0),
    ],
)
@pytest.mark.parametrize("bad", [CLASSES, 99, -1])
def test_a_target_that_is_no_class_is_named(loss, bad) -> None:
    targets = TARGETS.clone()
    targets[3] = bad

    with pytest.raises(BadConfig) as error:
        observe(loss, targets)

    assert f"target {bad} but {CLASSES} outputs" == error.value.message
    assert "classes run from 0 to 3" in error.value.hint


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_samples_that_are_left_out_have_no_curvature(smoothing) -> None:
    """The others have what they have in a batch of their own, with the same signs."""
    loss = nn.CrossEntropyLoss(ignore_index=1, label_smoothing=smoothing)
    kept = TARGETS != 1
    # The mean of a batch of five divides by five, that of the kept ones by three.
    whole = drawn(nn.CrossEntropyLoss(label_smoothing=smoothing), TARGETS)
    found = drawn(loss, TARGETS)

    assert not found[~kept].any()
    torch.testing.assert_close(found[kept], whole[kept] * (5 / 3) ** 0.5)
    assert not drawn(loss, torch.ones_like(TARGETS)).any()
