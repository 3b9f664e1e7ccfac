# SPDX-License-Identifier: Apache-2.0
"""Paths and size of an attached volume."""

from __future__ import annotations

import pytest

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import disk_at

GIB = 1024**3
BOTH = pytest.mark.parametrize("multipath", [False, True])


# -- get_volume_paths ----------------------------------------------------------------------
def test_paths_of_a_volume_are_its_by_path_links(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    assert connector.get_volume_paths(volume.properties) == []
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.forget()
    assert sorted(connector.get_volume_paths(volume.properties)) == [
        f"/dev/disk/by-path/ip-10.0.0.{n}:3260-iscsi-{volume.target.iqn}-lun-1" for n in (1, 2)
    ]
    assert fake_host.started == []
    assert fake_host.changes == []


def test_single_path_only_reports_portals_with_a_session(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector()
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    stale = f"/dev/disk/by-path/ip-10.0.0.2:3260-iscsi-{volume.target.iqn}-lun-1"
    fake_host.stale_link(stale, "sda")
    assert connector.get_volume_paths(volume.properties) == [stale.replace("10.0.0.2", "10.0.0.1")]


def test_no_portal_no_paths(fake_host: FakeHost) -> None:
    assert fake_host.connector().get_volume_paths({"volume_id": "x"}) == []


def test_ipv6_and_large_luns_in_links(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(["[2001:db8::1]:3260"]).lun(256, addressing="SAM2")
    connector = fake_host.connector()
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    (path,) = connector.get_volume_paths(volume.properties)
    assert path.startswith("/dev/disk/by-path/ip-2001:db8::1:3260-iscsi-")
    assert path.endswith("-lun-0x4100000000000000")


def test_search_path(fake_host: FakeHost) -> None:
    assert fake_host.connector().get_search_path() == "/dev/disk/by-path"


# -- extend_volume -------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("foreign", [False, True])
def test_extend_returns_the_new_size(fake_host: FakeHost, multipath: bool, foreign: bool) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1, size=GIB)
    connector = fake_host.connector(use_multipath=multipath, foreign=foreign)
    info = connector.connect_volume(volume.properties)
    volume.grow(2 * GIB)
    assert connector.extend_volume(volume.properties) == 2 * GIB
    assert {disk.size for disk in fake_host.disks()} == {2 * GIB}
    assert fake_host.device(info["path"]).size == 2 * GIB


def test_extend_does_not_depend_on_the_setting_now(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1, size=GIB)
    info = fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    volume.grow(2 * GIB)
    assert fake_host.connector().extend_volume(volume.properties) == 2 * GIB
    assert fake_host.device(info["path"]).size == 2 * GIB


def test_extend_after_a_discovered_attach_grows_all_paths(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=3).lun(1, size=GIB)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    connector.connect_volume(properties)
    volume.grow(2 * GIB)
    assert connector.extend_volume(properties) == 2 * GIB
    assert {disk.size for disk in fake_host.disks()} == {2 * GIB}


def test_extend_without_growth_returns_the_size(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1, size=GIB)
    connector = fake_host.connector(use_multipath=True)
    connector.connect_volume(volume.properties)
    assert connector.extend_volume(volume.properties) == GIB


def test_extend_of_what_is_not_attached(
    fake_host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    volume = fake_host.iscsi_target(chap=("user", "s3cret")).lun(1)
    with pytest.raises(exception.VolumePathsNotFound):
        fake_host.connector().extend_volume(volume.properties)
    assert "s3cret" not in caplog.text


def test_extend_with_a_dead_path_touches_nothing(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1, size=GIB)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    volume.grow(2 * GIB)
    volume.target.portals[1].kill()
    with pytest.raises(exception.BrickException, match="All paths need to be up"):
        connector.extend_volume(volume.properties)
    assert {disk.size for disk in fake_host.disks()} == {GIB}
    assert fake_host.device(info["path"]).size == GIB
    volume.target.portals[1].restore()
    assert connector.extend_volume(volume.properties) == 2 * GIB


def test_extend_never_takes_the_size_of_another_volume(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1, size=GIB)
    connector = fake_host.connector(use_multipath=True)
    connector.connect_volume(volume.properties)
    volume.remap(size=5 * GIB)
    with pytest.raises(exception.BrickException):
        connector.extend_volume(volume.properties)
    assert {disk.size for disk in fake_host.disks()} == {GIB}


@pytest.mark.parametrize("said", ["fail\n", "timeout\n"])
def test_a_map_that_does_not_grow_is_an_error(fake_host: FakeHost, said: str) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1, size=GIB)
    connector = fake_host.connector(use_multipath=True)
    connector.connect_volume(volume.properties)
    volume.grow(2 * GIB)
    fake_host.faults.fail("multipathd", "resize", code=0, out=said, times=1000)
    with pytest.raises(Exception, match="map"):
        connector.extend_volume(volume.properties)
    assert fake_host.now < 200


def test_a_multipathd_that_is_busy_for_a_moment(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1, size=GIB)
    connector = fake_host.connector(use_multipath=True)
    connector.connect_volume(volume.properties)
    volume.grow(2 * GIB)
    fake_host.faults.fail("multipathd", "resize", code=0, out="timeout\n", times=3)
    assert connector.extend_volume(volume.properties) == 2 * GIB


@BOTH
def test_extend_of_an_encrypted_volume(fake_host: FakeHost, multipath: bool) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1, size=GIB)
    connector = fake_host.connector(use_multipath=multipath)
    properties = volume.connection(encrypted=True)
    info = connector.connect_volume(properties)
    volume.grow(2 * GIB)
    assert connector.extend_volume({**properties, "device_path": info["path"]}) == 2 * GIB


# -- check_valid_device --------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("foreign", [True, False])
def test_a_device_is_valid_while_it_can_be_read(
    fake_host: FakeHost, multipath: bool, foreign: bool
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath, foreign=foreign)
    path = connector.connect_volume(volume.properties)["path"]
    assert connector.check_valid_device(path) is True
    assert connector.check_valid_device("/dev/sdz") is False
    if multipath:
        volume.target.portals[0].kill()
        assert connector.check_valid_device(path) is True
        assert disk_at(fake_host, "10.0.0.1")
    for portal in volume.target.portals:
        portal.kill()
    assert connector.check_valid_device(path) is False
