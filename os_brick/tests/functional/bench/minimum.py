# SPDX-License-Identifier: Apache-2.0
"""The bare minimum: the fewest commands with the effect of an attach and of a detach.

What somebody would write who knows exactly what to do, and checks nothing.  Portals are dealt
with side by side.  3 programs attach a single path, 7 two paths with their map.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ..guest import kernel
from . import nvme_minimum

_SESSIONS = "/sys/class/iscsi_session"


@dataclasses.dataclass(frozen=True)
class _Attached:
    path: str
    disks: tuple[str, ...]
    map_name: str


class Minimum:
    """The contender that is no library."""

    def __init__(self) -> None:
        os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
        self._attached: dict[str, _Attached] = {}

    def about(self) -> dict[str, str]:
        """Say what this is."""
        return {"version": "", "file": __file__}

    def attach(self, name: str, properties: dict[str, Any]) -> str:
        """Attach a volume and return its device."""
        if "target_nqn" in properties:
            return nvme_minimum.attach(properties)
        iqn, lun = properties["target_iqn"], properties["target_lun"]
        portals = properties.get("target_portals", [properties["target_portal"]])
        disks = tuple(_side_by_side(lambda portal: _log_in(iqn, portal, lun), portals))
        if len(portals) == 1:
            self._attached[name] = _Attached(f"/dev/{disks[0]}", disks, "")
            return f"/dev/{disks[0]}"
        dm = kernel.wait_for(lambda: _map_over(disks), f"a map over {disks}")
        kernel.run("multipath", "-C", dm)
        map_name = kernel.read(f"/sys/block/{dm}/dm/name")
        self._attached[name] = _Attached(f"/dev/{dm}", disks, map_name)
        return f"/dev/{dm}"

    def detach(self, name: str, properties: dict[str, Any]) -> None:
        """Write out what is dirty and take the volume away."""
        if "target_nqn" in properties:
            nvme_minimum.detach(properties)
            return
        iqn = properties["target_iqn"]
        portals = properties.get("target_portals", [properties["target_portal"]])
        attached = self._attached.pop(name)
        _write_out(attached.path)
        if attached.map_name:
            kernel.run("multipath", "-f", attached.map_name)
        _side_by_side(
            lambda disk: kernel.write(f"/sys/block/{disk}/device/delete", "1"), attached.disks
        )
        _side_by_side(lambda portal: _log_out(iqn, portal), portals)

    def extend(self, name: str, properties: dict[str, Any]) -> str:
        """Nobody has measured it by hand."""
        raise NotImplementedError

    def told(self) -> list[str]:
        """There is nothing to tell."""
        return []


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
    kernel.run(*node, "--op", "delete")


def _session(iqn: str, portal: str) -> str:
    for session in kernel.names(_SESSIONS):
        if kernel.read(f"{_SESSIONS}/{session}/targetname") != iqn:
            continue
        sid = session.removeprefix("session")
        connection = f"/sys/class/iscsi_connection/connection{sid}:0"
        if kernel.read(f"{connection}/persistent_address") == portal.rpartition(":")[0]:
            return session
    return ""


def _map_over(disks: tuple[str, ...]) -> str:
    for disk in disks:
        for dm in kernel.names(f"/sys/block/{disk}/holders"):
            there = kernel.read(f"/sys/block/{dm}/dm/suspended") == "0"
            if there and kernel.read(f"/sys/block/{dm}/size", "0") != "0":
                return dm
    return ""


def _write_out(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _side_by_side(deed: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
    """Do the same for each name, in threads if there are several; the first failure counts."""
    done: dict[str, Any] = {}
    failures: list[BaseException] = []

    def one(name: str) -> None:
        try:
            done[name] = deed(name)
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)

    names = list(names)
    threads = [threading.Thread(target=one, args=(name,)) for name in names[1:]]
    for thread in threads:
        thread.start()
    one(names[0])
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [done[name] for name in names]
