"""From what was typed to a job for the worker and a policy for the verdict."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from vgaudit.cli.permissions import rules
from vgaudit.cli.process import Limits
from vgaudit.errors import BadConfig
from vgaudit.job import DataOptions, LoadOptions, ProbeOptions, ScanJob
from vgaudit.judge import Policy
from vgaudit.plain import visible
from vgaudit.rules.selection import parse_overrides

Given = Mapping[str, Any]
"""The parameters of a command by name, as typer parsed them."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def scan_job(given: Given) -> ScanJob:
    """Returns the job of a scan.

    Raises:
        BadConfig: an option has no valid form.
    """
    deep, static = _depth(given)
    return ScanJob(
        spec=given["model"],
        load=load_options(given),
        data=DataOptions(
            data=given["data"],
            inputs=_all(given["input"]),
            loss=given["loss"],
            batches=given["batches"],
            batch_size=given["batch_size"],
            seed=given["seed"],
        ),
        probe=ProbeOptions(
            mode=_chosen(given["mode"]),
            device=given["device"],
            dtype=given["dtype"],
            seed=given["seed"],
            output=given["output"],
            unfreeze=given["unfreeze"],
            allow_nonfinite=given["allow_nonfinite"],
            deep=deep,
            static=static,
            parallel=_chosen(given.get("parallel", "ddp")),
        ),
    )


def _depth(given: Given) -> tuple[bool, bool]:
    """Returns whether to measure more than usual, and whether to run nothing."""
    deep, static = bool(given.get("deep")), bool(given.get("static"))
    if deep and static:
        raise BadConfig(
            "--deep and --static exclude each other",
            hint="--static runs nothing, and --deep runs more than an ordinary scan",
        )
    return deep, static


def structure_job(given: Given) -> ScanJob:
    """Returns the job of an inspection: how to load, and on what to follow the graph.

    Raises:
        BadConfig: an option has no valid form.
    """
    return ScanJob(
        spec=given["model"],
        load=load_options(given),
        data=DataOptions(
            data=given["data"],
            inputs=_all(given["input"]),
            batches=1,
            batch_size=given["batch_size"],
            seed=given["seed"],
        ),
        probe=ProbeOptions(mode=_chosen(given["mode"]), seed=given["seed"]),
    )


def load_options(given: Given) -> LoadOptions:
    """Returns how to load the model.

    Raises:
        BadConfig: an option has no valid form.
    """
    return LoadOptions(
        arch=given["arch"],
        weights=given["weights"],
        key=given["key"],
        allow_code=given["allow_code"],
        trust_pickle=_trust(given["trust_pickle"]),
        allow_missing=given["allow_missing"],
        pretrained=given["pretrained"],
        sha256=given["sha256"],
        model_args=_pairs(given["model_arg"]),
        import_paths=_all(given["import_path"]),
        seed=given["seed"],
    )


def policy(given: Given, arguments: Iterable[str]) -> Policy:
    """Returns what decides the verdict, and refuses what it cannot mean.

    Raises:
        BadConfig: a rule or threshold is unknown.
    """
    chosen = Policy(
        optimizer=_chosen(given["optimizer"]),
        select=_listed(given["select"]),
        ignore=_listed(given["ignore"]),
        fail_on=_chosen(given["fail_on"]),
        overrides={
            **getattr(given.get("config"), "thresholds", {}),
            **parse_overrides(_listed(given["set"])),
        },
        exit_zero=given["exit_zero"],
        command=shlex.join(["vgaudit", *arguments]),
    )
    chosen.check()
    return chosen


def limits(given: Given) -> Limits:
    """Returns what the worker may use.

    Raises:
        BadConfig: the size has no valid form.
    """
    text, timeout = given["max_memory"], given["timeout"]
    if timeout is not None:
        check_seconds("timeout", timeout)
    return Limits(
        timeout=timeout,
        max_memory=None if text is None else _bytes(text),
        rules=rules(given),
    )


def check_seconds(name: str, value: float) -> None:
    """Refuses a time that is no number.

    Raises:
        BadConfig: it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise BadConfig(f"--{name} is {value}", hint="give a number of seconds")


def _chosen(value: Any) -> Any:
    """Returns the text of a choice: older versions of typer give it as it was typed."""
    return getattr(value, "value", value)


def _all(values: list[str] | None) -> tuple[str, ...]:
    return tuple(values or ())


def _listed(values: list[str] | None) -> tuple[str, ...]:
    """Returns the values of a repeated option that may also list them by comma."""
    return tuple(part for value in values or () for part in value.split(",") if part)


def _pairs(values: list[str] | None) -> dict[str, str]:
    pairs = {}
    for value in values or ():
        name, separator, text = value.partition("=")
        if not separator or not name.isidentifier():
            raise BadConfig(
                f"--model-arg {visible(value)}: not of the form NAME=VALUE",
                hint="for example --model-arg num_classes=10",
            )
        pairs[name] = text
    return pairs


def _trust(text: str) -> str:
    digest = text.removeprefix("sha256:")
    if text in ("", "yes") or (digest != text and _is_sha256(digest)):
        return text if digest == text else digest.lower()
    raise BadConfig(
        f"--trust-pickle={visible(text)}: neither empty nor sha256:HEX",
        hint="`vgaudit inspect FILE` prints the sha256 of the file",
    )


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(ch in "0123456789abcdefABCDEF" for ch in text)


def _bytes(text: str) -> int:
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = number[-1:] if number[-1:] in _UNITS else ""
    try:
        size = int(float(number.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise BadConfig(
            f"--max-memory {visible(text)}: not a size",
            hint="a number of bytes, or with K, M, G or T: --max-memory 8G",
        )
    return size
