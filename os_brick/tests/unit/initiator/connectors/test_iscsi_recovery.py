# SPDX-License-Identifier: Apache-2.0
"""What a killed call left, threads that fail, the deadline, and the rest of the failure matrix."""

from __future__ import annotations

import errno

import pytest
from oslo_concurrency import processutils
from oslo_config import cfg

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import changes, commands

BOTH = pytest.mark.parametrize("multipath", [False, True])
FAILURES = (exception.BrickException, processutils.ProcessExecutionError, OSError)


# -- what a killed attach left ---------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("left", ["record", "log-in", "session", "device", "disk", "map"])
@pytest.mark.parametrize("then", ["attach", "detach"])
def test_after_an_attach_was_killed(
    fake_host: FakeHost, multipath: bool, left: str, then: str
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    target = volume.target
    fake_host.remember()
    record = fake_host.node_records.create(target.iqn, "10.0.0.1", 3260, -1, "default")
    record.settings["node.session.scan"] = "manual"
    if left == "log-in":
        target.portals[0].hang()
        fake_host.iscsid.log_in(record)
        fake_host.after(3, target.portals[0].restore)
    elif left != "record":
        session = fake_host.sessions.create(
            target.iqn, target.portals[0], target, 0, scans=left != "session"
        )
        assert session.sid
    if left == "device":
        fake_host.delays.disk_s = 4
        fake_host.sessions.rescan(session)
    if left == "disk":
        fake_host.multipathd.find_multipaths = "strict"
    if left in ("disk", "map"):
        fake_host.pass_time(1)
    connector = fake_host.connector(use_multipath=multipath)
    info = None
    if then == "attach":
        info = connector.connect_volume(volume.properties)
        assert info["scsi_wwn"] == volume.wwid
        fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == (b"data" if then == "attach" else b"")
    if left == "log-in" and then == "detach":
        fake_host.pass_time(200)  # iscsid had begun it, and nobody knew
        connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers(settle_s=100) == []


@BOTH
def test_after_a_detach_was_killed(fake_host: FakeHost, multipath: bool) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    for disk in fake_host.disks()[:1]:  # it was killed when it had deleted the first disk
        if disk.device is not None:
            fake_host.scsi.drop(disk.device)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


# -- threads ---------------------------------------------------------------------------------
def test_an_unexpected_error_of_one_path_does_not_stop_the_others(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)

    def breaks(name: str) -> None:
        if "/host2/" in name or name.startswith("sys/bus/scsi/devices/2:"):
            raise ValueError("a mistake in a path's thread")

    fake_host.faults.on_read = breaks
    connector = fake_host.connector(use_multipath=True)
    try:
        info = connector.connect_volume(volume.properties)
        assert info["scsi_wwn"] == volume.wwid
    except (ValueError, exception.BrickException):
        pass  # the map has both paths, so that it may not be looked at either
    assert fake_host.now < 100
    fake_host.faults.mend()
    connector.disconnect_volume(volume.properties, None)
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
def test_a_scan_that_is_refused_on_one_path(fake_host: FakeHost, error: int) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    fake_host.faults.failing_writes["scan"] = error
    fake_host.at(0.06, fake_host.faults.failing_writes.clear)
    info = fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    assert info["scsi_wwn"] == volume.wwid


# -- the deadline ----------------------------------------------------------------------------
@pytest.fixture
def short_calls() -> object:
    cfg.CONF.set_override("call_timeout", 30, group="os_brick")
    yield
    cfg.CONF.clear_override("call_timeout", group="os_brick")


@BOTH
@pytest.mark.usefixtures("short_calls")
@pytest.mark.parametrize("words", [("iscsiadm", "--login"), ("iscsiadm", "new"), ("multipath",)])
def test_an_attach_ends_at_its_deadline(
    fake_host: FakeHost, multipath: bool, words: tuple[str, ...]
) -> None:
    fake_host.faults.hang(*words, times=4)
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    try:
        connector.connect_volume(volume.properties)
    except FAILURES:
        pass
    # The undo has a time of its own.
    assert fake_host.now <= 30 + 70
    fake_host.faults.mend()
    fake_host.pass_time(700)  # a log-in that hangs is stopped, and its path cleaned up, later
    connector.disconnect_volume(volume.properties, None)
    assert fake_host.leftovers() == []


@pytest.mark.usefixtures("short_calls")
@pytest.mark.parametrize("words", [("sync",), ("multipath", "-f"), ("iscsiadm", "--logout")])
@pytest.mark.parametrize("force", [False, True])
def test_a_detach_ends_at_its_deadline(
    fake_host: FakeHost, words: tuple[str, ...], force: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.faults.hang(*words)
    began = fake_host.now
    with pytest.raises(FAILURES):
        connector.disconnect_volume(volume.properties, info, force=force)
    assert fake_host.now - began <= 31
    fake_host.faults.mend()
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


# -- the rest of the matrix ------------------------------------------------------------------
@pytest.mark.parametrize("reachable", [1, 2, 3])
def test_four_portals_some_reachable(fake_host: FakeHost, reachable: int) -> None:
    volume = fake_host.iscsi_target(portals=4).lun(1)
    for portal in volume.target.portals[reachable:]:
        portal.silent()
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    assert info["path"] == "/dev/dm-0"
    assert len(fake_host.multipathd.maps()[0].slaves) == reachable
    fake_host.write(info["path"], b"data")
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers(settle_s=400) == []


def test_paths_of_a_map_are_not_written_out_themselves(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.write(info["path"], b"data")
    volume.target.portals[1].kill()
    connector.disconnect_volume(volume.properties, info)
    assert commands(fake_host, "sync") == [("sync", "/dev/dm-0")]


def test_a_disk_of_a_slow_target_that_is_deleted_meanwhile(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    (first, _second) = fake_host.disks()
    fake_host.delays.delete_s = 5

    def operator_deletes() -> None:
        if first.device is not None:
            fake_host.scsi.drop(first.device)

    fake_host.after(2, operator_deletes)
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


@BOTH
def test_scans_of_a_detach_there_are_none(fake_host: FakeHost, multipath: bool) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    info = connector.connect_volume(volume.properties)
    fake_host.forget()
    connector.disconnect_volume(volume.properties, info)
    assert changes(fake_host, "scan") == []
    assert changes(fake_host, "rescan") == []
    fake_host.pass_time(120)
    assert fake_host.leftovers() == []
