# SPDX-License-Identifier: Apache-2.0
"""Root verbs for the files of LightOS's discovery client."""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from os_brick import privileged
from os_brick.privileged import lightos

NAME = "c9f1b0de-1111-2222-3333-444455556666.conf"
TEXT = (
    "# a volume\n-t tcp -a 10.0.0.1 -s 8009 -q nqn.h -n nqn.s\n-t tcp -a fd00::1 -s 1 -q h -n s\n"
)


@pytest.fixture(autouse=True)
def in_process() -> Iterator[Any]:
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "client/discovery.d"
    path.mkdir(parents=True)
    return path


def test_a_file_is_made_whole_and_readable(directory: pathlib.Path) -> None:
    old = os.umask(0o077)
    try:
        lightos.write_dsc_file(str(directory / NAME), TEXT)
    finally:
        os.umask(old)

    assert (directory / NAME).read_text() == TEXT
    assert (directory / NAME).stat().st_mode & 0o777 == 0o644
    assert os.listdir(directory.parent) == ["discovery.d"]


def test_a_directory_that_is_a_mount_of_its_own(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def across(source: str, target: str) -> None:
        if os.path.dirname(source) != os.path.dirname(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", across)
    lightos.write_dsc_file(str(directory / NAME), TEXT)

    assert os.listdir(directory) == [NAME]
    assert os.listdir(directory.parent) == ["discovery.d"]


def test_nothing_is_left_of_a_file_that_could_not_be_made(directory: pathlib.Path) -> None:
    (directory / NAME).mkdir()

    with pytest.raises(OSError, match="directory"):
        lightos.write_dsc_file(str(directory / NAME), TEXT)
    assert os.listdir(directory.parent) == ["discovery.d"]
    assert os.listdir(directory) == [NAME]


@pytest.mark.parametrize(
    "path",
    ["x.conf", NAME, f"/{NAME}", "/etc/passwd", f"/etc/../etc/{NAME}", f"/etc/a\n/{NAME}", None],
)
def test_other_files_are_refused(path: Any) -> None:
    with pytest.raises(ValueError, match="file of the discovery client"):
        lightos.write_dsc_file(path, TEXT)
    with pytest.raises(ValueError, match="file of the discovery client"):
        lightos.delete_dsc_file(path)
    with pytest.raises(ValueError, match="file of the discovery client"):
        lightos.move_dsc_file("/tmp/x", path)


@pytest.mark.parametrize(
    "line", ["rm -rf /", "-t tcp -a h -s 1 -q x y -n z", "-t tcp -a h -s 1 -q x -n z -k", ""]
)
def test_other_lines_are_refused(directory: pathlib.Path, line: str) -> None:
    with pytest.raises(ValueError, match="line for the discovery client"):
        lightos.write_dsc_file(str(directory / NAME), f"# x\n{line}\n")
    assert os.listdir(directory) == []


def test_a_file_is_removed_and_may_be_gone_before(directory: pathlib.Path) -> None:
    (directory / NAME).touch()

    lightos.delete_dsc_file(str(directory / NAME))
    lightos.delete_dsc_file(str(directory / NAME))

    assert os.listdir(directory) == []


def test_a_file_of_the_services_is_moved(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "made"
    source.write_text(TEXT)

    lightos.move_dsc_file(str(source), str(directory / NAME))

    assert (directory / NAME).read_text() == TEXT
    assert not source.exists()


def test_only_ordinary_files_are_moved(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc/shadow")
    for source in (str(link), str(tmp_path), "relative"):
        with pytest.raises((ValueError, FileNotFoundError)):
            lightos.move_dsc_file(source, str(directory / NAME))
    assert link.is_symlink()
