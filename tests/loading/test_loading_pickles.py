"""Pickles that would run code, and pickles that cannot end well (rows 20-24)."""

from __future__ import annotations

import os
import pickle
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loading.builders import (
    dumped,
    legacy_with_pickle,
    read,
    records,
    refusal,
    saved,
    tiny,
    with_pickle,
    write_records,
)
from vgaudit.errors import BadConfig, CannotLoad, VgauditError
from vgaudit.job import LoadOptions
from vgaudit.loading import inspect, load

MARKER = "MARKER"


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def attacks(marker: Path) -> dict[str, bytes]:
    """Programs that would create ``marker``, and the global each one needs."""
    touch = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w').close()"
    quoted = touch.encode()
    nested = {"weight": torch.zeros(2), "hook": Call(os.system, touch)}
    partial = b"\x80\x02cfunctools\npartial\ncposix\nsystem\n\x85R(X" + (
        len(quoted).to_bytes(4, "little") + quoted + b"tR."
    )
    getattr_chain = (
        b"\x80\x02c__builtin__\ngetattr\ncos\npath\nX\x02\x00\x00\x00os\x86R."
    )
    return {
        "posix.system": dumped(Call(os.system, touch)),
        "posix.popen": b"cposix\npopen\n(S'" + quoted + b"'\ntR.",
        "subprocess.Popen": dumped(Call(subprocess.Popen, ["touch", str(marker)])),
        "builtins.exec": dumped(Call(exec, python)),
        "builtins.eval": dumped(Call(eval, python)),
        "builtins.getattr": getattr_chain,
        "os.system": b"(S'" + quoted + b"'\nios\nsystem\n.",
        "nt.system": b"(cnt\nsystem\nS'" + quoted + b"'\no.",
        "copyreg.extension.7": b"\x80\x02\x82\x07)R.",
        "torch.hub.load": b"\x80\x02ctorch.hub\nload\nX\x01\x00\x00\x00x\x85R.",
        "runpy._run_code": b"\x80\x02crunpy\n_run_code\n)R.",
        "pty.spawn": b"\x80\x02cpty\nspawn\nX\x02\x00\x00\x00sh\x85R.",
        "torch.jit._script.RecursiveScriptModule": (
            b"\x80\x02ctorch.jit._script\nRecursiveScriptModule\n)\x81."
        ),
        "torch.fx.graph_module.reduce_graph_module": (
            b"\x80\x02ctorch.fx.graph_module\nreduce_graph_module\n)R."
        ),
        "posix.system (in a dict)": dumped(nested, 2),
        "posix.system (bound)": partial,
    }


NAMES = list(attacks(Path(MARKER)))


def containers(folder: Path, program: bytes) -> dict[str, Path]:
    """The program in each kind of file that torch reads."""
    plain = folder / "plain.pt"
    plain.write_bytes(program)
    return {
        "zip": with_pickle(folder / "zip.pt", program),
        "legacy": legacy_with_pickle(folder / "legacy.pt", program),
        "plain": plain,
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("container", ["zip", "legacy", "plain"])
def test_attacks_are_refused_by_name_and_nothing_runs(
    tmp_path: Path, name: str, container: str
) -> None:
    marker = tmp_path / "marker"
    path = containers(tmp_path, attacks(marker)[name])[container]

    message, hint = refusal(path, CannotLoad)
    seen = inspect(str(path), LoadOptions())

    wanted = name.partition(" ")[0]
    assert wanted in message
    assert "refused: needs global" in message
    assert "(tier T3, sha256 " in message
    assert f"--trust-pickle=sha256:{seen.sha256}" in hint
    assert "T3" == seen.tier
    assert wanted in seen.unsafe_globals
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_no_protocol_hides_a_global(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    program = dumped(Call(os.system, f"touch {marker}"), protocol)
    for path in containers(tmp_path, program).values():
        message, _ = refusal(path, CannotLoad)

        assert "posix.system" in message
    assert not marker.exists()


@pytest.mark.parametrize("allow", [{}, {"allow_code": True}])
def test_permission_for_code_is_none_for_pickles(
    tmp_path: Path, allow: dict[str, bool]
) -> None:
    marker = tmp_path / "marker"
    path = with_pickle(tmp_path / "a.pt", attacks(marker)["posix.system"])

    refusal(path, CannotLoad, **allow, import_paths=(str(tmp_path),))

    assert not marker.exists()


def test_a_known_class_may_not_be_called(tmp_path: Path) -> None:
    # weights_only with the class on its list would build 40 GB here.
    program = b"\x80\x02ctorch.nn.modules.linear\nLinear\nM\xff\xffM\xff\xff\x86R."

    message, _ = refusal(with_pickle(tmp_path / "a.pt", program), CannotLoad)

    assert "it calls torch.nn.modules.linear.Linear instead of restoring it" in message


@pytest.mark.parametrize("trust", ["yes", "digest", "bare digest"])
def test_trusted_pickles_run(tmp_path: Path, trust: str) -> None:
    marker = tmp_path / "marker"
    weights = {"model": Call(os.system, f"touch {marker}")}
    path = saved(tmp_path / "a.pt", {**weights, "state_dict": tiny().state_dict()})
    digest = inspect(str(path), LoadOptions()).sha256
    given = {"yes": "yes", "digest": f"sha256:{digest}", "bare digest": str(digest)}

    (tmp_path / "tiny_arch.py").write_text("from tests.loading.builders import tiny\n")
    loaded = read(path, trust_pickle=given[trust], arch=f"{tmp_path}/tiny_arch.py:tiny")

    assert marker.exists()
    assert "T3" == loaded.target.trust_tier


def test_trust_in_another_file_is_no_trust(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = with_pickle(tmp_path / "a.pt", attacks(marker)["posix.system"])

    message, hint = refusal(path, CannotLoad, trust_pickle="sha256:" + "0" * 64)

    assert "not the one that --trust-pickle names" in message
    assert "changed since it was trusted" in hint
    refusal(path, BadConfig, trust_pickle="sure")
    assert not marker.exists()


def test_trust_is_not_used_where_it_is_not_needed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", tiny())

    assert "T1" == read(path, trust_pickle="yes").target.trust_tier


def nested_lists(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def test_deep_nesting_is_refused_quickly(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "a.pt", nested_lists(200_000))

    began = time.process_time()
    message, _ = refusal(path, CannotLoad)

    assert "its pickle is nested too deep: over 1000" in message
    assert time.process_time() - began < 5


def hidden_depth(depth: int) -> bytes:
    """A chain of dicts, each put into the one before after that was put away."""
    program = b"\x80\x02}q\x00"
    for index in range(depth):
        key = f"k{index}".encode()
        program += b"X" + len(key).to_bytes(4, "little") + key
        program += b"}r" + (index + 1).to_bytes(4, "little") + b"s"
        program += b"j" + (index + 1).to_bytes(4, "little")
    return program + b"h\x00."


def test_depth_built_from_the_outside_ends_too(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "a.pt", hidden_depth(10_000))

    message, _ = refusal(path, CannotLoad)

    assert "no state_dict found in keys k0" in message


def laughs(levels: int) -> bytes:
    """A tuple of ten references to a tuple of ten references to …"""
    program = b"\x80\x02X\x03\x00\x00\x00lolq\x00"
    for level in range(levels):
        index = bytes([level])
        program += b"(" + (b"h" + index) * 10 + b"tq" + bytes([level + 1])
    return program + b"."


def test_a_billion_laughs_are_not_expanded(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "a.pt", laughs(30))

    began = time.process_time()
    message, _ = refusal(path, CannotLoad)
    inspect(str(path), LoadOptions())

    assert f"{path}: no state_dict found in a tuple of 10" == message
    assert time.process_time() - began < 5


def test_a_dict_within_itself_ends(tmp_path: Path) -> None:
    selfish: dict[str, Any] = {"epoch": 1}
    selfish["self"] = selfish
    path = saved(tmp_path / "a.pt", selfish)

    message, _ = refusal(path, CannotLoad)

    assert f"{path}: no state_dict found in keys epoch, self" == message


MALFORMED = {
    "huge text": b"\x80\x02X\xff\xff\xff\xffabc.",
    "huge text (8 bytes)": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc.",
    "missing STOP": b"\x80\x02}",
    "LONG4": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "empty stack": b"\x80\x020.",
    "no mark": b"\x80\x02t.",
    "unknown memo": b"\x80\x02h\x07.",
    "unknown opcode": b"\x80\x02\xff.",
    "stop on nothing": b"\x80\x02.",
    "bad text": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "computed global": b"\x80\x04]]\x93.",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_pickles_are_refused(tmp_path: Path, name: str) -> None:
    for path in containers(tmp_path, MALFORMED[name]).values():
        message, _ = refusal(path, CannotLoad)

        assert "cannot be read: its pickle is malformed" in message


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=60), st.integers(0, 400))
def test_damaged_pickles_end_in_our_errors(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int
) -> None:
    folder = tmp_path_factory.mktemp("noise")
    path = saved(folder / "a.pt", tiny().state_dict())
    members = records(path)
    program = members["a/data.pkl"]
    at = place % len(program)
    members["a/data.pkl"] = program[:at] + noise + program[at + len(noise) :]
    write_records(path, members)

    try:
        load(str(path), LoadOptions(arch=None))
    except VgauditError:
        return


def test_a_plain_pickle_is_refused_whatever_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": 1}, 2))

    message, _ = refusal(path, CannotLoad)

    assert "refused: a plain pickle, not written by torch.save (tier T3" in message


def test_a_trusted_plain_pickle_loads(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(tiny()))

    assert "T3" == read(path, trust_pickle="yes").target.trust_tier


def test_a_newer_pickle_protocol_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", tiny().state_dict(), pickle_protocol=4)

    message, _ = refusal(path, CannotLoad)

    assert "pickle protocol 4, where torch reads 2" in message
