"""The ``--input`` option."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vgaudit.data.inputs.spec import TYPES, call_from_inputs, parse_input
from vgaudit.errors import BadConfig


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(70, 4)
        self.places = nn.Embedding(16, 4)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.words(input_ids)


MODEL = Text()


@pytest.mark.parametrize(
    ("text", "name", "form"),
    [
        ("8x3x224x224", None, "float32 8x3x224x224"),
        ("7", None, "float32 7"),
        ("x=8x16", "x", "float32 8x16"),
        ("input_ids=long:4x16:1000", "input_ids", "int64 4x16 below 1000"),
        ("mask=bool:4x16", "mask", "bool 4x16"),
        ("bfloat16:2x3", None, "bfloat16 2x3"),
        ("x=float64:2x3", "x", "float64 2x3"),
        ("uint8:2x3:256", None, "uint8 2x3 below 256"),
        (" 2x3 ", None, "float32 2x3"),
    ],
)
def test_a_text_is_a_name_and_a_form(text: str, name: str | None, form: str) -> None:
    found, parsed = parse_input(text)

    assert (name, form) == (found, str(parsed))


@given(
    name=st.one_of(st.none(), st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)),
    kind=st.sampled_from(sorted(TYPES)),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    high=st.integers(1, 100),
)
def test_what_is_written_is_what_is_drawn(
    name: str | None, kind: str, shape: list[int], high: int
) -> None:
    whole = kind.lstrip("u").startswith(("int", "long"))
    bound = f":{high}" if whole else ""
    text = f"{name}=" if name else ""
    found, form = parse_input(f"{text}{kind}:{'x'.join(map(str, shape))}{bound}")
    values = form.draw(torch.Generator().manual_seed(0))

    assert name == found
    assert tuple(shape) == values.shape
    assert TYPES[kind] == values.dtype
    if whole:
        assert 0 <= int(values.min())
        assert int(values.max()) < high


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is not a shape like 8x3x224x224"),
        ("8x3x", "'8x3x' is not a shape like 8x3x224x224"),
        ("8,3", "'8,3' is not a shape like 8x3x224x224"),
        ("8x-3", "'8x-3' is not a shape like 8x3x224x224"),
        ("8x0", "a dimension is 0"),
        ("99999x99999x9", "89,998,200,009 elements are too many"),
        ("lnog:4x16:7", "unknown type 'lnog'; did you mean 'long'?"),
        ("quux:4x16", "unknown type 'quux'"),
        ("8x3:7", "a bound needs whole numbers, not float32"),
        ("long:4:0", "the bound '0' is not a number from 1"),
        ("long:4:many", "the bound 'many' is not a number from 1"),
        ("int8:4:1000", "the bound 1000 does not fit the type"),
        ("a b=8x3", "'a b' is not an argument name"),
        ("a=b=8x3", "'b=8x3' is not a shape like 8x3x224x224"),
        ("long:4:5:6", "the format is [NAME=][TYPE:]8x3x224x224[:BOUND]"),
    ],
)
def test_a_wrong_text_is_explained(text: str, reason: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse_input(text)

    assert f"--input {text!r}: {reason}" == caught.value.message
    assert (
        "examples: --input 8x3x224x224, --input input_ids=long:4x16:1000"
        == caught.value.hint
    )


def test_several_inputs_make_one_call() -> None:
    call = call_from_inputs(["long:4x16:70", "mask=bool:4x16"], MODEL)

    assert "int64 4x16 below 70, mask=bool 4x16" == str(call)
    assert 4 == call.size


def test_the_batch_size_replaces_the_first_dimension() -> None:
    call = call_from_inputs(["long:4x16:70", "mask=bool:4x16"], MODEL, 2)

    assert "int64 2x16 below 70, mask=bool 2x16" == str(call)
    assert 2 == call.size


def test_ids_without_a_bound_stay_below_the_smallest_table() -> None:
    assert "int64 4x16 below 16" == str(call_from_inputs(["long:4x16"], MODEL))


def test_ids_need_a_bound_without_a_table() -> None:
    with pytest.raises(BadConfig) as caught:
        call_from_inputs(["long:4x16"], nn.Linear(2, 2))

    assert (
        "--input 'long:4x16': whole numbers need a bound, as in long:4x16:1000"
        == caught.value.message
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            ["input_id=long:4x16:9"],
            "--input 'input_id': the model takes no argument of this name",
        ),
        (["mask=2x2", "mask=2x2"], "--input 'mask' is given twice"),
        (
            ["mask=2x2"],
            "the --input options do not fit the model: "
            "missing a required argument: 'input_ids'",
        ),
        (
            ["2x2", "2x2", "2x2"],
            "the --input options do not fit the model: too many positional arguments",
        ),
    ],
)
def test_inputs_must_fit_the_signature(inputs: list[str], message: str) -> None:
    with pytest.raises(BadConfig) as caught:
        call_from_inputs(inputs, MODEL)

    assert message == caught.value.message


def test_a_near_name_is_offered() -> None:
    with pytest.raises(BadConfig) as caught:
        call_from_inputs(["input_id=long:4x16:9"], MODEL)

    assert caught.value.hint.startswith("did you mean input_ids? its signature is ")
