"""L: exact storage, types, distributions; and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vgaudit.errors import BadConfig
from vgaudit.nn import Limit, auto_rotate, draw_limit
from vgaudit.nn.limit import effective, raw


@given(st.floats(0.5, 1000, width=32))
def test_effective_l_is_what_was_typed_to_the_last_bit(value) -> None:
    limit = torch.tensor([value], dtype=torch.float32)

    assert torch.equal(effective(raw(limit, "softplus"), "softplus"), limit)


def test_literal_storage_is_the_paper_to_the_letter() -> None:
    layer = auto_rotate(nn.Linear(2, 3), limit=Limit(4.0, storage="literal"))

    assert 4.0 == layer.ar_limit[0].item()
    assert pytest.approx(4.01815, abs=1e-5) == layer.limit[0].item()


@pytest.mark.parametrize(
    ("kind", "shape", "trained"),
    [
        ("auto_indep", (3,), True),
        ("auto_shared", (), True),
        ("frozen_indep", (3,), False),
        ("frozen_shared", (), False),
    ],
)
def test_four_types(kind, shape, trained) -> None:
    layer = auto_rotate(nn.Linear(2, 3), limit=Limit(2.0, kind))

    assert shape == tuple(layer.limit.shape)
    assert isinstance(layer.ar_limit, nn.Parameter) is trained
    assert bool((layer.limit == 2.0).all())


def test_one_l_per_unit() -> None:
    wanted = torch.tensor([1.0, 2.0, 3.0])

    assert torch.equal(auto_rotate(nn.Linear(2, 3), limit=wanted).limit, wanted)


def test_preserving_through_softplus_is_near_and_direct_exact() -> None:
    for storage, bound in (("softplus", 1e-14), ("direct", 0.0)):
        limit = Limit("preserve", storage=storage)
        rho = auto_rotate(nn.Linear(5, 7), limit=limit).rho()

        assert (rho - 1).abs().max().item() <= bound


def test_l_stays_positive_however_it_is_trained() -> None:
    for storage in ("softplus", "direct", "literal"):
        layer = auto_rotate(nn.Linear(2, 3), limit=Limit(1.0, storage=storage))
        with torch.no_grad():
            layer.ar_limit.sub_(5.0)

        assert bool((layer.limit > 0).all())


def test_set_limit_writes_in_place() -> None:
    layer = auto_rotate(nn.Linear(2, 3))
    parameter = layer.ar_limit
    layer.set_limit_(torch.tensor([1.0, 2.0, 3.0]))

    assert layer.ar_limit is parameter
    assert torch.equal(layer.limit, torch.tensor([1.0, 2.0, 3.0]))
    for wrong in (torch.ones(2), torch.tensor(0.0), torch.tensor(torch.inf)):
        with pytest.raises(BadConfig, match="L of shape"):
            layer.set_limit_(wrong)


def test_distributions() -> None:
    generator = torch.Generator().manual_seed(1)
    normal = draw_limit("normal", 20000, generator=generator)
    uniform = draw_limit("uniform", 20000, generator=generator)

    assert pytest.approx(5.0, abs=0.05) == normal.mean().item()
    assert pytest.approx(1.0, abs=0.05) == normal.std().item()
    assert normal.min().item() >= 0.5
    assert pytest.approx(5.0, abs=0.05) == uniform.mean().item()
    assert 2.0 <= uniform.min().item() < 2.01
    assert 7.99 < uniform.max().item() <= 8.0
    with pytest.raises(BadConfig, match="no distribution 'cauchy' for L"):
        draw_limit("cauchy", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_l_must_be_positive_and_finite(value) -> None:
    with pytest.raises(BadConfig, match="L must be positive and finite"):
        Limit(value)
    with pytest.raises(BadConfig, match="L must be positive and finite"):
        Limit(torch.tensor([1.0, value]))


def test_one_l_for_all_cannot_preserve() -> None:
    with pytest.raises(BadConfig, match="cannot preserve the function"):
        Limit("preserve", "auto_shared")
