# SPDX-License-Identifier: Apache-2.0
"""Whose the link of an encrypted volume is: it is named after a device, and a device's name goes to
the next volume (EN-40, EN-41)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from os_brick.testing import FakeHost
from os_brick.tests.unit.encryptors.helpers import Connected
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import side_by_side


class SinglePath(Connected):
    """A volume whose device is a disk, the next of which has the same name."""

    multipath = False


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_late_detach_leaves_the_link_of_the_next_volume(
    fake_host: FakeHost, foreign: bool, opened: bool
) -> None:
    one = SinglePath(fake_host, foreign=foreign)
    one.disconnect()
    two = SinglePath(fake_host, lun=2, foreign=foreign)
    assert two.link == one.link
    if opened:
        two.attach()
    led_to = two.leads_to
    one.disconnect()  # once more, by a service that has not heard of its success
    assert two.leads_to == led_to
    if opened:
        two.detach()
    two.disconnect()
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("opened", [False, True])
def test_a_slow_log_out_leaves_the_link_of_the_next_volume(
    fake_host: FakeHost, opened: bool
) -> None:
    fake_host.delays.logout_s = 20
    one = SinglePath(fake_host)
    two: list[Any] = []

    def attach_two() -> None:
        fake_host.pass_time(2)  # the disk is gone, its session is not
        two.append(SinglePath(fake_host, lun=2))
        if opened:
            two[0].attach()

    assert side_by_side(fake_host, one.disconnect, attach_two) == [None, None]
    assert two[0].link == one.link
    assert two[0].leads_to == (f"/dev/mapper/{two[0].label}" if opened else "/dev/sda")


@pytest.mark.parametrize("opened", [False, True])
def test_a_slow_log_out_leaves_the_link_of_the_next_volume_by_a_map(
    fake_host: FakeHost, opened: bool
) -> None:
    fake_host.delays.logout_s = 20
    one = Connected(fake_host)
    two: list[Connected] = []

    def attach_two() -> None:
        fake_host.pass_time(2)  # the map is gone, the session of its path is not
        two.append(Connected(fake_host, lun=2))
        if opened:
            two[0].attach()

    assert side_by_side(fake_host, one.disconnect, attach_two) == [None, None]
    assert two[0].link == one.link
    assert two[0].leads_to == (f"/dev/mapper/{two[0].label}" if opened else "/dev/dm-0")
    if opened:
        two[0].detach()
    two[0].disconnect()
    assert fake_host.leftovers() == []


def test_a_link_does_not_stay_for_a_volume_that_has_none(fake_host: FakeHost) -> None:
    """The next device of the name is of a volume that is not encrypted."""
    fake_host.delays.logout_s = 20
    one = SinglePath(fake_host)
    plain = fake_host.connector(use_multipath=False)
    other = fake_host.iscsi_target(portals=1).lun(2)

    def attach_plain() -> None:
        fake_host.pass_time(2)  # the disk is gone, its session is not
        plain.connect_volume(other.properties)

    assert side_by_side(fake_host, one.disconnect, attach_plain) == [None, None]
    assert [disk.name for disk in fake_host.disks()] == ["sda"]
    assert one.leads_to == ""


def test_a_late_detach_over_nvme_leaves_the_link_of_the_next_volume(fake_host: FakeHost) -> None:
    """There a device may be left after a detach, with its link to be removed."""
    subsystem = fake_host.nvme_subsystem()
    first = subsystem.namespace(1)
    one = fake_host.connector("NVMEOF", use_multipath=True)
    one.connect_volume(subsystem.namespace(2).properties)  # keeps the subsystem connected
    mine = {**first.properties, "encrypted": True}
    info = one.connect_volume(mine)
    one.disconnect_volume(mine, info)
    first.vanish()
    fake_host.pass_time(1)
    others = {**first.remap().properties, "encrypted": True}
    fake_host.pass_time(1)
    assert one.connect_volume(others) == info
    link = info["path"].removeprefix("/dev/")
    one.disconnect_volume(mine, info)  # once more
    assert fake_host.host.dev.link_target(link)
    one.disconnect_volume(others, info)
    assert fake_host.host.dev.link_target(link) is None


def test_a_link_that_fails_leaves_what_was_connected_before(fake_host: FakeHost) -> None:
    one = SinglePath(fake_host)
    one.attach()
    fake_host.mount(f"/dev/mapper/{one.label}", "/srv")
    fake_host.faults.failing_writes["link"] = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        one.connector.connect_volume(one.properties)
    assert [disk.name for disk in fake_host.disks()] == ["sda"]
    assert one.mapping is not None
