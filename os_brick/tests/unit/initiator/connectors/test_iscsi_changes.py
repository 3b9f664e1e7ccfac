# SPDX-License-Identifier: Apache-2.0
"""What others do meanwhile: they end sessions and make new ones, give a LUN to another volume, and
so the kernel's names and numbers become another volume's."""

from __future__ import annotations

import errno
import logging
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.linux.call import Call
from os_brick.testing import FakeHost
from os_brick.testing.device_mapper import MultipathMap
from os_brick.testing.storage import Unit, Volume
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import disk_at, disk_names

BOTH = pytest.mark.parametrize("multipath", [False, True])


def end_sessions(host: FakeHost) -> None:
    """Have somebody who shares no lock with us (an operator, a service without this library) log
    out of all targets."""
    for session in host.sessions.all():
        host.sessions.end(session)


def begin_session(host: FakeHost, volume: Volume, *, scans: bool = True) -> None:
    """Have such a one log in to a volume's target; its disk gets the first name that is free."""
    target = volume.target
    host.sessions.create(target.iqn, target.portals[0], target, 0, scans=scans)


def change_over(host: FakeHost, volume: Volume, *, scans: bool = True) -> None:
    """Have such a one end all sessions and begin one to another volume, which gets their names and
    numbers."""
    end_sessions(host)
    begin_session(host, volume, scans=scans)


def shown_as(volume: Volume, lun: int) -> Volume:
    """Have the array show a volume under another LUN, and return it so."""
    target = volume.target
    again = target.volume(volume.unit, [lun] * len(target.portals), None, None)
    again.map()
    return again


def units(host: FakeHost) -> list[Unit | None]:
    """Return what the SCSI disks lead to, by name."""
    return [disk.storage()[1] for disk in host.disks()]


# -- attach ----------------------------------------------------------------------------------
@pytest.mark.parametrize("daemon", ["stopped", "slow"])
def test_a_name_that_another_volume_has_by_now_is_not_returned(
    fake_host: FakeHost, daemon: str
) -> None:
    """The disk goes, and its name is used again, while the attach waits for more: for a log-in
    under way, or for the map."""
    volume = fake_host.iscsi_target(portals=2).lun(1)
    other = fake_host.iscsi_target(["10.0.9.9:3260"]).lun(1)
    if daemon == "stopped":
        fake_host.multipathd.stop()
        volume.target.portals[1].hang()
    else:
        fake_host.delays.multipath_build_s = 3
        volume.target.portals[1].refuse()
    fake_host.at(1, lambda: change_over(fake_host, other))
    connector = fake_host.connector(use_multipath=True)
    with pytest.raises(exception.VolumeDeviceNotFound, match="no device appeared"):
        connector.connect_volume(volume.properties)
    assert disk_names(fake_host) == ["sda"]
    assert units(fake_host) == [other.unit]


def test_a_path_of_the_map_that_leads_to_another_volume_by_now_is_removed(
    fake_host: FakeHost,
) -> None:
    """The service was killed and left its devices here. The array unmapped the volume, gave its LUN
    to another one, and shows it to this host again under a new LUN: multipathd would have both
    LUNs in one map."""
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    volume.remap()
    again = shown_as(volume, 5)
    info = connector.connect_volume(again.properties)
    (over,) = fake_host.multipathd.maps()
    assert info["path"] == f"/dev/{over.name}"
    assert [path.storage()[1] for path in over.slaves] == [volume.unit, volume.unit]


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_a_portal_that_is_not_needed_does_not_fail_an_attach_by_one_path(
    fake_host: FakeHost, error: int
) -> None:
    """The second portal's device cannot be looked at; the first portal gives the disk."""
    volume = fake_host.iscsi_target(portals=2).lun(1)
    fake_host.multipathd.stop()
    fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    fake_host.pass_time(1)
    device = disk_at(fake_host, "10.0.0.2").device
    assert device is not None
    fake_host.faults.unreadable(f"sys/bus/scsi/devices/{device.hctl}*", error)
    info = fake_host.connector().connect_volume(volume.properties)
    assert info["path"] == f"/dev/{disk_at(fake_host, '10.0.0.1').name}"


@BOTH
def test_a_device_that_was_coming_before_is_asked_who_it_is(
    fake_host: FakeHost, multipath: bool
) -> None:
    """A killed attach has had the LUN scanned; the disk comes when the LUN is another volume's."""
    target = fake_host.iscsi_target(portals=1)
    volume = target.lun(1)
    session = fake_host.sessions.create(target.iqn, target.portals[0], target, 0, scans=False)
    fake_host.delays.disk_s = 4
    fake_host.sessions.rescan(session)
    fake_host.delays.disk_s = 0.005
    other = volume.remap()
    info = fake_host.connector(use_multipath=multipath).connect_volume(other.properties)
    assert info["scsi_wwn"] == other.wwid
    assert units(fake_host) == [other.unit]


def test_the_next_session_with_the_hosts_number_is_not_scanned(fake_host: FakeHost) -> None:
    """The session ends while the attach waits for a LUN that is not mapped yet; that LUN of the
    next session is somebody else's volume."""
    volume = fake_host.iscsi_target().lun(1, mapped=False)
    other = fake_host.iscsi_target(["10.0.9.9:3260"]).lun(1)
    fake_host.at(1, lambda: change_over(fake_host, other, scans=False))
    with pytest.raises(exception.VolumeDeviceNotFound, match="did not show the LUN"):
        fake_host.connector().connect_volume(volume.properties)
    assert [session.iqn for session in fake_host.sessions.all()] == [other.target.iqn]
    assert disk_names(fake_host) == []


def test_a_volume_in_use_gets_no_second_disk_by_a_portal_that_is_back(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector()
    volume.target.portals[0].refuse()
    info = connector.connect_volume(volume.properties)
    volume.target.portals[0].restore()
    fake_host.pass_time(1)
    there = fake_host.inventory()
    with fake_host.open(info["path"]):
        assert connector.connect_volume(volume.properties) == info
    assert fake_host.inventory() == there


# -- detach: the LUN -------------------------------------------------------------------------
@pytest.mark.parametrize("plural", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_to_the_volume_that_a_rescan_has_found(
    fake_host: FakeHost, plural: bool, known: bool, force: bool
) -> None:
    """After an operator's ``iscsiadm --rescan`` the kernel says of the paths that they are the
    volume that has the LUN now; the map with the data still is of the first one."""
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"of the first")
    other = volume.remap()
    for disk in fake_host.disks():
        assert disk.device is not None
        fake_host.scsi.rescan(disk.device)
    fake_host.pass_time(1)
    there = fake_host.inventory()
    properties = volume.connection(plural=plural, device_path=info["path"])
    told = info if known else None
    if force:
        with pytest.raises(exception.ExceptionChainer, match=r"WrongVolume.*was not written"):
            connector.disconnect_volume(properties, told, force=True)
        assert fake_host.leftovers() == []
    else:
        with pytest.raises(exception.WrongVolume, match="was not written"):
            connector.disconnect_volume(properties, told)
        assert fake_host.inventory() == there
    assert other.data == b""


@BOTH
@pytest.mark.parametrize("plural", [False, True])
def test_a_second_detach_leaves_the_volume_alone_that_has_another_lun_by_now(
    fake_host: FakeHost, multipath: bool, plural: bool
) -> None:
    """A service that has not heard of its success detaches once more, when another one uses the
    same volume under another LUN."""
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    properties = volume.connection(plural=plural)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    connector.disconnect_volume(properties, info)
    volume.vanish()
    again = connector.connect_volume(shown_as(volume, 5).connection(plural=plural))
    fake_host.pass_time(1)
    there = fake_host.inventory()
    connector.disconnect_volume(properties, info)
    assert fake_host.inventory() == there
    assert fake_host.device(again["path"]).storage()[1] is volume.unit


# -- detach: the map that its paths are not in -----------------------------------------------
def renewed(host: FakeHost) -> tuple[Volume, dict[str, Any], MultipathMap]:
    """Attach a volume by a discovery, and have the session of the portal that is named end and be
    made anew; its disk is not in the map yet, which lives by the other portal."""
    volume = host.iscsi_target(portals=2).lun(1)
    info = host.connector(use_multipath=True).connect_volume(volume.connection(plural=False))
    host.pass_time(1)
    (over,) = host.multipathd.maps()
    assert len(over.slaves) == 2
    host.delays.multipath_build_s = 30
    first = volume.target.portals[0]
    for session in host.sessions.all():
        if session.portal is first:
            host.sessions.end(session)
    host.pass_time(1)
    begin_session(host, volume)
    host.pass_time(1)
    assert len(host.disks()) == 2
    assert len(over.slaves) == 1
    return volume, info, over


@pytest.mark.parametrize("known", [False, True])
def test_a_map_that_lives_by_a_portal_that_is_not_named_goes_with_its_data(
    fake_host: FakeHost, known: bool
) -> None:
    volume, info, _over = renewed(fake_host)
    fake_host.write(info["path"], b"data")
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False, device_path=info["path"])
    with fake_host.open(info["path"]), pytest.raises(exception.DeviceInUse):
        connector.disconnect_volume(properties, info if known else None)
    connector.disconnect_volume(properties, info if known else None)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_a_map_that_lives_by_a_portal_that_is_not_named_is_extended(fake_host: FakeHost) -> None:
    volume, _info, over = renewed(fake_host)
    volume.grow(2 * volume.size)
    connector = fake_host.connector(use_multipath=True)
    assert connector.extend_volume(volume.connection(plural=False)) == volume.size == over.size


def test_a_late_path_by_the_named_portal_does_not_hide_the_map(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    fake_host.faults.slow("--login", "10.0.0.1:3260", seconds=40, times=1)
    info = connector.connect_volume(properties)
    fake_host.write(info["path"], b"data")
    fake_host.delays.multipath_build_s = 30
    fake_host.pass_time(45)
    (over,) = fake_host.multipathd.maps()
    assert (len(fake_host.disks()), len(over.slaves)) == (2, 1)
    connector.disconnect_volume(properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers(settle_s=60) == []


def test_a_map_whose_last_path_goes_between_two_looks_is_not_another_attachments(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    fake_host.multipathd.stop()
    first, other = sorted(fake_host.sessions.all(), key=lambda one: one.portal.address)
    fake_host.sessions.end(first)
    fake_host.pass_time(1)

    def end(name: str) -> None:
        if name.endswith("vpd_pg83"):
            fake_host.faults.on_read = None
            fake_host.sessions.end(other)

    properties = volume.properties
    for key in ("target_portals", "target_iqns", "target_luns"):
        properties[key] = properties[key][:1]
    fake_host.faults.on_read = end
    with pytest.raises(processutils.ProcessExecutionError, match="sync /dev/dm-0"):
        connector.disconnect_volume(properties, info)
    assert fake_host.lost == []


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("plural", [False, True])
def test_data_in_a_map_is_not_given_up_for_a_path_that_does_not_say_who_it_is(
    fake_host: FakeHost, known: bool, plural: bool
) -> None:
    """The disk came back over a bad path: the kernel could not read its pages, so that multipathd
    does not give it to the map either."""
    volume = fake_host.iscsi_target().lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    fake_host.multipathd.stop()
    volume.unit.wwid = volume.unit.serial = ""
    change_over(fake_host, volume)
    fake_host.pass_time(1)
    properties = volume.connection(plural=plural, device_path=info["path"])
    with pytest.raises(
        (exception.BrickException, processutils.ProcessExecutionError), match="dm-0"
    ):
        connector.disconnect_volume(properties, info if known else None)
    assert fake_host.lost == []
    assert len(fake_host.multipathd.maps()) == 1


def test_a_path_that_joins_the_map_during_the_look_for_users_is_not_in_use(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The map claims it: that is no other program."""
    caplog.set_level(logging.INFO)
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    (over,) = fake_host.multipathd.maps()
    late = over.slaves[1]
    fake_host.mapper.release(over, late)
    changes = connector.host.changes
    is_claimed = changes.is_claimed

    def joining(call: Call, name: str) -> bool:
        if late not in over.slaves:
            fake_host.mapper.hold(over, late)
        return bool(is_claimed(call, name))

    monkeypatch.setattr(changes, "is_claimed", joining)
    connector.disconnect_volume(volume.properties, info)
    assert "look for users" in caplog.text
    assert "short-lived users" not in caplog.text
    assert fake_host.leftovers() == []


# -- detach: sessions and names --------------------------------------------------------------
@pytest.mark.parametrize("known", [False, True])
def test_data_in_a_map_that_its_path_has_not_joined_again_is_not_given_up(
    fake_host: FakeHost, known: bool
) -> None:
    """The disk of the new session says that it is the volume, but what was written is in the map,
    which multipathd was not there to give the disk to."""
    volume = fake_host.iscsi_target().lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    fake_host.multipathd.stop()
    change_over(fake_host, volume)
    fake_host.pass_time(1)
    properties = volume.connection(plural=False, device_path=info["path"])
    with pytest.raises(processutils.ProcessExecutionError, match="sync /dev/dm-0"):
        connector.disconnect_volume(properties, info if known else None)
    assert fake_host.lost == []
    fake_host.restart_multipathd()
    fake_host.pass_time(1)
    connector.disconnect_volume(properties, info if known else None)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_a_map_is_not_taken_for_nothing_when_its_paths_name_is_anothers(
    fake_host: FakeHost,
) -> None:
    """The map has lost its only path, and the name of that path is another volume's by now."""
    volume = fake_host.iscsi_target().lun(1)
    other = fake_host.iscsi_target(["10.0.9.9:3260"]).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    fake_host.multipathd.stop()
    change_over(fake_host, other)
    fake_host.pass_time(1)
    properties = volume.connection(plural=False, device_path=info["path"])
    with pytest.raises(exception.BrickException, match=r"dm-0 .* has no path left.*cannot be told"):
        connector.disconnect_volume(properties, None)
    assert [one.wwid for one in fake_host.multipathd.maps()] == [volume.wwid]
    assert units(fake_host) == [other.unit]
    assert fake_host.lost == []


def test_a_write_out_of_the_disk_that_has_the_name_by_now_is_no_success(
    fake_host: FakeHost,
) -> None:
    """The detach waits for udev or LVM, which look at the disk for a moment; meanwhile the disk
    goes with its data, and another one gets its name."""
    volume = fake_host.iscsi_target().lun(1)
    other = fake_host.iscsi_target(["10.0.9.9:3260"]).lun(1)
    fake_host.multipathd.stop()
    connector = fake_host.connector()
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    opening = fake_host.open(info["path"], exclusive=True)
    fake_host.after(2, lambda: change_over(fake_host, other))
    fake_host.after(3, opening.close)
    with pytest.raises(exception.BrickException, match="sda has gone"):
        connector.disconnect_volume(volume.properties, info)
    assert [one.data for one in fake_host.lost] == [b"data"]
    assert disk_names(fake_host) == ["sda"]
    assert units(fake_host) == [other.unit]


# -- what is left of earlier attaches --------------------------------------------------------
@pytest.mark.parametrize("multipath", [False, True])
@pytest.mark.parametrize("plural", [False, True])
def test_no_stale_disk_by_the_other_coding_of_the_lun_is_returned(
    fake_host: FakeHost, multipath: bool, plural: bool
) -> None:
    """A scan of all LUNs (an old open-iscsi, an operator) has made two disks of the last volume,
    one for each coding; the array has given its LUN to another one since."""
    target = fake_host.iscsi_target()
    last = target.lun(1)
    target.volume(last.unit, [0x4001], None, None).map()
    fake_host.multipathd.blacklist = True
    fake_host.sessions.create(target.iqn, target.portals[0], target, 0, scans=True)
    fake_host.pass_time(1)
    assert len(fake_host.disks()) == 2
    fake_host.multipathd.blacklist = False
    volume = last.remap()
    target.volume(volume.unit, [0x4001], None, None).map()
    fake_host.delays.disk_s = 0.5
    info = fake_host.connector(use_multipath=multipath).connect_volume(
        volume.connection(plural=plural)
    )
    assert info["scsi_wwn"] == volume.wwid


def test_a_map_that_is_there_takes_the_size_that_its_paths_have_by_now(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    volume.grow(2 * volume.size)
    again = connector.connect_volume(volume.properties)
    assert fake_host.device(again["path"]).size == volume.size
