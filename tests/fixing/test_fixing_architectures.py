"""Sick nets of other kinds than layers in a row: each is brought above chance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.detection.build import Spec, build
from benchmarks.detection.tasks import task
from tests.fixing.models import fixed
from vgaudit.fixing import FixOptions, keeper

OPTIONS = FixOptions(budget=1e6, trials=4, most_steps=160, valid_split=0.4)


def convolutions() -> tuple[nn.Module, str]:
    """Returns sigmoids behind convolutions: the gradient is lost on the way."""
    spec = Spec(
        name="cnn",
        family="cnn",
        task="images",
        depth=6,
        width=8,
        activation="sigmoid",
    )
    return build(spec), spec.task


def sequence() -> tuple[nn.Module, str]:
    """Returns an LSTM with a tenth of its weights: it forgets at once."""
    spec = Spec(
        name="lstm",
        family="recurrent",
        task="recall:12",
        depth=1,
        width=32,
        variant="lstm",
        init="small",
    )
    return build(spec), spec.task


def attention() -> tuple[nn.Module, str]:
    """Returns post-LN blocks whose norms let next to nothing through."""
    spec = Spec(
        name="transformer",
        family="transformer",
        task="tokens",
        depth=3,
        width=16,
        variant="post",
    )
    model = build(spec)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(12.0)
            elif "norm" in name and name.endswith("weight"):
                parameter.mul_(1e-3)
    return model, spec.task


def data_of(name: str) -> tuple[Tensor, Tensor]:
    made = task(name)
    return made.x, made.y


@pytest.mark.slow
@pytest.mark.parametrize("made", [convolutions, sequence, attention])
def test_it_is_brought_above_chance(made) -> None:
    model, name = made()
    repaired = fixed(model, data_of(name), OPTIONS)
    done = repaired.fixing

    assert done.findings
    assert done.kept
    assert done.chance is not None
    # The suite's margin: 30 % of what the best constant answer leaves.
    assert keeper(done).score > done.chance + 0.3 * (1 - done.chance)
    x, y = data_of(name)
    with torch.no_grad():
        right = float((repaired.model.eval()(x).argmax(-1) == y).float().mean())
    assert right == pytest.approx(keeper(done).score, abs=0.1)
    assert all(attempt.run is not None or attempt.failure for attempt in done.attempts)
