# SPDX-License-Identifier: Apache-2.0
"""Volumes of which the caller names one portal: what the discovery of the others has brought is
told by sysfs, whether a map holds it together or not."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.storage import Volume
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import disk_at

SHARED = pytest.mark.parametrize("shared", [True, False])


@SHARED
@pytest.mark.parametrize("daemon", ["stopped", "blacklist"])
def test_disks_of_discovered_portals_go_though_there_is_no_map(
    fake_host: FakeHost, shared: bool, daemon: str
) -> None:
    volume = fake_host.iscsi_target(portals=3, shared_iqn=shared).lun(1)
    if daemon == "stopped":
        fake_host.multipathd.stop()
    else:
        fake_host.multipathd.blacklist = True
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    assert fake_host.device(info["path"])
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers(settle_s=60) == []


@SHARED
def test_a_discovered_portal_that_gave_no_disk_is_left(fake_host: FakeHost, shared: bool) -> None:
    target = fake_host.iscsi_target(portals=3, shared_iqn=shared)
    volume = target.lun(1)
    del target._luns[2][1]
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(100)
    assert len(fake_host.multipathd.maps()[0].slaves) == 2
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers(settle_s=60) == []


def test_a_discovered_portal_that_lost_its_disk_is_left(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target(portals=3)
    volume = target.lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    last = fake_host.disks()[-1]
    assert last.device is not None
    fake_host.scsi.drop(last.device)
    fake_host.pass_time(1)
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers(settle_s=60) == []


@pytest.mark.parametrize("known", [False, True])
def test_force_goes_on_without_discovery_records(fake_host: FakeHost, known: bool) -> None:
    volume = fake_host.iscsi_target(portals=1).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    for disk in fake_host.disks():
        assert disk.device is not None
        fake_host.scsi.drop(disk.device)
    fake_host.pass_time(1)
    fake_host.faults.fail("iscsiadm", "discoverydb", code=6, times=100)
    connector.disconnect_volume(properties, info if known else None, force=True, ignore_errors=True)
    assert fake_host.leftovers(settle_s=60) == []


def attached_by_second(host: FakeHost) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """The attach returns the disk of the first portal that the discovery tells; the caller names
    the second."""
    volume = host.iscsi_target(portals=2).lun(1)
    host.multipathd.stop()
    connector = host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    properties["target_portal"] = "10.0.0.2:3260"
    info = connector.connect_volume(properties)
    host.pass_time(1)
    properties["device_path"] = info["path"]
    return volume, connector, properties, info


@pytest.mark.parametrize("known", [False, True])
def test_data_written_to_a_disk_of_a_portal_that_is_not_named_is_not_lost(
    fake_host: FakeHost, known: bool
) -> None:
    volume, connector, properties, info = attached_by_second(fake_host)
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(properties, info if known else None)
    assert volume.data == b"data"
    assert fake_host.leftovers(settle_s=60) == []


def test_a_used_disk_of_a_portal_that_is_not_named_is_refused(fake_host: FakeHost) -> None:
    _volume, connector, properties, info = attached_by_second(fake_host)
    there = fake_host.inventory()
    with fake_host.open(info["path"], exclusive=True), pytest.raises(exception.DeviceInUse):
        connector.disconnect_volume(properties, info)
    assert fake_host.inventory() == there


def test_a_used_disk_of_a_portal_that_is_not_named_is_extended(fake_host: FakeHost) -> None:
    volume, connector, properties, info = attached_by_second(fake_host)
    volume.grow(2 * volume.size)
    assert connector.extend_volume(properties) == volume.size
    assert fake_host.device(info["path"]).size == volume.size


def test_disks_that_never_joined_the_map_of_a_discovered_volume_go_too(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    fake_host.faults.slow("--login", "10.0.0.2:3260", seconds=20, times=1)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.multipathd.blacklist = True
    fake_host.pass_time(30)
    (over,) = fake_host.multipathd.maps()
    assert (len(fake_host.disks()), len(over.slaves)) == (2, 1)
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers(settle_s=60) == []


@SHARED
def test_a_late_disk_of_a_discovered_portal_goes_though_there_is_no_map(
    fake_host: FakeHost, shared: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2, shared_iqn=shared).lun(1)
    fake_host.multipathd.stop()
    connector = fake_host.connector(use_multipath=True)
    volume.target.portals[1].silent()
    fake_host.after(40, volume.target.portals[1].restore)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    assert len(fake_host.disks()) == 1
    fake_host.pass_time(60)
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers(settle_s=60) == []


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_a_map_whose_named_path_has_gone_is_not_nothing(
    fake_host: FakeHost, shared: bool, known: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2, shared_iqn=shared).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    first = volume.target.portals[0]
    for session in fake_host.sessions.all():
        if session.portal is first:
            fake_host.sessions.end(session)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    properties["device_path"] = info["path"]
    try:
        connector.disconnect_volume(properties, info if known else None)
    except exception.BrickException:
        pass
    else:
        assert volume.data == b"data"
        assert fake_host.leftovers(settle_s=60) == []


@pytest.mark.parametrize("which", [0, 1])
def test_a_session_without_a_connection_does_not_keep_the_data_from_being_written(
    fake_host: FakeHost, which: int
) -> None:
    """The kernel has no connection of it any more, and so no address."""
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    session = next(
        one for one in fake_host.sessions.all() if one.portal is volume.target.portals[which]
    )
    os.unlink(fake_host.host.sysfs.path(f"class/iscsi_connection/connection{session.sid}:0"))
    fake_host.write(info["path"], b"data")
    with contextlib.suppress(exception.BrickException):  # that session may not be logged out of
        connector.disconnect_volume(properties, info)
    assert volume.data == b"data"
    assert fake_host.disks() == []


def test_records_of_discovered_portals_do_not_outlive_the_volume(fake_host: FakeHost) -> None:
    """After a reboot the portals did not answer, so there is no session; but at the next boot they
    would be logged in to."""
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    for session in fake_host.sessions.all():
        fake_host.sessions.end(session)
    fake_host.pass_time(1)
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers(settle_s=60) == []


def test_a_repeated_detach_while_others_delete_their_records(fake_host: FakeHost) -> None:
    """iscsiadm reads all records; code 6 if one of them goes meanwhile (see _Record.delete)."""
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector()
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    connector.disconnect_volume(properties, info)
    fake_host.faults.fail("iscsiadm", "node", code=6, times=1)
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers(settle_s=60) == []


def test_an_attach_does_not_wait_for_log_outs_of_discovered_targets(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=4, shared_iqn=False).lun(1)
    fake_host.multipathd.stop()
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    fake_host.faults.slow("--logout", seconds=100, times=3)
    began = fake_host.now
    connector.connect_volume(properties)
    assert fake_host.now - began < 60


def test_a_session_that_lost_its_disk_goes_also_if_the_named_one_lost_it_too(
    fake_host: FakeHost,
) -> None:
    target = fake_host.iscsi_target(portals=3)
    volume = target.lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    for address in ("10.0.0.1", "10.0.0.3"):
        device = disk_at(fake_host, address).device
        assert device is not None
        fake_host.scsi.drop(device)
    fake_host.pass_time(1)
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers(settle_s=60) == []


def two_groups(host: FakeHost) -> tuple[Volume, Volume]:
    """Two portal groups of one target name, each with a LUN 1 of its own."""
    iqn = "iqn.2010-10.org.example:groups"
    first = host.iscsi_target(["10.0.0.1"], iqn=iqn).lun(1)
    second = host.iscsi_target(["10.0.0.2"], iqn=iqn).lun(1)
    return first, second


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("which", [0, 1])
def test_the_other_portal_groups_volume_is_left(
    fake_host: FakeHost, says: bool, known: bool, which: int
) -> None:
    fake_host.multipathd.stop()
    both = two_groups(fake_host)
    if not says:
        both[which].unit.wwid = both[which].unit.serial = ""
    connector = fake_host.connector()
    infos = [connector.connect_volume(one.connection(plural=False)) for one in both]
    fake_host.pass_time(1)
    assert len(fake_host.disks()) == 2
    assert infos[0]["path"] != infos[1]["path"]
    connector.disconnect_volume(both[0].connection(plural=False), infos[0] if known else None)
    fake_host.pass_time(1)
    assert [disk.name for disk in fake_host.disks()] == [infos[1]["path"].removeprefix("/dev/")]


def test_an_idle_session_of_an_operator_by_another_portal_is_left(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target(portals=2)
    volume = target.lun(1)
    del target._luns[1][1]
    fake_host.sessions.create(target.iqn, target.portals[1], target, 1, scans=True)
    fake_host.pass_time(1)
    connector = fake_host.connector()
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    connector.disconnect_volume(properties, info)
    assert len(fake_host.sessions.all()) == 1


def test_a_name_from_before_a_reboot_is_of_another_arrays_volume_that_is_in_use(
    fake_host: FakeHost,
) -> None:
    """Nova's hard reboot after the host's: it detaches first, with no device_info, and device_path
    as it was before; /dev/dm-0 is another array's volume by now, of an instance that runs."""
    last = fake_host.iscsi_target(["10.0.0.1"]).lun(1)
    other = fake_host.iscsi_target(["10.1.0.1"]).lun(1)
    connector = fake_host.connector(use_multipath=True)
    used = connector.connect_volume(other.connection(plural=False))
    fake_host.pass_time(1)
    with fake_host.open(used["path"]):
        there = fake_host.inventory()
        connector.disconnect_volume(last.connection(plural=False, device_path=used["path"]), None)
        assert fake_host.inventory() == there
