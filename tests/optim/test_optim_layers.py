"""What belongs to one layer, by name, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.optim.networks import backward, mlp, values_of
from vgaudit.errors import BadConfig
from vgaudit.optim import SDAGD
from vgaudit.optim.layers import layout_of, weight_layers


def grouped(model: nn.Module) -> dict[str, set[str]]:
    names = [name for name, _ in model.named_parameters()]
    groups = [{"params": list(model.parameters()), "param_names": names}]
    layout = layout_of(groups, {}, "tensor")
    return {
        layer.name: {names[index] for index in layer.members} for layer in layout.layers
    }


def paired(model: nn.Module) -> set[tuple[str, str]]:
    names = [name for name, _ in model.named_parameters()]
    groups = [{"params": list(model.parameters()), "param_names": names}]
    layout = layout_of(groups, {}, "tensor")
    return {(names[w], names[b]) for layer in layout.layers for w, b in layer.pairs}


def test_weight_and_bias_of_a_module() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))

    assert {
        "0": {"0.weight", "0.bias"},
        "1": {"1.weight", "1.bias"},
        "2": {"2.weight", "2.bias"},
    } == grouped(model)
    assert {("0.weight", "0.bias"), ("2.weight", "2.bias")} == paired(model)


def test_a_bare_module_is_one_layer() -> None:
    assert {"model": {"weight", "bias"}} == grouped(nn.Linear(2, 2))


def test_each_gate_matrix_of_a_recurrent_net_is_a_layer() -> None:
    model = nn.ModuleDict({"rnn": nn.LSTM(3, 4, num_layers=2)})

    assert {"rnn._ih_l0", "rnn._hh_l0", "rnn._ih_l1", "rnn._hh_l1"} == set(
        grouped(model)
    )
    assert ("rnn.weight_hh_l1", "rnn.bias_hh_l1") in paired(model)


def test_attention() -> None:
    model = nn.MultiheadAttention(4, 2)

    assert {
        ("in_proj_weight", "in_proj_bias"),
        ("out_proj.weight", "out_proj.bias"),
    } == paired(model)


def test_parameters_with_neither_word_stand_alone() -> None:
    model = nn.Module()
    model.w = nn.Parameter(torch.ones(2, 2))
    model.b = nn.Parameter(torch.ones(2))

    assert {"w": {"w"}, "b": {"b"}} == grouped(model)


def test_transposed_convolution_with_other_rows_is_not_centred() -> None:
    assert set() == paired(nn.ConvTranspose2d(3, 5, 2))


def test_depth_counts_weights_that_train() -> None:
    model = nn.Sequential(
        nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2), nn.Linear(2, 2)
    )
    model[0].requires_grad_(False)

    assert 2 == weight_layers([{"params": list(model.named_parameters())}])


def test_a_compiled_models_names_group_as_well() -> None:
    model = mlp(4, 3, 2)
    compiled = torch.compile(model, backend="eager")

    optimizer = SDAGD(compiled.named_parameters())
    backward(compiled, torch.randn(4, 4, dtype=torch.float64), torch.arange(4) % 2)
    optimizer.step()

    assert ["_orig_mod.0", "_orig_mod.2"] == [p.layer for p in optimizer.phases()]


def test_groups_that_split_weight_and_bias_train_as_one_group_does() -> None:
    ends = []
    for split in (False, True):
        model = mlp(4, 5, 2)
        named = list(model.named_parameters())
        weights = {"params": [item for item in named if item[1].dim() > 1]}
        biases = {"params": [item for item in named if item[1].dim() == 1]}
        optimizer = SDAGD([weights, biases] if split else named, lr=0.1)
        for seed in range(4):
            torch.manual_seed(seed)
            x = torch.randn(8, 4, dtype=torch.float64)
            backward(model, x, torch.arange(8) % 2)
            optimizer.step()
        ends.append(values_of(model))

    for whole, parts in zip(*ends, strict=True):
        torch.testing.assert_close(whole, parts)


def test_modules_listed_one_by_one_do_not_mix() -> None:
    one, two = nn.Linear(3, 3), nn.Linear(3, 3)

    optimizer = SDAGD(
        [{"params": one.named_parameters()}, {"params": two.named_parameters()}]
    )
    two(one(torch.randn(4, 3))).sum().backward()
    optimizer.step()

    assert ["0", "1"] == [phase.layer for phase in optimizer.phases()]


def test_a_group_has_a_radius_of_its_own() -> None:
    model = mlp(4, 5, 2)
    first, last = model[0].named_parameters(), model[2].named_parameters()
    before = values_of(model)
    optimizer = SDAGD([{"params": first, "lr": 0.2}, {"params": last}], lr=0.01)
    optimizer.param_groups[1]["centring"] = False

    backward(model, torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 2)
    optimizer.step()

    moved = [
        float((after - old).norm() / old.norm())
        for after, old in zip(values_of(model), before, strict=True)
    ]
    assert [0.2, 0.01] == pytest.approx([moved[0], moved[2]])


def test_names_are_needed() -> None:
    with pytest.raises(BadConfig) as error:
        SDAGD(nn.Linear(2, 2).parameters())

    assert "SDAGD got a parameter without a name" == error.value.message
    assert error.value.hint.startswith("pass model.named_parameters()")


def test_a_name_twice_in_one_group_is_refused() -> None:
    both = [*nn.Linear(2, 2).named_parameters(), *nn.Linear(2, 2).named_parameters()]

    with pytest.raises(BadConfig, match="group 0 holds the name 'weight' 2 times"):
        SDAGD(both)


def test_complex_and_missing_parameters_are_refused() -> None:
    with pytest.raises(BadConfig, match="cannot train the complex parameter 'weight'"):
        SDAGD(nn.Linear(2, 2, dtype=torch.complex64).named_parameters())
    with pytest.raises(BadConfig, match="a parameter group without parameters"):
        SDAGD([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr is -1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"momentum": 1.0}, "momentum is 1"),
        ({"norm_decay": 1.5}, "norm_decay is 1.5"),
        ({"kappa": float("inf")}, "kappa is inf"),
        ({"every": 0}, "every is 0"),
        ({"solve": "exact"}, "solve is 'exact'"),
        ({"scope": "module"}, "scope is 'module'"),
        ({"radius": "fixed"}, "radius is 'fixed'"),
    ],
)
def test_values_out_of_range_are_refused(
    options: dict[str, float], message: str
) -> None:
    with pytest.raises(BadConfig) as error:
        SDAGD(nn.Linear(2, 2).named_parameters(), **options)

    assert message == error.value.message
    assert error.value.hint
