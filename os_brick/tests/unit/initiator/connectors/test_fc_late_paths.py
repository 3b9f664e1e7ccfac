# SPDX-License-Identifier: Apache-2.0
"""Paths that come up when the attach that asked for them is over, and attaches that follow it."""

from __future__ import annotations

from typing import Any

import pytest
from oslo_concurrency import processutils

from os_brick import exception
from os_brick.initiator.linux.fc_volume import FcTarget
from os_brick.testing import FakeHost
from os_brick.testing.fc_storage import FcVolume
from os_brick.tests.unit.initiator.connectors.fc_helpers import prepared, scans
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import disk_names

FAILURES = (exception.BrickException, processutils.ProcessExecutionError, OSError)
BOTH = pytest.mark.parametrize("multipath", [False, True])


def tried_before(host: FakeHost, how: str) -> tuple[Any, FcVolume]:
    """Return a connector, and a volume of which an earlier attach still waits for the second path.

    :param how: what became of that attach: ``"detached"`` or ``"failed"``.
    """
    array = prepared(host, hbas=1, ports=2)
    volume = array.lun(1)
    array.ports[1].silence()
    connector = host.connector("FIBRE_CHANNEL", use_multipath=True)
    if how == "failed":
        host.faults.fail("multipath", "-C", times=99)
        with pytest.raises(FAILURES):
            connector.connect_volume(volume.properties)
        host.faults.mend()
    else:
        info = connector.connect_volume(volume.properties)
        connector.disconnect_volume(volume.properties, info)
    return connector, volume


def join_at_once(host: FakeHost) -> None:
    """Have a disk be in its map as soon as it is there."""
    host.delays.udev_s = host.delays.multipath_build_s = host.delays.disk_s = 0


# -- the attach that follows ---------------------------------------------------------------
@pytest.mark.parametrize("how", ["detached", "failed"])
@pytest.mark.parametrize("fast", [False, True])
def test_a_late_path_of_an_earlier_attach_takes_nothing_from_this_one(
    fake_host: FakeHost, how: str, fast: bool
) -> None:
    if fast:
        join_at_once(fake_host)
    connector, volume = tried_before(fake_host, how)
    info = connector.connect_volume(volume.properties)
    over = fake_host.multipathd.maps()[0]
    fake_host.write(info["path"], b"data")
    volume.array.ports[1].restore()
    fake_host.pass_time(60)
    assert fake_host.multipathd.maps() == [over]
    assert len(disk_names(fake_host)) == len(over.slaves) == 2
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@pytest.mark.parametrize("how", ["detached", "failed"])
def test_a_path_that_an_earlier_attach_has_in_hand_holds_up_nobody(
    fake_host: FakeHost, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    connector, volume = tried_before(fake_host, how)
    began = fake_host.now
    connector.connect_volume(volume.properties)
    assert fake_host.now - began < 3
    assert f"LUN 1 of 0x{volume.array.wwpns[1]} on host2: an earlier attach still" in caplog.text


@BOTH
def test_where_it_is_the_only_path_it_is_waited_for(fake_host: FakeHost, multipath: bool) -> None:
    array = prepared(fake_host, hbas=1, ports=1)
    volume = array.lun(1)
    array.ports[0].silence()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    fake_host.after(400, array.ports[0].restore)
    for _attempt in range(2):
        with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
            connector.connect_volume(volume.properties)
    fake_host.pass_time(395 - fake_host.now)
    info = connector.connect_volume(volume.properties)
    assert info["scsi_wwn"] == volume.wwid
    fake_host.write(info["path"], b"data")
    fake_host.pass_time(700)
    assert len(disk_names(fake_host)) == 1
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@BOTH
def test_a_scan_that_shows_nothing_any_more_keeps_nobody(
    fake_host: FakeHost, multipath: bool
) -> None:
    """The kernel's first scan ends without the disk when it has been given up; the LUN comes
    later."""
    array = prepared(fake_host, hbas=1, ports=1)
    volume = array.lun(1, mapped=False)
    array.ports[0].silence()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=multipath)
    with pytest.raises(exception.NoFibreChannelVolumeDeviceFound):
        connector.connect_volume(volume.properties)
    array.ports[0].restore()
    volume.map_after(5)
    fake_host.pass_time(10)
    began = fake_host.now
    info = connector.connect_volume(volume.properties)
    assert fake_host.now - began < 2
    connector.disconnect_volume(volume.properties, info)
    fake_host.pass_time(700)
    assert fake_host.leftovers() == []


def test_an_attach_that_nobody_wants_any_more_does_not_wait_for_its_turn(
    fake_host: FakeHost,
) -> None:
    connector, volume = tried_before(fake_host, "detached")
    info = connector.connect_volume(volume.properties)
    connector.disconnect_volume(volume.properties, info)
    fake_host.forget()
    volume.array.ports[1].restore()
    fake_host.pass_time(60)
    assert scans(fake_host) == []
    assert fake_host.leftovers() == []


# -- calls for the volume that are under way ---------------------------------------------------
def test_a_path_that_comes_while_the_volume_is_in_other_hands_goes_alone(
    fake_host: FakeHost,
) -> None:
    array = prepared(fake_host, hbas=1, ports=2)
    volume = array.lun(1)
    array.ports[1].silence()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(volume.properties)
    over = fake_host.multipathd.maps()[0]
    before = disk_names(fake_host)
    fake_host.open(info["path"])
    fake_host.write(info["path"], b"data")
    with fake_host.host.locks.tried(FcTarget(array.wwpns[1], 1).volume_lock_name) as mine:
        assert mine
        array.ports[1].restore()
        fake_host.pass_time(30)
    assert disk_names(fake_host) == before
    assert fake_host.multipathd.maps() == [over]
    assert fake_host.lost == []


def test_such_a_path_stays_if_the_map_in_use_has_no_other_that_runs(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    join_at_once(fake_host)
    array = prepared(fake_host, hbas=1, ports=2)
    volume = array.lun(1)
    array.ports[1].silence()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.open(info["path"])
    array.ports[0].lose(dev_loss_s=3600)
    with fake_host.host.locks.tried(FcTarget(array.wwpns[1], 1).volume_lock_name):
        array.ports[1].restore()
        fake_host.pass_time(30)
    assert len(disk_names(fake_host)) == 2
    assert "is left, as it is in use by now" in caplog.text


@pytest.mark.parametrize("order", ["at once", "one after the other"])
def test_all_late_paths_of_a_detached_volume_go(fake_host: FakeHost, order: str) -> None:
    array = prepared(fake_host, hbas=1, ports=4)
    volume = array.lun(1)
    for port in array.ports[1:]:
        port.silence()
    connector = fake_host.connector("FIBRE_CHANNEL", use_multipath=True)
    for _attempt in range(2):
        info = connector.connect_volume(volume.properties)
        connector.disconnect_volume(volume.properties, info)
    for port in array.ports[1:]:
        port.restore()
        fake_host.pass_time(5 if order != "at once" else 0)
    fake_host.pass_time(30)
    assert fake_host.leftovers() == []
