"""Files: written whole or not at all, and never over what must stay."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from vgaudit.cli import output
from vgaudit.errors import CannotWrite


def refused(path: Path, *, inputs=(), force=False) -> str:
    with pytest.raises(CannotWrite) as caught:
        output.destinations([f"json={path}"], inputs=inputs, force=force)
    assert caught.value.hint
    assert 3 == caught.value.exit_code
    return caught.value.message


def test_a_new_file_follows_the_umask(tmp_path) -> None:
    path = tmp_path / "report.json"
    old = os.umask(0o027)
    try:
        output.write(path, "text − …\n")
    finally:
        os.umask(old)

    assert "text − …\n" == path.read_text(encoding="utf-8")
    assert 0o640 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(tmp_path.iterdir())


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    path.chmod(0o600)
    output.write(path, "new")

    assert ("new", 0o600) == (path.read_text(), stat.S_IMODE(path.stat().st_mode))


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="cannot be written: No space left on device"):
        output.write(path, "new")

    assert "old" == path.read_text()
    assert [path] == list(tmp_path.iterdir())


def test_an_existing_file_needs_force(tmp_path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    assert f"{path} exists already" == refused(path)
    assert (("json", path),) == output.destinations(
        [f"json={path}"], inputs=(), force=True
    )


def test_an_input_is_never_written_over(tmp_path) -> None:
    model = tmp_path / "model.pt"
    model.write_text("weights")
    link = tmp_path / "link.json"
    link.symlink_to(model)

    for path in (model, link):
        for given in (str(model), f"{model}#ema"):
            assert f"{path} is an input of this command" == refused(
                path, inputs=(given, None), force=True
            )
    assert "weights" == model.read_text()


def test_a_missing_folder_is_known_before_the_work(tmp_path) -> None:
    assert f"{tmp_path / 'a'} is no folder" == refused(tmp_path / "a" / "report.json")
    assert f"{tmp_path} is a folder" == refused(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission_is_known_before_the_work(tmp_path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "cannot be written to" in refused(tmp_path / "report.json")
    finally:
        tmp_path.chmod(0o700)
