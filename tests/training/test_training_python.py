"""``vgaudit.retrain``, ``fix`` and ``convert`` called as a user of Python would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vgaudit
from tests.training.courses import ROWS, net, options, samples
from vgaudit.errors import BadConfig


def kept_accuracy(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    return (model.eval()(x).argmax(1) == y).double().mean().item()


def test_a_data_spec_among_the_options_is_validated_on(tmp_path: Path) -> None:
    x, y = samples(30, seed=1)
    np.savez(tmp_path / "held.npz", x=x.double().numpy(), y=y.numpy())
    spec = str(tmp_path / "held.npz")
    done = vgaudit.retrain(net(), samples(), options=options("adam", valid_data=spec))

    split = done.retraining.split
    assert (split.train, split.valid) == (ROWS, 30)
    assert "held.npz" in split.how
    found = kept_accuracy(done.model, x, y)
    assert done.retraining.run.kept.metric == pytest.approx(found)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"valid_data": samples(30)}, r"valid_data is of type tuple.* \| .*valid=\("),
        ({"valid_data": "held.npz", "valid": samples(30)}, "both valid and valid_data"),
        ({"valid": "held.npz"}, r"valid is 'held\.npz'.* \| .*valid_data"),
    ],
)
def test_validation_data_in_the_wrong_place_is_told(
    given: dict[str, Any], said: str
) -> None:
    valid = given.pop("valid", None)
    with pytest.raises(BadConfig) as caught:
        vgaudit.retrain(net(), samples(), valid=valid, options=options(**given))

    assert re.search(said, f"{caught.value.message} | {caught.value.hint}")


def test_patience_takes_validation_samples_of_any_kind() -> None:
    asked = options("sgd", lr=1e-30, epochs=9, patience=2, valid_split=0)
    done = vgaudit.retrain(net(), samples(), valid=samples(30, seed=1), options=asked)
    with pytest.raises(BadConfig, match="patience needs validation samples"):
        vgaudit.retrain(net(), samples(), options=asked)

    # Nothing moves, so no epoch is better than the start: two more, and it ends.
    assert done.retraining.run.epochs[-1].number == 2
