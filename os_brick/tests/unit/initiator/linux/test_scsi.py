# SPDX-License-Identifier: Apache-2.0
"""LUN numbers, addresses, and disks in sysfs."""

from __future__ import annotations

import pathlib
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import constants, exception
from os_brick.initiator.linux import scsi
from os_brick.initiator.linux.identity import Identity
from os_brick.initiator.linux.scsi import Disk, Hctl
from os_brick.initiator.linux.sysfs import Tree
from os_brick.tests.unit.initiator.linux.trees import Sysfs

SAM, SAM2, FLAT, TRANSPARENT = (
    constants.SCSI_ADDRESSING_SAM,
    constants.SCSI_ADDRESSING_SAM2,
    constants.SCSI_ADDRESSING_SAM3_FLAT,
    constants.SCSI_ADDRESSING_TRANSPARENT,
)


@pytest.fixture
def sys(tmp_path: pathlib.Path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


@pytest.fixture
def tree(sys: Sysfs) -> Tree:
    return Tree(str(sys.root))


# -- LUN numbers -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("given", "number"), [(0, 0), (7, 7), ("7", 7), (" 12 ", 12), ("007", 7)])
def test_a_lun_is_a_number_or_its_text(given: object, number: int) -> None:
    assert scsi.lun_number(given) == number


@pytest.mark.parametrize("given", [-1, "-1", 2**64, str(2**64), "", "x", "0x10", 1.0, None, True])
def test_what_is_no_lun_is_refused_by_the_name_of_its_key(given: object) -> None:
    with pytest.raises(exception.InvalidParameterValue, match="target_luns"):
        scsi.lun_number(given, "target_luns")


@given(st.one_of(st.text(), st.integers(), st.none(), st.booleans(), st.floats()))
def test_anything_is_a_lun_or_refused(given: object) -> None:
    try:
        assert 0 <= scsi.lun_number(given) < 2**64
    except exception.InvalidParameterValue:
        pass


@pytest.mark.parametrize(
    ("lun", "text"),
    [
        (0, "0"),
        (255, "255"),
        (256, "0x0100000000000000"),
        (370, "0x0172000000000000"),
        (16640, "0x4100000000000000"),
        (65536, "0x0000000100000000"),
    ],
)
def test_by_path_names_spell_large_luns_in_hex(lun: int, text: str) -> None:
    assert scsi.lun_for_by_path(lun) == text


@pytest.mark.parametrize(
    ("lun", "mode", "coded"),
    [
        (1, SAM, 1),
        (1, SAM2, 1),
        (1, FLAT, 16385),
        (256, SAM, 256),
        (256, SAM2, 16640),
        (256, FLAT, 16640),
        (255, SAM2, 255),
        (256, None, 256),
        (256, TRANSPARENT, 256),
        (16383, FLAT, 32767),
    ],
)
def test_the_array_decides_how_a_lun_is_coded(lun: int, mode: str | None, coded: int) -> None:
    assert scsi.lun_for_addressing(lun, mode) == coded


def test_an_unknown_addressing_mode_is_refused() -> None:
    with pytest.raises(exception.InvalidParameterValue, match="Invalid addressing_mode SAM4"):
        scsi.lun_for_addressing(1, "SAM4")


@pytest.mark.parametrize("mode", [SAM2, FLAT])
def test_a_lun_beyond_14_bits_is_refused_where_it_would_overflow(mode: str) -> None:
    with pytest.raises(exception.InvalidParameterValue, match="14 bits"):
        scsi.lun_for_addressing(16384, mode)


LUNS = st.integers(min_value=0, max_value=16383)


@given(LUNS, st.sampled_from([SAM, SAM2, FLAT, TRANSPARENT]))
def test_a_coded_lun_is_the_same_unit(lun: int, mode: str) -> None:
    coded = scsi.lun_for_addressing(lun, mode)
    assert scsi.same_lun(coded, lun)
    assert scsi.plain_lun(coded) == lun
    assert lun in scsi.lun_variants(coded)
    assert scsi.lun_variants(coded)[0] == coded


@given(st.integers(min_value=0, max_value=2**64 - 1), LUNS)
def test_no_variant_of_a_lun_is_another_unit(one: int, other: int) -> None:
    together = set(scsi.lun_variants(one)) & set(scsi.lun_variants(other))
    assert bool(together) == scsi.same_lun(one, other)


# -- addresses -------------------------------------------------------------------------------------
@given(st.tuples(*[st.integers(min_value=0, max_value=2**64 - 1)] * 4))
def test_an_address_survives_being_written(numbers: tuple[int, int, int, int]) -> None:
    one = Hctl(*numbers)
    assert Hctl.parse(str(one)) == one


@pytest.mark.parametrize("text", ["", "3:0:0", "3:0:0:1:2", "3:0:0:x", "#:#:#:#", "-1:0:0:1"])
def test_other_text_is_no_address(text: str) -> None:
    assert Hctl.parse(text) is None


# -- disks -----------------------------------------------------------------------------------------
ADDRESS = Hctl(3, 0, 0, 1)


def test_a_disk_is_found_by_address_and_by_name(sys: Sysfs, tree: Tree) -> None:
    sys.disk("sda", "3:0:0:1")
    disk = scsi.read_disk(tree, ADDRESS)
    assert disk is not None
    assert (disk.name, disk.path, str(disk)) == ("sda", "/dev/sda", "sda [3:0:0:1]")
    assert scsi.read_disk_named(tree, "sda") == disk


def test_a_partition_counts_as_its_disk(sys: Sysfs, tree: Tree) -> None:
    sys.disk("sda", "3:0:0:1")
    sys.partition("sda", 1)
    assert scsi.read_disk_named(tree, "sda1") == scsi.read_disk(tree, ADDRESS)


def test_a_device_that_no_disk_driver_has_taken_is_no_disk_yet(sys: Sysfs, tree: Tree) -> None:
    sys.write("bus/scsi/devices/3:0:0:1/type", "0")
    assert scsi.read_disk(tree, ADDRESS) is None
    assert scsi.device_instance(tree, ADDRESS) is not None


def test_what_is_not_there_or_no_scsi_disk_has_no_disk(sys: Sysfs, tree: Tree) -> None:
    sys.mapping("dm-0", "mpatha", "mpath-1")
    assert scsi.read_disk(tree, ADDRESS) is None
    for name in ("sda", "dm-0", ""):
        assert scsi.read_disk_named(tree, name) is None


def test_a_disk_that_comes_later_is_another_one(sys: Sysfs, tree: Tree) -> None:
    sys.disk("sda", "3:0:0:1")
    first = scsi.read_disk(tree, ADDRESS)
    assert first is not None
    assert scsi.is_there(tree, first)
    # Kept beside, so that its inode is not free: sysfs does not use one again either.
    (sys.root / "devices").rename(sys.root / "old")
    assert not scsi.is_there(tree, first)
    shutil.rmtree(sys.root / "bus")
    shutil.rmtree(sys.root / "block")
    shutil.rmtree(sys.root / "class")
    sys.disk("sda", "3:0:0:1")
    second = scsi.read_disk(tree, ADDRESS)
    assert second is not None
    assert second != first
    assert not scsi.is_there(tree, first)


def test_the_state_of_a_disk_that_is_gone_is_empty(sys: Sysfs, tree: Tree) -> None:
    sys.disk("sda", "3:0:0:1", state="transport-offline")
    disk = scsi.read_disk(tree, ADDRESS)
    assert disk is not None
    assert scsi.state(tree, disk) == "transport-offline"
    assert scsi.state(tree, Disk("sdb", Hctl(9, 0, 0, 1), 1)) == ""


@pytest.mark.parametrize(
    ("kind", "expected"), [("0", True), ("5", True), ("12", False), ("13", False), ("31", False)]
)
def test_an_arrays_controller_holds_nobodys_data(
    sys: Sysfs, tree: Tree, kind: str, expected: bool
) -> None:
    sys.write("bus/scsi/devices/3:0:0:1/type", kind)
    assert scsi.holds_data(tree, ADDRESS) is expected


def test_a_device_that_is_gone_holds_no_data(tree: Tree) -> None:
    assert scsi.holds_data(tree, ADDRESS) is False


# -- identity --------------------------------------------------------------------------------------
def test_a_disks_identity_is_read_from_its_pages(sys: Sysfs, tree: Tree) -> None:
    sys.disk("sda", "3:0:0:1", wwid="naa.0000000000000000")
    value = bytes.fromhex("6001405abcdef0123456789abcdef012")
    page = bytes([0, 0x83, 0, 20, 1, 3, 0, 16]) + value
    sys.write("bus/scsi/devices/3:0:0:1/vpd_pg83", page)
    disk = scsi.read_disk(tree, ADDRESS)
    assert disk is not None
    assert scsi.read_identity(tree, disk).ids == (f"3{value.hex()}",)


def test_without_page_83_the_serial_number_names_a_disk(sys: Sysfs, tree: Tree) -> None:
    sys.disk("sda", "3:0:0:1", vendor="ACME", model="Disk")
    sys.write("bus/scsi/devices/3:0:0:1/vpd_pg80", bytes([0, 0x80, 0, 4]) + b"0042")
    disk = scsi.read_disk(tree, ADDRESS)
    assert disk is not None
    assert scsi.read_identity(tree, disk).wwid == "SACME_Disk_0042"


def test_a_disk_without_pages_has_no_identity(sys: Sysfs, tree: Tree) -> None:
    sys.disk("sda", "3:0:0:1")
    disk = scsi.read_disk(tree, ADDRESS)
    assert disk is not None
    assert scsi.read_identity(tree, disk) == Identity()
