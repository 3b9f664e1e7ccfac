# SPDX-License-Identifier: Apache-2.0
"""The bare minimum: the fewest commands with the effect of an attach and of a detach.

What somebody would write who knows exactly what to do, and checks nothing.  Portals are dealt
with side by side.  3 programs attach a single path of iSCSI, 7 two paths with their map.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from ..guest import kernel
from . import fc_minimum, nvme_minimum
from .steps import Attached, map_over, side_by_side, write_out

_SESSIONS = "/sys/class/iscsi_session"
_DELETING = threading.Lock()


class Minimum:
    """The contender that is no library."""

    def __init__(self) -> None:
        os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
        self._attached: dict[str, Attached] = {}
        self._told: list[str] = []

    def about(self) -> dict[str, str]:
        """Say what this is."""
        return {"version": "", "file": __file__}

    def attach(self, name: str, properties: dict[str, Any]) -> str:
        """Attach a volume and return its device."""
        if "target_nqn" in properties:
            return nvme_minimum.attach(properties)
        if "target_wwn" in properties:
            self._attached[name], told = fc_minimum.attach(properties)
            self._told.append(f"Attach of {name}: {told}")
            return self._attached[name].path
        iqn, lun = properties["target_iqn"], properties["target_lun"]
        portals = properties.get("target_portals", [properties["target_portal"]])
        disks = tuple(side_by_side(lambda portal: _log_in(iqn, portal, lun), portals))
        if len(portals) == 1:
            self._attached[name] = Attached(f"/dev/{disks[0]}", disks, "")
            return f"/dev/{disks[0]}"
        dm = kernel.wait_for(lambda: map_over(disks), f"a map over {disks}")
        kernel.run("multipath", "-C", dm)
        map_name = kernel.read(f"/sys/block/{dm}/dm/name")
        self._attached[name] = Attached(f"/dev/{dm}", disks, map_name)
        return f"/dev/{dm}"

    def detach(self, name: str, properties: dict[str, Any]) -> None:
        """Write out what is dirty and take the volume away."""
        if "target_nqn" in properties:
            nvme_minimum.detach(properties)
            return
        if "target_wwn" in properties:
            told = fc_minimum.detach(self._attached.pop(name))
            self._told.append(f"Detach of {name}: {told}")
            return
        iqn = properties["target_iqn"]
        portals = properties.get("target_portals", [properties["target_portal"]])
        attached = self._attached.pop(name)
        write_out(attached.path)
        if attached.map_name:
            kernel.run("multipath", "-f", attached.map_name)
        side_by_side(
            lambda disk: kernel.write(f"/sys/block/{disk}/device/delete", "1"), attached.disks
        )
        side_by_side(lambda portal: _log_out(iqn, portal), portals)

    def extend(self, name: str, properties: dict[str, Any]) -> str:
        """Nobody has measured it by hand."""
        raise NotImplementedError

    def told(self) -> list[str]:
        """Return what took how long, where it is noted."""
        told, self._told = self._told, []
        return told


def _log_in(iqn: str, portal: str, lun: int) -> str:
    """Log in, scan the LUN, and return its disk."""
    node = ["iscsiadm", "-m", "node", "-T", iqn, "-p", portal]
    kernel.run(*node, "--op", "new")
    kernel.run(*node, "--op", "update", "-n", "node.session.scan", "-v", "manual")
    kernel.run(*node, "--login")
    session = kernel.wait_for(lambda: _session(iqn, portal), "the session")
    device = os.path.realpath(f"{_SESSIONS}/{session}/device")
    host = os.path.basename(os.path.dirname(device)).removeprefix("host")
    kernel.write(f"/sys/class/scsi_host/host{host}/scan", f"0 0 {lun}")
    block = f"{device}/target{host}:0:0/{host}:0:0:{lun}/block"
    return kernel.wait_for(lambda: kernel.names(block), "the disk")[0]


def _log_out(iqn: str, portal: str) -> None:
    node = ["iscsiadm", "-m", "node", "-T", iqn, "-p", portal]
    kernel.run(*node, "--logout")
    # One at a time: it reads all records and sessions, and fails if another one goes meanwhile.
    with _DELETING:
        kernel.wait_for(lambda: _delete(node), "no record of the portal")


def _delete(node: list[str]) -> bool:
    try:
        kernel.run(*node, "--op", "delete")
    except AssertionError as error:
        if "database failure" not in str(error):
            raise
        return False
    return True


def _session(iqn: str, portal: str) -> str:
    for session in kernel.names(_SESSIONS):
        if kernel.read(f"{_SESSIONS}/{session}/targetname") != iqn:
            continue
        sid = session.removeprefix("session")
        connection = f"/sys/class/iscsi_connection/connection{sid}:0"
        if kernel.read(f"{connection}/persistent_address") == portal.rpartition(":")[0]:
            return session
    return ""
