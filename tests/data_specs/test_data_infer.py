"""Inputs are found for models that nobody described."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fixtures import batches as fixture_batches
from fixtures import models as fixture_models
from tests.data_specs.nets import CASES, Frozen, LeNet, Translator, fixed_size
from tests.data_specs.states import assert_same, model_state, random_states
from vgaudit.data import infer_inputs, open_batches
from vgaudit.data.inputs.infer import default_batch_size
from vgaudit.errors import BadConfig
from vgaudit.job import DataOptions

OPTIONS = DataOptions(batches=2)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def found(model: nn.Module, **options: Any) -> str:
    return str(infer_inputs(model, None, DataOptions(**options)))


@pytest.mark.parametrize("name", CASES)
def test_the_form_is_what_the_author_would_write(name: str) -> None:
    assert CASES[name].form == found(CASES[name].build())


@pytest.mark.parametrize("name", CASES)
def test_the_model_runs_on_what_was_found(name: str) -> None:
    model = CASES[name].build()
    if name == "compiled":
        model = model._orig_mod
    for batch in open_batches(model, OPTIONS):
        model(*batch.args, **batch.kwargs)


@pytest.mark.parametrize("name", CASES)
def test_model_and_random_states_are_untouched(name: str) -> None:
    model = CASES[name].build()
    model.train(len(name) % 2 == 0)
    model.register_forward_hook(lambda *_: None)
    before, states = model_state(model), random_states()

    infer_inputs(model, None, OPTIONS)

    assert_same(before, model_state(model))
    assert states == random_states()


@pytest.mark.parametrize("name", fixture_batches.NAMES)
def test_fixtures_run_on_what_was_found(name: str) -> None:
    model = getattr(fixture_models, name)()
    call = infer_inputs(model, None, OPTIONS)
    args, kwargs = call.draw(torch.Generator().manual_seed(0))
    wanted = fixture_batches.inputs(name, size=8)

    model(*args, **kwargs)

    for given, known in zip(args, wanted, strict=True):
        if isinstance(given, dict):
            assert {k: v.shape for k, v in known.items()} == {
                k: v.shape for k, v in given.items()
            }
        else:
            assert given.dim() == known.dim()
            assert given.dtype == known.dtype
            assert given.shape[0] == 8


@pytest.mark.parametrize("side", [40, 57, 70, 105, 150, 185, 250, 333])
def test_an_unlisted_size_is_found_by_bisection(side: int) -> None:
    model = fixed_size(side)
    (form,) = infer_inputs(model, None, OPTIONS).args

    model(form.draw(torch.Generator()))

    assert abs(form.shape[-1] - side) < 8  # pooling lets eight sizes through


@pytest.mark.parametrize("length", [7, 50, 100, 365, 700])
def test_an_unlisted_length_is_found_by_bisection(length: int) -> None:
    model = nn.Sequential(nn.Embedding(20, 3), nn.Flatten(), nn.Linear(3 * length, 2))

    assert f"int64 8x{length} below 20" == found(model)


def test_a_position_table_of_any_length_is_found() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 8, 8)
            self.place = nn.Parameter(torch.zeros(1, 225, 8))  # 15 x 15 patches

        def forward(self, x: Tensor) -> Tensor:
            return (self.patches(x).flatten(2).transpose(1, 2) + self.place).mean(1)

    (form,) = infer_inputs(Fixed(), None, OPTIONS).args

    assert 15 == form.shape[-1] // 8


def test_a_size_that_is_asserted_without_a_word_is_found() -> None:
    class Asserts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[-1] == 256
            return self.conv(x)

    assert "float32 4x3x256x256" == found(Asserts(), batch_size=4)


def test_big_models_are_searched_without_computing() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 64, 3, 2, 1)
            self.head = nn.Linear(64 * 48 * 48, 64)
            self.norm = nn.BatchNorm1d(64)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            seen.append(type(x).__name__)
            self.calls += 1
            return self.norm(self.head(self.conv(x).flatten(1)))

    seen: list[str] = []
    model = Wide()
    before = model_state(model)

    assert "float32 8x3x96x96" == found(model, batch_size=8)
    assert {"FakeTensor", "Proxy"} == set(seen)
    assert_same(before, model_state(model))


def test_a_big_model_that_needs_numbers_is_run() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3000, 2000)

        def forward(self, x: Tensor) -> Tensor:
            if float(x.abs().sum()) == 0:
                raise ValueError("an empty image")
            return self.layer(x)

    assert "float32 8x3000" == found(Picky())


@pytest.mark.parametrize(
    ("numel", "wanted"), [(5, 8), (16_384, 8), (150_528, 4), (250_000, 2)]
)
def test_large_samples_make_small_batches(numel: int, wanted: int) -> None:
    assert wanted == default_batch_size(numel, nn.Linear(1, 1))


def test_batch_size_is_the_users() -> None:
    assert "float32 3x3x32x32" == found(LeNet(), batch_size=3)


def test_a_batch_of_one_is_raised_for_batch_norm() -> None:
    model = CASES["generator"].build()
    batches = open_batches(model, DataOptions(batch_size=1, batches=1))

    assert [2] == [batch.size for batch in batches]
    assert (
        "batch size raised to 2: batch norm in train mode needs two samples"
        == batches.facts.notes[-1]
    )


def test_a_batch_of_one_stays_in_eval_mode() -> None:
    model = CASES["generator"].build()
    batches = open_batches(model, DataOptions(batch_size=1, batches=1), mode="eval")

    assert [1] == [batch.size for batch in batches]


def test_a_hint_comes_before_guesses() -> None:
    example = SimpleNamespace(shape=(3, 48, 48), name="", dtype="float32", high=0)
    hint = SimpleNamespace(inputs=(example,), task="image", source="its weights")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    call = infer_inputs(model, hint, OPTIONS)

    assert ("float32 8x3x48x48", "its weights") == (str(call), call.why)


def test_a_hint_by_name_with_ids() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4)

        def forward(self, mask: Tensor | None = None, ids: Tensor | None = None) -> Any:
            return self.table(ids)

    example = SimpleNamespace(shape=(6,), name="ids", dtype="int64", high=9)
    hint = SimpleNamespace(inputs=(example,), task="text", source="config")

    assert "ids=int64 8x6 below 9" == str(infer_inputs(Named(), hint, OPTIONS))


def test_a_hint_that_does_not_run_is_left() -> None:
    example = SimpleNamespace(shape=(1, 28, 28), name="", dtype="float32", high=0)
    hint = SimpleNamespace(inputs=(example,), task="image", source="config")

    assert "float32 8x3x32x32" == str(infer_inputs(LeNet(), hint, OPTIONS))


def test_an_example_input_array_is_taken() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3))
    model.example_input_array = torch.zeros(4, 2, 77)

    assert "float32 8x2x77" == found(model)


def test_an_input_size_of_the_model_is_taken() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model.pretrained_cfg = {"input_size": (3, 240, 240)}  # type: ignore[assignment]

    assert "float32 4x3x240x240" == found(model)


def test_a_model_without_forward_is_named() -> None:
    with pytest.raises(BadConfig) as caught:
        infer_inputs(nn.ModuleList([nn.Linear(2, 2)]), None, OPTIONS)

    assert "ModuleList has no forward, so nothing can be run" == caught.value.message


def test_what_cannot_be_inferred_shows_the_signature_and_an_example() -> None:
    class Riddle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor, key: str) -> Tensor:
            if key != "open sesame":
                raise KeyError(key)
            return self.layer(x)

    model = Riddle()
    before = random_states()
    with pytest.raises(BadConfig) as caught:
        infer_inputs(model, None, OPTIONS)

    assert caught.value.message.startswith(
        "cannot infer inputs for Riddle.forward("
        "x: 'Tensor', key: 'str') -> 'Tensor'; the last guess failed: "
    )
    assert (
        "give them: --input 8x3x224x224, or --input NAME=long:4x16:1000 "
        "for whole numbers below 1000" == caught.value.hint
    )
    assert before == random_states()


def test_the_mode_of_the_trial_is_the_mode_asked_for() -> None:
    class OnlyEval(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("train mode wants targets")
            return self.layer(x)

    model = OnlyEval()
    with pytest.raises(BadConfig):
        infer_inputs(model, None, OPTIONS, mode="train")

    assert "float32 8x4" == str(infer_inputs(model, None, OPTIONS, mode="eval"))
    assert model.training


def test_prints_and_warnings_of_the_model_stay_inside(
    capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            sys.stdout.write("shape")
            torch.nn.functional.softmax(x)  # warns of its implicit dimension
            return self.layer(x)

    infer_inputs(Loud(), None, OPTIONS)

    assert ("", "") == tuple(capsys.readouterr())
    assert not recwarn.list


def test_a_forward_that_raises_leaves_no_trace() -> None:
    class Falls(Frozen):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            torch.rand(3)
            raise RuntimeError("after the work")

    model = Falls()
    before, states = model_state(model), random_states()
    with contextlib.suppress(BadConfig):
        infer_inputs(model, None, OPTIONS)

    assert_same(before, model_state(model))
    assert states == random_states()


def test_lazy_modules_get_their_shapes_from_the_seed() -> None:
    weights = []
    for _ in range(2):
        model = CASES["lazy"].build()
        states = random_states()
        batches = open_batches(model, OPTIONS)
        assert states == random_states()
        weights.append(model.head.weight.detach().clone())
        assert model.training
        assert 0 == model.norm.num_batches_tracked

    assert torch.equal(weights[0], weights[1])
    assert (
        "6 lazy parameters were initialised by a first forward pass"
        == batches.facts.notes[-1]
    )


def test_a_search_ends() -> None:
    class Never(Translator):
        def forward(self, src: Tensor, tgt: Tensor, tgt_mask: Tensor) -> Tensor:
            calls.append(1)
            raise RuntimeError(f"not this one: {len(calls)}")

    calls: list[int] = []
    with pytest.raises(BadConfig):
        infer_inputs(Never(), None, OPTIONS)

    assert len(calls) <= 130
