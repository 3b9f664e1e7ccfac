# SPDX-License-Identifier: Apache-2.0
"""Paths of an attach that go on after it has returned, and a later attach of the same volume."""

from __future__ import annotations

from typing import Any

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.testing.nvme_storage import NvmeVolume
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import side_by_side
from os_brick.tests.unit.initiator.connectors.nvme_helpers import connector, connects, controllers

BOTH = pytest.mark.parametrize("multipath", [False, True])
# Whatever was begun has ended by then.
SETTLE_S = 400


def keeps(host: FakeHost, volume: NvmeVolume, path: str, count: int) -> None:
    """Write to a volume and check that nothing that was begun before takes it away."""
    host.write(path, b"data")
    host.pass_time(SETTLE_S)
    assert host.lost == []
    assert host.device(path).storage()[1] is volume.unit
    assert len(controllers(host)) == count


# -- connects without an answer ------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("foreign", [False, True])
def test_an_attach_after_a_connect_that_hung_keeps_its_controller(
    fake_host: FakeHost, multipath: bool, foreign: bool
) -> None:
    volume = fake_host.nvme_subsystem().namespace()
    fake_host.faults.hang("nvme", "connect", times=1)
    one = connector(fake_host, use_multipath=multipath, foreign=foreign)
    with pytest.raises(exception.VolumeDeviceNotFound):
        one.connect_volume(volume.properties)
    keeps(fake_host, volume, one.connect_volume(volume.properties)["path"], 1)


@BOTH
def test_what_the_kernel_makes_late_is_not_taken_from_the_next_attach(
    fake_host: FakeHost, multipath: bool
) -> None:
    """The controller of the connect that was stopped comes while the volume is attached again."""
    volume = fake_host.nvme_subsystem().namespace()
    fake_host.nvme.connect_s = 100
    one = connector(fake_host, use_multipath=multipath)
    with pytest.raises(exception.VolumeDeviceNotFound):
        one.connect_volume(volume.properties)
    fake_host.nvme.connect_s = 0.02
    keeps(fake_host, volume, one.connect_volume(volume.properties)["path"], 1)


def test_a_connect_that_was_not_started_is_not_watched(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem().namespace()
    fake_host.faults.miss("nvme", "connect", times=1)
    one = connector(fake_host)
    with pytest.raises(exception.VolumeDeviceNotFound):
        one.connect_volume(volume.properties)
    began = fake_host.now
    path = one.connect_volume(volume.properties)["path"]
    assert fake_host.now - began < 1
    keeps(fake_host, volume, path, 1)


def test_another_volume_does_not_wait_for_a_connect_that_hung(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume, other = subsystem.namespace(), subsystem.namespace()
    fake_host.faults.hang("nvme", "connect", times=1)
    one = connector(fake_host)
    with pytest.raises(exception.VolumeDeviceNotFound):
        one.connect_volume(volume.properties)
    began = fake_host.now
    path = one.connect_volume(other.properties)["path"]
    assert fake_host.now - began < 1
    keeps(fake_host, other, path, 1)


# -- paths that come late ------------------------------------------------------------------
def test_an_attach_whose_only_way_has_a_late_path_gets_its_disk(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem(portals=2)
    volume = subsystem.namespace()
    fake_host.faults.slow("nvme", "connect", "10.0.1.2", seconds=20, times=1)
    one = connector(fake_host)
    one.disconnect_volume(volume.properties, one.connect_volume(volume.properties))
    fake_host.pass_time(19 - fake_host.now)
    subsystem.portals[0].refuse()
    keeps(fake_host, volume, one.connect_volume(volume.properties)["path"], 1)


@pytest.mark.parametrize("moment_s", [1.0, 19.5, 19.9, 20.0, 20.02, 20.05])
def test_the_late_path_of_an_earlier_attach_comes_back_for_the_next(
    fake_host: FakeHost, moment_s: float
) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    fake_host.faults.slow("nvme", "connect", "10.0.1.2", seconds=20, times=1)
    one = connector(fake_host)
    one.disconnect_volume(volume.properties, one.connect_volume(volume.properties))
    fake_host.pass_time(moment_s - fake_host.now)
    began = fake_host.now
    path = one.connect_volume(volume.properties)["path"]
    assert fake_host.now - began < 3
    keeps(fake_host, volume, path, 2)
    one.disconnect_volume(volume.properties, {"path": path})
    assert controllers(fake_host) == []


def test_without_multipath_the_next_portal_has_its_turn(fake_host: FakeHost) -> None:
    """The first one's path of an earlier attach is not through with it."""
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    fake_host.faults.hang("nvme", "connect", "10.0.1.1", times=1)
    fake_host.faults.hang("nvme", "connect", "10.0.1.2", times=1)
    one = connector(fake_host, use_multipath=False)
    with pytest.raises(exception.VolumeDeviceNotFound):
        one.connect_volume(volume.properties)
    fake_host.pass_time(85)  # that of the first portal is still watched for some seconds
    fake_host.forget()
    path = one.connect_volume(volume.properties)["path"]
    keeps(fake_host, volume, path, 1)
    assert len(connects(fake_host)) == 1


def test_a_volume_that_is_attached_twice_keeps_its_late_path(fake_host: FakeHost) -> None:
    volume = fake_host.nvme_subsystem(portals=2).namespace()
    fake_host.faults.slow("nvme", "connect", "10.0.1.2", seconds=20, times=1)
    one = connector(fake_host)
    path = one.connect_volume(volume.properties)["path"]
    fake_host.pass_time(19.9 - fake_host.now)
    assert one.connect_volume(volume.properties)["path"] == path
    keeps(fake_host, volume, path, 2)


# -- controllers that nobody uses ----------------------------------------------------------
def failing(host: FakeHost, one: Any, volume: NvmeVolume, *, after_s: float = 0) -> None:
    """Attach a volume that is not mapped."""
    host.pass_time(after_s)
    with pytest.raises(exception.VolumeDeviceNotFound):
        one.connect_volume(volume.properties)


def test_two_attaches_that_fail_leave_no_controller(fake_host: FakeHost) -> None:
    """The first one made it, but cannot end it while the second one goes on."""
    subsystem = fake_host.nvme_subsystem()
    first, second = subsystem.namespace(mapped=False), subsystem.namespace(mapped=False)
    one = connector(fake_host)
    fake_host.remember()
    ends = side_by_side(
        fake_host,
        lambda: failing(fake_host, one, first),
        lambda: failing(fake_host, one, second, after_s=3),
    )
    assert ends == [None, None]
    fake_host.pass_time(SETTLE_S)
    assert fake_host.leftovers() == []


def test_a_detach_while_another_attach_fails_leaves_no_controller(fake_host: FakeHost) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume, missing = subsystem.namespace(), subsystem.namespace(mapped=False)
    one = connector(fake_host)
    fake_host.remember()
    info = one.connect_volume(volume.properties)

    def detach() -> None:
        fake_host.pass_time(3)
        one.disconnect_volume(volume.properties, info)
        volume.vanish()

    side_by_side(fake_host, lambda: failing(fake_host, one, missing), detach)
    fake_host.pass_time(SETTLE_S)
    assert fake_host.leftovers() == []


def test_a_volume_that_is_attached_again_meanwhile_keeps_the_controller(
    fake_host: FakeHost,
) -> None:
    subsystem = fake_host.nvme_subsystem()
    volume, missing = subsystem.namespace(), subsystem.namespace(mapped=False)
    one = connector(fake_host)
    info = one.connect_volume(volume.properties)
    paths: list[str] = []

    def again() -> None:
        fake_host.pass_time(3)
        one.disconnect_volume(volume.properties, info)
        fake_host.pass_time(2)
        paths.append(one.connect_volume(volume.properties)["path"])

    side_by_side(fake_host, lambda: failing(fake_host, one, missing), again)
    keeps(fake_host, volume, paths[0], 1)
