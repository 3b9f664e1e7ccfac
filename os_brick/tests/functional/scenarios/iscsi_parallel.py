# SPDX-License-Identifier: Apache-2.0
"""Many iSCSI volumes at once, and many that are there already."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from ..guest import by_hand, host_state, kernel, programs, service, udev
from ..guest.daemons import MultipathConfig
from ..guest.lab import MIB, Lab, properties
from ..targets import lio
from . import scenario
from .iscsi_attach import all_paths_join, attach, detach

STRICT = MultipathConfig(find_multipaths="strict")
_OTHERS = 200


@scenario("1, 4, 16 volumes in parallel, single path", limit_s=600, multipath=STRICT)
def iscsi_parallel_single_path(lab: Lab) -> None:
    """Volumes with a target each do not wait for one another, and none is mistaken."""
    for count in (1, 4, 16):
        _side_by_side(lab, count, portals=1)


@scenario("1, 4, 16 volumes in parallel, two paths", limit_s=900)
def iscsi_parallel_two_paths(lab: Lab) -> None:
    """The same with maps."""
    for count in (1, 4, 16):
        _side_by_side(lab, count, portals=2)


@scenario("16 LUNs of one target in parallel: exactly one session for each portal", limit_s=900)
def iscsi_parallel_one_target(lab: Lab) -> None:
    """All attaches share two sessions; the last detach logs out."""
    target, first = lab.target(portals=2)
    volumes = {1: first}
    for lun in range(2, 17):
        volumes[lun] = lab.volume(8 * MIB)
        target.map(lun, volumes[lun])
    host = lab.service(multipath=True)
    given = {lun: properties(target, lun, several=True) for lun in volumes}
    with lab.timed("attach 16"):
        infos = lab.side_by_side([functools.partial(host.attach, given[lun]) for lun in volumes])
    assert len(host_state.sessions(target.iqn)) == 2, host_state.sessions()
    for (_, volume), info in zip(volumes.items(), infos, strict=True):
        all_paths_join(volume, 2)
        lab.check_data(info["path"], volume)
    with lab.timed("detach 16"):
        lab.side_by_side(
            [
                functools.partial(host.detach, given[lun], info)
                for lun, info in zip(volumes, infos, strict=True)
            ]
        )


@scenario("attach one LUN while the session's last other is detached, again and again", limit_s=400)
def iscsi_attach_during_detach(lab: Lab) -> None:
    """The session survives or is made anew; the attach succeeds either way."""
    target, one = lab.target(portals=2)
    two = lab.volume()
    target.map(2, two)
    host = lab.service(multipath=True)
    volumes = {1: one, 2: two}
    here, there = 1, 2
    info = attach(lab, host, properties(target, here, several=True))
    for _ in range(6):
        old, new = properties(target, here, several=True), properties(target, there, several=True)
        calls: list[Callable[[], dict[str, Any] | None]] = [
            functools.partial(host.attach, new),
            functools.partial(host.detach, old, info),
        ]
        with lab.timed("change"):
            info = lab.side_by_side(calls)[0] or {}
        lab.check_data(info["path"], volumes[there])
        here, there = there, here
    detach(lab, host, properties(target, here, several=True), info)


@scenario("200 other LUNs attached: the same programs, the same time", limit_s=900, rank=5)
def iscsi_many_others(lab: Lab) -> None:
    """What else is attached costs nothing."""
    target, volume = lab.target(portals=2)
    host = lab.service(multipath=True)
    given = properties(target, several=True)
    host.detach(given, host.attach(given))  # The first call loads code that others do not.
    alone = _attach_and_detach(lab, host, given, volume, "alone")
    with others(lab):
        among = _attach_and_detach(lab, host, given, volume, f"among {_OTHERS}")
    assert sorted(among) == sorted(alone), f"{alone} programs alone, {among} among others"
    for what in ("attach", "detach"):
        before, now = lab.seconds(f"{what} alone"), lab.seconds(f"{what} among {_OTHERS}")
        # The bench measures; this only finds what grows with the number of volumes.
        assert now < 3 * before + 2, f"{what}: {before:.1f} s alone, {now:.1f} s among others"


@contextlib.contextmanager
def others(lab: Lab, count: int = _OTHERS) -> Any:
    """Have ``count`` other LUNs attached, by hand, over one session."""
    target, first = lab.target(portals=["127.0.0.9:3260"], size=MIB)
    volumes = [first]
    for lun in range(2, count + 1):
        volumes.append(lab.volume(MIB))
        target.map(lun, volumes[-1])
    with udev.absent():
        by_hand.attach(target, 1, first.wwid)
        host = next(name for name in kernel.names("/sys/class/iscsi_host"))
        kernel.write(f"/sys/class/scsi_host/{host}/scan", "- - -")
        kernel.wait_for(lambda: len(host_state.disks()) == count, f"{count} disks", 300)
    try:
        yield
    finally:
        for disk in host_state.disks():
            kernel.write(f"/sys/block/{disk}/device/delete", "1")
        node = ["iscsiadm", "-m", "node", "-T", target.iqn]
        kernel.run(*node, "--logout")
        kernel.run(*node, "--op", "delete")
        udev.settle(300)


def _attach_and_detach(
    lab: Lab, host: service.Service, given: service.Properties, volume: lio.Volume, how: str
) -> list[str]:
    with programs.counted() as started:
        with lab.timed(f"attach {how}"):
            info = host.attach(given)
        lab.check_data(info["path"], volume)
        udev.settle()  # what was written to is looked at by udev, which may cost a second try
        with lab.timed(f"detach {how}"):
            host.detach(given, info)
    return [each.name for each in started]


def _side_by_side(lab: Lab, count: int, portals: int) -> None:
    several = portals > 1
    made = [lab.target(portals=portals, size=8 * MIB) for _ in range(count)]
    host = lab.service(multipath=several)
    given = [properties(target, several=several) for target, _ in made]
    with lab.timed(f"attach {count}"):
        infos = lab.side_by_side([functools.partial(host.attach, each) for each in given])
    for (_, volume), info in zip(made, infos, strict=True):
        if several:
            all_paths_join(volume, portals)
        lab.check_data(info["path"], volume)
    with lab.timed(f"detach {count}"):
        lab.side_by_side(
            [
                functools.partial(host.detach, each, info)
                for each, info in zip(given, infos, strict=True)
            ]
        )
    assert not host_state.sessions(), host_state.sessions()
    for target, volume in made:
        target.remove()
        volume.remove()
