"""Architectures from the user's own code (rows 84, 85)."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.loading.builders import fixture_arch, read, refusal, same_state, tiny
from vgaudit.errors import BadConfig, CannotLoad, UnknownSource

CODE = """
import sys
import torch
from torch import nn


def good(width: int = 3, name: str = "a"):
    net = nn.Linear(width, 2)
    net.name = name
    return net


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    @classmethod
    def small(cls):
        return cls()


made = Net()


def needs(width, depth, *, bias):
    return nn.Linear(width, depth)


def number():
    return 3


def nothing():
    pass


def leaves():
    sys.exit(3)


def fails():
    raise ValueError("two\\nlines")


def anything(**kwargs):
    return nn.Linear(**kwargs)
"""


@pytest.fixture
def code(tmp_path: Path) -> str:
    path = tmp_path / "mk_code.py"
    path.write_text(CODE)
    return str(path)


@pytest.mark.parametrize("name", ["good", "Net", "Net.small", "made"])
def test_a_factory_a_class_and_a_module_are_taken(code: str, name: str) -> None:
    loaded = read(f"{code}:{name}")

    assert isinstance(loaded.module, nn.Module)
    assert ("factory", "T2") == (loaded.target.format, loaded.target.trust_tier)
    assert type(loaded.module).__name__ == loaded.target.architecture
    assert sum(p.numel() for p in loaded.module.parameters()) == (
        loaded.target.parameters
    )


def test_arguments_are_read_as_python_or_as_text(code: str) -> None:
    module = read(f"{code}:good", model_args={"width": "7", "name": "a-b"}).module

    assert (7, "a-b") == (module.in_features, module.name)
    values = {"in_features": "4", "out_features": "2", "bias": "False"}
    assert read(f"{code}:anything", model_args=values).module.bias is None


def test_missing_arguments_are_named(code: str) -> None:
    message, hint = refusal(f"{code}:needs", CannotLoad, model_args={"depth": "3"})

    assert f"{code}:needs needs arguments: width, bias" == message
    assert "--model-arg width=VALUE --model-arg bias=VALUE" == hint


def test_unknown_arguments_are_named(code: str) -> None:
    message, hint = refusal(f"{code}:good", BadConfig, model_args={"wdith": "3"})

    assert f"{code}:good takes no argument 'wdith'" == message
    assert "it takes width, name" == hint


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("number", "returned an int, not a torch.nn.Module"),
        ("nothing", "returned None, not a torch.nn.Module"),
        ("leaves", "called sys.exit(3)"),
        ("fails", "raised ValueError: two lines"),
        ("CODE", "has no 'CODE'"),
        ("sys", "is a module, not a torch.nn.Module"),
    ],
)
def test_factories_that_give_no_module_say_why(
    code: str, name: str, reason: str
) -> None:
    kind = UnknownSource if name == "CODE" else CannotLoad

    message, _ = refusal(f"{code}:{name}", kind)

    assert reason in message


def test_a_failure_names_the_line(code: str) -> None:
    _, hint = refusal(f"{code}:fails", CannotLoad)

    line = CODE[: CODE.index("raise ValueError")].count("\n") + 1
    assert f"it failed at {Path(code).resolve()}:{line}" == hint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import mk_not_there\n", "raised ModuleNotFoundError: No module named"),
        ("def f(:\n", "SyntaxError at"),
        ("import sys\nsys.exit('bye')\n", "called sys.exit('bye')"),
        ("1 / 0\n", "raised ZeroDivisionError: division by zero"),
    ],
)
def test_files_that_cannot_be_imported_say_why(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "mk_broken.py"
    path.write_text(text)

    message, _ = refusal(f"{path}:f", CannotLoad)

    assert message.startswith(f"importing {path}")
    assert reason in message


def test_a_file_without_a_factory_lists_its_names(code: str) -> None:
    message, hint = refusal(code, UnknownSource)

    assert f"{code} is Python code, and no factory named" == message
    assert f"add one of its names: {code}:good|Net|needs|number" in hint


def test_a_misspelt_factory_lists_what_there_is(code: str) -> None:
    message, hint = refusal(f"{code}:goood", UnknownSource)

    assert f"{code} has no 'goood'" == message
    assert hint.startswith("it has good, Net")


def test_a_misspelt_file_names_the_nearest(code: str) -> None:
    message, hint = refusal(code.replace("mk_code", "mk_coed") + ":good", CannotLoad)

    assert message.startswith("no such file: ")
    assert f"did you mean {code}?" == hint


def test_files_beside_the_model_never_stand_in_for_installed_ones(
    tmp_path: Path,
) -> None:
    for name in ("torch.py", "html.py", "numpy.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "mk_shadow.py").write_text(
        "import html\nfrom torch import nn\nimport sibling_of_mk\n\n\n"
        "def f():\n    html.escape('<')\n    return sibling_of_mk.net()\n"
    )
    (tmp_path / "sibling_of_mk.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Linear(2, 2)\n"
    )

    loaded = read(f"{tmp_path}/mk_shadow.py:f")

    (note,) = loaded.target.notes
    assert (
        f"html.py, numpy.py, torch.py in {tmp_path} are not imported: "
        "installed modules have these names"
    ) == note


def test_a_file_named_like_an_installed_module_can_be_the_model(
    tmp_path: Path,
) -> None:
    path = tmp_path / "torchvision.py"
    path.write_text("from torch import nn\n\n\ndef f():\n    return nn.Linear(2, 2)\n")
    before = sys.modules.get("torchvision")

    assert isinstance(read(f"{path}:f").module, nn.Linear)
    assert before is sys.modules.get("torchvision")


def test_two_models_may_each_have_a_sibling_of_one_name(tmp_path: Path) -> None:
    for name, width in (("one", 3), ("two", 5)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.py").write_text(
            "import mk_blocks\n\n\ndef f():\n    return mk_blocks.block()\n"
        )
        (folder / "mk_blocks.py").write_text(
            "from torch import nn\n\n\n"
            f"def block():\n    return nn.Linear({width}, {width})\n"
        )

    for name, width in (("one", 3), ("two", 5), ("one", 3)):
        loaded = read(f"{tmp_path / name}/model.py:f")
        assert width == loaded.module.in_features


def test_packages_are_imported_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mk_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(CODE)

    message, hint = refusal("mk_package.nets:good", CannotLoad)
    assert "no module named 'mk_package'" == message
    assert "--import-path DIR" in hint

    loaded = read("mk_package.nets:good", import_paths=(str(tmp_path),))
    assert isinstance(loaded.module, nn.Linear)
    monkeypatch.chdir(tmp_path)
    assert isinstance(read("mk_package.nets:Net").module, nn.Module)
    assert isinstance(
        read(
            "torch.nn:Linear", model_args={"in_features": "1", "out_features": "1"}
        ).module,
        nn.Linear,
    )


def test_a_missing_import_path_is_a_usage_error(code: str) -> None:
    message, _ = refusal(f"{code}:good", BadConfig, import_paths=("/nowhere/at/all",))

    assert "no such folder: /nowhere/at/all" == message


def test_the_seed_decides_and_random_states_return(code: str) -> None:
    torch.manual_seed(11)
    states = random.getstate(), np.random.get_state()[1].tolist()
    before = torch.random.get_rng_state()

    first, again = (read(f"{code}:good", seed=5).module for _ in range(2))
    other = read(f"{code}:good", seed=6).module

    assert same_state(first, again)
    assert not same_state(first, other)
    assert torch.equal(before, torch.random.get_rng_state())
    assert states == (random.getstate(), np.random.get_state()[1].tolist())


def test_weights_may_be_given_to_an_architecture(tmp_path: Path) -> None:
    state = {
        k: 2 * v
        for k, v in read(fixture_arch("two_outputs")).module.state_dict().items()
    }
    torch.save({"model": state, "ema": tiny().state_dict()}, tmp_path / "a.pt")

    loaded = read(fixture_arch("two_outputs"), weights=f"{tmp_path / 'a.pt'}#model")

    assert fixture_arch("two_outputs") == loaded.target.spec
    assert torch.equal(state["box.bias"], loaded.module.box.bias)
    message, _ = refusal(tmp_path / "a.pt", BadConfig, weights=str(tmp_path / "a.pt"))
    assert "holds weights already, and --weights names others" in message
    message, _ = refusal(
        fixture_arch("two_outputs"), BadConfig, arch="torchvision:vgg11"
    )
    assert "is an architecture already" in message


def test_the_code_of_a_factory_can_be_pinned(code: str) -> None:
    digest = read(f"{code}:good").target.sha256

    assert digest is not None
    assert digest == read(f"{code}:good", sha256=digest).target.sha256
    refusal(f"{code}:good", CannotLoad, sha256="0" * 64)
    refusal("torch.nn:Linear", BadConfig, sha256="0" * 64)
