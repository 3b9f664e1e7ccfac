# SPDX-License-Identifier: Apache-2.0
"""Having the kernel look for a Fibre Channel volume: for its target ports, and for its LUN.

Everything but IBM Z scans SCSI hosts (:class:`HostScanner`); the zfcp driver there may need units
to be configured instead (:class:`ZfcpScanner`). A scanner belongs to one attach.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol

from oslo_log import log as logging

from os_brick.initiator.linux import fc, fc_paths, zfcp
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.fc import Hba
from os_brick.initiator.linux.fc_paths import FcPath, Scan, Ways
from os_brick.initiator.linux.fc_volume import FcTarget, FcVolume
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.scsi import Disk, Hctl
from os_brick.initiator.linux.zfcp import Unit

LOG = logging.getLogger(__name__)

# A port that the driver has found is a SCSI target moments later.
_TARGET_S = 5.0


class Scanner(Protocol):
    """How a platform is made to show a volume's disks. Remembers what it changed."""

    def look_for_ports(self, call: Call, hbas: Sequence[Hba], volume: FcVolume, ways: Ways) -> None:
        """Have target ports of the volume looked for that are not among the known ``ways``."""

    def scan(self, call: Call, path: FcPath) -> None:
        """Have the kernel look for the LUN at the end of a path.

        :raises OSError: the kernel's answer; or ProcessExecutionError.
        """

    def may_have_made(self, disk: Disk) -> bool:
        """Tell whether a disk that has appeared may have come by what was done here.

        :raises OSError: the host could not be looked at.
        """

    def undo(self, call: Call) -> None:
        """Take away what was configured and is not a disk. Never raises."""


class HostScanner:
    """Scans SCSI hosts for exactly one LUN of one target."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def look_for_ports(self, call: Call, hbas: Sequence[Hba], volume: FcVolume, ways: Ways) -> None:
        scans = [] if ways.meant else fc_paths.wildcards(hbas, volume)
        if not scans:
            return
        before = self._strangers(hbas, volume)
        carry_out(self._host, call, scans)
        after = self._strangers(hbas, volume)
        if before is None or after is None:
            LOG.warning("What the scan by wildcard for %s has brought in cannot be seen", volume)
            return
        hosts = {scan.host for scan in scans}
        came = sorted(hctl for hctl, _instance in after - before if hctl.host in hosts)
        if came:
            LOG.warning(
                "The scan by wildcard for %s has also brought in devices of other volumes, which "
                "stay: %s",
                volume,
                ", ".join(map(str, came)),
            )

    def _strangers(
        self, hbas: Sequence[Hba], volume: FcVolume
    ) -> frozenset[tuple[Hctl, int]] | None:
        """Return the devices, with their instances, that have the number of the volume's LUN behind
        ports of others; None if the host cannot be looked at.

        They are only told of: others may have asked for them at the same moment.
        """
        sysfs = self._host.sysfs
        try:
            meant = fc_paths.read_ways(sysfs, hbas, volume, strict=False).meant
            ours = {(disk.hctl, disk.instance) for disk in fc_paths.find_devices(sysfs, meant)}
            return fc_paths.read_numbered(sysfs, volume) - ours
        except OSError as exc:
            LOG.debug("The devices of the host cannot be looked at: %s", exc)
            return None

    def scan(self, call: Call, path: FcPath) -> None:
        _write(self._host, call, Scan.of(path))

    def may_have_made(self, disk: Disk) -> bool:
        return True  # a disk does not tell which scan it came by

    def undo(self, call: Call) -> None:
        """Nothing is configured here."""


def carry_out(host: Host, call: Call, scans: Iterable[Scan]) -> None:
    """Scan, side by side; a scan that fails is only logged: its disk may come all the same."""
    tasks = {str(scan): partial(_write, host, call, scan) for scan in scans}
    for name, outcome in call.each(tasks, what="scans").items() if tasks else ():
        if outcome.error is not None:
            LOG.warning("Scan %s failed: %s", name, outcome.error)


def _write(host: Host, call: Call, scan: Scan) -> None:
    host.changes.scan(call, scan.host, scan.channel, scan.target, scan.lun)


class ZfcpScanner:
    """Configures units where LUNs are not found without."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._mutex = threading.Lock()
        self._added: list[tuple[Unit, FcPath]] = []

    def look_for_ports(self, call: Call, hbas: Sequence[Hba], volume: FcVolume, ways: Ways) -> None:
        """Have adapters ask the fabric for its ports, where they do not by themselves (bug
        1475648)."""
        by_itself = zfcp.finds_ports(self._host.sysfs)
        tasks = {}
        for hba in hbas:
            adapter = zfcp.adapter_of(hba)
            missing = self._missing(hba, adapter, volume) if adapter and hba.is_online else []
            if adapter and missing and not (by_itself and ways.meant):
                tasks[f"ports of {adapter}"] = partial(
                    self._host.changes.rescan_ports, call, adapter
                )
        if not tasks:
            return
        for name, outcome in call.each(tasks, what="search for ports").items():
            if outcome.error is not None:
                LOG.warning("Search for %s failed: %s", name, outcome.error)
        call.wait_until(
            lambda: not self._coming(hbas, volume), what="targets of the ports", limit_s=_TARGET_S
        )

    def _missing(self, hba: Hba, adapter: str, volume: FcVolume) -> list[FcTarget]:
        return [
            target
            for target in volume.targets_by(hba.port_name)
            if not zfcp.knows_port(self._host.sysfs, adapter, target.wwpn)
        ]

    def _coming(self, hbas: Sequence[Hba], volume: FcVolume) -> bool:
        """Tell whether a port is known that is no SCSI target yet."""
        ports = fc.read_ports(self._host.sysfs, volume.wwpns, strict=False)
        targets = {(port.host, port.port_name) for port in ports}
        return any(
            (hba.host, target.wwpn) not in targets
            for hba in hbas
            for target in volume.targets_by(hba.port_name)
            if zfcp.knows_port(self._host.sysfs, hba.bus_address, target.wwpn)
        )

    def scan(self, call: Call, path: FcPath) -> None:
        # Behind a unit that lost its disk, or without units, it is scanned for as everywhere.
        if not self._add(call, path):
            _write(self._host, call, Scan.of(path))

    def _add(self, call: Call, path: FcPath) -> bool:
        """Configure a unit where LUNs are not found without; tell whether that was done now."""
        adapter = zfcp.adapter_of(path.hba)
        if adapter is None or zfcp.finds_luns(self._host.sysfs, path.hba):
            return False
        unit = Unit(adapter, path.port.port_name, zfcp.fcp_lun(path.lun))
        if zfcp.is_configured(self._host.sysfs, unit):
            return False
        # An undo may come while the driver is at it.
        with self._mutex:
            self._added.append((unit, path))
        done = zfcp.configure(self._host, call, unit)
        if done is False:  # if it is there all the same, it is another's
            with self._mutex:
                self._added.remove((unit, path))
        return bool(done)

    def may_have_made(self, disk: Disk) -> bool:
        unit = zfcp.unit_of(self._host.sysfs, disk)
        with self._mutex:
            return unit is None or any(unit == added for added, _path in self._added)

    def undo(self, call: Call) -> None:
        with self._mutex:
            added = list(self._added)
        for unit, path in added:
            try:
                self._remove_idle(call, unit, path)
            except Exception as exc:  # noqa: BLE001 - the first cause is what the caller must see
                LOG.warning("%s may be left: %s", unit, exc)

    def _remove_idle(self, call: Call, unit: Unit, path: FcPath) -> None:
        sysfs = self._host.sysfs
        # A disk that is left with its unit was found to be in use.
        if zfcp.is_configured(sysfs, unit) and not fc_paths.find_devices(sysfs, [path]):
            zfcp.remove_unit(self._host, call, unit)
