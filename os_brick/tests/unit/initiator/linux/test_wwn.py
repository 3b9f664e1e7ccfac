# SPDX-License-Identifier: Apache-2.0
"""The name of a volume as udev and multipath know it."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick.initiator.linux import wwn
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.identity import normal_form
from os_brick.initiator.linux.sysfs import Tree
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.linux.trees import Folder, Sysfs

NAA = bytes.fromhex("6001405abcdef0123456789abcdef012")
T10 = b"LIO-ORG disk  42"


@dataclasses.dataclass
class Files:
    """A host of which only files matter."""

    sys: Sysfs
    dev: Folder
    host: Host


@pytest.fixture
def files(tmp_path: pathlib.Path, fake_host: FakeHost) -> Files:
    sys, dev = Sysfs(tmp_path / "sys"), Folder(tmp_path / "dev")
    dev.directory("disk/by-id")
    sysfs, devfs = Tree(str(sys.root)), Tree(str(dev.root))
    return Files(sys, dev, dataclasses.replace(fake_host.host, sysfs=sysfs, dev=devfs))


def page(*designators: tuple[int, int, bytes]) -> bytes:
    content = b"".join(
        bytes([code, kind, 0, len(value)]) + value for code, kind, value in designators
    )
    return bytes([0, 0x83, 0, len(content)]) + content


def add_disk(files: Files, name: str, hctl: str, *designators: tuple[int, int, bytes]) -> None:
    files.sys.disk(name, hctl)
    files.dev.write(name)
    if designators:
        files.sys.write(f"bus/scsi/devices/{hctl}/vpd_pg83", page(*designators))


# -- what the kernel writes in device/wwid ---------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "wwid"),
    [
        ("naa.6001405abc\n", "36001405abc"),
        ("eui.0102030405060708", "20102030405060708"),
        ("t10.LIO-ORG  disk     42", "1LIO-ORG_disk_42"),
        ("iqn.2010-10.org.example:lun1", "8iqn.2010-10.org.example:lun1"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_each_kind_has_udevs_form(text: str, wwid: str) -> None:
    assert wwn.parse_sysfs_wwid(text) == wwid


@given(st.text())
def test_any_text_has_a_normal_form(text: str) -> None:
    wwid = wwn.parse_sysfs_wwid(text)
    assert wwid == normal_form(wwid)


# -- one name for a volume -------------------------------------------------------------------------
BINARY_NAA = (1, 3, NAA)
ASCII_T10 = (2, 1, T10)


def test_the_name_is_the_strongest_identity_of_the_pages(files: Files) -> None:
    add_disk(files, "sda", "3:0:0:1", ASCII_T10, BINARY_NAA)
    assert wwn.find_wwn(files.host, ["sda"]) == f"3{NAA.hex()}"


def test_the_name_is_the_identity_that_udev_has_a_link_by(files: Files) -> None:
    add_disk(files, "sda", "3:0:0:1", ASCII_T10, BINARY_NAA)
    files.dev.link("disk/by-id/scsi-1LIO-ORG_disk_42", "../../sda")
    assert wwn.find_wwn(files.host, ["sda"]) == "1LIO-ORG_disk_42"


def test_a_link_to_the_map_is_as_good(files: Files) -> None:
    add_disk(files, "sda", "3:0:0:1")
    files.sys.mapping("dm-0", "mpatha", "mpath-3other", "sda")
    files.dev.write("dm-0")
    files.dev.link("disk/by-id/scsi-3udevs-own", "../../dm-0")
    assert wwn.find_wwn(files.host, ["sda"]) == "3udevs-own"


def test_broken_links_and_those_of_others_name_nothing(files: Files) -> None:
    add_disk(files, "sda", "3:0:0:1")
    add_disk(files, "sdb", "3:0:0:2")
    files.dev.link("disk/by-id/scsi-3broken", "../../sdz")
    files.dev.link("disk/by-id/scsi-3other", "../../sdb")
    files.dev.link("disk/by-id/wwn-0x6001405", "../../sda")
    assert wwn.find_wwn(files.host, ["sda"]) == ""


def test_of_several_links_the_strongest_identity_counts(files: Files) -> None:
    add_disk(files, "sda", "3:0:0:1")
    for link in ("0LIO", "1LIO", "36001405", "SLIO"):
        files.dev.link(f"disk/by-id/scsi-{link}", "../../sda")
    assert wwn.find_wwn(files.host, ["sda"]) == "36001405"


def test_the_first_disk_that_tells_its_identity_names_the_volume(files: Files) -> None:
    add_disk(files, "sdb", "3:0:0:1")
    add_disk(files, "sdc", "4:0:0:1", BINARY_NAA)
    assert wwn.find_wwn(files.host, ["sda", "sdb", "sdc"]) == f"3{NAA.hex()}"


def test_without_pages_the_kernels_own_word_counts(files: Files) -> None:
    add_disk(files, "sda", "3:0:0:1")
    files.sys.write("bus/scsi/devices/3:0:0:1/wwid", "naa.6001405abc")
    assert wwn.find_wwn(files.host, ["sda"]) == "36001405abc"


def test_a_volume_without_identity_has_no_name(files: Files) -> None:
    add_disk(files, "sda", "3:0:0:1")
    assert wwn.find_wwn(files.host, ["sda"]) == ""
    assert wwn.find_wwn(files.host, []) == ""


# -- with a map ------------------------------------------------------------------------------------
def test_a_map_names_the_volume(files: Files) -> None:
    add_disk(files, "sda", "3:0:0:1", BINARY_NAA)
    files.sys.mapping("dm-0", "mpatha", "mpath-3of-the-map", "sda")
    assert wwn.find_wwn(files.host, ["sda"], "dm-0") == "3of-the-map"


def test_a_map_that_does_not_tell_is_warned_of_and_the_disks_are_asked(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    add_disk(files, "sda", "3:0:0:1", BINARY_NAA)
    assert wwn.find_wwn(files.host, ["sda"], "dm-0") == f"3{NAA.hex()}"
    assert "dm-0 does not tell its wwid" in caplog.text
