"""Pickled modules: known classes, the user's classes, and what is neither."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.loading.builders import (
    light,
    read,
    refusal,
    same_state,
    saved,
    tiny,
    torchvision_or_skip,
    with_pickle,
)
from vgaudit.errors import CannotLoad
from vgaudit.job import LoadOptions
from vgaudit.loading import inspect

torchvision = torchvision_or_skip()


def test_a_module_of_torch_classes_loads(tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.GELU("tanh"),
        nn.TransformerEncoderLayer(8, 2, 16, activation=nn.functional.gelu),
        nn.LSTM(8, 4, 2, bidirectional=True),
        nn.utils.spectral_norm(nn.Linear(4, 4)),
    )

    loaded = read(saved(tmp_path / "a.pt", module))

    assert same_state(module, loaded.module)
    assert ("module-pickle", "T1") == (loaded.target.format, loaded.target.trust_tier)
    assert "Sequential" == loaded.target.architecture


SMALL = {
    "vit": lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 32, 64),
    "mobilenet": lambda: torchvision.models.mobilenet_v3_small(),
    "fire": lambda: torchvision.models.squeezenet.Fire(3, 4, 4, 4),
}


@pytest.mark.parametrize("name", SMALL)
def test_modules_of_torchvision_load_and_compute_the_same(
    tmp_path: Path, name: str
) -> None:
    model = SMALL[name]().eval()
    path = saved(tmp_path / "a.pt", model)

    loaded = read(path)

    assert "T1" == loaded.target.trust_tier
    assert type(model) is type(loaded.module)
    assert same_state(model, loaded.module)
    images = torch.ones(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), loaded.module(images))


LARGEST = 30_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models())
def test_every_module_of_torchvision_loads(tmp_path: Path, name: str) -> None:
    if name.startswith("quantized_") or name == "ssdlite320_mobilenet_v3_large":
        return
    model = light(name)
    if sum(p.numel() for p in model.parameters()) > LARGEST:
        return
    model = model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.zero_()

    loaded = read(saved(tmp_path / "a.pt", model))

    assert same_state(model, loaded.module)
    assert "T1" == loaded.target.trust_tier


def test_a_module_of_timm_loads(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet10t")

    assert same_state(model, read(saved(tmp_path / "a.pt", model)).module)


@pytest.mark.parametrize(
    "module",
    [
        torch.fx.symbolic_trace(tiny()),
        nn.Sequential(torch.fx.symbolic_trace(tiny())),
    ],
)
def test_traced_modules_hold_source_code_and_are_refused(
    tmp_path: Path, module: nn.Module
) -> None:
    message, _ = refusal(saved(tmp_path / "a.pt", module), CannotLoad)

    assert "torch.fx.graph_module.reduce_graph_module" in message


def test_quantised_modules_are_refused(tmp_path: Path) -> None:
    program = b"\x80\x02ctorch.ao.nn.quantized.modules.linear\nLinear\n)\x81}b."

    message, hint = refusal(with_pickle(tmp_path / "a.pt", program), CannotLoad)

    assert "is quantised: there are no trainable float weights" in message
    assert "before quantisation" in hint


NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Linear(width, 3)

    def forward(self, x):
        return self.first(x)


class Settings:
    def __init__(self):
        self.depth = 3
"""


SCRIPT = """
if __name__ == "__main__":
    import sys

    sys.path.insert(0, "code")
    import mk_net
    import torch

    net = mk_net.Net()
    net.settings = mk_net.Settings()
    torch.save(net, "a.pt")
    torch.save(Net(), "main.pt")
"""


@pytest.fixture(scope="module")
def pickles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``a.pt`` of a module's class and ``main.pt`` of a script's."""
    folder = tmp_path_factory.mktemp("pickles")
    (folder / "code").mkdir()
    (folder / "code" / "mk_net.py").write_text(NET)
    (folder / "train_script.py").write_text(NET + SCRIPT)
    subprocess.run([sys.executable, "train_script.py"], cwd=folder, check=True)
    return folder


@pytest.fixture
def user_pickle(pickles: Path) -> Path:
    return pickles / "a.pt"


def test_a_class_of_the_user_is_asked_for_by_name(user_pickle: Path) -> None:
    message, hint = refusal(user_pickle, CannotLoad)

    digest = inspect(str(user_pickle), LoadOptions()).sha256
    assert (
        f"{user_pickle} refused: classes `mk_net.Net`, `mk_net.Settings` needed "
        f"(tier T2, sha256 {digest})"
    ) == message
    assert hint.startswith(
        "add --import-path DIR --allow-code, with DIR, the folder that holds mk_net"
    )
    assert "T2" == inspect(str(user_pickle), LoadOptions()).tier


def test_a_class_of_the_user_loads_when_allowed(user_pickle: Path) -> None:
    folder = str(user_pickle.parent / "code")
    refusal(user_pickle, CannotLoad, import_paths=(folder,))

    loaded = read(user_pickle, import_paths=(folder,), allow_code=True)

    assert ("Net", "T2") == (loaded.target.architecture, loaded.target.trust_tier)
    assert 3 == loaded.module.settings.depth
    assert (2, 3) == tuple(loaded.module(torch.ones(2, 4)).shape)


def test_allowed_code_that_is_not_there_is_named(
    tmp_path: Path, user_pickle: Path
) -> None:
    code = str(user_pickle.parent / "code")
    read(user_pickle, import_paths=(code,), allow_code=True)
    empty = tmp_path / "empty"
    empty.mkdir()

    message, hint = refusal(
        user_pickle, CannotLoad, import_paths=(str(empty),), allow_code=True
    )

    assert "no module named 'mk_net'" == message
    assert "--import-path DIR" in hint


def test_an_imported_name_is_no_class_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "mk_popen.py").write_text("from subprocess import Popen\n")
    marker = tmp_path / "marker"
    program = b"\x80\x02cmk_popen\nPopen\n)\x81}b."

    message, _ = refusal(
        with_pickle(tmp_path / "a.pt", program),
        CannotLoad,
        import_paths=(str(tmp_path),),
        allow_code=True,
    )

    assert "class `mk_popen.Popen` needed, but mk_popen defines no such class" in (
        message
    )
    assert not marker.exists()


def test_a_class_of_a_script_needs_the_script(pickles: Path) -> None:
    path = pickles / "main.pt"

    message, hint = refusal(path, CannotLoad)
    assert "class `__main__.Net` needed" in message
    assert "--import-path SCRIPT.py --allow-code" in hint
    message, _ = refusal(path, CannotLoad, allow_code=True)
    assert "class `__main__.Net` needed: it was defined in a script" == message

    place = str(pickles / "train_script.py")
    loaded = read(path, allow_code=True, import_paths=(place,))
    assert "Net" == loaded.target.architecture


def hollow(cls: type[nn.Module], state: dict[str, Any] | None = None) -> nn.Module:
    """A module whose ``__init__`` never ran."""
    module = cls.__new__(cls)
    vars(module).update(state or {})
    return module


def poison(change: Any) -> nn.Module:
    """``tiny()`` with something wrong in it."""
    module = tiny()
    change(module)
    return module


HOSTILE = {
    "no state": (lambda: hollow(nn.Linear), "is not restored"),
    "parameters are texts": (
        lambda: poison(lambda m: vars(m[0]).update(_parameters={"weight": "x"})),
        "its _parameters are missing or wrong",
    ),
    "children are numbers": (
        lambda: poison(lambda m: vars(m).update(_modules={"0": 3})),
        "its _modules are missing or wrong",
    ),
    "hidden method": (
        lambda: poison(lambda m: vars(m).update(state_dict=3)),
        "the attribute state_dict hides a method",
    ),
    "unnamed attribute": (
        lambda: poison(lambda m: vars(m).update({3: 4})),
        "an attribute has no name",
    ),
    "within itself": (
        lambda: poison(lambda m: m._modules.update(self=m)),
        "contains itself",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_modules_no_honest_program_wrote_are_refused(tmp_path: Path, name: str) -> None:
    build, reason = HOSTILE[name]
    path = tmp_path / "a.pt"
    torch.save(build(), path)

    message, _ = refusal(path, CannotLoad)

    assert reason in message


def test_modules_nested_without_end_are_refused(tmp_path: Path) -> None:
    module: nn.Module = nn.ReLU()
    for _ in range(150):
        module = nn.Sequential(module)

    message, _ = refusal(saved(tmp_path / "a.pt", module), CannotLoad)

    assert "modules are nested too deep: over 100" in message


def test_a_shared_module_is_no_cycle(tmp_path: Path) -> None:
    act = nn.ReLU()
    module = nn.Sequential(
        nn.Linear(4, 4), act, nn.Sequential(act, nn.Linear(4, 4), act)
    )

    loaded = read(saved(tmp_path / "a.pt", module)).module

    assert loaded[1] is loaded[2][0] is loaded[2][2]


def test_shared_modules_in_a_lattice_cost_no_time(tmp_path: Path) -> None:
    module: nn.Module = nn.ReLU()
    for _ in range(60):  # 2^60 paths
        module = nn.Sequential(OrderedDict(a=module, b=module))

    loaded = read(saved(tmp_path / "a.pt", module))

    assert 0 == loaded.target.parameters


def test_a_module_gives_its_weights_to_another_architecture(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", nn.DataParallel(tiny()))
    (tmp_path / "give.py").write_text(
        "from tests.loading.builders import tiny as build\n"
    )

    loaded = read(path, arch=f"{tmp_path / 'give.py'}:build")

    assert ("module.",) == loaded.target.stripped_prefixes
    assert same_state(tiny(), loaded.module)


def test_reading_leaves_the_list_of_safe_globals_alone(tmp_path: Path) -> None:
    before = torch.serialization.get_safe_globals()

    read(saved(tmp_path / "a.pt", tiny()))

    assert set(before) == set(torch.serialization.get_safe_globals())


def test_inspection_does_not_import_what_a_pickle_names(tmp_path: Path) -> None:
    # antigravity and this print or open a browser on import.
    program = b"\x80\x02cthis\nNet\n)\x81}b."
    path = with_pickle(tmp_path / "a.pt", program)
    sys.modules.pop("this", None)

    refusal(path, CannotLoad, allow_code=True)
    inspect(str(path), LoadOptions(allow_code=True))

    assert "this" not in sys.modules


def test_names_are_compared_whole(tmp_path: Path) -> None:
    for name in ("torch.nn.modules.linear\nNo", "torchvision.models\nresnet18"):
        program = b"\x80\x02c" + name.encode() + b"\n)\x81}b."
        message, _ = refusal(with_pickle(tmp_path / "a.pt", program), CannotLoad)

        assert name.replace("\n", ".") in message
