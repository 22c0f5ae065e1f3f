"""The pytest plugin: a fixture, a marker, and ``pytest --vgaudit=SPEC``.

Importing it imports neither torch nor the rest of vgaudit: a test run that audits
nothing pays nothing. ``--vgaudit`` scans in a process of its own, as the command line
does; the fixture runs in the process of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vgaudit.judge import Policy

MARKER = "vgaudit"
_KEYS = ("optimizer", "select", "ignore", "fail_on", "thresholds")
_OPTION, _ARGUMENT = "vgaudit_specs", "vgaudit_arguments"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of the plugin."""
    group = parser.getgroup("vgaudit", "gradient health of models")
    group.addoption(
        "--vgaudit",
        action="append",
        default=[],
        dest=_OPTION,
        metavar="SPEC",
        help="scan a model as one more test: a file, torchvision:NAME, "
        "file.py:factory …; may be repeated",
    )
    group.addoption(
        "--vgaudit-args",
        default="",
        dest=_ARGUMENT,
        metavar="ARGUMENTS",
        help="options of `vgaudit scan` for every --vgaudit, in one text",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker, and adds a test for each ``--vgaudit``."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(optimizer, select, ignore, fail_on, thresholds): how the fixture "
        "assert_gradient_healthy judges in this test",
    )


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Puts the scans of ``--vgaudit`` behind the tests."""
    specs = config.getoption(_OPTION)
    if not specs:
        return
    folder = Scans.from_parent(session, path=Path(config.rootpath), name="vgaudit")
    items.extend(folder.collect())


@pytest.fixture
def assert_gradient_healthy(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Returns ``vgaudit.assert_gradient_healthy`` under the test's marker.

    ::

        @pytest.mark.vgaudit(optimizer="adam")
        def test_gradients(assert_gradient_healthy):
            assert_gradient_healthy(MyModel(), (x, y))
    """
    chosen = _policy(request.node.get_closest_marker(MARKER))

    def check(model: Any, batches: Any = None, **options: Any) -> None:
        __tracebackhide__ = True
        from vgaudit.api import assert_gradient_healthy as healthy

        healthy(model, batches, **{"policy": chosen, **options})

    return check


def _policy(marker: pytest.Mark | None) -> Policy:
    """Returns the policy that a marker states.

    Raises:
        pytest.UsageError: the marker says something else, or names no such rule.
    """
    from vgaudit.errors import VgauditError
    from vgaudit.judge import Policy

    stated = dict(marker.kwargs) if marker is not None else {}
    unknown = sorted(set(stated) - set(_KEYS))
    if unknown or (marker is not None and marker.args):
        what = unknown[0] if unknown else "a value without a name"
        raise pytest.UsageError(
            f"@pytest.mark.{MARKER} takes {', '.join(_KEYS)}, not {what}"
        )
    for key in ("select", "ignore"):
        value = stated.get(key, ())
        stated[key] = (value,) if isinstance(value, str) else tuple(value)
    overrides = stated.pop("thresholds", {})
    policy = Policy(overrides=overrides, **stated)
    try:
        policy.check()
    except VgauditError as error:
        raise pytest.UsageError(f"{error.message}: {error.hint}") from error
    return policy


class Scans(pytest.Collector):
    """The scans that ``--vgaudit`` asks for."""

    def collect(self) -> Iterator[ScanItem]:
        """Yields a test for each spec."""
        for spec in self.config.getoption(_OPTION):
            yield ScanItem.from_parent(self, name=f"scan[{spec}]", spec=spec)


class ScanItem(pytest.Item):
    """One scan by the command line, in a process of its own."""

    def __init__(self, *, spec: str, **others: Any) -> None:
        super().__init__(**others)
        self.spec = spec

    def runtest(self) -> None:
        """Runs ``vgaudit scan``; anything but a pass fails the test."""
        import os
        import shlex
        import subprocess
        import sys

        arguments = shlex.split(str(self.config.getoption(_ARGUMENT)))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "vgaudit", "scan", self.spec),
                *("--no-progress", *arguments),
            ],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            check=False,
        )
        if done.returncode:
            raise ScanFailed(done.returncode, done.stdout, done.stderr)

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Returns the report instead of a traceback into this plugin."""
        if isinstance(excinfo.value, ScanFailed):
            return excinfo.value.words
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Returns what pytest shows as the name of the test."""
        return self.path, None, f"vgaudit scan {self.spec}"


class ScanFailed(Exception):
    """A scan that did not pass."""

    def __init__(self, code: int, out: str, err: str) -> None:
        super().__init__(f"exit {code}")
        self.words = "\n".join(part for part in (out, err) if part)
