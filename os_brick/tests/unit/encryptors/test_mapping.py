# SPDX-License-Identifier: Apache-2.0
"""Names of mappings, and whose a mapping is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from os_brick.encryptors import mapping as mappings
from os_brick.testing import FakeHost
from os_brick.tests.unit.encryptors.helpers import Encrypted

USUAL = re.compile(r"[A-Za-z0-9#+.:=@_-]{1,127}")


@pytest.mark.parametrize(
    "link",
    [
        "/dev/disk/by-id/os-brick+dev+dm-0",
        "/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-iqn.2010-10.org.example:x-lun-1",
        "/dev/disk/by-path/pci-0000:05:00.2-fc-0x5006016841e00cab-lun-0",
        "/dev/disk/by-id/" + "x" * 121,
    ],
)
def test_the_name_is_that_of_the_link(link: str) -> None:
    assert mappings.name_of(link) == f"crypt-{link.rpartition('/')[2]}"


@given(st.text(min_size=1).filter(lambda name: "/" not in name and "\0" not in name))
def test_every_name_fits_the_kernel_and_dev_mapper(own: str) -> None:
    assert USUAL.fullmatch(mappings.name_of(f"/dev/disk/by-id/{own}"))


def test_names_that_have_to_be_shortened_stay_apart() -> None:
    long = "ip-10.0.0.1:3260-iscsi-iqn.2010-10.org.example:" + "x" * 150
    links = [
        f"/dev/disk/by-path/{long}-lun-1",
        f"/dev/disk/by-path/{long}-lun-2",
        f"/dev/disk/by-id/{long}-lun-1",
        "/dev/disk/by-id/os-brick+dev+a%2Bb",
        "/dev/disk/by-id/os-brick+dev+a%25b",
    ]
    names = [mappings.name_of(link) for link in links]
    assert len(set(names)) == len(links)
    assert [mappings.name_of(link) for link in links] == names  # the same in every process


def test_a_mapping_of_cryptsetup_is_told_from_others(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.attach()
    found = mappings.find(fake_host.host, one.label)
    assert found is not None
    assert found.is_crypt
    assert found.is_of("LUKS")
    assert not found.is_of("PLAIN")
    other = fake_host.put_on_top(one.label and found.path, "vg-lv")
    fake_host.pass_time(1)
    found = mappings.find(fake_host.host, other.dm_name)
    assert found is not None
    assert not found.is_crypt


def test_a_link_that_is_left_over_is_not_believed(fake_host: FakeHost) -> None:
    Encrypted(fake_host)
    fake_host.stale_link("/dev/mapper/crypt-x", "/dev/dm-0")
    assert mappings.find(fake_host.host, "crypt-x") is None


def test_a_mapping_without_a_link_is_found_by_looking_through_all(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.attach()
    label = one.label
    one.unlink(f"/dev/mapper/{label}")
    assert mappings.find(fake_host.host, label) is None
    found = mappings.find(fake_host.host, label, thoroughly=True)
    assert found is not None
    assert found.label == label


def test_a_mapping_sits_on_its_own_device_only(fake_host: FakeHost) -> None:
    one = Encrypted(fake_host)
    one.attach()
    found = mappings.find(fake_host.host, one.label)
    assert found is not None
    device = mappings.find_device(fake_host.host, "/dev/dm-0")
    disk = mappings.find_device(fake_host.host, "/dev/sda")
    assert device is not None
    assert disk is not None
    assert mappings.devices_below(fake_host.host, found) == [device]
    assert mappings.sits_on(fake_host.host, found, device)
    assert not mappings.sits_on(fake_host.host, found, disk)
    # A device that has had this name before has had another number.
    assert not mappings.sits_on(fake_host.host, found, mappings.Device("dm-0", "253:9"))
    # A later device of the same name and number has no such holder.
    later = mappings.Device("sda", device.number)
    assert not mappings.sits_on(fake_host.host, found, later)
