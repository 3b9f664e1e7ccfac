# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel as the kernel shows it: ports of this host, remote ports, targets.

What is read here is described in the kernel's ``Documentation/scsi/scsi_fc_transport.rst``: a port
of this host is ``fc_host/host<H>``; a port that it sees is ``fc_remote_ports/rport-<H>:<C>-<n>``
with the number of its SCSI target, if it is one; a target that has devices is
``fc_transport/target<H>:<C>:<T>``. World-wide names are 16 hexadecimal digits in lower case here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from oslo_log import log as logging

from os_brick.initiator.linux.sysfs import Tree

LOG = logging.getLogger(__name__)
T = TypeVar("T")

ONLINE = "Online"
# A port with a marginal link still takes I/O (Linux 5.11).
_USABLE = frozenset({ONLINE, "Marginal"})
_WWN = re.compile(r"(?:0x)?([0-9a-f]{16})")
_HOST = re.compile(r"host(\d+)")
_RPORT_IN_PATH = re.compile(r"/(rport-\d+:\d+-\d+)(?=/)")
_RPORT = re.compile(r"rport-(\d+):(\d+)-\d+")
_TARGET = re.compile(r"target(\d+):(\d+):(\d+)")


def parse_wwn(text: str) -> str | None:
    """Return a world-wide name as 16 lower case hexadecimal digits; None if it is none.

    :param text: in any letter case, with or without ``0x`` or colons between the bytes.
    """
    match = _WWN.fullmatch(text.strip().lower().replace(":", ""))
    return match[1] if match else None


# -- ports of this host ----------------------------------------------------------------------
@dataclass(frozen=True, slots=True, order=True)
class Hba:
    """A Fibre Channel port of this host.

    :ivar host: number of its SCSI host.
    :ivar port_name: its WWPN; empty text if it tells none.
    :ivar node_name: its WWNN; empty text if it tells none.
    :ivar state: the kernel's word, ``"Online"`` if it is connected.
    :ivar path: its device below ``/sys``, all links followed.
    """

    host: int
    port_name: str
    node_name: str
    state: str = field(compare=False)
    path: str

    @property
    def name(self) -> str:
        """Name of its SCSI host, ``"host6"``."""
        return f"host{self.host}"

    @property
    def is_online(self) -> bool:
        """Whether it is connected; one that does not say counts as connected."""
        return self.state in ("", ONLINE)

    @property
    def bus_address(self) -> str:
        """Address of the device it belongs to: ``"0000:05:00.3"`` (PCI), ``"0.0.2300"`` (s390).

        It is the component before the first one of the network device (FCoE) or the SCSI host.
        """
        parts = self.path.split("/")
        for before, part in itertools.pairwise(parts):
            if part.startswith(("net", "host")):
                return before
        return ""

    @property
    def platform(self) -> str:
        """``"platform-80040000000.peu0-c0"`` if its PCI bridge is a platform device (ARM), else
        empty text (bug 1862443)."""
        parts = self.path.split("/")
        if parts[:4] == ["", "sys", "devices", "platform"]:
            for before, part in itertools.pairwise(parts[4:]):
                if part.startswith("pci"):
                    return f"platform-{before}"
        return ""

    def __str__(self) -> str:
        return f"{self.name} ({self.port_name or 'no WWPN'})"


def has_support(sysfs: Tree) -> bool:
    """Tell whether the kernel has the Fibre Channel transport loaded."""
    return sysfs.exists("class/fc_host")


def has_hbas(sysfs: Tree) -> bool:
    """Tell whether this host has Fibre Channel ports at all."""
    return bool(sysfs.names("class/fc_host"))


def read_hbas(sysfs: Tree, *, strict: bool = True) -> list[Hba]:
    """Return the Fibre Channel ports of this host, by number of their SCSI host.

    :param strict: False leaves a port that cannot be read out, with a warning.
    :raises OSError: the host could not be looked at.
    """
    found = []
    for name in sysfs.names("class/fc_host"):
        hba = _unless_unreadable(_read_hba, sysfs, name, strict)
        if hba is not None:
            found.append(hba)
    return sorted(found)


def names_of(hbas: Iterable[Hba]) -> dict[str, list[str]]:
    """Return the names of the connected ports as ``wwpns`` and ``wwnns``; no key without a name.

    Storage exports to these, so a port that does not say that it is online is left out.
    """
    online = [hba for hba in hbas if hba.state == ONLINE]
    names = {
        "wwpns": [hba.port_name for hba in online if hba.port_name],
        "wwnns": [hba.node_name for hba in online if hba.node_name],
    }
    return {key: value for key, value in names.items() if value}


def _read_hba(sysfs: Tree, name: str) -> Hba | None:
    match = _HOST.fullmatch(name)
    path = sysfs.link_path("class/fc_host", name)
    if match is None or path is None:
        return None
    port_name, node_name, state = (
        sysfs.text("class/fc_host", name, attribute)
        for attribute in ("port_name", "node_name", "port_state")
    )
    names = parse_wwn(port_name) or "", parse_wwn(node_name) or ""
    return Hba(int(match[1]), *names, state, f"/sys/{path}")


def _unless_unreadable(
    read: Callable[[Tree, str], T | None], sysfs: Tree, name: str, strict: bool
) -> T | None:
    try:
        return read(sysfs, name)
    except OSError as exc:
        if strict:
            raise
        LOG.warning("Fibre Channel port %s cannot be read and is left out: %s", name, exc)
        return None


# -- remote ports ----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, order=True)
class RemotePort:
    """A target port as one port of this host sees it, and the SCSI target that it is here.

    :ivar state: the kernel's word, ``"Online"``, ``"Blocked"``, ``"Not Present"`` …; empty if it
        tells none.
    """

    host: int
    channel: int
    target: int
    port_name: str
    state: str = field(compare=False)

    @property
    def is_online(self) -> bool:
        """Whether it can be talked to; one that does not say counts as such."""
        return not self.state or self.state in _USABLE

    def __str__(self) -> str:
        return f"0x{self.port_name} on host{self.host}"


def read_ports(
    sysfs: Tree, wwpns: Collection[str], *, strict: bool = True
) -> tuple[RemotePort, ...]:
    """Return what this host sees of some target ports, those that are down included.

    A port without a number as SCSI target is none (``scsi_target_id`` -1). One that went and came
    back may have a new number while devices under the old one are still there: then it is returned
    twice.

    :param wwpns: names of the target ports.
    :param strict: False leaves a port that cannot be read out, with a warning.
    :raises OSError: the host could not be looked at.
    """
    found: dict[tuple[int, int, int], RemotePort] = {}
    for name in sysfs.names("class/fc_remote_ports"):
        port = _unless_unreadable(partial(_read_rport, wwpns), sysfs, name, strict)
        if port is not None:
            found.setdefault((port.host, port.channel, port.target), port)
    for name in sysfs.names("class/fc_transport"):
        match = _TARGET.fullmatch(name)
        if match is None or (int(match[1]), int(match[2]), int(match[3])) in found:
            continue
        port = _unless_unreadable(partial(_read_target, wwpns), sysfs, name, strict)
        if port is not None:
            found[port.host, port.channel, port.target] = port
    return tuple(found.values())


def _read_rport(wwpns: Collection[str], sysfs: Tree, name: str) -> RemotePort | None:
    match = _RPORT.fullmatch(name)
    wwpn = parse_wwn(sysfs.text("class/fc_remote_ports", name, "port_name")) or ""
    if match is None or wwpn not in wwpns:
        return None  # a fabric has many
    target = sysfs.number("class/fc_remote_ports", name, "scsi_target_id")
    if target is None or target < 0:
        return None
    state = sysfs.text("class/fc_remote_ports", name, "port_state")
    return RemotePort(int(match[1]), int(match[2]), target, wwpn, state)


def _read_target(wwpns: Collection[str], sysfs: Tree, name: str) -> RemotePort | None:
    match = _TARGET.fullmatch(name)
    wwpn = parse_wwn(sysfs.text("class/fc_transport", name, "port_name")) or ""
    if match is None or wwpn not in wwpns:
        return None
    rports = _RPORT_IN_PATH.findall(sysfs.link_path("class/fc_transport", name) or "")
    state = sysfs.text("class/fc_remote_ports", rports[-1], "port_state") if rports else ""
    return RemotePort(int(match[1]), int(match[2]), int(match[3]), wwpn, state)
