"""Batches: from Python objects and factories, finite, repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fixtures import models as fixture_models
from tests.data_specs.states import random_states
from vgaudit.data import Batch, Batches, RandomLabels, from_object, open_batches
from vgaudit.data.calls import to_batch
from vgaudit.errors import BadConfig, CannotLoad, CannotRun, NothingMeasured
from vgaudit.job import DataOptions

X = torch.arange(60.0).reshape(10, 6)
Y = torch.arange(10) % 3
OPTIONS = DataOptions()


class One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Two(One):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.layer(a - b)


class OwnLoss(One):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        return {"loss": self.layer(x).mean(), "logits": self.layer(x)}


class Whole(One):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.layer(batch["x"])


class AnyNames(One):
    def forward(self, **inputs: Tensor) -> Tensor:
        return self.layer(inputs["x"])


# One element, one call ---


@pytest.mark.parametrize(
    ("element", "model", "args", "kwargs", "labels"),
    [
        (X, One(), 1, [], False),
        ((X,), One(), 1, [], False),
        ((X, Y), None, 1, [], True),
        ((X, Y), One(), 1, [], True),
        ([X, Y], One(), 1, [], True),
        ((X, X), Two(), 2, [], False),
        ((X, X, Y), Two(), 2, [], True),
        (((X, X), Y), Two(), 2, [], True),
        ((X, Y), OwnLoss(), 1, ["labels"], True),
        ({"x": X}, One(), 0, ["x"], False),
        ({"x": X, "labels": Y}, One(), 0, ["x"], True),
        ({"x": X, "target": Y}, None, 0, ["x"], True),
        ({"x": X, "labels": Y}, OwnLoss(), 0, ["x", "labels"], True),
        ({"x": X, "labels": Y}, Whole(), 1, [], True),
        ({"x": X, "y": Y}, AnyNames(), 0, ["x"], True),
        (({"x": X}, Y), One(), 0, ["x"], True),
        (({"x": X}, Y), Whole(), 1, [], True),
        (({"a": X, "b": X}, Y), Two(), 0, ["a", "b"], True),
        ((X.numpy(), Y.numpy()), One(), 1, [], True),
    ],
)
def test_an_element_becomes_a_call(
    element: Any, model: nn.Module | None, args: int, kwargs: list[str], labels: bool
) -> None:
    batch = to_batch(element, model)

    assert (args, kwargs) == (len(batch.args), list(batch.kwargs))
    assert 10 == batch.size
    if labels:
        assert torch.equal(Y, batch.labels)
    else:
        assert batch.labels is None
    if model is not None:
        model(*batch.args, **batch.kwargs)


def test_labels_stay_out_for_the_jacobian_probe() -> None:
    assert [] == list(to_batch((X, Y), OwnLoss(), keep_labels=False).kwargs)
    assert ["x"] == list(
        to_batch({"x": X, "labels": Y}, OwnLoss(), keep_labels=False).kwargs
    )


def test_detectors_get_lists_and_targets() -> None:
    class Detector(nn.Module):
        def forward(self, images: Any, targets: Any = None) -> Any:
            return images, targets

    images = (torch.zeros(3, 8, 8), torch.zeros(3, 9, 9))
    batch = to_batch((images, ({"boxes": X}, {"boxes": X})), Detector())

    assert 2 == batch.size
    assert (images,) == batch.args
    assert ["targets"] == list(batch.kwargs)


def test_a_tuple_too_short_is_refused() -> None:
    class Three(Two):
        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return a

    with pytest.raises(CannotRun) as caught:
        to_batch((X, Y), Three())

    assert "a batch has 2 members, and the model needs 3 inputs" == caught.value.message


@pytest.mark.parametrize("element", ["text", 3, None, (), {}, ("a", "b")])
def test_what_holds_no_tensor_is_no_batch(element: Any) -> None:
    with pytest.raises(CannotRun) as caught:
        to_batch(element)

    kind = type(element).__name__
    assert f"a batch holds no tensor: it is of type {kind}" == caught.value.message


# Objects ---


class Squares(Dataset[Any]):
    """Augments with the global random states, as many data sets do."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        noise = torch.rand(1) + float(np.random.rand())
        return X[index] + noise, Y[index]


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield torch.rand(6), 1


OBJECTS: dict[str, tuple[Any, list[int]]] = {
    "tensor": (X, [10]),
    "array": (X.numpy(), [10]),
    "tuple": ((X, Y), [10]),
    "dict": ({"x": X, "y": Y}, [10]),
    "batch": (Batch(args=(X,), size=10), [10]),
    "list": ([(X, Y), (X[:4], Y[:4])], [10, 4]),
    "generator": (((X[:n], Y[:n]) for n in (1, 2, 3, 4, 5)), [1, 2, 3, 4]),
    "dataset": (TensorDataset(X, Y), [8, 2]),
    "augmented": (Squares(), [8, 2]),
    "iterable": (Endless(), [8, 8, 8, 8]),
    "loader": (DataLoader(TensorDataset(X, Y), 3, shuffle=True), [3, 3, 3, 1]),
    "own generator": (
        DataLoader(TensorDataset(X, Y), 4, shuffle=True, generator=torch.Generator()),
        [4, 4, 2],
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_give_the_same_batches_each_time(name: str) -> None:
    data, sizes = OBJECTS[name]
    model = One()
    states = random_states()
    batches = from_object(data, OPTIONS, model=model)
    first, again = list(batches), list(batches)

    assert sizes == [batch.size for batch in first]
    assert states == random_states()
    for one, other in zip(first, again, strict=True):
        assert all(map(torch.equal, one.args, other.args))
        assert list(one.kwargs) == list(other.kwargs)


@pytest.mark.parametrize("name", ["augmented", "iterable", "loader", "own generator"])
def test_objects_are_read_again_as_before(name: str) -> None:
    """Two scans of one object: its own generators are back where they were."""
    data, _ = OBJECTS[name]
    torch.manual_seed(1)
    one = [batch.args[0] for batch in from_object(data, OPTIONS)]
    torch.manual_seed(2)
    other = [batch.args[0] for batch in from_object(data, OPTIONS)]

    assert all(map(torch.equal, one, other))


def test_seeds_change_the_order() -> None:
    data = TensorDataset(X, Y)
    one = next(iter(from_object(data, DataOptions(seed=0))))
    other = next(iter(from_object(data, DataOptions(seed=1))))

    assert not torch.equal(one.args[0], other.args[0])


def test_batch_size_and_number() -> None:
    data = TensorDataset(X, Y)

    assert [3, 3] == [
        batch.size for batch in from_object(data, DataOptions(batches=2, batch_size=3))
    ]


def test_batches_pass_through() -> None:
    batches = from_object(X, OPTIONS)

    assert batches is from_object(batches, OPTIONS)


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(CannotLoad) as caught:
        from_object(3, OPTIONS)

    assert "the data of type int gives int, which is no data" == caught.value.message


def test_a_loader_that_fails_is_named() -> None:
    class Falls(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            raise KeyError("image_path")

    with pytest.raises(CannotLoad) as caught:
        from_object(DataLoader(Falls()), OPTIONS)
    assert "the data fails: KeyError: 'image_path'" == caught.value.message

    with pytest.raises(CannotLoad) as caught:
        from_object(Falls(), OPTIONS)
    assert (
        "the data set fails on sample 0: KeyError: 'image_path'" == caught.value.message
    )


def test_samples_of_different_shapes_need_a_collate_fn() -> None:
    class Ragged(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return torch.zeros(index + 1)

    with pytest.raises(CannotLoad) as caught:
        from_object(Ragged(), OPTIONS)

    assert caught.value.message.startswith(
        "samples cannot be put together in one batch: "
    )


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(CannotLoad) as caught:
        from_object(TensorDataset(X[:0]), OPTIONS)

    assert "the data set has no sample" == caught.value.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DataOptions(batches=0), "the number of batches is 0"),
        (DataOptions(batch_size=-1), "the batch size is -1"),
    ],
)
def test_counts_start_at_one(options: DataOptions, message: str) -> None:
    for attempt in (
        lambda: open_batches(One(), options),
        lambda: from_object(X, options),
    ):
        with pytest.raises(BadConfig) as caught:
            attempt()
        assert message == caught.value.message


# Finite numbers alone ---


BAD = X.clone()
BAD[3, 2] = torch.nan
INFINITE = X.clone()
INFINITE[:2] = torch.inf


def test_batches_that_are_not_finite_are_skipped_and_counted() -> None:
    batches = from_object([(X, Y), (BAD, Y), (INFINITE, Y), (X, Y)], OPTIONS)

    assert 2 == len(list(batches))
    assert 2 == len(list(batches))
    assert 2 == batches.skipped
    assert (
        "batch 1: 1 element of its inputs is NaN or infinite",
        "batch 2: 12 elements of its inputs are NaN or infinite",
    ) == batches.facts.skipped


def test_labels_and_nested_inputs_are_looked_at() -> None:
    batches = from_object(
        [(X, BAD), {"x": {"deep": [BAD]}}, {"x": X + 0j}, (X, Y)], OPTIONS
    )

    assert 2 == len(list(batches))
    assert batches.facts.skipped[0].startswith("batch 0: 1 element of its labels ")


def test_nothing_finite_is_nothing_measured() -> None:
    batches = from_object([(BAD, Y), (INFINITE, Y)], OPTIONS)
    with pytest.raises(NothingMeasured) as caught:
        list(batches)

    assert caught.value.message == (
        "all 2 batches of Python object of type list hold NaN or infinity; "
        "in the first, 1 element of its inputs is NaN or infinite"
    )


def test_one_batch_is_not_counted() -> None:
    with pytest.raises(NothingMeasured) as caught:
        list(from_object([(BAD, Y)], OPTIONS))

    assert caught.value.message == (
        "the only batch of Python object of type list holds NaN or infinity: "
        "1 element of its inputs is NaN or infinite"
    )


def test_no_batch_is_nothing_measured() -> None:
    batches = from_object([], OPTIONS)
    with pytest.raises(NothingMeasured) as caught:
        list(batches)

    assert (
        "the data holds no sample: Python object of type list" == caught.value.message
    )


# Batch norm ---


NORMED = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))


def test_one_sample_is_raised_to_two_for_batch_norm() -> None:
    options = DataOptions(batch_size=1)
    batches = from_object(TensorDataset(X, Y), options, model=NORMED)

    assert [2, 2, 2, 2] == [batch.size for batch in batches]
    assert (
        "batch size raised to 2: batch norm in train mode needs two samples",
    ) == batches.facts.notes


def test_one_sample_is_kept_where_it_may_be() -> None:
    options = DataOptions(batch_size=1)

    for model, mode in ((One(), "train"), (NORMED, "eval")):
        batches = from_object(TensorDataset(X), options, model=model, mode=mode)
        assert [1, 1, 1, 1] == [batch.size for batch in batches]
        assert () == batches.facts.notes


def test_a_users_batch_of_one_is_remarked() -> None:
    batches = from_object((X[:1], Y[:1]), OPTIONS, model=NORMED)

    assert [1] == [batch.size for batch in batches]
    assert (
        "batches of one sample: batch norm in train mode needs two samples",
    ) == batches.facts.notes


# Synthetic ---


def test_synthetic_batches_repeat_and_differ() -> None:
    model = fixture_models.dict_input()
    states = random_states()
    batches = open_batches(model, OPTIONS)
    first, again = list(batches), list(batches)
    images = [batch.args[0]["image"] for batch in first]

    assert states == random_states()
    assert 4 == len(first)
    assert all(
        torch.equal(image, batch.args[0]["image"])
        for image, batch in zip(images, again, strict=True)
    )
    assert not torch.equal(images[0], images[1])
    other = next(iter(open_batches(model, DataOptions(seed=1))))
    assert not torch.equal(images[0], other.args[0]["image"])


def test_synthetic_facts() -> None:
    batches = open_batches(fixture_models.two_outputs(), OPTIONS)
    facts = batches.facts

    assert not batches.labelled
    assert ("synthetic", "random float32 8x64", "jacobian") == (
        facts.kind,
        facts.spec,
        facts.loss,
    )
    assert (
        "inputs: float32 8x64 (inferred from the layers, proved by a dry run)",
    ) == facts.notes


def test_data_without_labels_can_be_given_made_up_ones() -> None:
    for batches in (
        open_batches(One(), DataOptions(loss="cross-entropy")),
        from_object(X, DataOptions(loss="cross-entropy"), model=One()),
    ):
        assert not batches.labelled
        assert "cross-entropy" == batches.facts.loss
        assert isinstance(next(iter(batches)).labels, RandomLabels)


def test_real_facts() -> None:
    facts = from_object((X, Y), OPTIONS, model=One()).facts

    assert ("real", "Python object of type tuple", "auto") == (
        facts.kind,
        facts.spec,
        facts.loss,
    )


# Factories ---


FACTORY = """
import sys
from dataclasses import dataclass
import torch
from torch.utils.data import DataLoader, TensorDataset

print("imported")
X = torch.arange(60.0).reshape(10, 6)
Y = torch.arange(10) % 3

@dataclass
class Record:
    x: int

def dataset():
    print("called")
    return TensorDataset(X, Y)

def loader():
    return DataLoader(dataset(), 5)

def tensors():
    return X + torch.rand(1), Y

def uneven():
    return X, Y[:3]

def batches():
    for start in (0, 5):
        yield X[start:start + 5], Y[start:start + 5]

def one_dict():
    return {"x": X, "labels": Y}

def model():
    return torch.nn.Linear(2, 2)

def nothing():
    return None

def needs(argument):
    return X

def stops():
    sys.exit(3)

ready = dataset()
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    path = tmp_path / "my_data.py"
    path.write_text(FACTORY)
    return path


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("dataset", [8, 2]),
        ("loader", [5, 5]),
        ("tensors", [8, 2]),
        ("batches", [5, 5]),
        ("one_dict", [10]),
        ("ready", [8, 2]),
    ],
)
def test_a_factory_of_a_file(
    factory: Path, name: str, sizes: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    model = OwnLoss()
    states = random_states()
    batches = open_batches(model, DataOptions(data=f"{factory}:{name}"))

    assert sizes == [batch.size for batch in batches]
    assert batches.labelled
    assert states == random_states()
    assert "" == capsys.readouterr().out


def test_a_factory_of_a_package(factory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(factory.parent)
    batches = open_batches(One(), DataOptions(data="my_data:dataset"))

    assert [8, 2] == [batch.size for batch in batches]


def test_a_torch_py_beside_the_factory_shadows_nothing(factory: Path) -> None:
    (factory.parent / "torch.py").write_text("raise RuntimeError('shadowed')")

    assert 8 == next(iter(open_batches(One(), _spec(factory, "dataset")))).size


def _spec(factory: Path, name: str) -> DataOptions:
    return DataOptions(data=f"{factory}:{name}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uneven", "{} gives tensors with 10 and 3 rows"),
        ("model", "{} gives Linear, which is no data"),
        ("nothing", "{} gives NoneType, which is no data"),
        ("stops", "{}() calls sys.exit(3)"),
        (
            "needs",
            "{}() raises TypeError: needs() missing 1 required positional argument: "
            "'argument'",
        ),
    ],
)
def test_a_factory_that_fails_is_named(factory: Path, name: str, message: str) -> None:
    with pytest.raises(CannotLoad) as caught:
        open_batches(One(), _spec(factory, name))

    assert message.format(f"{factory}:{name}") == caught.value.message


def test_a_missing_name_lists_those_there(factory: Path) -> None:
    with pytest.raises(CannotLoad) as caught:
        open_batches(One(), _spec(factory, "datasets"))

    assert f"{factory} has no datasets" == caught.value.message
    assert "dataset, " in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import not_there", "{}: no module is called 'not_there'"),
        ("1/0", "{} raises ZeroDivisionError: division by zero"),
        ("def", "{} raises SyntaxError: invalid syntax (bad.py, line 1)"),
    ],
)
def test_a_file_that_cannot_be_imported(
    tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(CannotLoad) as caught:
        open_batches(One(), DataOptions(data=f"{tmp_path}/bad.py:f"))

    assert message.format(tmp_path / "bad.py") == caught.value.message


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(CannotLoad) as caught:
        open_batches(One(), DataOptions(data="not_there.at_all:f"))

    assert "not_there.at_all: no module is called 'not_there'" == caught.value.message


def test_importing_the_data_imports_no_torchvision() -> None:
    import subprocess
    import sys

    code = "import sys, vgaudit.data; print('torchvision' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert "False\n" == done.stdout


def test_batches_is_what_is_returned() -> None:
    assert isinstance(open_batches(One(), OPTIONS), Batches)
