# SPDX-License-Identifier: Apache-2.0
"""What calls that fail, end late or meet one another leave behind, and how long they keep others
waiting."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from oslo_config import cfg

from os_brick import exception
from os_brick.initiator.linux import iscsi_sessions
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.iscsi import Portal, Target
from os_brick.testing import FakeHost
from os_brick.testing.storage import Volume
from os_brick.tests.unit.initiator.connectors.iscsi_helpers import disk_names, side_by_side

BOTH = pytest.mark.parametrize("multipath", [False, True])


@pytest.fixture
def short_calls() -> Iterator[None]:
    cfg.CONF.set_override("call_timeout", 30, group="os_brick")
    yield
    cfg.CONF.clear_override("call_timeout", group="os_brick")


# -- disks that come too late ----------------------------------------------------------------
@pytest.mark.usefixtures("short_calls")
def test_a_disk_that_would_come_after_the_deadline_is_not_left(fake_host: FakeHost) -> None:
    """The scan has made the device, but the driver has not made the disk when the call ends."""
    fake_host.delays.disk_s = 40
    volume = fake_host.iscsi_target().lun(1)
    with pytest.raises(exception.DeadlineExceeded, match="within 30 seconds"):
        fake_host.connector().connect_volume(volume.properties)
    assert fake_host.leftovers(settle_s=600) == []


def test_a_disk_that_would_come_after_the_last_look_is_not_left(fake_host: FakeHost) -> None:
    fake_host.delays.disk_s = 100
    volume = fake_host.iscsi_target().lun(1)
    with pytest.raises(exception.VolumeDeviceNotFound, match="did not show the LUN"):
        fake_host.connector().connect_volume(volume.properties)
    assert fake_host.leftovers(settle_s=600) == []


# -- sessions that the last one leaves -------------------------------------------------------
def test_a_session_that_a_detach_left_to_a_failing_attach_is_logged_out(
    fake_host: FakeHost,
) -> None:
    """The attach comes after the disk was deleted and before the log-out: so the detach finds the
    session used, and the attach found it idle, as if it was somebody's who wants it so."""
    target = fake_host.iscsi_target()
    first, missing = target.lun(1), target.lun(2, mapped=False)
    detacher = fake_host.connector(foreign=True)
    info = detacher.connect_volume(first.properties)
    fake_host.pass_time(1)
    fake_host.delays.udev_s = 2  # so that links dangle; removing them takes its time
    fake_host.faults.slow("rm", seconds=3)

    def attach() -> None:
        fake_host.pass_time(1)
        assert disk_names(fake_host) == []
        fake_host.connector().connect_volume(missing.properties)

    detached, failed = side_by_side(
        fake_host, partial(detacher.disconnect_volume, first.properties, info), attach
    )
    assert detached is None
    assert isinstance(failed, exception.VolumeDeviceNotFound)
    assert fake_host.leftovers(settle_s=100) == []


@pytest.mark.parametrize("has_disk", [False, True])
def test_a_session_goes_with_an_attach_that_fails_after_a_detach(
    fake_host: FakeHost, has_disk: bool
) -> None:
    """The detach leaves it to the attach, which fails before it has a disk or after it."""
    target = fake_host.iscsi_target(portals=1)
    one, two = target.lun(1), target.lun(2, mapped=has_disk)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(one.properties)
    fake_host.pass_time(1)
    busy = contextlib.ExitStack()
    assert busy.enter_context(connector.host.locks.tried(f"iscsi login 10.0.0.1:3260 {target.iqn}"))
    fake_host.after(3, busy.close)
    fake_host.faults.fail("multipath", "-C", code=1, times=float("inf"))

    def detach() -> None:
        fake_host.pass_time(1)
        connector.disconnect_volume(one.properties, info)

    failed, detached = side_by_side(
        fake_host, partial(connector.connect_volume, two.properties), detach
    )
    assert isinstance(failed, Exception)
    assert detached is None
    assert fake_host.leftovers(settle_s=30) == []


def test_a_session_that_two_failing_attaches_have_shared_is_logged_out(
    fake_host: FakeHost,
) -> None:
    """The one that made it fails first, and leaves it to the other."""
    target = fake_host.iscsi_target()
    volumes = [target.lun(1, mapped=False), target.lun(2, mapped=False)]

    def attach(number: int) -> None:
        fake_host.pass_time(number)
        fake_host.connector().connect_volume(volumes[number].properties)

    failures = side_by_side(fake_host, partial(attach, 0), partial(attach, 1))
    assert [type(one) for one in failures] == [exception.VolumeDeviceNotFound] * 2
    assert fake_host.leftovers(settle_s=100) == []


@pytest.mark.parametrize("known", [False, True])
def test_a_failed_log_out_of_discovered_portals_can_be_finished(
    fake_host: FakeHost, known: bool
) -> None:
    """Their sessions have no disk any more by which the volume would be found."""
    volume = fake_host.iscsi_target(portals=3).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    assert len(fake_host.sessions.all()) == 3
    fake_host.faults.fail("iscsiadm", "--logout", code=20, times=100)
    with pytest.raises(exception.BrickException, match=r"Logout of .* failed, session \d remains"):
        connector.disconnect_volume(properties, info)
    fake_host.faults.mend()
    connector.disconnect_volume(properties, info if known else None)
    assert fake_host.leftovers() == []


def test_force_logs_out_though_it_cannot_be_told_whose_a_map_is(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.multipathd.stop()
    for disk in fake_host.disks():
        assert disk.device is not None
        fake_host.scsi.drop(disk.device)
    properties = volume.connection(device_path=info["path"])
    connector.disconnect_volume(properties, None, force=True, ignore_errors=True)
    assert fake_host.sessions.all() == []
    assert [one.wwid for one in fake_host.multipathd.maps()] == [volume.wwid]


@BOTH
def test_the_disk_by_the_other_coding_of_the_lun_goes_too(
    fake_host: FakeHost, multipath: bool
) -> None:
    """An array may answer to both codings of a number: a scan of ours has made one disk, a scan of
    all LUNs (an old open-iscsi, an operator) the other, which is in no map."""
    target = fake_host.iscsi_target()
    volume = target.lun(1)
    target.volume(volume.unit, [0x4001], None, None).map()
    connector = fake_host.connector(use_multipath=multipath)
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    fake_host.multipathd.blacklist = True
    for session in fake_host.sessions.all():
        fake_host.sessions.rescan(session)
    fake_host.pass_time(1)
    assert disk_names(fake_host) == ["sda", "sdb"]
    connector.disconnect_volume(volume.properties, info)
    assert fake_host.leftovers() == []


def test_a_session_of_somebody_elses_record_scans_by_hand_from_now_on(fake_host: FakeHost) -> None:
    """At its next log-in it would bring all LUNs of the target."""
    target = fake_host.iscsi_target()
    volume = target.lun(1)
    record = fake_host.node_records.create(target.iqn, "10.0.0.1", 3260, -1, "default")
    fake_host.sessions.create(target.iqn, target.portals[0], target, 0)
    assert record.settings["node.session.scan"] == "auto"
    fake_host.connector().connect_volume(volume.properties)
    (record,) = fake_host.node_records.match(target.iqn, ("10.0.0.1", 3260))
    assert record.settings["node.session.scan"] == "manual"


# -- waiting ---------------------------------------------------------------------------------
def test_a_detach_waits_for_a_late_path_that_a_discovery_found(fake_host: FakeHost) -> None:
    """The caller does not name that path, and its log-in is still under way."""
    target = fake_host.iscsi_target(portals=2, shared_iqn=False)
    volume = target.lun(1)
    connector = fake_host.connector(use_multipath=True)
    target.portals[1].login_s = 15
    properties = volume.connection(plural=False)
    info = connector.connect_volume(properties)
    connector.disconnect_volume(properties, info)
    assert fake_host.sessions.all() == []
    assert fake_host.leftovers() == []
    fake_host.pass_time(8)
    assert fake_host.leftovers() == []


def test_a_map_without_a_running_path_fails_the_attach(fake_host: FakeHost) -> None:
    """It has the disks to itself: none of them may be returned in its place."""
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    fake_host.delays.multipath_build_s = 1
    for portal in volume.target.portals:
        fake_host.at(0.5, portal.kill)
    with pytest.raises(exception.VolumeDeviceNotFound, match="has no running path"):
        connector.connect_volume(volume.properties)
    assert fake_host.leftovers(settle_s=600) == []


def test_a_crowd_of_log_ins_that_hang_keeps_no_other_waiting(fake_host: FakeHost) -> None:
    bad = [fake_host.iscsi_target([f"10.0.7.{number}:3260"]).lun(1) for number in range(1, 18)]
    good = fake_host.iscsi_target(["10.0.8.1:3260"]).lun(1)
    for one in bad:
        one.target.portals[0].hang()

    def attach(volume: Volume) -> Any:
        return fake_host.connector().connect_volume(volume.properties)

    def attach_good() -> float:
        fake_host.pass_time(5)
        began = fake_host.now
        attach(good)
        return fake_host.now - began

    *failures, took_s = side_by_side(fake_host, *[partial(attach, one) for one in bad], attach_good)
    assert {type(one) for one in failures} == {exception.VolumeDeviceNotFound}
    assert took_s < 10


def test_a_detach_has_logged_out_when_it_returns(fake_host: FakeHost) -> None:
    """LUN 1 is detached while LUN 2 is attached: the session is left to that one, which is
    detached later."""
    target = fake_host.iscsi_target()
    one, two = target.lun(1), target.lun(2)
    connector = fake_host.connector()
    first = connector.connect_volume(one.properties)
    fake_host.pass_time(1)
    fake_host.delays.scan_s = 5

    def detach() -> None:
        fake_host.pass_time(1)
        connector.disconnect_volume(one.properties, first)

    second, detached = side_by_side(
        fake_host, partial(connector.connect_volume, two.properties), detach
    )
    assert detached is None
    for _ in range(20):
        if len(fake_host.disks()) == 1:
            break
        fake_host.pass_time(1)
    fake_host.pass_time(1.37)
    connector.disconnect_volume(two.properties, second)
    assert fake_host.sessions.all() == []


def test_a_detach_has_logged_out_though_somebody_looked_whether_he_may(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who watches for the last log-out (_leave_last) has the session's lock for the moment of
    his look; that is not an attach to which the session could be left."""
    volume = fake_host.iscsi_target().lun(1)
    connector = fake_host.connector()
    info = connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    locks = connector.host.locks
    name = f"iscsi session 10.0.0.1:3260 {volume.target.iqn}"
    tried = locks.tried
    looks: list[str] = []

    @contextlib.contextmanager
    def with_a_look(wanted: str, *, shared: bool = False) -> Iterator[bool]:
        with contextlib.ExitStack() as look:
            if wanted == name and not shared and not looks:
                looks.append(wanted)
                assert look.enter_context(tried(name))  # his look, which ends right after ours
            with tried(wanted, shared=shared) as had:
                look.close()
                yield had

    monkeypatch.setattr(locks, "tried", with_a_look)
    fake_host.faults.fail("iscsiadm", "--logout", code=20, times=100)
    with pytest.raises(exception.BrickException, match="Logout of"):
        connector.disconnect_volume(volume.properties, info)
    assert looks


def test_a_session_of_a_path_of_the_map_that_is_not_named_goes(fake_host: FakeHost) -> None:
    volume = fake_host.iscsi_target(portals=2).lun(1)
    connector = fake_host.connector(use_multipath=True)
    properties = volume.properties
    info = connector.connect_volume(properties)
    fake_host.pass_time(1)
    for key in ("target_portals", "target_iqns", "target_luns"):
        if key in properties:
            properties[key] = properties[key][:1]
    connector.disconnect_volume(properties, info)
    assert fake_host.leftovers(settle_s=60) == []


def test_a_detach_at_its_deadline_leaves_the_session_to_an_attach(fake_host: FakeHost) -> None:
    target = fake_host.iscsi_target()
    volume = target.lun(1)
    connector = fake_host.connector()
    connector.connect_volume(volume.properties)
    one = Target(Portal.parse("10.0.0.1:3260"), target.iqn)
    host = connector.host
    call = Call("detach", host.clock, 5)
    with host.locks.held(Call("attach", host.clock, 600), [one.lock_name], shared=True):
        fake_host.pass_time(6)
        assert iscsi_sessions.leave(host, call, one) is False


def test_one_who_watches_for_the_last_log_out_is_followed_by_the_next(fake_host: FakeHost) -> None:
    """The first of them has been watching for nearly as long as he may when another detach leaves
    the session to an attach, which fails later."""
    target = fake_host.iscsi_target()
    volume = target.lun(1)
    connector = fake_host.connector()
    connector.connect_volume(volume.properties)
    fake_host.pass_time(1)
    one = Target(Portal.parse("10.0.0.1:3260"), target.iqn)
    host = connector.host

    def left_to_an_attach(until: float) -> None:
        call = Call("detach", host.clock, 60)
        attach = Call("attach", host.clock, 600)
        with host.locks.held(attach, [one.lock_name], shared=True):
            assert iscsi_sessions.leave(host, call, one) is False
            fake_host.pass_time(until)

    left_to_an_attach(2)  # it has been attached: the disk of LUN 1
    fake_host.pass_time(285)
    device = fake_host.disks()[0].device
    assert device is not None
    fake_host.scsi.drop(device)
    left_to_an_attach(30)  # this one fails
    fake_host.pass_time(60)
    assert fake_host.sessions.all() == []
