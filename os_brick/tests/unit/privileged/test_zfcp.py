# SPDX-License-Identifier: Apache-2.0
"""Root verbs of IBM Z's Fibre Channel driver, and what all verbs have in common."""

from __future__ import annotations

import os
import pathlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from os_brick import privileged
from os_brick.privileged import guarded, scsi, zfcp

ADAPTER, WWPN, LUN = "0.0.2300", "0x500507630300c562", "0x4010403200000000"


@pytest.fixture(autouse=True)
def in_process() -> Iterator[Any]:
    privileged.default.set_client_mode(False)
    yield
    privileged.default.set_client_mode(True)


@pytest.mark.parametrize(
    "adapter",
    ["", "0.0.23000", "0.0.230", "../0.0.2300", "0.0.2300/..", "0.0.2300\n", "0.0.230G", 17, None],
)
def test_adapters_are_checked(adapter: Any) -> None:
    with pytest.raises(ValueError, match="adapter"):
        zfcp.rescan_ports(adapter, 1)


@pytest.mark.parametrize(
    ("wwpn", "verb", "lun", "named"),
    [
        (WWPN[2:], "unit_add", LUN, "port"),
        (WWPN.upper(), "unit_add", LUN, "port"),
        (f"{WWPN}/../..", "unit_add", LUN, "port"),
        (WWPN, "failed", LUN, "verb"),
        (WWPN, "../unit_add", LUN, "verb"),
        (WWPN, "unit_add", "1", "LUN"),
        (WWPN, "unit_add", LUN[:-1], "LUN"),
        (WWPN, "unit_remove", f"{LUN}\n0x0", "LUN"),
        (WWPN, "unit_remove", 1, "LUN"),
    ],
)
def test_units_are_checked(wwpn: Any, verb: Any, lun: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        zfcp.change_unit(ADAPTER, wwpn, verb, lun, 1)


@pytest.mark.skipif(os.path.exists("/sys/bus/ccw"), reason="a machine with such adapters")
def test_a_machine_without_such_adapters() -> None:
    with pytest.raises(FileNotFoundError):
        zfcp.rescan_ports(ADAPTER, 1)
    with pytest.raises(FileNotFoundError):
        zfcp.change_unit(ADAPTER, WWPN, "unit_add", LUN, 1)


@pytest.mark.parametrize("name", ["../sda", "sda/1", "", "SDA", "sd a", 3])
def test_disks_are_checked_before_they_are_read(name: Any) -> None:
    with pytest.raises(ValueError, match="disk"):
        scsi.read_block(name, "2:0:0:1", 1, 1)


@pytest.mark.parametrize("hctl", ["2:0:0", "2:0:0:x", "../2:0:0:1", ""])
def test_addresses_are_checked_before_a_disk_is_read(hctl: str) -> None:
    with pytest.raises(ValueError, match="SCSI address"):
        scsi.read_block("sda", hctl, 1, 1)


def test_a_disk_that_is_not_there_cannot_be_read() -> None:
    with pytest.raises(FileNotFoundError):
        scsi.read_block("sdzzzz", "99:0:0:1", 1, 1)


# -- what all verbs have in common -------------------------------------------------------------
def test_an_argument_has_to_fit_whole() -> None:
    pattern = re.compile(r"[a-z.]+")
    assert guarded.checked(pattern, "abc", "word") == "abc"
    for wrong in ("abc1", "a..b", "", b"abc", None):
        with pytest.raises(ValueError, match="word"):
            guarded.checked(pattern, wrong, "word")


def test_a_text_is_written_as_it_is(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "attribute"
    file.write_text("")
    guarded.write_file(str(file), "0 3 7", 1)
    assert file.read_bytes() == b"0 3 7"


def test_a_file_that_is_not_there_is_not_made(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        guarded.write_file(str(tmp_path / "attribute"), "1", 1)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_end_in_time_is_left_to_itself() -> None:
    release, ended = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(60)
        ended.set()

    with pytest.raises(TimeoutError, match="the deed"):
        guarded.within(0.01, hang, "the deed")
    release.set()
    assert ended.wait(60)
