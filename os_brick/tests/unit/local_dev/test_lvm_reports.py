# SPDX-License-Identifier: Apache-2.0
"""What LVM's programs print, as values."""

from __future__ import annotations

import pathlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick import exception
from os_brick.local_dev import lvm_reports
from os_brick.local_dev.lvm_reports import LogicalVolume, PhysicalVolume, VolumeGroup

DATA = pathlib.Path(__file__).parent / "data"
MIB = 1 << 20


def printed(name: str) -> str:
    return (DATA / name).read_text()


def test_groups() -> None:
    assert lvm_reports.parse_groups(printed("vgs-2.03.16.txt")) == [
        VolumeGroup("demo", 1016 * MIB, 752 * MIB, 5, "cMMgPV-esXR-3APq-48Yu-cZ3S-wfxV-58GVw4"),
        VolumeGroup("other", 508 * MIB, 508 * MIB, 0, "Wv3KjP-Y0OY-Tn1z-LRtn-eeMs-Qm6d-2rfJ6q"),
    ]
    assert lvm_reports.parse_groups(printed("vgs-2.03.16_none.txt")) == []


def test_disks() -> None:
    assert lvm_reports.parse_disks(printed("pvs-2.03.16.txt")) == [
        PhysicalVolume("demo", "/dev/loop0", 508 * MIB, 248 * MIB, False),
        PhysicalVolume("demo", "/dev/loop1", 508 * MIB, 504 * MIB, False),
        PhysicalVolume("other", "/dev/loop2", 508 * MIB, 508 * MIB, False),
    ]


def test_a_missing_disk_and_warnings_in_the_middle() -> None:
    text = printed("pvs-2.03.16_disk-missing-warnings-mixed-in.txt")

    assert lvm_reports.parse_disks(text)[-1] == PhysicalVolume(
        "other", "[unknown]", 60 * MIB, 60 * MIB, True
    )


@pytest.mark.parametrize(
    "name", ["lvs-2.03.16.txt", "lvs-2.03.16_readonly.txt", "lvs-2.03.16_all.txt"]
)
def test_volumes(name: str) -> None:
    found = {one.name: one for one in lvm_reports.parse_volumes(printed(name))}

    used = None if "readonly" in name else Decimal("0.00")
    assert found == {
        "pool": LogicalVolume("demo", "pool", 128 * MIB, "t", "", "", None, used),
        "snap": LogicalVolume("demo", "snap", 64 * MIB, "s", "thick", "", None, used),
        "thick": LogicalVolume("demo", "thick", 64 * MIB, "o", "", "", None, None),
        "thin": LogicalVolume("demo", "thin", 1024 * MIB, "V", "", "pool", None, used),
        "tsnap": LogicalVolume("demo", "tsnap", 1024 * MIB, "V", "thin", "pool", None, None),
    }
    assert [one.name for one in found.values() if one.has_thick_snapshots] == ["thick"]
    assert found["pool"].free == (None if used is None else 0.12)


def test_times_in_seconds() -> None:
    (found,) = lvm_reports.parse_volumes(printed("lvs-2.03.16_epoch.txt"))

    assert (found.name, found.made_at) == ("thick", 1795375659)


def test_the_log_of_commands_is_no_part_of_the_report() -> None:
    text = printed("lvs-2.03.16_command-log.txt")

    assert len(lvm_reports.parse_volumes(text)) == 5


def test_version() -> None:
    assert lvm_reports.parse_version(printed("vgs-2.03.16_version.txt")) == (2, 3, 16)


def row(**fields: str) -> str:
    inner = ", ".join(f'"{name}":"{value}"' for name, value in fields.items())
    return f'  {{\n      "report": [\n          {{\n "lv": [\n {{{inner}}}\n]\n}}\n]\n}}\n'


@pytest.mark.parametrize("percent", ["", "unknown", "NaN", "Infinity", "-"])
def test_how_full_a_pool_is_may_not_be_known(percent: str) -> None:
    text = row(vg_name="vg", lv_name="pool", lv_size="1073741824", data_percent=percent)
    (found,) = lvm_reports.parse_volumes(text)

    assert found.used_percent is None
    assert found.free is None


def test_free_space_is_computed_exactly() -> None:
    size = 10 * (1 << 30)
    text = row(vg_name="vg", lv_name="pool", lv_size=str(size), data_percent="33.33")
    (found,) = lvm_reports.parse_volumes(text)

    assert found.free == 6.67


def test_sizes_with_a_letter() -> None:
    (found,) = lvm_reports.parse_volumes(row(vg_name="vg", lv_name="a", lv_size="1.50g"))

    assert found.size == 3 << 29


@pytest.mark.parametrize("size", ["", "unknown"])
def test_a_volume_without_a_size_is_an_error(size: str) -> None:
    with pytest.raises(exception.BrickException, match="lv_size"):
        lvm_reports.parse_volumes(row(vg_name="vg", lv_name="a", lv_size=size))


def test_a_group_without_a_count_is_an_error() -> None:
    text = row(vg_name="vg", vg_size="1", vg_free="1", lv_count="many").replace('"lv"', '"vg"')

    with pytest.raises(exception.BrickException, match="lv_count"):
        lvm_reports.parse_groups(text)


@given(st.text())
def test_what_is_no_report_is_an_error_that_says_so(text: str) -> None:
    with pytest.raises(exception.BrickException, match="cannot be read"):
        lvm_reports.parse_volumes(text)
