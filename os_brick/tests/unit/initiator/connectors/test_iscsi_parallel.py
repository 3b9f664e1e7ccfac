# SPDX-License-Identifier: Apache-2.0
"""Many calls at once, on one connector and on several."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from oslo_concurrency import processutils
from oslo_config import cfg

from os_brick import exception
from os_brick.testing import FakeHost
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import commands, side_by_side

BOTH = pytest.mark.parametrize("multipath", [False, True])


@BOTH
@pytest.mark.parametrize("connectors", [1, 2])
def test_two_attaches_of_one_target_make_one_session_a_portal(
    fake_host: FakeHost, multipath: bool, connectors: int
) -> None:
    target = fake_host.iscsi_target(portals=2)
    volumes = [target.lun(1), target.lun(2)]
    owners = [fake_host.connector(use_multipath=multipath) for _ in range(connectors)] * 2
    infos = side_by_side(
        fake_host,
        *[partial(owners[n].connect_volume, volume.properties) for n, volume in enumerate(volumes)],
    )
    assert [info["scsi_wwn"] for info in infos] == [volume.wwid for volume in volumes]
    sessions = [(one.iqn, one.portal.address) for one in fake_host.sessions.all()]
    assert len(sessions) == len(set(sessions)) == (2 if multipath else 1)
    side_by_side(
        fake_host,
        *[
            partial(owners[n].disconnect_volume, volume.properties, infos[n])
            for n, volume in enumerate(volumes)
        ],
    )
    assert fake_host.leftovers() == []


@BOTH
def test_many_attaches_and_detaches_of_one_portal(fake_host: FakeHost, multipath: bool) -> None:
    target = fake_host.iscsi_target(portals=2)
    volumes = [target.lun(number) for number in range(12)]
    connector = fake_host.connector(use_multipath=multipath)
    infos = side_by_side(
        fake_host, *[partial(connector.connect_volume, one.properties) for one in volumes]
    )
    assert [info["scsi_wwn"] for info in infos] == [volume.wwid for volume in volumes]
    assert len(fake_host.sessions.all()) == (2 if multipath else 1)
    for number, info in enumerate(infos):
        fake_host.write(info["path"], b"%d" % number)
    ends = side_by_side(
        fake_host,
        *[
            partial(connector.disconnect_volume, volume.properties, info)
            for volume, info in zip(volumes, infos, strict=True)
        ],
    )
    assert ends == [None] * len(volumes)
    assert [volume.data for volume in volumes] == [b"%d" % n for n in range(len(volumes))]
    assert fake_host.lost == []
    assert fake_host.leftovers() == []


def test_a_session_that_is_being_attached_through_is_not_logged_out(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    first, second = target.lun(1), target.lun(2)
    connector = fake_host.connector()
    info = connector.connect_volume(first.properties)
    fake_host.delays.disk_s = 3  # the second attach waits for its disk while the first detaches

    def detach_soon() -> None:
        fake_host.pass_time(1)
        connector.disconnect_volume(first.properties, info)

    attached, detached = side_by_side(
        fake_host,
        lambda: connector.connect_volume(second.properties),
        detach_soon,
    )
    assert attached["scsi_wwn"] == second.wwid
    assert detached is None
    assert len(fake_host.sessions.all()) == 1
    fake_host.write(attached["path"], b"data")
    connector.disconnect_volume(second.properties, attached)
    assert second.data == b"data"
    assert fake_host.leftovers() == []


@BOTH
@pytest.mark.parametrize("round_number", range(3))
def test_attach_and_detach_in_turns_on_one_session(
    fake_host: FakeHost, multipath: bool, round_number: int
) -> None:
    target = fake_host.iscsi_target(portals=2)
    volumes = [target.lun(number) for number in range(6)]
    connector = fake_host.connector(use_multipath=multipath)

    def in_and_out(number: int) -> None:
        fake_host.pass_time(0.01 * number * round_number)
        for _ in range(3):
            info = connector.connect_volume(volumes[number].properties)
            fake_host.write(info["path"], b"x")
            connector.disconnect_volume(volumes[number].properties, info)

    assert side_by_side(fake_host, *[partial(in_and_out, n) for n in range(6)]) == [None] * 6
    assert [volume.data for volume in volumes] == [b"xxx"] * 6
    assert fake_host.lost == []
    assert fake_host.leftovers() == []


@BOTH
def test_the_same_volume_twice_at_once(fake_host: FakeHost, multipath: bool) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    infos = side_by_side(fake_host, *[lambda: connector.connect_volume(volume.properties)] * 4)
    assert infos == [infos[0]] * 4
    ends = side_by_side(
        fake_host, *[lambda: connector.disconnect_volume(volume.properties, infos[0])] * 4
    )
    assert ends == [None] * 4
    assert fake_host.leftovers() == []


def test_attach_and_detach_of_one_volume_exclude_each_other(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    again, gone = side_by_side(
        fake_host,
        lambda: connector.connect_volume(volume.properties),
        lambda: connector.disconnect_volume(volume.properties, info),
    )
    assert gone is None
    assert again["scsi_wwn"] == volume.wwid
    connector.disconnect_volume(volume.properties, again)
    assert fake_host.leftovers() == []


def test_what_a_failed_attach_still_brings_up_is_not_taken_by_the_next(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    slow = volume.target.portals[1]
    slow.login_s = 1
    fake_host.at(0.5, lambda: fake_host.faults.slow_writes.update(scan=60))
    fake_host.faults.fail("multipath", "-C", times=4)  # the map of the first path cannot be used
    connector = fake_host.connector(use_multipath=True)
    with pytest.raises(processutils.ProcessExecutionError):
        connector.connect_volume(volume.properties)
    began = fake_host.now
    assert began < 60, "the slow path is under way"
    fake_host.faults.slow_writes.clear()
    info = connector.connect_volume(volume.properties)
    assert fake_host.now < began + 5, "and keeps nobody"
    opening = fake_host.open(info["path"])
    first, *more = fake_host.disks()
    assert more == []
    fake_host.pass_time(100)
    assert first in fake_host.disks()
    assert len(fake_host.multipathd.maps()[0].slaves) == 2, "the next attach brings its own"
    opening.close()
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_the_only_path_is_waited_for_until_an_earlier_attach_is_done_with_it(
    fake_host: FakeHost,
) -> None:
    volume = fake_host.iscsi_target().lun(1)
    stuck: list[str] = []

    def stick(name: str) -> None:
        if name.endswith("block") and "devices/2:0:0:1" in name and not stuck:
            stuck.append(name)
            fake_host.pass_time(60)

    fake_host.faults.on_read = stick  # the path's thread is kept past its call's end
    cfg.CONF.set_override("call_timeout", 20, group="os_brick")
    try:
        with pytest.raises(exception.BrickException):
            fake_host.connector(use_multipath=True).connect_volume(volume.properties)
    finally:
        cfg.CONF.clear_override("call_timeout", group="os_brick")
    assert stuck
    assert fake_host.now < 60
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.write(info["path"], b"data")
    fake_host.pass_time(200)
    assert fake_host.lost == []
    connector.disconnect_volume(volume.properties, info)
    assert volume.data == b"data"
    assert fake_host.leftovers() == []


@BOTH
def test_a_bad_volume_keeps_no_other_one_waiting(fake_host: FakeHost, multipath: bool) -> None:
    bad = fake_host.iscsi_target(["10.0.0.8:3260", "10.0.0.9:3260"]).lun(1)
    for portal in bad.target.portals:
        portal.silent()
    good = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=multipath)
    took: list[float] = []

    def attach_and_detach() -> None:
        fake_host.pass_time(1)
        began = fake_host.now
        info = connector.connect_volume(good.properties)
        connector.disconnect_volume(good.properties, info)
        took.append(fake_host.now - began)

    failed, _none = side_by_side(
        fake_host, lambda: connector.connect_volume(bad.properties), attach_and_detach
    )
    assert isinstance(failed, Exception)
    assert took[0] < 5


def test_a_write_out_that_hangs_keeps_no_other_volume_waiting(fake_host: FakeHost) -> None:
    fake_host.multipathd.no_path_retry = "queue"
    bad = fake_host.iscsi_target(["10.0.0.8:3260"]).lun(1)
    good = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    stuck = connector.connect_volume(bad.properties)
    info = connector.connect_volume(good.properties)
    fake_host.write(stuck["path"], b"data")
    bad.target.portals[0].kill()
    took: list[float] = []

    def detach() -> None:
        fake_host.pass_time(1)
        began = fake_host.now
        connector.disconnect_volume(good.properties, info)
        took.append(fake_host.now - began)

    failed, _none = side_by_side(
        fake_host, lambda: connector.disconnect_volume(bad.properties, stuck), detach
    )
    assert isinstance(failed, Exception)
    assert took[0] < 5


@BOTH
def test_thirty_attaches_at_once_start_few_programs(fake_host: FakeHost, multipath: bool) -> None:
    target = fake_host.iscsi_target(portals=2)
    volumes = [target.lun(number) for number in range(30)]
    connector = fake_host.connector(use_multipath=multipath)
    infos: list[Any] = side_by_side(
        fake_host, *[partial(connector.connect_volume, volume.properties) for volume in volumes]
    )
    assert [info["scsi_wwn"] for info in infos] == [volume.wwid for volume in volumes]
    assert len(commands(fake_host, "--login")) == (2 if multipath else 1)
    assert len(commands(fake_host, "--op", "new")) == (2 if multipath else 1)
