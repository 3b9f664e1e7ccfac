# SPDX-License-Identifier: Apache-2.0
"""Sessions, SCSI devices and disks in the fake's sysfs, read by the library's own readers."""

from __future__ import annotations

import os

import pytest

from os_brick.initiator.linux import iscsi, scsi
from os_brick.initiator.linux.iscsi import Portal, Target
from os_brick.initiator.linux.scsi import Disk, Hctl
from os_brick.testing import FakeHost
from os_brick.tests.unit.testing.helpers import new_call, session_to


def the_disk(host: FakeHost, hctl: str) -> Disk:
    address = Hctl.parse(hctl)
    assert address is not None
    disk = scsi.read_disk(host.host.sysfs, address)
    assert disk is not None
    return disk


def test_a_session_shows_its_target_and_portal(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target(["[2001:db8::1]:3260"], iqn="iqn.2010-10.org.example:a")
    session = session_to(fake_host, target)
    portal = Portal.parse("[2001:DB8::1]:3260")
    (found,) = iscsi.find_sessions(fake_host.host.sysfs, Target(portal, target.iqn))
    assert (found.sid, found.host, found.state) == (session.sid, 2, "LOGGED_IN")


def test_links_are_relative_and_lead_inside_the_folder(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target(portals=2)
    target.lun(1)
    for index in range(2):
        session_to(fake_host, target, index)
    fake_host.pass_time(1)
    root = os.path.realpath(os.path.dirname(fake_host.host.sysfs.root))
    links = [
        os.path.join(folder, name)
        for top in ("sys", "dev")
        for folder, directories, files in os.walk(os.path.join(root, top))
        for name in (*directories, *files)
        if os.path.islink(os.path.join(folder, name))
    ]
    assert len(links) > 20
    for link in links:
        assert not os.path.isabs(os.readlink(link))
        assert os.path.realpath(link).startswith(root)
        assert os.path.exists(link)


def test_a_manual_session_shows_only_the_lun_that_is_scanned_for(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    volume = target.lun(1)
    target.lun(2)
    session = session_to(fake_host, target, scans=False)
    sysfs = fake_host.host.sysfs
    assert fake_host.disks() == []
    fake_host.host.changes.scan(new_call(fake_host), 2, "-", "-", 1)
    fake_host.pass_time(0.1)
    disk = the_disk(fake_host, "2:0:0:1")
    assert [one.name for one in fake_host.disks()] == [disk.name] == ["sda"]
    assert scsi.read_identity(sysfs, disk).wwid == volume.wwid
    assert scsi.read_disk_named(sysfs, "sda") == disk
    found = iscsi.session_of_disk(sysfs, disk)
    assert found is not None
    assert found.sid == session.sid
    assert [(one.kind, one.what, one.text) for one in fake_host.changes] == [
        ("scan", "host2", "- - 1")
    ]


def test_an_automatic_session_shows_all_luns(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    for number in (0, 1, 300):
        target.lun(number)
    session_to(fake_host, target)
    fake_host.pass_time(0.1)
    assert sorted(one.device.hctl.lun for one in fake_host.disks() if one.device) == [0, 1, 300]


@pytest.mark.parametrize(
    ("number", "addressing", "kernel"),
    [(1, None, 1), (256, "SAM2", 16640), (1, "SAM3-flat", 16385), (256, "SAM", 256)],
)
def test_the_kernel_knows_a_lun_by_the_coding_of_its_array(
    fake_host: FakeHost, number: int, addressing: str | None, kernel: int
) -> None:
    target = fake_host.iscsi_target()
    volume = target.lun(number, addressing=addressing)
    session_to(fake_host, target)
    fake_host.pass_time(0.1)
    assert [one.device.hctl.lun for one in fake_host.disks() if one.device] == [kernel]
    assert volume.properties["target_lun"] == number
    assert volume.properties.get("addressing_mode") == addressing


def test_a_disk_takes_its_name_when_it_appears_and_frees_it_when_it_goes(
    fake_host: FakeHost,
) -> None:
    target = fake_host.iscsi_target()
    target.lun(1)
    target.lun(2)
    session_to(fake_host, target)
    fake_host.pass_time(0.1)
    first = the_disk(fake_host, "2:0:0:1")
    fake_host.host.changes.delete(new_call(fake_host), first)
    fake_host.pass_time(0.1)
    assert not scsi.is_there(fake_host.host.sysfs, first)
    assert not fake_host.host.dev.exists("sda")
    fake_host.host.changes.scan(new_call(fake_host), 2, "0", "0", 1)
    fake_host.pass_time(0.1)
    second = the_disk(fake_host, "2:0:0:1")
    assert (second.name, second.hctl) == (first.name, first.hctl)
    assert second.instance != first.instance


def test_deleting_an_earlier_instance_leaves_the_later_one_alone(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    target.lun(1)
    session = session_to(fake_host, target)
    fake_host.pass_time(0.1)
    first = the_disk(fake_host, "2:0:0:1")
    fake_host.host.changes.delete(new_call(fake_host), first)
    fake_host.sessions.rescan(session)
    fake_host.pass_time(0.1)
    fake_host.host.changes.delete(new_call(fake_host), first)
    assert the_disk(fake_host, "2:0:0:1")


def test_a_slow_removal_keeps_the_disk_for_its_time(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    target.lun(1)
    session_to(fake_host, target)
    fake_host.pass_time(0.1)
    fake_host.delays.removal_s = 25
    disk = the_disk(fake_host, "2:0:0:1")
    fake_host.host.changes.delete(new_call(fake_host), disk)
    assert scsi.is_there(fake_host.host.sysfs, disk)
    fake_host.pass_time(25)
    assert not scsi.is_there(fake_host.host.sysfs, disk)


def test_ending_a_session_takes_its_devices_and_host_with_it(fake_host: FakeHost) -> None:
    fake_host.multipathd.stop()
    target = fake_host.iscsi_target()
    target.lun(1)
    session = session_to(fake_host, target)
    fake_host.pass_time(0.1)
    fake_host.sessions.end(session)
    sysfs = fake_host.host.sysfs
    for place in ("class/iscsi_session", "class/iscsi_connection", "class/scsi_host", "block"):
        assert sysfs.names(place) == []
    assert sysfs.names("devices/platform") == []


def test_host_numbers_are_used_again_but_session_numbers_are_not(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    first = session_to(fake_host, target)
    fake_host.sessions.end(first)
    second = session_to(fake_host, target)
    assert first.host is not None
    assert second.host is not None
    assert first.host.number == second.host.number
    assert first.sid != second.sid


def test_a_killed_portal_fails_its_session_and_disks_until_it_is_restored(
    fake_host: FakeHost,
) -> None:
    target = fake_host.iscsi_target()
    target.lun(1)
    session_to(fake_host, target)
    fake_host.pass_time(0.1)
    sysfs, disk = fake_host.host.sysfs, the_disk(fake_host, "2:0:0:1")
    target.portals[0].kill(recovery_s=30)
    assert sysfs.text("class/iscsi_session/session1/state") == "FAILED"
    assert scsi.state(sysfs, disk) == "blocked"
    fake_host.pass_time(31)
    assert scsi.state(sysfs, disk) == "transport-offline"
    target.portals[0].restore()
    assert sysfs.text("class/iscsi_session/session1/state") == "LOGGED_IN"
    assert scsi.state(sysfs, disk) == "running"


def test_a_silent_portal_is_noticed_after_the_pings_have_timed_out(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    target.lun(1)
    session_to(fake_host, target)
    fake_host.pass_time(0.1)
    sysfs, disk = fake_host.host.sysfs, the_disk(fake_host, "2:0:0:1")
    target.portals[0].silent()
    fake_host.pass_time(9)
    assert scsi.state(sysfs, disk) == "running"
    fake_host.pass_time(2)
    assert scsi.state(sysfs, disk) == "blocked"
    fake_host.pass_time(120)
    assert scsi.state(sysfs, disk) == "transport-offline"


def test_the_kernel_keeps_size_and_identity_until_a_rescan(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target().lun(1, size=1024**3)
    session_to(fake_host, volume.target)
    fake_host.pass_time(0.1)
    sysfs, disk = fake_host.host.sysfs, the_disk(fake_host, "2:0:0:1")
    other = volume.remap(size=2 * 1024**3)
    assert scsi.read_identity(sysfs, disk).wwid == volume.wwid
    call = new_call(fake_host)
    said = fake_host.host.changes.inquire(call, disk)
    assert said is not None
    assert said.wwid == other.wwid != volume.wwid
    fake_host.host.changes.rescan(call, disk)
    assert scsi.read_identity(sysfs, disk).wwid == other.wwid
    assert sysfs.number("block/sda/size") == 2 * 1024**3 // 512


def test_an_inquiry_tells_a_missing_lun_from_a_dead_path(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target().lun(1)
    session_to(fake_host, volume.target)
    fake_host.pass_time(0.1)
    disk, call = the_disk(fake_host, "2:0:0:1"), new_call(fake_host)
    volume.vanish()
    assert fake_host.host.changes.inquire(call, disk) is None
    volume.target.portals[0].kill()
    with pytest.raises(OSError, match="does not answer"):
        fake_host.host.changes.inquire(call, disk)


@pytest.mark.parametrize(
    "wwid", ["36001405aabbccdd0011223344556677a", "20011223344556677", "8naming.me", "1ACME:1 2"]
)
def test_pages_say_the_identity_that_was_ordered(fake_host: FakeHost, wwid: str) -> None:
    volume = fake_host.iscsi_target().lun(1, wwid=wwid)
    session_to(fake_host, volume.target)
    fake_host.pass_time(0.1)
    found = scsi.read_identity(fake_host.host.sysfs, the_disk(fake_host, "2:0:0:1"))
    assert found.wwid == wwid.replace(" ", "_")


def test_a_unit_without_identity_has_a_serial_number(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target().lun(1, wwid="")
    session_to(fake_host, volume.target)
    fake_host.pass_time(0.1)
    found = scsi.read_identity(fake_host.host.sysfs, the_disk(fake_host, "2:0:0:1"))
    assert found.wwid.startswith("SLIO-ORG_")


def test_an_array_controller_is_a_device_but_no_disk(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    target.lun(0, device_type=0x0C)
    session_to(fake_host, target)
    fake_host.pass_time(0.1)
    assert fake_host.disks() == []
    assert not scsi.holds_data(fake_host.host.sysfs, Hctl(2, 0, 0, 0))


def test_partitions_belong_to_their_disk(fake_host: FakeHost) -> None:
    fake_host.multipathd.stop()
    target = fake_host.iscsi_target()
    target.lun(1)
    session_to(fake_host, target)
    fake_host.pass_time(0.1)
    (disk,) = fake_host.disks()
    assert fake_host.devices.add_partition(disk, 1).name == "sda1"
    found = scsi.read_disk_named(fake_host.host.sysfs, "sda1")
    assert found is not None
    assert found.name == "sda"
    fake_host.host.changes.delete(new_call(fake_host), found)
    assert fake_host.host.sysfs.names("class/block") == []


def test_unreadable_entries_raise(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    session_to(fake_host, target)
    fake_host.faults.unreadable("sys/class/iscsi_session*")
    with pytest.raises(PermissionError):
        iscsi.read_sessions(fake_host.host.sysfs)
    fake_host.faults.mend()
    assert len(iscsi.read_sessions(fake_host.host.sysfs)) == 1


def test_udev_makes_links_late_and_takes_them_away(fake_host: FakeHost) -> None:
    fake_host.delays.udev_s = 3
    fake_host.multipathd.find_multipaths = "strict"
    volume = fake_host.iscsi_target().lun(1)
    session = session_to(fake_host, volume.target)
    dev = fake_host.host.dev
    fake_host.pass_time(1)
    assert dev.exists("sda")
    assert dev.names("disk/by-path") == []
    fake_host.pass_time(3)
    link = f"ip-10.0.0.1:3260-iscsi-{volume.target.iqn}-lun-1"
    assert dev.names("disk/by-path") == [link]
    assert dev.link_target("disk/by-path", link) == "../../sda"
    assert dev.names("disk/by-id") == [f"scsi-{volume.wwid}", f"wwn-0x{volume.wwid[1:]}"]
    assert dev.device_number("disk/by-path", link) == (8, 0)
    fake_host.sessions.end(session)
    assert dev.names("disk/by-path") == [link]
    fake_host.pass_time(4)
    assert dev.names("disk/by-path") == dev.names("disk/by-id") == []
