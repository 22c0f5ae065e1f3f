"""``vgaudit.retrain``, ``fix`` and ``convert`` called as a user of Python would."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vgaudit
from tests.training.courses import ROWS, net, options, samples
from vgaudit.conversion import ConvertOptions
from vgaudit.errors import BadConfig, CannotRun
from vgaudit.job import DataOptions, ProbeOptions
from vgaudit.training.settings import LARGEST


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


CALLS: dict[str, Callable[..., Any]] = {
    "retrain": vgaudit.retrain,
    "fix": vgaudit.fix,
    "convert": lambda model, data, **more: vgaudit.convert(
        model, **{"to": "ar", "data": data, **more}
    ),
    "scan": vgaudit.scan,
}


def refused(call: Callable[..., Any], *args: Any, **more: Any) -> str:
    """Returns how a call is refused, before its model ran a single time."""
    with pytest.raises(BadConfig) as caught:
        call(*args, **more)
    return f"{caught.value.message} | {caught.value.hint}"


class Untouched(nn.Module):
    """A model that must not run."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the model ran")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("model", "said", "way"),
    [
        ("nets.py", "a text, 'nets.py'", "vgaudit.load('nets.py')"),
        (Path("nets.py"), "a text, 'nets.py'", "vgaudit.load('nets.py')"),
        (Untouched, "the class Untouched", "Untouched(…)"),
        (net, "the function net", "net(…)"),
        (net().state_dict(), "of type OrderedDict", "load_state_dict"),
        (None, "of type NoneType", "torch.nn.Module"),
    ],
    ids=["text", "path", "class", "function", "weights", "none"],
)
def test_what_is_no_module_is_told_with_the_way_to_one(
    name: str, model: Any, said: str, way: str
) -> None:
    if name == "scan" and isinstance(model, (str, Path)):
        pytest.skip("scan opens model specs")
    told = refused(CALLS[name], model, samples())

    assert said in told.split(" | ")[0]
    assert way in told.split(" | ")[1]


def test_saving_and_watching_need_a_module_too(tmp_path: Path) -> None:
    assert "a text" in refused(vgaudit.save, "nets.py", tmp_path / "out.pt")
    assert "the class Untouched" in refused(vgaudit.watch, Untouched)


ARGUMENTS = [
    ("retrain", {"epochs": "3"}, "epochs is '3' | give a whole number or None"),
    ("retrain", {"epochs": 1.5}, "epochs is 1.5 | give a whole number or None"),
    ("retrain", {"epochs": True}, "epochs is True | give a whole number or None"),
    ("retrain", {"controls": "adam"}, "controls is 'adam' | give a list or tuple of"),
    ("retrain", {"controls": (3,)}, "controls is (3,) | give a list or tuple of"),
    ("retrain", {"method": "sdgd"}, "'sdgd' | did you mean sdagd?"),
    ("retrain", {"method": 3}, "no method is called '3' | known: sdagd, rai"),
    ("retrain", {"options": {}}, "options is {} | give RetrainOptions"),
    ("retrain", {"options": options(lr="3")}, "lr is '3' | give a number or None"),
    ("retrain", {"options": options(seed="a")}, "seed is 'a' | give a whole number"),
    ("retrain", {"options": options(batch_size=2.5)}, "batch_size is 2.5 | give a"),
    ("retrain", {"options": options(schedule="step ")}, "| did you mean step? give"),
    ("retrain", {"options": options(controls="sgd")}, "controls is 'sgd' | give a"),
    ("retrain", {"loss": 3}, "loss is 3 | give a name such as 'mse'"),
    ("retrain", {"run_folder": 3}, "run_folder is 3 | give a path"),
    ("retrain", {"probe_options": 3}, "probe_options is 3 | give ProbeOptions"),
    ("retrain", {"policy": 3}, "policy is 3 | give Policy"),
    ("retrain", {"policy": vgaudit.Policy(select=("VG999",))}, "unknown rule 'VG999'"),
    ("fix", {"seeds": "3"}, "seeds is '3' | give a whole number"),
    ("fix", {"seeds": 3.5}, "seeds is 3.5 | give a whole number"),
    ("fix", {"budget": "10m"}, "budget is '10m' | give a number"),
    ("fix", {"options": {}}, "options is {} | give FixOptions"),
    ("convert", {"to": "arr"}, "to is 'arr' | did you mean ar? give one of ar, adact"),
    ("convert", {"layers": "fc"}, "layers is 'fc' | give a list or tuple of texts"),
    ("convert", {"skip": "fc"}, "skip is 'fc' | give a list or tuple of texts"),
    ("convert", {"limit": "4"}, "limit is '4' | give a number or None"),
    ("convert", {"options": {}}, "options is {} | give ConvertOptions"),
    ("convert", {"data_options": 3}, "data_options is 3 | give DataOptions"),
    ("scan", {"data_options": {}}, "data_options is {} | give DataOptions"),
    ("scan", {"probe_options": {}}, "probe_options is {} | give ProbeOptions"),
    ("scan", {"load_options": {}}, "load_options is {} | give LoadOptions"),
    ("scan", {"policy": 3}, "policy is 3 | give Policy"),
    ("scan", {"probe_options": ProbeOptions(mode="trian")}, "did you mean train?"),  # type: ignore[arg-type]
    ("fix", {"probe_options": ProbeOptions(seed="a")}, "seed is 'a' | give a whole"),  # type: ignore[arg-type]
    ("scan", {"data_options": DataOptions(inputs="8x4")}, "inputs is '8x4' | give a"),  # type: ignore[arg-type]
    ("scan", {"data_options": DataOptions(inputs=((8, 4),))}, "inputs is ((8, 4),) |"),  # type: ignore[arg-type]
    ("scan", {"data_options": DataOptions(batches=1.5)}, "batches is 1.5 | give a"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("name", "given", "said"), ARGUMENTS)
def test_an_argument_of_a_wrong_type_is_told_before_the_model_runs(
    name: str, given: dict[str, Any], said: str
) -> None:
    assert said in refused(CALLS[name], Untouched(), samples(), **given)


@pytest.mark.parametrize("name", ["retrain", "fix", "convert"])
def test_a_text_is_no_samples(name: str) -> None:
    told = refused(CALLS[name], Untouched(), "data.npz")

    assert told.startswith("data is a text, 'data.npz', and no samples | give (x, y)")


def test_what_a_text_stands_for_does_as_well(tmp_path: Path) -> None:
    x, y = samples(30)
    np.savez(tmp_path / "some.npz", x=x.numpy(), y=y.numpy())
    told = [
        vgaudit.scan(
            net(),
            data_options=DataOptions(data=path),  # type: ignore[arg-type]
            probe_options=ProbeOptions(device=device, dtype=dtype),  # type: ignore[arg-type]
        ).audit
        for path, device, dtype in [
            (str(tmp_path / "some.npz"), "cpu", "float64"),
            (tmp_path / "some.npz", torch.device("cpu"), torch.float64),
        ]
    ]
    assert told[0] is not None
    assert told[1] is not None
    assert told[0].flow == told[1].flow

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.net(x), x

    for index in (0, "0"):
        asked = ProbeOptions(output=index)  # type: ignore[arg-type]
        audit = vgaudit.scan(Two(), x, probe_options=asked).audit
        assert audit is not None
        assert audit.flow.layers


def test_every_step_of_a_watch_is_a_whole_number_from_one() -> None:
    for every in (0, -1, 1.5, "2", True):
        with pytest.raises(BadConfig, match="every is"):
            vgaudit.watch(net(), every=every)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    rate, epochs = np.float32(0.01), np.int64(2)
    asked = options("adam", lr=rate, epochs=epochs, controls=["sgd"])
    done = vgaudit.retrain(net(), samples(), options=asked).retraining

    assert [run.name for run in done.controls] == ["sgd"]
    assert done.run.epochs[-1].number == 2


def test_the_largest_number_keeps_every_product_of_two_finite_in_float32() -> None:
    largest = torch.tensor(LARGEST, dtype=torch.float64)
    least = torch.tensor(1.0) - torch.nextafter(
        torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    )
    for made in (largest, largest * largest, largest / least):
        assert torch.isfinite(made.float())


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("adam", {"lr": 1e38}),
        ("sgd", {"lr": 2e19}),
        ("sgd", {"weight_decay": 1e39}),
        ("adamw", {"clip": 1e39}),
        ("adam", {"settings": {"eps": 1e39}}),
        ("sdagd", {"settings": {"kappa": 1e39}}),
        ("rai", {"settings": {"mode": "table", "rate": 1e39}}),
        ("adam", {"controls": ["adam:lr=1e38"]}),
        ("adam", {"controls": ["sdagd:kappa=-1e39"]}),
    ],
)
def test_what_float32_cannot_hold_is_refused_before_the_model_runs(
    method: str, given: dict[str, Any]
) -> None:
    told = refused(
        vgaudit.retrain, Untouched(), samples(), options=options(method, **given)
    )
    assert "up to 1e+19" in told


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("rai", {}),
        ("rai", {"settings": {"mode": "reference"}}),
        ("adact", {"solver": "classic"}),
        ("adact", {}),
        ("sdagd", {}),
    ],
)
def test_unknown_settings_are_refused_before_the_model_runs(
    method: str, given: dict[str, Any]
) -> None:
    own = {**given.get("settings", {}), "nonsense": 1}
    asked = options(method, **{**given, "settings": own})

    assert "has no setting 'nonsense'" in refused(
        vgaudit.retrain, Untouched(), samples(), options=asked
    )


@pytest.mark.parametrize("method", ["adam", "adamw", "sgd", "sdagd", "adact"])
def test_the_largest_numbers_end_a_training_without_a_crash(method: str) -> None:
    """It may diverge, which is told; it may train to nothing; no kernel refuses."""
    steep = {} if method == "sdagd" else {"momentum": 0.99}
    asked = options(method, lr=LARGEST, weight_decay=LARGEST, clip=LARGEST, **steep)
    if method.startswith("adam"):
        asked = replace(asked, settings={"beta1": 1 - 2**-53, "eps": LARGEST})
    told = ""
    try:
        run = vgaudit.retrain(net(), samples(), options=asked).retraining.run
    except CannotRun as error:
        told = error.hint
    assert "lower --lr" in told if told else run.epochs[0].steps == 0


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ({}, None, "no treatment: .* | give to, one of ar, adact, rescale, plain"),
        ({"to": "arr"}, None, "to is 'arr' | did you mean ar?"),
        ({"to": "adact"}, ConvertOptions(to="ar"), "to is 'adact', and 'ar' in opt"),
        ({"skip": ["0"]}, ConvertOptions(to="ar"), r"skip is \('0',\), and \(\) in"),
        ({"limit": 2.0}, ConvertOptions(to="ar", limit=3.0), "limit is 2.0, and 3.0"),
        ({"preserve": True}, ConvertOptions(to="ar"), "preserve is True, and False"),
    ],
)
def test_a_conversion_is_told_once(given, options, said) -> None:
    told = refused(vgaudit.convert, Untouched(), **given, options=options)

    assert re.match(said.replace("|", r"\|").replace("?", r"\?"), told)


@pytest.mark.parametrize("given", [{}, {"to": "adact", "skip": ["nothing"]}])
def test_the_options_of_a_conversion_say_the_treatment(given) -> None:
    asked = ConvertOptions(to="adact", skip=("nothing",), preserve=True)
    done = vgaudit.convert(net(), options=asked, compare=False, **given)

    assert asked == done.conversion.options
