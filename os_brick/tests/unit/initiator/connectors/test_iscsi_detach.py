# SPDX-License-Identifier: Apache-2.0
"""Detaching iSCSI volumes: what is removed, in which order, and that nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.scsi import Disk
from os_brick.testing.storage import Volume
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import (
    changes,
    commands,
    disk_at,
    disk_names,
)

BOTH = pytest.mark.parametrize("multipath", [False, True])
FAILURES = (exception.BrickException, processutils.ProcessExecutionError, OSError)


def attached(host: FakeHost, *, multipath: bool, portals: int = 2) -> tuple[Any, Volume, Any]:
    """Return a connector, a volume that is attached by it, and what the attach returned."""
    volume = host.iscsi_target(portals=portals).lun(1)
    connector = host.connector(use_multipath=multipath)
    return connector, volume, connector.connect_volume(volume.properties)


def what_happened(host: FakeHost) -> list[str]:
    """Return the changes of sysfs and the programs' verbs in one word each, in order of kind."""
    return [one.kind for one in host.changes]


# -- what is removed -----------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("foreign", [False, True])
def test_everything_an_attach_made_goes(
    fake_host: FakeHost, multipath: bool, foreign: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath, foreign=foreign)
    info = connector.connect_volume(volume.properties)
    fake_host.write(info["path"], b"data")
    assert connector.disconnect_volume(volume.properties, info) is None
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@BOTH
@pytest.mark.parametrize(
    "told",
    [
        lambda info, properties: info,
        lambda info, properties: None,
        lambda info, properties: {},
        lambda info, properties: properties,
        lambda info, properties: json.loads(json.dumps(info)),
        lambda info, properties: info | {"path": info["path"].encode()},
        lambda info, properties: info | {"path": "/dev/sdz"},
        lambda info, properties: {"path": "/dev/dm-7", "type": "block"},
    ],
    ids=["info", "none", "empty", "properties", "json", "bytes", "stale", "stale-map"],
)
def test_whatever_the_caller_says_was_used_nothing_is_lost(
    fake_host: FakeHost, multipath: bool, told: Callable[[Any, Any], Any]
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.properties, told(info, volume.properties))
    assert volume.data == b"data"
    assert fake_host.lost == []
    assert fake_host.leftovers() == []


@BOTH
def test_the_path_used_may_be_in_the_properties(fake_host: FakeHost, multipath: bool) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.connection(device_path=info["path"]), None)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("then", [False, True])
def test_the_multipath_setting_may_have_changed_since(fake_host: FakeHost, then: bool) -> None:
    _connector, volume, info = attached(fake_host, multipath=then)
    fake_host.write(info["path"], b"data")
    fake_host.connector(use_multipath=not then).disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@BOTH
def test_detach_of_what_is_not_there_is_success(fake_host: FakeHost, multipath: bool) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    connector.disconnect_volume(volume.properties, info)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info)
    connector.disconnect_volume(volume.properties, None)
    assert what_happened(fake_host) == []
    assert fake_host.leftovers() == []


def test_a_volume_that_was_never_here(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    fake_host.connector().disconnect_volume(volume.properties, None)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("key", ["auth_password", "discovery_auth_password"])
def test_credentials_are_not_needed_any_more(fake_host: FakeHost, key: str) -> None:
    target = fake_host.iscsi_target(
        portals=2, chap=("user", "s3cret"), discovery_chap=("finder", "t0psecret")
    )
    volume = target.lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    del properties[key]
    assert connector.extend_volume(properties) == volume.size
    assert connector.get_volume_paths(properties) != []
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers() == []


@BOTH
def test_other_luns_of_the_session_stay_and_so_does_the_session(
    fake_host: FakeHost, multipath: bool
) -> None:
    target = fake_host.iscsi_target(portals=2)
    first, second = target.lun(1), target.lun(2)
    connector = fake_host.connector(use_multipath=multipath)
    one = connector.connect_volume(first.properties)
    two = connector.connect_volume(second.properties)
    fake_host.pass_time(1)
    sessions = [one.sid for one in fake_host.sessions.all()]
    connector.disconnect_volume(first.properties, one)
    assert [one.sid for one in fake_host.sessions.all()] == sessions
    assert commands(fake_host, "--logout") == []
    fake_host.write(two["path"], b"still here")
    connector.disconnect_volume(second.properties, two)
    assert second.data == b"still here"
    assert fake_host.leftovers() == []


def test_an_array_controller_on_the_session_does_not_keep_it(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    target.lun(0, device_type=0x0C)
    volume = target.lun(1)
    fake_host.sessions.create(target.iqn, target.portals[0], target, 0)
    connector = fake_host.connector()
    info = connector.connect_volume(volume.properties)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.sessions.all() == []


def test_a_record_without_a_session_is_removed(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    fake_host.remember()
    fake_host.node_records.create(volume.target.iqn, "10.0.0.2", 3260, 1, "default")
    fake_host.connector().disconnect_volume(volume.properties, None)
    assert fake_host.leftovers() == []


@BOTH
def test_all_sessions_of_a_portal_are_considered(fake_host: FakeHost, multipath: bool) -> None:
    target = fake_host.iscsi_target()
    volume = target.lun(1)
    record = fake_host.node_records.create(target.iqn, "10.0.0.1", 3260, -1, "default")
    record.settings["node.session.nr_sessions"] = "2"
    connector = fake_host.connector(use_multipath=multipath)
    fake_host.remember(anew=True)
    info = connector.connect_volume(volume.properties)
    for session in fake_host.sessions.all():
        fake_host.sessions.rescan(session)
    fake_host.pass_time(1)
    assert len(fake_host.disks()) == 2
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.sessions.all() == []
    assert fake_host.leftovers() == []


def test_disks_that_never_joined_the_map_go_too(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    over = fake_host.multipathd.maps()[0]
    second = disk_at(fake_host, "10.0.0.2")
    fake_host.mapper.release(over, second)
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_paths_of_the_map_that_the_caller_does_not_name_go_too(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    connector.disconnect_volume(volume.connection(plural=False), info)
    assert fake_host.leftovers() == []


@BOTH
def test_partitions_go_with_their_disk(fake_host: FakeHost, multipath: bool) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    for disk in fake_host.disks():
        fake_host.add_partition(disk.name, 1)
        fake_host.add_partition(disk.name, 2)
    if multipath:
        fake_host.put_on_top("/dev/dm-0", f"{volume.wwid}-part1", f"part1-mpath-{volume.wwid}")
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_no_tool_is_asked_to_find_the_volume(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info)
    assert commands(fake_host, "multipath", "-l") == []
    assert commands(fake_host, "/lib/udev/scsi_id") == []
    assert commands(fake_host, "discovery") == []


def test_a_path_that_is_down_is_asked_nothing(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    for portal in volume.target.portals:
        portal.kill()
    fake_host.pass_time(1)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
    assert changes(fake_host, "inquire") == []


@pytest.mark.parametrize("portals", [1, 2])
def test_few_programs_for_a_detach(fake_host: FakeHost, portals: int) -> None:
    connector, volume, info = attached(fake_host, multipath=False, portals=portals)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info)
    assert len(fake_host.started) <= 3


def test_two_more_programs_for_a_map(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True, portals=1)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info)
    assert len(fake_host.started) <= 5


@BOTH
def test_stale_links_mislead_nobody(fake_host: FakeHost, multipath: bool) -> None:
    other = fake_host.iscsi_target(["10.0.0.9:3260"]).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    connector.connect_volume(other.properties)
    fake_host.pass_time(1)
    victim = fake_host.disks()[0].name
    volume = fake_host.iscsi_target(portals=2).lun(1)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    by_path = f"/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-{volume.target.iqn}-lun-1"
    fake_host.stale_link(by_path, victim)
    fake_host.stale_link(f"/dev/disk/by-id/scsi-{volume.wwid}", victim)
    connector.disconnect_volume(volume.properties, info)
    assert victim in disk_names(fake_host)
    assert len(fake_host.disks()) == 1


@BOTH
def test_dangling_links_are_removed(fake_host: FakeHost, multipath: bool) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    fake_host.udev.forgets_links = True
    connector.disconnect_volume(volume.properties, info)
    left = [one for one in fake_host.leftovers() if "/dev/disk/by-id/scsi-" in one]
    assert left == []


# -- order ---------------------------------------------------------------------------------
def test_the_order_of_a_multipath_detach(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info)

    def first(text: str) -> int:
        return next(number for number, line in enumerate(fake_host.journal) if text in line)

    assert first("sync /dev/dm-0") < first("multipath -f") < first("delete sd") < first("--logout")
    assert first("--logout") < first("--op delete")


# -- never lose data -----------------------------------------------------------------------
@BOTH
def test_without_force_a_failed_write_out_stops_everything(
    fake_host: FakeHost, multipath: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    before = fake_host.inventory()
    for portal in volume.target.portals:
        portal.kill()
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info)
    fake_host.pass_time(5)
    assert fake_host.inventory() == before
    assert fake_host.lost == []
    for portal in volume.target.portals:
        portal.restore()
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@BOTH
@pytest.mark.parametrize("ignore_errors", [False, True])
def test_ignore_errors_without_force_ignores_no_failed_write_out(
    fake_host: FakeHost, multipath: bool, ignore_errors: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.faults.fail("sync", code=1, times=100)
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info, ignore_errors=ignore_errors)
    assert changes(fake_host, "delete") == []
    assert commands(fake_host, "--logout") == []


def test_a_queueing_map_without_paths_fails_the_detach_in_bounded_time(
    fake_host: FakeHost,
) -> None:
    fake_host.multipathd.no_path_retry = "queue"
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    before = fake_host.inventory()
    fake_host.write(info["path"], b"data")
    for portal in volume.target.portals:
        portal.kill()
    began = fake_host.now
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info)
    assert fake_host.now - began <= 600
    assert fake_host.inventory() == before
    assert fake_host.multipathd.maps()[0].queueing, "still as the operator wants it"
    for portal in volume.target.portals:
        portal.restore()
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("queueing", ["fail", "queue"])
@pytest.mark.parametrize("fault", ["kill", "silent"])
@pytest.mark.parametrize("ignore_errors", [False, True])
def test_with_force_everything_goes_though_data_is_lost(
    fake_host: FakeHost, queueing: str, fault: str, ignore_errors: bool
) -> None:
    fake_host.multipathd.no_path_retry = queueing
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.write(info["path"], b"data")
    for portal in volume.target.portals:
        getattr(portal, fault)()
    began = fake_host.now
    if ignore_errors:
        connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
    else:
        with pytest.raises(exception.ExceptionChainer):
            connector.disconnect_volume(volume.properties, info, force=True)
    assert fake_host.now - began <= 600
    assert [one.data for one in fake_host.lost] == [b"data"]
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("fault", ["kill", "silent"])
def test_single_path_with_force(fake_host: FakeHost, fault: str) -> None:
    connector, volume, info = attached(fake_host, multipath=False)
    fake_host.write(info["path"], b"data")
    getattr(volume.target.portals[0], fault)()
    connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
    assert fake_host.now <= 600
    assert fake_host.leftovers() == []


@BOTH
def test_force_without_trouble_loses_nothing(fake_host: FakeHost, multipath: bool) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.properties, info, force=True)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_an_unmapped_volume_can_be_forced_away(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    volume.vanish()
    connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("down", [1, 2, 3])
def test_some_paths_down_is_no_failure(fake_host: FakeHost, down: int) -> None:
    connector, volume, info = attached(fake_host, multipath=True, portals=4)
    fake_host.write(info["path"], b"data")
    for portal in volume.target.portals[:down]:
        portal.kill()
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


def test_a_silent_path_is_no_failure(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    volume.target.portals[1].silent()
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.now < 60
    assert fake_host.leftovers() == []


def test_both_disks_of_a_volume_without_a_map_are_written_out(fake_host: FakeHost) -> None:
    fake_host.multipathd.blacklist = True
    connector, volume, info = attached(fake_host, multipath=True)
    other = next(f"/dev/{disk.name}" for disk in fake_host.disks() if disk.name not in info["path"])
    fake_host.write(info["path"], b"by the path that is known")
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"by the path that is known"
    assert other
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("info", [None, {}])
def test_without_a_map_and_without_a_known_path_both_disks_are_written_out(
    fake_host: FakeHost, info: Any
) -> None:
    fake_host.multipathd.blacklist = True
    connector, volume, _info = attached(fake_host, multipath=True)
    for disk in fake_host.disks():
        fake_host.write(f"/dev/{disk.name}", b"x")
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"xx"
    assert fake_host.lost == []


# -- used by somebody ----------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("use", ["mount", "lvm", "crypt", "exclusive"])
def test_a_volume_in_use_is_refused_and_stays(
    fake_host: FakeHost, multipath: bool, use: str
) -> None:
    fake_host.multipathd.find_multipaths = "strict"  # nobody else takes a single path
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    path, ends = info["path"], []
    if use == "mount":
        fake_host.mount(path, "/mnt/data")
        ends.append(lambda: fake_host.unmount("/mnt/data"))
    elif use == "exclusive":
        ends.append(fake_host.open(path, exclusive=True).close)
    else:
        uuid = "LVM-abc" if use == "lvm" else "CRYPT-LUKS2-abc"
        mapping = fake_host.put_on_top(path, f"{use}-x", uuid)
        ends.append(lambda: fake_host.take_off(mapping))
    fake_host.pass_time(1)
    before = fake_host.inventory()
    with pytest.raises(exception.BrickException) as caught:
        connector.disconnect_volume(volume.properties, info)
    assert path.removeprefix("/dev/") in str(caught.value)
    if use == "mount":
        assert "/mnt/data" in str(caught.value)
    if use in ("lvm", "crypt"):
        assert f"{use}-x" in str(caught.value)
    assert fake_host.inventory() == before
    ends[0]()
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_an_open_map_is_refused_and_stays(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    before = fake_host.inventory()
    opening = fake_host.open(info["path"])
    with pytest.raises(exception.BrickException, match="dm-0"):
        connector.disconnect_volume(volume.properties, info)
    assert fake_host.inventory() == before
    assert fake_host.now < 120
    opening.close()
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("exclusive", [False, True])
@BOTH
def test_short_lived_openers_are_waited_for(
    fake_host: FakeHost, exclusive: bool, multipath: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.after(2, fake_host.open(info["path"], exclusive=exclusive).close)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_partition_in_use_counts(fake_host: FakeHost) -> None:
    fake_host.multipathd.find_multipaths = "strict"
    connector, volume, info = attached(fake_host, multipath=False)
    fake_host.add_partition("sda", 1)
    fake_host.mount("/dev/sda1", "/mnt/part")
    with pytest.raises(exception.BrickException, match="/mnt/part"):
        connector.disconnect_volume(volume.properties, info)
    assert disk_names(fake_host) == ["sda"]
    fake_host.unmount("/mnt/part")
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("use", ["mount", "open"])
@pytest.mark.parametrize("queueing", ["fail", "queue"])
def test_with_force_a_used_map_is_no_trap_for_others(
    fake_host: FakeHost, use: str, queueing: str
) -> None:
    fake_host.multipathd.no_path_retry = queueing
    connector, volume, info = attached(fake_host, multipath=True)
    if use == "mount":
        fake_host.mount(info["path"], "/mnt/data")
    else:
        opening = fake_host.open(info["path"])
    connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
    fake_host.pass_time(1)
    assert not any(one.queueing and not one.errors for one in fake_host.multipathd.maps())
    assert fake_host.disks() == []
    assert fake_host.sessions.all() == []
    if use == "mount":
        fake_host.unmount("/mnt/data")
    else:
        opening.close()
    assert fake_host.leftovers() == []


# -- could not look ------------------------------------------------------------------------
@pytest.mark.parametrize(
    "where", ["sys/class/iscsi_session", "sys/class/iscsi_session/*", "sys/bus/scsi/devices/*"]
)
@BOTH
def test_a_host_that_cannot_be_looked_at_is_a_failure(
    fake_host: FakeHost, where: str, multipath: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.pass_time(1)
    fake_host.write(info["path"], b"data")
    before = fake_host.inventory()
    fake_host.faults.unreadable(where)
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info)
    fake_host.faults.mend()
    assert fake_host.inventory() == before
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("info_known", [False, True])
def test_without_iscsid_a_detach_is_an_error_and_can_be_finished(
    fake_host: FakeHost, info_known: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=False)
    fake_host.iscsid.running = False
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info if info_known else None)
    fake_host.iscsid.running = True
    connector.disconnect_volume(volume.properties, None)
    assert fake_host.leftovers() == []


def test_a_record_that_cannot_be_deleted_does_not_come_back_at_boot(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=False)
    fake_host.faults.fail("iscsiadm", "--op", "delete", code=6, times=100)
    with pytest.raises(FAILURES, match=r"10\.0\.0\.1"):
        connector.disconnect_volume(volume.properties, info)
    assert fake_host.sessions.all() == []
    fake_host.faults.mend()
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_record_database_that_is_busy_for_a_moment(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=False)
    fake_host.faults.fail("iscsiadm", "--op", "delete", code=6, times=3)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_removal_that_fails_over_other_records_after_its_own_is_done(fake_host: FakeHost) -> None:
    """iscsiadm goes on to read all records, while others are removed side by side."""
    connector, volume, info = attached(fake_host, multipath=False)
    fake_host.faults.mumble("iscsiadm", "--op", "delete", code=6)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []
    assert len(commands(fake_host, "--op", "delete")) == 1


@pytest.mark.parametrize("code", [0, 21, 255])
def test_nothing_to_log_out_of_is_success(fake_host: FakeHost, code: int) -> None:
    volume = fake_host.iscsi_target().lun(1)
    fake_host.remember()
    fake_host.faults.fail("iscsiadm", "--op", "delete", code=code, times=1)
    fake_host.connector().disconnect_volume(volume.properties, None)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("code", [0, 10, 20, 255])
def test_a_log_out_is_done_when_the_session_is_gone(fake_host: FakeHost, code: int) -> None:
    connector, volume, info = attached(fake_host, multipath=False)
    fake_host.faults.fail("iscsiadm", "--logout", code=code, times=100)
    with pytest.raises(FAILURES) as caught:
        connector.disconnect_volume(volume.properties, info)
    assert "10.0.0.1:3260" in str(caught.value)
    assert len(fake_host.sessions.all()) == 1
    fake_host.faults.mend()
    connector.disconnect_volume(volume.properties, None)
    assert fake_host.leftovers() == []


# -- time ----------------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("seconds", [0.5, 5, 25, 35])
def test_a_slow_removal_is_waited_for(fake_host: FakeHost, multipath: bool, seconds: float) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.delays.removal_s = seconds
    connector.disconnect_volume(volume.properties, info)
    assert disk_names(fake_host) == []
    assert fake_host.leftovers() == []


@BOTH
def test_a_disk_that_does_not_go_is_an_error(fake_host: FakeHost, multipath: bool) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.delays.removal_s = 1000
    with pytest.raises(exception.VolumePathNotRemoved, match="/dev/sda"):
        connector.disconnect_volume(volume.properties, info)
    assert fake_host.now < 120
    fake_host.pass_time(1000)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("seconds", [5, 60])
def test_deletions_run_side_by_side(fake_host: FakeHost, seconds: float) -> None:
    connector, volume, info = attached(fake_host, multipath=True, portals=8)
    fake_host.delays.delete_s = seconds
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.now < seconds * 2 + 10
    assert fake_host.leftovers() == []


def test_a_name_that_is_used_again_at_once_confuses_nobody(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=False)
    other = fake_host.iscsi_target(["10.0.0.9:3260"]).lun(1)
    created: list[str] = []

    def another_disk(what: str, device: Any) -> None:
        if what == "remove" and not created:
            created.append(device.name)
            fake_host.delays.disk_s = 0
            fake_host.sessions.create(other.target.iqn, other.target.portals[0], other.target, 0)

    fake_host.scsi.listeners.append(another_disk)
    connector.disconnect_volume(volume.properties, info)
    assert created == ["sda"]
    assert disk_names(fake_host) == ["sda"]
    assert fake_host.now < 5
    fake_host.pass_time(5)
    assert fake_host.host.dev.exists(f"disk/by-id/scsi-{other.wwid}")


def test_a_multipathd_that_lets_go_late_is_waited_for(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.delays.multipath_drop_s = 2
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.multipathd.paths == []
    assert commands(fake_host, "del", "path") == []


def test_a_multipathd_that_does_not_let_go_is_told_to(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.delays.multipath_drop_s = 1000
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.multipathd.paths == []
    assert len(commands(fake_host, "del", "path")) == 2


def test_a_multipathd_that_stopped_since_is_no_hindrance(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.write(info["path"], b"data")
    fake_host.multipathd.stop()
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.mark.parametrize(
    "words",
    [
        ("sync",),
        ("multipath", "-f"),
        ("iscsiadm", "--logout"),
        ("iscsiadm", "delete"),
        ("multipathd",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("force", [False, True])
def test_a_tool_that_hangs_is_a_failure_in_bounded_time(
    fake_host: FakeHost, words: tuple[str, ...], force: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.faults.hang(*words)
    try:
        connector.disconnect_volume(volume.properties, info, force=force, ignore_errors=force)
        failed = False
    except FAILURES:
        failed = True
    assert fake_host.now <= 610
    if not force and words[0] != "multipathd":
        assert failed
    if words == ("sync",) and not force:
        assert changes(fake_host, "delete") == []
    fake_host.faults.mend()
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_delete_that_hangs_is_a_failure_in_bounded_time(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.faults.slow_writes["delete"] = 5000
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info)
    assert fake_host.now <= 610


# -- force and errors ----------------------------------------------------------------------
@pytest.mark.parametrize("step", [("sync",), ("multipath", "-f"), ("iscsiadm", "--logout")])
@pytest.mark.parametrize("ignore_errors", [False, True])
def test_with_force_every_step_is_attempted(
    fake_host: FakeHost,
    step: tuple[str, ...],
    ignore_errors: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.faults.fail(*step, code=1, times=100)
    if ignore_errors:
        connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
    else:
        with pytest.raises(exception.ExceptionChainer):
            connector.disconnect_volume(volume.properties, info, force=True)
    assert "leftovers may remain in the system" in caplog.text
    assert fake_host.disks() == []
    assert fake_host.multipathd.maps() == []
    if step[0] != "iscsiadm":
        assert fake_host.leftovers() == []


def test_a_forced_detach_does_not_write_out_twice(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.faults.fail("sync", code=1, times=100)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
    assert len(commands(fake_host, "sync")) == 1


@pytest.mark.parametrize("times", [1, 2])
def test_a_map_that_is_busy_for_a_moment(fake_host: FakeHost, times: int) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.faults.fail("multipath", "-f", code=1, times=times, out="map in use\n")
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_failure_in_the_middle_can_be_finished_later(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.faults.fail("iscsiadm", "--logout", code=10, times=100)
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info)
    assert fake_host.disks() == []
    fake_host.faults.mend()
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_success_warns_of_nothing(fake_host: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    connector.disconnect_volume(volume.properties, info)
    assert "leftovers" not in caplog.text


# -- the right volume ----------------------------------------------------------------------
@BOTH
def test_another_volume_that_has_the_lun_by_now_is_left_alone(
    fake_host: FakeHost, multipath: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    connector.disconnect_volume(volume.properties, info)
    other = volume.remap()
    again = connector.connect_volume(other.properties)
    fake_host.write(again["path"], b"of the other")
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.disks() != []
    connector.disconnect_volume(other.properties, again)
    assert other.data == b"of the other"
    assert fake_host.leftovers() == []


@BOTH
@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_to_another_volume_that_was_given_the_lun(
    fake_host: FakeHost, multipath: bool, force: bool
) -> None:
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.write(info["path"], b"data")
    other = volume.remap()  # the array was faster than the detach
    if force:
        connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
        assert fake_host.leftovers() == []
    else:
        with pytest.raises(exception.BrickException):
            connector.disconnect_volume(volume.properties, info)
    assert other.data == b""


@BOTH
def test_a_rescan_does_not_make_another_volume_the_right_one(
    fake_host: FakeHost, multipath: bool
) -> None:
    """The array gives the LUN away, and somebody has the kernel look, while a detach waits."""
    connector, volume, info = attached(fake_host, multipath=multipath)
    fake_host.write(info["path"], b"data")
    opened = fake_host.open(info["path"], exclusive=True)

    def give_away() -> None:
        volume.remap()
        for disk in fake_host.disks():
            if disk.device is not None:
                fake_host.scsi.rescan(disk.device)

    fake_host.after(1, give_away)
    fake_host.after(2, opened.close)
    with pytest.raises(exception.WrongVolume):
        connector.disconnect_volume(volume.properties, info)
    assert commands(fake_host, "sync") == []


@BOTH
def test_the_log_names_the_steps_and_their_times(
    fake_host: FakeHost, multipath: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    connector, volume, info = attached(fake_host, multipath=multipath)
    connector.disconnect_volume(volume.properties, info)
    lines = [one.getMessage() for one in caplog.records if one.levelname == "INFO"]
    detach = [line for line in lines if line.startswith("Detach of")]
    assert len(detach) == 1
    assert "sync /dev/" in detach[0]
    assert "--logout" in detach[0]


def test_an_error_carries_its_timeline(fake_host: FakeHost) -> None:
    connector, volume, info = attached(fake_host, multipath=False)
    fake_host.faults.fail("sync", code=1, times=100)
    with pytest.raises(FAILURES) as caught:
        connector.disconnect_volume(volume.properties, info)
    assert "sync /dev/sda" in str(getattr(caught.value, "timeline", None))


@pytest.mark.parametrize("known", [True, False])
def test_a_map_that_lost_all_its_disks_is_not_nothing(fake_host: FakeHost, known: bool) -> None:
    connector, volume, info = attached(fake_host, multipath=True)
    fake_host.pass_time(1)
    fake_host.multipathd.running = False
    with fake_host.open(info["path"]):
        for disk in list(fake_host.multipathd.maps()[0].slaves):
            assert isinstance(disk, Disk)
            assert disk.device is not None
            fake_host.scsi.write_attribute(disk.device, "delete", "1", 60)
        with pytest.raises(FAILURES):
            connector.disconnect_volume(
                volume.properties | {"device_path": info["path"]}, info if known else None
            )
    assert len(fake_host.multipathd.maps()) == 1
    fake_host.multipathd.running = True
    if known:
        connector.disconnect_volume(volume.properties, info, force=True, ignore_errors=True)
        assert fake_host.multipathd.maps() == []
