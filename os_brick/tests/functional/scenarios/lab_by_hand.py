# SPDX-License-Identifier: Apache-2.0
"""The machine, the targets and the inspector prove themselves, without the library."""

from __future__ import annotations

import contextlib

from ..guest import by_hand, data, kernel, programs
from ..guest.daemons import MultipathConfig
from ..guest.lab import MIB, Lab
from ..targets.lio import Volume
from . import scenario


@scenario(
    "by hand: single path, data on the array, nothing left, 3 programs",
    multipath=MultipathConfig(find_multipaths="strict"),
)
def lab_by_hand_single_path(lab: Lab) -> None:
    """Three programs attach a volume, and three take it away."""
    target, volume = lab.target()
    with programs.counted() as started, lab.timed("attach"):
        attached = by_hand.attach(target, 1, volume.wwid)
    assert len(started) == 3, [str(each) for each in started]
    _write_and_check(attached.path, volume)
    with programs.counted() as started, lab.timed("detach"):
        by_hand.detach(target, attached)
    assert len(started) == 3, [str(each) for each in started]


@scenario("by hand: two paths with a map, data on the array, nothing left, 7 programs")
def lab_by_hand_two_paths(lab: Lab) -> None:
    """Seven programs attach a volume over two paths."""
    target, volume = lab.target(portals=2)
    with programs.counted() as started, lab.timed("attach"):
        attached = by_hand.attach(target, 1, volume.wwid, portals=2)
    assert len(started) == 7, [str(each) for each in started]
    _write_and_check(attached.path, volume)
    with lab.timed("detach"):
        by_hand.detach(target, attached, portals=2)


@scenario("the inspector sees what is left over, and that it is gone")
def lab_inspector_sees_leftovers(lab: Lab) -> None:
    """A check that cannot fail proves nothing."""
    target, volume = lab.target(portals=2)
    attached = by_hand.attach(target, 1, volume.wwid, portals=2)
    found = ""
    with contextlib.suppress(AssertionError):
        lab.expect_clean()
        found = "nothing"
    assert not found, "an attached volume was not seen"
    by_hand.detach(target, attached, portals=2)


@scenario("a silent portal is silent, a refusing one refuses, and both heal")
def lab_network_faults(lab: Lab) -> None:
    """The faults do what they say."""
    target, _ = lab.target(portals=2)
    connect = "import socket,sys; socket.create_connection((sys.argv[1], 3260), 3)"
    lab.network.silence(target.portals[0])
    lab.network.refuse(target.portals[1])
    answer = [
        kernel.run("python3", "-c", connect, portal.split(":")[0], check=False)
        for portal in target.portals
    ]
    assert "timed out" in answer[0], answer[0]
    assert "refused" in answer[1], answer[1]
    lab.network.heal()
    for portal in target.portals:
        kernel.run("python3", "-c", connect, portal.split(":")[0])


def _write_and_check(path: str, volume: Volume) -> None:
    content = data.pattern(volume.name, MIB)
    data.write(path, content, MIB)
    assert volume.read(MIB, MIB) == content, "the array does not have what was written"
    assert data.read(path, MIB, MIB) == content
    assert data.size(path) == volume.size
