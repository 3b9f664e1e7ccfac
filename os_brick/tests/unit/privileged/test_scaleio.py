# SPDX-License-Identifier: Apache-2.0
"""Root verbs of PowerFlex's client: its driver, and the host's file of credentials."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from os_brick import exception, privileged
from os_brick.initiator.connectors.scaleio import ScaleIOConnector
from os_brick.privileged import scaleio

GUID = uuid.UUID("9e6b2c1a-1111-2222-3333-444455556666")
CONF = (
    "[backend]\nsan_username = admin\nsan_password = p%%w\n"
    "replicating_san_username = other\nreplicating_san_password = q\n[bare]\nsan_password = 50%\n"
)


@pytest.fixture(autouse=True)
def in_process() -> Iterator[Any]:
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


@pytest.fixture
def device(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    path = tmp_path / "scini"
    path.touch()
    monkeypatch.setattr(scaleio, "SCINI_DEVICE_PATH", str(path))
    return path


class Driver:
    """Answers requests to the client's control device as its driver does."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.asked: list[tuple[int, int]] = []
        self.error = 0

    def ioctl(self, fd: int, request: int, buffer: bytes) -> bytes:
        assert os.path.samestat(os.fstat(fd), self._path.stat())
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        self.asked.append((request, len(buffer)))
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return (b"\x41" + bytes(7) + GUID.bytes)[: len(buffer)]


@pytest.fixture
def driver(device: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    one = Driver(device)
    monkeypatch.setattr(fcntl, "ioctl", one.ioctl)
    return one


def test_the_driver_tells_the_guid_of_this_host(driver: Driver) -> None:
    assert scaleio.get_guid(0x610E) == str(GUID)
    assert driver.asked == [(0x610E, 24)]


def test_the_driver_asks_storage_for_sizes(driver: Driver) -> None:
    scaleio.rescan_vols(0x610A)

    assert driver.asked == [(0x610A, 8)]


def test_a_driver_that_refuses(driver: Driver) -> None:
    driver.error = errno.EIO

    with pytest.raises(OSError, match="Input/output error"):
        scaleio.get_guid(0x610E)
    with pytest.raises(OSError, match="Input/output error"):
        scaleio.rescan_vols(0x610A)


def test_a_device_of_another_kind(device: pathlib.Path) -> None:
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        scaleio.get_guid(0x610E)


def test_no_driver(device: pathlib.Path) -> None:
    device.unlink()

    with pytest.raises(FileNotFoundError):
        scaleio.get_guid(0x610E)


def test_the_guid_is_asked_for_once_while_the_driver_is_the_same(
    driver: Driver, device: pathlib.Path
) -> None:
    tell = ScaleIOConnector.get_connector_properties

    assert tell(None) == tell(None) == {"sdc_guid": str(GUID)}
    assert len(driver.asked) == 1

    device.rename(device.with_name("old"))
    device.touch()
    driver.error = errno.EIO
    assert tell(None) == {}
    driver.error = 0
    assert tell(None) == {"sdc_guid": str(GUID)}


@pytest.mark.parametrize(
    ("group", "failed_over", "expected"),
    [
        ("backend", False, ("admin", "p%w")),
        ("backend", True, ("other", "q")),
        ("bare", False, (None, "50%")),
    ],
)
def test_credentials_of_a_section(
    tmp_path: pathlib.Path, group: str, failed_over: bool, expected: tuple[str | None, str]
) -> None:
    path = tmp_path / "connector.conf"
    path.write_text(CONF)

    found = scaleio.get_connector_username_password(str(path), group, failed_over)

    assert found == expected
    assert "p%w" not in repr(found)
    assert "admin" not in repr(found)


@pytest.mark.parametrize(
    ("text", "group", "named"),
    [
        (None, "g", "No such file"),
        ("[g]\nno sense s3cret\n", "g", "no ini file"),
        ("[g]\nsan_password = s3cret\n[g]\n", "g", "no ini file"),
        ("san_password = s3cret\n", "g", "no ini file"),
        ("[other]\nsan_password = s3cret\n", "g", r"no section \[g\]"),
        ("[g]\nsan_username = x\n", "g", "no san_password"),
    ],
)
def test_credentials_that_cannot_be_read_are_quoted_nowhere(
    tmp_path: pathlib.Path, text: str | None, group: str, named: str
) -> None:
    path = tmp_path / "connector.conf"
    if text is not None:
        path.write_text(text)

    with pytest.raises(exception.BrickException, match=named) as caught:
        scaleio.get_connector_username_password(str(path), group, False)
    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "connector.conf"
    path.write_bytes(b"[g]\nsan_password = \xff\n")

    with pytest.raises(exception.BrickException, match="not UTF-8"):
        scaleio.get_connector_username_password(str(path), "g", False)


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(exception.BrickException, match="absolute"):
        scaleio.get_connector_username_password("connector.conf", "g", False)
