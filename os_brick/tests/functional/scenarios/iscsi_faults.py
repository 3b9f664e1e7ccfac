# SPDX-License-Identifier: Apache-2.0
"""iSCSI portals, paths and LUNs fail: before the attach, after it, and at the detach."""

from __future__ import annotations

import threading
import time
from typing import Any

from os_brick import exception

from ..guest import data, faults, host_state, kernel, service, udev
from ..guest.daemons import MultipathConfig
from ..guest.lab import DETACH_ERRORS, MIB, Lab, fails_with, properties
from ..targets import lio
from . import SMOKE_S, scenario
from .iscsi_attach import all_paths_join, attach, detach

STRICT = MultipathConfig(find_multipaths="strict")
QUEUE = MultipathConfig(no_path_retry="queue")
FAIL = MultipathConfig(no_path_retry="fail")
#: Limits for calls that meet something that hangs.
SHORT = {"call_timeout": 90, "flush_timeout": 20}
#: An attach with a dead portal may not sit out that portal's log-in, which takes 2 minutes.
DEAD_PORTAL_S = 45.0


@scenario("first of two portals silent", limit_s=300)
def iscsi_first_portal_silent(lab: Lab) -> None:
    """The attach does not wait for the dead portal, and nothing comes later."""
    _dead_portal(lab, 0, "silence")


@scenario("second of two portals silent", limit_s=300)
def iscsi_second_portal_silent(lab: Lab) -> None:
    """As the first."""
    _dead_portal(lab, 1, "silence")


@scenario("first of two portals refuses", limit_s=300)
def iscsi_first_portal_refuses(lab: Lab) -> None:
    """The attach does not wait for the dead portal, and nothing comes later."""
    _dead_portal(lab, 0, "refuse")


@scenario("second of two portals refuses", limit_s=300)
def iscsi_second_portal_refuses(lab: Lab) -> None:
    """As the first."""
    _dead_portal(lab, 1, "refuse")


@scenario("first portal silent, back before the detach: its path joins or is ended", limit_s=300)
def iscsi_silent_portal_comes_back(lab: Lab) -> None:
    """A log-in that is still under way is never left over."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    lab.network.silence(target.portals[0])
    info = attach(lab, host, given)
    lab.network.heal()
    time.sleep(3)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario(
    "single path: the first portal refuses, the second is used", limit_s=400, multipath=STRICT
)
def iscsi_single_path_second_portal(lab: Lab) -> None:
    """Portals in their order; what the dead one left is taken away."""
    target, volume = lab.target(portals=2)
    host = lab.service()
    given = properties(target, several=True)
    lab.network.refuse(target.portals[0])
    info = attach(lab, host, given)
    assert len(host_state.sessions()) == 1, host_state.sessions()
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


@scenario("one of four portals reachable, then none", limit_s=500, options={"call_timeout": 120})
def iscsi_one_of_four_portals(lab: Lab) -> None:
    """One is enough for a map; with none the attach fails, names them, and leaves nothing."""
    target, volume = lab.target(portals=4)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    for portal in target.portals[:3]:
        lab.network.refuse(portal)
    with lab.timed("attach one of 4"):
        info = host.attach(given)
    assert info["path"] == f"/dev/{host_state.map_of(volume.wwid)}", info
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)
    lab.network.refuse(target.portals[3])
    with lab.timed("attach none of 4"), fails_with(exception.VolumeDeviceNotFound) as caught:
        host.attach(given)
    assert all(portal in str(caught[0]) for portal in target.portals), caught[0]


@scenario("first path lost after the attach", limit_s=300)
def iscsi_first_path_lost(lab: Lab) -> None:
    """One of two paths down at the detach: success, and nothing left."""
    _lost_path(lab, 0)


@scenario("second path lost after the attach", limit_s=300)
def iscsi_second_path_lost(lab: Lab) -> None:
    """As the first."""
    _lost_path(lab, 1)


@scenario(
    "all paths down, dirty data, failing: no force raises and keeps, force leaves nothing",
    limit_s=SMOKE_S,
    multipath=FAIL,
    options=SHORT,
    groups=["smoke"],
)
def iscsi_dirty_paths_down_failing(lab: Lab) -> None:
    """The data is lost already when the detach begins, and the detach must say so."""
    _dirty_paths_down(lab, queueing=False)


@scenario(
    "all paths down, dirty data, queueing: no force raises and keeps, force leaves nothing",
    limit_s=400,
    multipath=QUEUE,
    options=SHORT,
)
def iscsi_dirty_paths_down_queueing(lab: Lab) -> None:
    """The data waits in a map that queues; after force no such map may be left."""
    _dirty_paths_down(lab, queueing=True)


@scenario(
    "all paths down, dirty data, queueing, no force; paths heal: data arrives, detach succeeds",
    limit_s=400,
    multipath=QUEUE,
    options=SHORT,
)
def iscsi_dirty_paths_down_then_healed(lab: Lab) -> None:
    """A refused detach has broken nothing."""
    target, volume, given, info = _two_paths(lab)
    host = lab.service(multipath=True)
    writer, content = _dirty(lab, target, info)
    with lab.timed("detach"), fails_with(*DETACH_ERRORS):
        host.detach(given, info)
    lab.network.heal()
    kernel.wait_for(writer.ended, "the writer has written", 180)
    assert volume.read(0, len(content)) == content, "the data did not arrive"
    all_paths_join(volume, 2)
    with lab.timed("detach after healing"):
        host.detach(given, info)


@scenario(
    "all paths down, dirty data, failing: force at once, errors told at the end",
    limit_s=400,
    multipath=FAIL,
    options=SHORT,
)
def iscsi_dirty_force_failing(lab: Lab) -> None:
    """Everything is attempted, then everything is told."""
    _dirty_force(lab)


@scenario(
    "all paths down, dirty data, queueing: force at once, errors told at the end",
    limit_s=400,
    multipath=QUEUE,
    options=SHORT,
)
def iscsi_dirty_force_queueing(lab: Lab) -> None:
    """As above, in bounded time although the map queues."""
    _dirty_force(lab)


@scenario(
    "single path down, dirty data: no force raises and keeps, force leaves nothing",
    limit_s=500,
    multipath=STRICT,
    options=SHORT,
)
def iscsi_dirty_single_path_down(lab: Lab) -> None:
    """The same without a map."""
    target, volume = lab.target()
    host = lab.service()
    given = properties(target)
    info = attach(lab, host, given)
    writer, _ = _dirty(lab, target, info)
    with lab.timed("detach"), fails_with(*DETACH_ERRORS):
        host.detach(given, info)
    assert lab.seconds("detach") < 100, "not within the call's limit"
    assert host_state.disks(volume.wwid), "a disk with unwritten data was removed"
    assert host_state.sessions(target.iqn), "its session was logged out"
    with lab.timed("force"):
        host.detach(given, info, force=True, ignore_errors=True)
    lab.expect_clean()
    kernel.wait_for(writer.ended, "the writer is released", 60)


@scenario("LUN unmapped on the array while attached: force leaves nothing", limit_s=300)
def iscsi_lun_vanished(lab: Lab) -> None:
    """The array took it away first."""
    target, volume, given, info = _two_paths(lab)
    lab.check_data(info["path"], volume)
    target.unmap(1)
    with lab.timed("force"):
        lab.service(multipath=True).detach(given, info, force=True, ignore_errors=True)


@scenario("LUN remapped to another volume under stale disks: never the old one", limit_s=300)
def iscsi_lun_remapped_two_paths(lab: Lab) -> None:
    """The map of the old volume is not handed out, nor are its disks."""
    _remapped(lab, portals=2)


@scenario("LUN remapped under a stale disk, single path", limit_s=300, multipath=STRICT)
def iscsi_lun_remapped_single_path(lab: Lab) -> None:
    """As above without a map."""
    _remapped(lab, portals=1)


@scenario("LUN mapped six seconds after the attach began", multipath=STRICT)
def iscsi_lun_late(lab: Lab) -> None:
    """The array is slow."""
    target, volume = lab.target()
    target.unmap(1)
    later = threading.Timer(6, lambda: target.map(1, volume))
    later.start()
    host = lab.service()
    info = attach(lab, host, properties(target))
    later.join()
    lab.check_data(info["path"], volume)
    detach(lab, host, properties(target), info)


@scenario("LUN never mapped: an error, the session of others kept", limit_s=400, multipath=STRICT)
def iscsi_lun_never(lab: Lab) -> None:
    """What the attach made is gone; what was there is there."""
    target, volume = lab.target()
    host = lab.service()
    with lab.timed("attach"), fails_with(exception.VolumeDeviceNotFound) as caught:
        host.attach(properties(target, 2))
    assert target.portals[0] in str(caught[0]), caught[0]
    assert not host_state.sessions(), host_state.sessions()
    assert not host_state.records(), host_state.records()
    info = attach(lab, host, properties(target, 1))
    with fails_with(exception.VolumeDeviceNotFound):
        host.attach(properties(target, 2))
    lab.check_data(info["path"], volume)
    detach(lab, host, properties(target, 1), info)


@scenario("ten percent of all packets are lost", limit_s=500)
def iscsi_lossy_network(lab: Lab) -> None:
    """Slow, but right."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    lab.network.lose(10)
    info = attach(lab, host, given)
    lab.check_data(info["path"], volume)
    detach(lab, host, given, info)


def _two_paths(lab: Lab) -> tuple[lio.Target, lio.Volume, service.Properties, dict[str, Any]]:
    target, volume = lab.target(portals=2)
    given = properties(target, several=True)
    info = attach(lab, lab.service(multipath=True), given)
    all_paths_join(volume, 2)
    return target, volume, given, info


def _dead_portal(lab: Lab, number: int, fault: str) -> None:
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    getattr(lab.network, fault)(target.portals[number])
    info = attach(lab, host, given)
    assert lab.seconds("attach") < DEAD_PORTAL_S, "the attach sat out the dead portal"
    assert info["path"] == f"/dev/{host_state.map_of(volume.wwid)}", info
    assert len(host_state.paths_of(info["path"].removeprefix("/dev/"))) == 1
    lab.check_data(info["path"], volume)
    assert target.portals[number] in lab.log(), "the missing path is not named"
    detach(lab, host, given, info)
    lab.expect_clean()
    lab.network.heal()
    # A log-in that somebody still tries would succeed now.
    time.sleep(10)


def _lost_path(lab: Lab, number: int) -> None:
    target, volume, given, info = _two_paths(lab)
    lab.network.silence(target.portals[number])
    with lab.timed("I/O"):
        lab.check_data(info["path"], volume)
    detach(lab, lab.service(multipath=True), given, info)
    assert lab.seconds("detach") < DEAD_PORTAL_S, "the detach sat out the dead portal"


def _dirty(lab: Lab, target: lio.Target, info: dict[str, Any]) -> tuple[faults.StuckWriter, bytes]:
    """Put 4 MiB of unwritten data on a volume, all of its portals silent, the writer closing."""
    # While udev still looks at the device, the writer's close would not be the last one.
    udev.settle()
    content = data.pattern(lab.name, 4 * MIB)
    writer = faults.StuckWriter(info["path"], content)
    for portal in target.portals:
        lab.network.silence(portal)
    writer.close()
    time.sleep(2)
    return writer, content


def _dirty_paths_down(lab: Lab, *, queueing: bool) -> None:
    target, volume, given, info = _two_paths(lab)
    host = lab.service(multipath=True)
    writer, _ = _dirty(lab, target, info)
    if queueing:
        assert host_state.queueing(info["path"].removeprefix("/dev/"))
    else:
        # The kernel gives the data up; nobody but the device's error flag knows.
        kernel.wait_for(writer.ended, "the write-out has failed", 120)
    with lab.timed("detach"), fails_with(*DETACH_ERRORS):
        host.detach(given, info)
    assert lab.seconds("detach") < 100, "not within the call's limit"
    dm = host_state.map_of(volume.wwid) or ""
    assert dm == info["path"].removeprefix("/dev/"), "the map was removed"
    assert len(host_state.disks(volume.wwid)) == 2, "a path was removed"
    assert len(host_state.sessions(target.iqn)) == 2, "a session was logged out"
    if queueing:
        assert host_state.queueing(dm), "queueing was switched off without force: the data is lost"
    with lab.timed("force"):
        host.detach(given, info, force=True, ignore_errors=True)
    assert lab.seconds("force") < 100, "not within the call's limit"
    lab.expect_clean()
    if queueing:
        kernel.wait_for(writer.ended, "the writer is released", 60)


def _dirty_force(lab: Lab) -> None:
    target, _, given, info = _two_paths(lab)
    host = lab.service(multipath=True)
    writer, _ = _dirty(lab, target, info)
    with lab.timed("force"), fails_with(exception.ExceptionChainer):
        host.detach(given, info, force=True)
    assert lab.seconds("force") < 100, "not within the call's limit"
    lab.expect_clean()
    kernel.wait_for(writer.ended, "the writer is released", 60)


def _remapped(lab: Lab, portals: int) -> None:
    several = portals > 1
    target, old = lab.target(portals=portals)
    new = lab.volume()
    old.write(0, b"OLD" * 4096)
    new.write(0, b"NEW" * 4096)
    host = lab.service(multipath=several)
    given = properties(target, several=several)
    before = attach(lab, host, given)
    if several:
        all_paths_join(old, portals)
    assert data.read(before["path"], 4096).startswith(b"OLD")
    # The host was never told: its disks stay, and the array gives the number to another volume.
    target.unmap(1)
    target.map(1, new)
    info = attach(lab, host, given)
    assert info["scsi_wwn"] == new.wwid, info
    assert data.read(info["path"], 4096).startswith(b"NEW"), "the old volume was handed out"
    lab.check_data(info["path"], new)
    assert not host_state.disks(old.wwid), "stale disks are left"
    detach(lab, host, given, info)
