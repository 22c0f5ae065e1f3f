"""Programs of torch.export: what is read, and what must never run.

Every attack is built here, from an honest archive, with a marker as its payload:
the file that it would make. Nothing may make it.
"""

from __future__ import annotations

import collections
import io
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import vgaudit
from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.job import DataOptions, LoadOptions
from vgaudit.loading import load
from vgaudit.loading.exported.shapes import Refused, check_expression

ALLOWED = LoadOptions(allow_code=True)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Sigmoid()),
        *(nn.Linear(16, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 4)),
    )


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    x = (torch.randn(4, 8),)
    torch.export.save(torch.export.export(net().eval(), x), folder / "static.pt2")
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(net().train(), x, dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "dynamic.pt2")
    return folder


def rewritten(source: Path, target: Path, **changes: object) -> Path:
    """Returns a copy of an archive with members changed, added or taken away.

    A change is bytes, None to leave the member out, or a function of its JSON.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        names = {name.partition("/")[2]: name for name in old.namelist()}
        for name in dict.fromkeys([*names, *changes]):
            content = old.read(names[name]) if name in names else b""
            change = changes.get(name, content)
            if callable(change):
                record = json.loads(content)
                change(record)
                change = json.dumps(record).encode()
            if change is not None:
                new.writestr(f"{root}/{name}", change)
    return target


def test_without_permission_it_is_refused_but_checked(programs: Path) -> None:
    with pytest.raises(CannotLoad, match="aten operators only") as caught:
        load(str(programs / "static.pt2"), LoadOptions())
    assert caught.value.hint.startswith("--allow-code runs it; or pass the eager")


def test_the_module_computes_what_the_program_was_made_of(programs: Path) -> None:
    loaded = load(str(programs / "static.pt2"), ALLOWED)
    x = torch.randn(4, 8)

    torch.testing.assert_close(loaded.module(x), net().eval()(x))
    assert loaded.target.trust_tier == "T2"
    assert loaded.target.parameters == sum(p.numel() for p in net().parameters())


def test_a_scan_of_the_program_is_a_scan_of_the_model(programs: Path) -> None:
    """The same trunk, the same figures as the eager model on the same data."""
    batch = torch.randn(16, 8)

    ours = vgaudit.scan(str(programs / "dynamic.pt2"), batch, load_options=ALLOWED)
    eager = vgaudit.scan(net().train(), batch)

    assert ours.audit is not None
    assert eager.audit is not None
    got, wanted = ours.audit.flow, eager.audit.flow
    assert got.attenuation is not None
    assert wanted.attenuation is not None
    assert got.attenuation.value == pytest.approx(wanted.attenuation.value, abs=1e-4)
    kinds = [
        [layer.activation.kind for layer in flow.layers if layer.activation]
        for flow in (got, wanted)
    ]
    assert kinds[0] == kinds[1] == ["sigmoid", "tanh"]
    assert [f.code for f in ours.findings] == [f.code for f in eager.findings]


def test_eval_mode_is_said_and_judged(programs: Path) -> None:
    report = vgaudit.scan(str(programs / "static.pt2"), load_options=ALLOWED)
    trained = vgaudit.scan(str(programs / "dynamic.pt2"), load_options=ALLOWED)

    assert "VG005" in {finding.code for finding in report.findings}
    assert "VG005" not in {finding.code for finding in trained.findings}


def test_the_batch_size_is_the_program_s(programs: Path) -> None:
    report = vgaudit.scan(str(programs / "static.pt2"), load_options=ALLOWED)

    assert report.audit is not None
    assert report.audit.flow.batch_size == 4
    with pytest.raises(BadConfig, match="exported for batches of 4, not of 32"):
        vgaudit.scan(
            str(programs / "static.pt2"),
            load_options=ALLOWED,
            data_options=DataOptions(batch_size=32),
        )


class Marks:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def first_node(program: dict) -> dict:
    return program["graph_module"]["graph"]["nodes"][0]


def set_expression(text: str):
    def change(program: dict) -> None:
        values = program["graph_module"]["graph"]["tensor_values"]
        sizes = next(
            v["sizes"] for v in values.values() if "as_expr" in str(v["sizes"])
        )
        sizes[0]["as_expr"]["expr_str"] = text

    return change


def set_spec(**node: object):
    def change(program: dict) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["out_spec"] = json.dumps([1, {"children_spec": [], **node}])

    return change


WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
MODEL = "models/model.json"


def attacks(marker: Path) -> dict[str, dict[str, object]]:
    code = f"__import__('os').mkdir({str(marker)!r})"
    pickle = pickled(Marks(marker))
    imported = json.dumps({"__enum__": True, "fqn": f"{marker.name}:x", "name": "y"})
    factory = json.dumps(
        {"default_factory_module": marker.name, "default_factory_name": "x"}
    )

    def pickled_weight(config: dict) -> None:
        entry = next(iter(config["config"].values()))
        entry["use_pickle"] = True

    def stray_path(config: dict) -> None:
        next(iter(config["config"].values()))["path_name"] = "../../secret"

    def opaque(config: dict) -> None:
        config["config"]["c"] = {
            **{"path_name": "opaque_obj_0", "is_param": False},
            **{"use_pickle": True, "tensor_meta": None},
        }

    def target(name: str):
        return lambda program: first_node(program).update(target=name)

    return {
        "sample inputs": {"data/sample_inputs/model.pt": pickle},
        "pickled weight": {WEIGHTS: pickled_weight, "data/weights/weight_0": pickle},
        "old weights": {"data/weights/model.pt": pickle},
        "old constants": {"data/constants/model.pt": pickle},
        "path": {WEIGHTS: stray_path},
        "opaque constant": {CONSTANTS: opaque, "data/constants/opaque_obj_0": pickle},
        "custom object": {"data/constants/custom_obj_0": pickle},
        "compiled library": {"data/aotinductor/model/x.so": b"\x7fELF"},
        "second program": {"models/other.json": b"{}"},
        "shape: call": {MODEL: set_expression(code)},
        "shape: attribute": {MODEL: set_expression("s0.__class__")},
        "shape: lambda": {MODEL: set_expression(f"(lambda: {code})()")},
        "shape: symbol": {MODEL: set_expression(f"Symbol({code!r})")},
        "shape: power": {MODEL: set_expression("9**9**9**9")},
        "shape: nested": {MODEL: set_expression("(" * 5000 + "1" + ")" * 5000)},
        "operator: python": {MODEL: target("torch.serialization.load")},
        "operator: os": {MODEL: target("torch.os.system")},
        "operator: file": {MODEL: target("torch.ops.aten.from_file.default")},
        "operator: builtin": {MODEL: target("_operator.call")},
        "operator: extension": {MODEL: target("#namespace:op")},
        "output class": {MODEL: set_spec(type="os.PathLike", context="null")},
        "enum key": {MODEL: set_spec(type="builtins.dict", context=f"[{imported}]")},
        "default factory": {
            MODEL: set_spec(type="collections.defaultdict", context=factory)
        },
        "no json": {MODEL: b"{"},
        "deep json": {MODEL: b"[" * 100_000},
        "empty": {MODEL: b"{}"},
        "no weights": {WEIGHTS: None},
    }


@pytest.mark.parametrize("name", list(attacks(Path("marker"))))
@pytest.mark.parametrize("options", [LoadOptions(), ALLOWED], ids=["plain", "allowed"])
def test_nothing_in_a_program_runs(
    name: str, options: LoadOptions, programs: Path, tmp_path: Path, monkeypatch
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "marker.py").write_text(f"import os; os.mkdir({str(marker)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    changes = attacks(marker)[name]
    path = rewritten(programs / "dynamic.pt2", tmp_path / "attack.pt2", **changes)

    with pytest.raises(CannotLoad) as caught:
        load(str(path), options)

    assert not marker.exists()
    assert "Traceback" not in caught.value.message
    assert caught.value.hint


def test_guards_and_notes_are_not_evaluated(programs: Path, tmp_path: Path) -> None:
    """torch would compile guard strings; the copy that it gets has none."""
    marker = tmp_path / "marker"
    code = f"__import__('os').mkdir({str(marker)!r}) or True"

    def change(program: dict) -> None:
        program["guards_code"] = [code]
        first_node(program)["metadata"].update(
            stack_trace=code, source_fn_stack=f"x,{code}", torch_fn=code
        )

    path = rewritten(
        programs / "dynamic.pt2", tmp_path / "guards.pt2", **{MODEL: change}
    )
    loaded = load(str(path), ALLOWED)

    loaded.module(torch.randn(4, 8))
    assert not marker.exists()


@pytest.mark.parametrize("field", ["sizes", "strides", "storage_offset"])
def test_a_tensor_beyond_its_record_is_refused(
    field: str, programs: Path, tmp_path: Path
) -> None:
    def change(config: dict) -> None:
        meta = config["config"]["0.weight"]["tensor_meta"]
        huge = {"as_int": 10**15}
        meta[field] = huge if field == "storage_offset" else [huge, huge]

    path = rewritten(programs / "static.pt2", tmp_path / "x.pt2", **{WEIGHTS: change})

    with pytest.raises(CannotLoad, match="reaches beyond its record"):
        load(str(path), ALLOWED)


def test_a_flipped_byte_is_noticed(programs: Path, tmp_path: Path) -> None:
    content = bytearray((programs / "static.pt2").read_bytes())
    with zipfile.ZipFile(programs / "static.pt2") as archive:
        member = next(m for m in archive.infolist() if m.filename.endswith("weight_0"))
    content[member.header_offset + 200 + len(member.filename)] ^= 0xFF
    path = tmp_path / "flipped.pt2"
    path.write_bytes(content)

    with pytest.raises(CannotLoad):
        load(str(path), ALLOWED)


@pytest.mark.parametrize(
    "text",
    [
        *("s0", "2*s0 + 1", "(s0 + 1)//2", "s0**2", "Mod(s0, 8)", "Max(1, u0)"),
        "Symbol('s31', positive=True, integer=True)",
        "FloorDiv(Symbol('s31', positive=True, integer=True), Integer(2))",
    ],
)
def test_honest_shapes_pass(text: str) -> None:
    check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        *("__import__", "s0.real", "s0[0]", "[s0 for s0 in x]", "f'{s0}'", "'text'"),
        *("Symbol('__import__')", "eval('1')", "Symbol(name='s0')", "s0 if s0 else 1"),
        *("2**(2**40)", "Pow(9, 10**9)", "10**10**10", "9" * 30, "1e400", "s0**s1"),
        *("(((9**16)**16)**16)**16**1", "", "s0;", "lambda: 1", "x:=1", "print(1)"),
    ],
)
def test_anything_else_does_not(text: str) -> None:
    with pytest.raises(Refused):
        check_expression(text)


def test_outputs_in_containers_are_read(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            hidden = self.first(x).tanh()
            return collections.OrderedDict(out=self.second(hidden), hidden=hidden)

    path = tmp_path / "twice.pt2"
    torch.export.save(torch.export.export(Twice(), (torch.randn(3, 4),)), path)

    loaded = load(str(path), ALLOWED)
    assert set(loaded.module(torch.randn(3, 4))) == {"out", "hidden"}
