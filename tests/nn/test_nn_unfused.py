"""Unfused recurrent layers against torch's own fused ones."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from vgaudit.errors import CannotRewrite
from vgaudit.nn import Unfused, unfuse

KINDS = [
    (nn.LSTM, {}),
    (nn.LSTM, {"proj_size": 2}),
    (nn.GRU, {}),
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu"}),
]
FORMS = [
    {"num_layers": layers, "bidirectional": both, "bias": bias, "batch_first": first}
    for layers, both, bias, first in itertools.product(
        (1, 2), (False, True), (True, False), (False, True)
    )
]


def pair(kind: Any, options: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    fused = kind(3, 4, dtype=torch.float64, **options)
    return fused, unfuse(copy.deepcopy(fused))


def flat(value: Any) -> list[Tensor]:
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value for tensor in flat(part)]


def check(fused: nn.Module, opened: nn.Module, *args: Any) -> None:
    """Same outputs, same gradients of every parameter, in float64."""
    wanted, found = flat(fused(*args)), flat(opened(*args))
    for a, b in zip(wanted, found, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
    sum(t.square().sum() for t in wanted).backward()  # type: ignore[union-attr]
    sum(t.square().sum() for t in found).backward()  # type: ignore[union-attr]
    own = dict(opened.named_parameters())
    for name, parameter in fused.named_parameters():
        assert torch.allclose(parameter.grad, own[name].grad, rtol=0, atol=1e-10)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "more"), KINDS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_outputs_and_gradients_are_those_of_the_fused_layer(
    kind: Any, more: dict[str, Any], form: dict[str, Any]
) -> None:
    fused, opened = pair(kind, {**more, **form})
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    check(fused, opened, x)
    _, state = fused(x)
    fused.zero_grad()
    opened.zero_grad()
    again = state if isinstance(state, Tensor) else tuple(s.detach() for s in state)
    check(fused, opened, x, again.detach() if isinstance(again, Tensor) else again)


@pytest.mark.parametrize(("kind", "more"), KINDS)
@pytest.mark.parametrize("both", [False, True])
def test_packed_sequences_of_any_order(
    kind: Any, more: dict[str, Any], both: bool
) -> None:
    fused, opened = pair(kind, {**more, "num_layers": 2, "bidirectional": both})
    parts = [torch.randn(n, 3, dtype=torch.float64) for n in (2, 5, 1, 4)]
    packed = pack_sequence(parts, enforce_sorted=False)
    check(fused, opened, packed)
    (_, state) = fused(packed)
    start = tuple(s.detach() for s in state) if isinstance(state, tuple) else state
    fused.zero_grad()
    opened.zero_grad()
    check(fused, opened, packed, start if isinstance(start, tuple) else start.detach())


@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_one_sequence_without_a_batch(kind: Any, more: dict[str, Any]) -> None:
    fused, opened = pair(kind, more)
    x = torch.randn(5, 3, dtype=torch.float64)
    check(fused, opened, x)


def test_the_parameters_stay_and_copies_work() -> None:
    fused = nn.LSTM(3, 4)
    parameters = dict(fused.named_parameters())
    keys = list(fused.state_dict())
    opened = unfuse(fused)
    assert isinstance(opened, Unfused)
    assert isinstance(opened, nn.LSTM)
    assert list(opened.state_dict()) == keys
    assert all(p is parameters[name] for name, p in opened.named_parameters())
    x = torch.randn(2, 3, 3)
    twins = copy.deepcopy(opened), pickle.loads(pickle.dumps(opened))  # noqa: S301
    for twin in twins:
        assert torch.equal(twin(x)[0], opened(x)[0])


def test_dropout_between_layers_is_kept() -> None:
    opened = unfuse(nn.GRU(3, 4, num_layers=2, dropout=0.5))
    x = torch.randn(5, 6, 3)
    torch.manual_seed(0)
    first = opened(x)[0]
    assert not torch.equal(first, opened(x)[0])
    opened.eval()
    assert torch.equal(opened(x)[0], opened(x)[0])


def test_what_is_no_plain_recurrent_layer_is_refused() -> None:
    class Mine(nn.LSTM):
        pass

    for module in (nn.Linear(2, 2), Mine(2, 2)):
        with pytest.raises(CannotRewrite, match="unfusing"):
            unfuse(module)
