# SPDX-License-Identifier: Apache-2.0
"""Attach and detach by the fewest commands that have the same effect: the bare minimum.

What an administrator would type who knows exactly what to do and checks nothing.  It proves
the machine without the library, and is what the library's cost is compared with.
"""

from __future__ import annotations

import dataclasses
import pathlib

from ..targets import lio
from . import host_state, kernel


@dataclasses.dataclass(frozen=True)
class Attached:
    """A volume attached by hand."""

    path: str
    disks: tuple[str, ...]
    #: Name of the map, empty without one.
    map_name: str


def attach(
    target: lio.Target, lun: int, wwid: str, portals: int = 1, *, record: bool = True
) -> Attached:
    """Log in to the first ``portals`` portals, scan the LUN, wait for disks (and their map).

    Starts three programs for each portal, and one more when a map is to come: 3 for a single
    path, 7 for two.
    """
    for portal in target.portals[:portals]:
        node = ["iscsiadm", "-m", "node", "-T", target.iqn, "-p", portal]
        kernel.run(*node, "--op", "new")
        kernel.run(*node, "--op", "update", "-n", "node.session.scan", "-v", "manual")
        kernel.run(*node, "--login")
    for line in host_state.sessions(target.iqn):
        _scan(line.split()[0], lun)
    disks = kernel.wait_for(lambda: _all(portals, host_state.disks(wwid)), "the disks")
    if portals == 1:
        return Attached(f"/dev/{disks[0]}", tuple(disks), "")
    dm = kernel.wait_for(lambda: host_state.map_of(wwid) or "", "the map")
    kernel.wait_for(lambda: len(host_state.paths_of(dm)) == portals, "all paths in the map")
    kernel.run("multipath", "-C", dm)
    return Attached(f"/dev/{dm}", tuple(disks), kernel.read(f"/sys/block/{dm}/dm/name"))


def detach(target: lio.Target, attached: Attached, portals: int = 1) -> None:
    """Flush, remove the map, delete the disks, log out, forget the records."""
    if attached.map_name:
        kernel.run("multipath", "-f", attached.map_name)
    else:
        kernel.run("blockdev", "--flushbufs", attached.path)
    for disk in attached.disks:
        kernel.write(f"/sys/block/{disk}/device/delete", "1")
    kernel.wait_for(lambda: not set(attached.disks) & set(host_state.disks()), "disks gone")
    for portal in target.portals[:portals]:
        node = ["iscsiadm", "-m", "node", "-T", target.iqn, "-p", portal]
        kernel.run(*node, "--logout")
        kernel.run(*node, "--op", "delete")


def _scan(sid: str, lun: int) -> None:
    for host in kernel.names("/sys/class/iscsi_host"):
        if pathlib.Path(f"/sys/class/iscsi_host/{host}/device/session{sid}").exists():
            kernel.write(f"/sys/class/scsi_host/{host}/scan", f"- - {lun}")


def _all(wanted: int, disks: list[str]) -> list[str]:
    return disks if len(disks) == wanted else []
