"""Losses: by name, chosen, and the user's own; and why one cannot be used."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.data_specs.states import random_states
from vgaudit.data import (
    Loss,
    RandomLabels,
    check_labels,
    from_object,
    resolve_loss,
    settle,
    settled,
)
from vgaudit.data.losses.choose import choose
from vgaudit.data.losses.outputs import main_output, own_loss
from vgaudit.errors import BadConfig, CannotRun
from vgaudit.job import DataOptions, ProbeOptions
from vgaudit.probe import probe


def values(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def named(spec: str) -> Callable[[Any, Any], Tensor]:
    loss = resolve_loss(spec, True)
    assert loss is not None
    assert spec == loss.name
    return loss.function


def close(expected: float, actual: Tensor) -> None:
    assert math.isclose(expected, float(actual.detach()), rel_tol=1e-12)
    assert () == tuple(actual.shape)
    assert actual.requires_grad


# Each loss against its definition, in Python floats ---


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def test_cross_entropy_is_its_definition() -> None:
    logits, labels = values(4, 3), torch.tensor([0, 2, 1, 2])
    terms = [
        -math.log(softmax(row)[label])
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]

    close(sum(terms) / 4, named("cross-entropy")(logits, labels))


def test_cross_entropy_of_distributions() -> None:
    logits, wanted = values(4, 3), torch.rand(4, 3)
    terms = [
        -p * math.log(q)
        for row, given in zip(logits.tolist(), wanted.tolist(), strict=True)
        for p, q in zip(given, softmax(row), strict=True)
    ]

    close(sum(terms) / 4, named("cross-entropy")(logits, wanted))


@pytest.mark.parametrize(
    ("output", "labels"),
    [((2, 5, 4, 3), (2, 4, 3)), ((2, 4, 3, 5), (2, 4, 3)), ((2, 7, 5), (2, 7))],
    ids=["classes second", "classes last", "tokens"],
)
def test_classes_are_found_in_the_dimension_that_labels_lack(
    output: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    logits, wanted = values(*output), torch.randint(5, labels)
    rows = logits.movedim(output.index(5), -1).reshape(-1, 5)

    close(
        float(F.cross_entropy(rows.detach(), wanted.reshape(-1))),
        named("cross-entropy")(logits, wanted),
    )


@pytest.mark.parametrize("shape", [(4, 1), (4,)])
def test_labels_may_have_a_column_or_be_floats(shape: tuple[int, ...]) -> None:
    logits, labels = values(4, 3), torch.tensor([0, 2, 1, 2])

    close(
        float(F.cross_entropy(logits.detach(), labels)),
        named("cross-entropy")(logits, labels.reshape(shape).double()),
    )


def test_ignored_labels_are_no_error() -> None:
    logits, labels = values(3, 3), torch.tensor([0, -100, 2])

    close(
        float(F.cross_entropy(logits.detach()[[0, 2]], labels[[0, 2]])),
        named("cross-entropy")(logits, labels),
    )


def test_nll_is_the_mean_of_what_the_labels_pick() -> None:
    logs, labels = values(4, 3), torch.tensor([0, 2, 1, 2])
    picked = [row[i] for row, i in zip(logs.tolist(), labels.tolist(), strict=True)]

    close(-sum(picked) / 4, named("nll")(logs, labels))


@pytest.mark.parametrize("shape", [(6, 1), (6,)])
def test_bce_with_logits_is_its_definition(shape: tuple[int, ...]) -> None:
    logits, labels = values(6, 1), torch.tensor([0, 1, 1, 0, 0, 1])
    terms = [
        -math.log(1 / (1 + math.exp(-z if y else z)))
        for (z,), y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]

    close(sum(terms) / 6, named("bce-with-logits")(logits, labels.reshape(shape)))


def test_bce_of_a_sigmoid_is_bce_with_logits() -> None:
    logits, labels = values(6), torch.tensor([0, 1, 1, 0, 0, 1])

    close(
        float(named("bce-with-logits")(logits, labels)),
        named("bce")(logits.sigmoid(), labels),
    )


def test_mse_and_l1_are_their_definitions() -> None:
    output, labels = values(4, 1), values(4, seed=1)
    gaps = [a - b for (a,), b in zip(output.tolist(), labels.tolist(), strict=True)]

    close(sum(g * g for g in gaps) / 4, named("mse")(output, labels))
    close(sum(abs(g) for g in gaps) / 4, named("l1")(output, labels))


def test_ctc_sums_over_all_alignments() -> None:
    """Two frames, transcript ``a``: aa, a-, -a."""
    frames = values(2, 1, 3)
    first, second = (softmax(row) for (row,) in frames.tolist())
    chance = first[1] * second[1] + first[1] * second[0] + first[0] * second[1]

    close(-math.log(chance), named("ctc")(frames, torch.tensor([[1]])))


def test_ctc_takes_padded_targets_batch_first_and_lengths() -> None:
    frames = values(8, 2, 5)
    targets = torch.tensor([[1, 2, 3], [4, 0, 0]])
    lengths = (torch.tensor([8, 8]), torch.tensor([3, 1]))
    wanted = float(F.ctc_loss(frames.log_softmax(2), targets, *lengths))

    close(wanted, named("ctc")(frames, targets))
    close(wanted, named("ctc")(frames.transpose(0, 1), targets))
    close(wanted, named("ctc")(frames, (targets, *lengths)))
    close(wanted, named("ctc")(frames.log_softmax(2), targets))


# What of an output is looked at ---


@dataclass
class Result:
    features: Tensor
    logits: Tensor
    loss: Tensor | None = None


Inception = namedtuple("Inception", ["logits", "aux_logits"])
A, B = torch.zeros(2, 3), torch.ones(2, 3)
WIDE = torch.ones(2, 9)


@pytest.mark.parametrize(
    "output",
    [
        A,
        (A, WIDE),
        [A, WIDE],
        (A, (WIDE, WIDE)),
        [B, A],
        {"out": A, "aux": WIDE},
        OrderedDict(features=WIDE, logits=A),
        {"count": torch.tensor(3), "score": A},
        Inception(A, WIDE),
        Result(WIDE, A),
        ({"logits": A}, WIDE),
        (None, A),
    ],
)
def test_the_main_output(output: Any) -> None:
    """Preferred names, then the first; of refinements of one shape, the last."""
    assert main_output(output) is A


@pytest.mark.parametrize("output", [None, {}, (), "text", [None, 3]])
def test_no_main_output(output: Any) -> None:
    assert main_output(output) is None


def test_own_losses() -> None:
    one, two = torch.tensor(1.0), torch.tensor([2.0])
    found = [
        own_loss(output)
        for output in (
            Result(A, A, one),
            {"loss": one, "logits": A},
            {"classification": one, "box": two},
            {"logits": A, "aux_loss": two, "main_loss": one},
            (one, A),
            two,
        )
    ]

    assert [1, 1, 3, 3, 1, 2] == found
    assert all(loss is None for loss in map(own_loss, (A, (A, one), Result(A, A), {})))


def test_a_loss_beside_outputs_is_not_the_whole_loss() -> None:
    output = {"logits": values(4, 3), "aux_loss": values(1).sum()}

    assert "cross-entropy" == choose(output, torch.tensor([0, 1, 2, 0]))[0]


# auto ---


CLASSES = torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize(
    ("output", "labels", "name"),
    [
        (values(4, 3), CLASSES, "cross-entropy"),
        (values(4, 3), CLASSES[:, None], "cross-entropy"),
        (values(4, 3), CLASSES.float(), "cross-entropy"),
        (values(2, 3, 5, 5), torch.zeros(2, 5, 5).long(), "cross-entropy"),
        (values(2, 3, 5, 5), torch.zeros(2, 1, 5, 5).long(), "cross-entropy"),
        (values(2, 7, 9), torch.zeros(2, 7).long(), "cross-entropy"),
        (values(4, 3), torch.eye(3)[CLASSES], "cross-entropy"),
        (values(4, 3).log_softmax(1), CLASSES, "nll"),
        (values(4, 3).log_softmax(1).view(4, 3), CLASSES, "nll"),
        (values(4, 3).softmax(1), CLASSES, "cross-entropy"),
        (values(4, 1), torch.tensor([0, 1, 1, 0]), "bce-with-logits"),
        (values(4), torch.tensor([True, False, True, True]), "bce-with-logits"),
        (values(4, 3), torch.ones(4, 3).long(), "bce-with-logits"),
        (values(4, 1).sigmoid(), torch.tensor([0, 1, 1, 0]), "bce"),
        (values(4, 1).sigmoid().squeeze(1), torch.tensor([0.0, 1, 1, 0]), "bce"),
        (values(4, 1), torch.tensor([0, 7, 1, 0]), "mse"),
        (values(4, 1), values(4), "mse"),
        (values(4, 1), torch.tensor([0.0, 1, 1, 0]), "mse"),
        (values(4, 3, 2), values(4, 3, 2), "mse"),
        (values(1), values(1), "mse"),
        (values(8, 2, 5), (torch.ones(2, 3), torch.ones(2), torch.ones(2)), "ctc"),
        ({"loss": values(1), "logits": values(4, 3)}, CLASSES, "output"),
        ({"a": values(1), "b": values(1)}, [{"boxes": A}], "output"),
        (values(1).sum(), CLASSES, "output"),
        ((values(4, 3), values(4, 9)), CLASSES, "cross-entropy"),
    ],
)
def test_auto_chooses_by_output_and_labels(output: Any, labels: Any, name: str) -> None:
    loss = resolve_loss("auto", True, (output, labels))

    assert loss is not None
    assert name == loss.name
    assert loss.note.startswith(f"loss {name}: ")


def test_auto_warns_of_a_second_softmax() -> None:
    loss = resolve_loss("auto", True, (values(4, 3).softmax(1), CLASSES))

    assert loss is not None
    assert loss.note == (
        "loss cross-entropy: labels are class numbers; the output is already softmax, "
        "and cross-entropy applies it again: the gradient shrinks by that"
    )


def test_auto_settles_at_its_first_call() -> None:
    loss = resolve_loss(None, True)
    assert loss is not None
    assert "auto" == settled(loss).name

    loss.function(values(4, 3), CLASSES)

    assert ("cross-entropy", "loss cross-entropy: labels are class numbers") == (
        settled(loss).name,
        settled(loss).note,
    )


def test_a_report_names_the_loss_that_was_used() -> None:
    loss = resolve_loss("auto", True)
    assert loss is not None
    loss.function(values(4, 3), CLASSES)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    batches = from_object((torch.ones(4, 3), CLASSES), DataOptions(), model=model)
    flow = probe(model, batches, loss=resolve_loss(None, True), options=ProbeOptions())
    flow, facts = settle(flow, batches.facts, loss)

    assert flow.loss is not None
    assert ("cross-entropy", "cross-entropy") == (flow.loss.name, facts.loss)
    assert "loss cross-entropy: labels are class numbers" in facts.notes
    assert "jacobian" == settle(flow, facts, None)[1].loss


@pytest.mark.parametrize(
    ("output", "labels", "message"),
    [
        (
            values(8, 10),
            values(8, 3),
            "no loss fits output float64 8x10 and labels float64 8x3",
        ),
        (
            values(8, 10),
            torch.ones(4).long(),
            "no loss fits output float64 8x10 and labels int64 4",
        ),
        ("text", CLASSES, "no loss fits output nothing and labels int64 4"),
        (values(8, 10), None, "no loss fits output float64 8x10 and labels nothing"),
    ],
)
def test_auto_says_when_nothing_fits(output: Any, labels: Any, message: str) -> None:
    with pytest.raises(CannotRun) as caught:
        choose(output, labels)

    assert message == caught.value.message
    assert (
        "name one: --loss cross-entropy, mse …, or --loss file.py:function"
        == caught.value.hint
    )


# Which probe ---


@pytest.mark.parametrize(
    ("spec", "labelled", "name"),
    [
        (None, False, None),
        (None, True, "auto"),
        ("auto", False, None),
        ("auto", True, "auto"),
        ("jacobian", True, None),
        ("jacobian", False, None),
        ("mse", False, "mse"),
        ("output", False, "output"),
    ],
)
def test_without_labels_the_default_is_the_jacobian_probe(
    spec: str | None, labelled: bool, name: str | None
) -> None:
    loss = resolve_loss(spec, labelled)

    assert name == (loss.name if loss else None)


def test_an_unknown_loss_has_a_near_name() -> None:
    with pytest.raises(BadConfig) as caught:
        resolve_loss("crossentropy", True)

    assert "unknown loss 'crossentropy'" == caught.value.message
    assert caught.value.hint == (
        "did you mean cross-entropy? known: auto, jacobian, cross-entropy, "
        "bce-with-logits, bce, mse, l1, nll, ctc, output, file.py:function"
    )


# Made-up labels ---


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cross-entropy", (4, 3)),
        ("cross-entropy", (2, 3, 5, 5)),
        ("cross-entropy", (2, 7, 9)),
        ("nll", (4, 3)),
        ("bce-with-logits", (4, 3)),
        ("mse", (4, 3, 2)),
        ("l1", (4,)),
        ("ctc", (12, 2, 5)),
    ],
)
def test_labels_are_made_up_to_fit(name: str, shape: tuple[int, ...]) -> None:
    states = random_states()
    function = named(name)
    output = values(*shape)
    first = function(output, RandomLabels(0, 0))

    assert torch.isfinite(first)
    assert torch.equal(first, function(output, RandomLabels(0, 0)))
    assert not torch.equal(first, function(output, RandomLabels(0, 1)))
    assert not torch.equal(first, function(output, RandomLabels(1, 0)))
    assert states == random_states()


def test_made_up_classes_are_uniform() -> None:
    counts = torch.bincount(
        RandomLabels(0, 0).fitting(A.expand(30_000, 2, 3)[:, 0], "nll")
    )

    # chi-square with 2 degrees of freedom: above 23 with probability 1e-5
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 23


# What cannot be used ---


@pytest.mark.parametrize(
    ("labels", "bad"), [([0, 10, 3], 10), ([-1, 0, 1], -1), ([255, 0, 12], 255)]
)
@pytest.mark.parametrize("name", ["cross-entropy", "nll", "auto"])
def test_a_label_without_output(name: str, labels: list[int], bad: int) -> None:
    output, wanted = values(3, 10), torch.tensor(labels)
    loss = resolve_loss(name, True)

    for attempt in (
        lambda: loss.function(output, wanted),
        lambda: check_labels(output, wanted, loss),
    ):
        with pytest.raises(CannotRun) as caught:
            attempt()
        assert f"label {bad} but 10 outputs" == caught.value.message
        assert "classes run from 0 to 9; -100 leaves a label out" == caught.value.hint


def test_other_losses_have_no_classes_to_check() -> None:
    for name in ("mse", "bce-with-logits", "output"):
        check_labels(values(3, 10), torch.tensor([99, 0, 0]), resolve_loss(name, True))
    check_labels(values(3, 10), None, None)
    check_labels(values(3), torch.tensor([99, 0, 0]), resolve_loss("auto", True))


@pytest.mark.parametrize(
    ("name", "output", "labels", "message"),
    [
        (
            "cross-entropy",
            values(8, 3),
            values(8, 2),
            "cross-entropy compares classes, and output 8x3 does not fit labels 8x2",
        ),
        (
            "cross-entropy",
            values(8, 3),
            values(8),
            "cross-entropy needs whole numbers as labels, and they have fractions",
        ),
        (
            "cross-entropy",
            values(8, 3),
            None,
            "cross-entropy needs labels, and the batch has none",
        ),
        (
            "cross-entropy",
            None,
            A,
            "cross-entropy needs a tensor, and the output is of type NoneType",
        ),
        ("mse", values(8, 3), values(8), "mse compares output 8x3 with labels 8"),
        (
            "bce-with-logits",
            values(2),
            torch.tensor([0, 3]),
            "bce-with-logits needs labels in [0, 1], and one is 3",
        ),
        (
            "bce",
            torch.tensor([0.5, 2.5]),
            torch.tensor([0, 1]),
            "bce needs outputs in [0, 1], and they reach 0.5 … 2.5",
        ),
        (
            "ctc",
            values(8, 3),
            torch.ones(8, 2).long(),
            "ctc needs an output of frames x samples x symbols, not a tensor 8x3",
        ),
        (
            "ctc",
            values(8, 2, 5),
            torch.ones(2).long(),
            "ctc needs transcripts as labels, not a tensor 2",
        ),
        ("ctc", values(8, 2, 5), torch.full((2, 2), 5), "label 5 but 5 outputs"),
        ("output", values(8, 3), None, "the output holds no loss: it is a tensor 8x3"),
    ],
)
def test_what_does_not_fit_is_said(
    name: str, output: Any, labels: Any, message: str
) -> None:
    with pytest.raises(CannotRun) as caught:
        named(name)(output, labels)

    assert message == caught.value.message


def inference() -> Tensor:
    with torch.inference_mode():
        return torch.ones(4, 3)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            values(4, 3).detach(),
            "the output is detached, under no_grad, frozen or quantized",
        ),
        (inference(), "the model runs under torch.inference_mode"),
    ],
)
def test_a_loss_without_gradient_says_why(output: Tensor, reason: str) -> None:
    with pytest.raises(CannotRun) as caught:
        named("mse")(output, values(4, 3).detach())

    assert f"the loss mse has no gradient: {reason}" == caught.value.message


def test_a_value_alone_may_be_computed_without_gradient() -> None:
    with torch.no_grad():
        assert float(named("mse")(torch.ones(2, 2), torch.zeros(2, 2))) == 1


# The user's own ---


OWN = """
import torch
from torch import nn

print("imported")

def good(output, labels):
    return (output.sum(1) - labels).pow(2).mean()

def without_labels(output, labels):
    assert labels is None
    return output.mean()

def vector(output, labels):
    return output[:, 0]

def number(output, labels):
    return output.sum().item()

def whole(output, labels):
    return output.argmax()

def cut(output, labels):
    return output.detach().sum()

def broken(output, labels):
    return output / {}

class Module(nn.Module):
    def forward(self, output, labels):
        return output.mean()

class NeedsWeight(nn.Module):
    def __init__(self, weight):
        super().__init__()

constant = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "losses.py"
    path.write_text(OWN)
    return path


def test_a_function_of_a_file(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, labels = values(4, 3), values(4, seed=1)
    sums = [
        sum(row) - y for row, y in zip(output.tolist(), labels.tolist(), strict=True)
    ]

    close(sum(s * s for s in sums) / 4, named(f"{own}:good")(output, labels))
    assert "" == capsys.readouterr().out


def test_a_function_of_a_package() -> None:
    close(
        float(F.smooth_l1_loss(values(4), values(4, seed=1))),
        named("torch.nn.functional:smooth_l1_loss")(values(4), values(4, seed=1)),
    )


def test_a_class_of_module_is_made(own: Path) -> None:
    assert resolve_loss("torch.nn:SmoothL1Loss", True) is not None
    close(float(values(4, 3).mean()), named(f"{own}:Module")(values(4, 3), None))


def test_a_function_given_as_an_object() -> None:
    loss = resolve_loss(F.smooth_l1_loss, False)
    module = resolve_loss(nn.CrossEntropyLoss(), True)

    assert loss is not None
    assert module is not None
    assert ("smooth_l1_loss", "CrossEntropyLoss") == (loss.name, module.name)
    with pytest.raises(CannotRun, match="the loss CrossEntropyLoss raises"):
        module.function(values(4, 3), None)


def test_a_loss_that_needs_no_labels(own: Path) -> None:
    labels = RandomLabels(0, 0)

    close(
        float(values(4, 3).mean()),
        named(f"{own}:without_labels")(values(4, 3), labels),
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vector", "the loss {} is not a scalar: its shape is 4"),
        ("number", "the loss {} gives float, not a tensor"),
        ("whole", "the loss {} is of type int64, not a real number"),
        ("cut", "the loss {} has no gradient: the loss itself detaches the output"),
        (
            "broken",
            "the loss {} raises TypeError: "
            "unsupported operand type(s) for /: 'Tensor' and 'dict'",
        ),
    ],
)
def test_a_loss_that_fails(own: Path, name: str, message: str) -> None:
    spec = f"{own}:{name}"
    with pytest.raises(CannotRun) as caught:
        named(spec)(values(4, 3), None)

    assert message.format(spec) == caught.value.message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("constant", "{} is no function: int"),
        ("NeedsWeight", "{} cannot be made without arguments: "),
    ],
)
def test_a_loss_that_is_none(own: Path, name: str, message: str) -> None:
    spec = f"{own}:{name}"
    with pytest.raises(BadConfig) as caught:
        resolve_loss(spec, True)

    assert caught.value.message.startswith(message.format(spec))


def test_a_loss_is_a_value() -> None:
    loss = resolve_loss("mse", True)

    assert isinstance(loss, Loss)
    assert isinstance(nn.MSELoss()(A, B), Tensor)
    with pytest.raises(AttributeError):
        loss.name = "other"  # type: ignore[misc]
