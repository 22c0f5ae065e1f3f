"""Stored and inferred targets in mini-batches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.training_rai.nets import BCE, chain, moons
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.probe.passes import shrink
from vgaudit.training.rai import Relaxation, find_cuts
from vgaudit.training.rai.minibatch import Inference, TargetTable

ROWS = torch.arange(20)


def _relaxation(model: nn.Module, batch: Batch) -> Relaxation:
    return Relaxation(model, find_cuts(model, batch), BCE)


def _layers(model: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in model if isinstance(layer, nn.Linear)]


def _grads(model: nn.Sequential) -> list[torch.Tensor]:
    return [layer.weight.grad.clone() for layer in _layers(model)]


def test_the_first_visit_is_backprop_of_the_last_layer_alone() -> None:
    model, batch = chain(4, 5).double(), moons(20, 0, torch.float64)
    table = TargetTable(_relaxation(model, batch), batch)
    loss = table.backward(batch, ROWS)
    ordinary = BCE.function(model(*batch.args), batch.labels)
    expected = torch.autograd.grad(ordinary, model[-1].weight)[0]

    assert float(loss) == pytest.approx(ordinary.item(), rel=1e-12)
    torch.testing.assert_close(model[-1].weight.grad, expected)
    assert all(layer.weight.grad is None for layer in _layers(model)[:-1])


def test_labels_walk_down_one_cut_per_visit() -> None:
    model, batch = chain(4, 5).double(), moons(20, 0, torch.float64)
    relaxation = _relaxation(model, batch)
    table = TargetTable(relaxation, batch)
    start = relaxation.values(batch)
    for visit in range(4):
        table.backward(batch, ROWS)
        found = table.state_of(ROWS)["rows"]
        moved = [
            not torch.equal(z, cut[0]) for z, cut in zip(start, found, strict=True)
        ]
        assert [t >= 3 - visit for t in range(4)] == moved


def test_samples_keep_their_targets_whatever_the_batch() -> None:
    batch = moons(20, 0, torch.float64)
    x, y = batch.args[0], batch.labels
    tables = []
    for split in ([ROWS], [ROWS[:7], ROWS[7:]], [ROWS.flip(0)]):
        model = chain(3, 5).double()
        table = TargetTable(_relaxation(model, batch), batch)
        for _ in range(5):
            for rows in split:
                part = Batch(args=(x[rows],), labels=y[rows], size=len(rows))
                table.backward(part, rows)
        tables.append([cut[0] for cut in table.state_of(ROWS)["rows"]])

    for other in tables[1:]:
        for a, b in zip(tables[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_parts_of_a_batch_have_the_gradient_of_the_whole() -> None:
    batch = moons(20, 0, torch.float64)
    x, y = batch.args[0], batch.labels
    found = []
    for split in ([ROWS], [ROWS[:10], ROWS[10:]]):
        model = chain(3, 5).double()
        table = TargetTable(_relaxation(model, batch), batch)
        for _ in range(5):
            model.zero_grad()
            for rows in split:
                part = Batch(args=(x[rows],), labels=y[rows], size=len(rows))
                table.backward(part, rows, share=len(rows) / 20)
        found.append(_grads(model))

    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_what_is_put_back_never_happened() -> None:
    model, batch = chain(3, 5), moons(20, 0)
    table = TargetTable(_relaxation(model, batch), batch)
    table.backward(batch, ROWS)
    before = table.state_of(ROWS)
    table.backward(batch, ROWS)
    table.put_back(ROWS, before)
    after = table.state_of(ROWS)

    assert torch.equal(before["visits"], after["visits"])
    for a, b in zip(before["rows"], after["rows"], strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_the_table_takes_three_numbers_for_each_unit() -> None:
    model, batch = chain(3, 5), moons(20, 0)
    table = TargetTable(_relaxation(model, batch), batch)
    table.backward(batch, ROWS)

    assert 3 * 20 * (3 * 5) * 4 == table.bytes


def test_values_without_a_sample_dimension_cannot_be_stored() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(1, 3), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x.reshape(-1, 1)).tanh()).reshape(len(x), -1).mean(1)

    model, batch = Flat(), moons(20, 0)

    with pytest.raises(CannotRewrite) as caught:
        TargetTable(_relaxation(model, batch), batch)
    assert caught.value.message == (
        "targets cannot be stored for 'a linear': its value has not one entry for "
        "each sample"
    )


def test_inference_brings_a_gradient_to_every_layer() -> None:
    model, batch = chain(30, 8), moons(20, 0)
    ordinary = BCE.function(model(*batch.args), batch.labels)
    loss = Inference(_relaxation(model, batch), batch).backward(batch)

    assert ordinary.item() == float(loss)
    # Here backpropagation underflows; the label has walked to the first target,
    # so the stage before it, the first layer, is pulled too.
    assert all(int(g.count_nonzero()) for g in _grads(model))


def test_without_inner_steps_only_the_readout_learns() -> None:
    model, batch = chain(4, 5).double(), moons(20, 0, torch.float64)
    Inference(_relaxation(model, batch), batch, steps=0).backward(batch)
    *hidden, last = _grads(model)

    assert all(0 == int(g.count_nonzero()) for g in hidden)
    assert int(last.count_nonzero())


def test_inference_leaves_nothing_behind() -> None:
    model, batch = chain(3, 5), moons(20, 0)
    inference = Inference(_relaxation(model, batch), batch)
    inference.backward(shrink(batch, 5))
    first = _grads(model)
    model.zero_grad()
    inference.backward(batch)
    model.zero_grad()
    inference.backward(shrink(batch, 5))

    assert all(torch.equal(a, b) for a, b in zip(first, _grads(model), strict=True))
