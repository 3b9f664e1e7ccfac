# SPDX-License-Identifier: Apache-2.0
"""Which ways lead to a Fibre Channel volume here: host → remote port → target → LUN.

Nothing but sysfs is asked: no links (they may be late, or of another device), no program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from os_brick.initiator.linux import fc, scsi
from os_brick.initiator.linux.fc import Hba, RemotePort
from os_brick.initiator.linux.fc_volume import FcTarget, FcVolume
from os_brick.initiator.linux.scsi import Disk, Hctl
from os_brick.initiator.linux.sysfs import Tree


@dataclass(frozen=True, slots=True)
class FcPath:
    """One way to a volume: a port of this host, a target port that it sees, and the LUN there."""

    hba: Hba
    port: RemotePort
    lun: int

    @property
    def is_connected(self) -> bool:
        """Whether both ports are online, so that a command would be answered."""
        return self.hba.is_online and self.port.is_online

    @property
    def trouble(self) -> str:
        """Why it is not connected."""
        if not self.hba.is_online:
            return f"{self.hba} is {self.hba.state}"
        return "" if self.port.is_online else f"the port is {self.port.state}"

    @property
    def lock_name(self) -> str:
        """Name of the lock of whoever has this path in hand until he has settled what came by it;
        no other path of this host has it."""
        port = self.port
        address = f"{port.host}:{port.channel}:{port.target}:{scsi.plain_lun(self.lun)}"
        return f"fc path {address} of {port.port_name}"

    def __str__(self) -> str:
        return f"LUN {self.lun} of {self.port}"


@dataclass(frozen=True, slots=True)
class Ways:
    """All ways to a volume at one moment, in the order of this host's ports and of the volume's.

    :ivar hbas: this host's ports.
    :ivar meant: those that the volume is meant to be reached by.
    :ivar others: further ways to its target ports, by ports of this host that the zone manager or
        the driver does not name. There, the LUN's number may be another volume's.
    """

    hbas: tuple[Hba, ...]
    meant: tuple[FcPath, ...]
    others: tuple[FcPath, ...]


@dataclass(frozen=True, slots=True, order=True)
class Scan:
    """One write to the ``scan`` file of a SCSI host: channel, target, LUN; ``-`` stands for any."""

    host: int
    channel: str
    target: str
    lun: int

    @classmethod
    def of(cls, path: FcPath) -> Scan:
        """Return the scan for exactly this path."""
        return cls(path.port.host, str(path.port.channel), str(path.port.target), path.lun)

    def __str__(self) -> str:
        return f"host{self.host} {self.channel} {self.target} {self.lun}"


# -- read ------------------------------------------------------------------------------------
def read_ways(sysfs: Tree, hbas: Sequence[Hba], volume: FcVolume, *, strict: bool = True) -> Ways:
    """Return the ways to a volume, whether they are connected or not.

    :param strict: False leaves ports that cannot be read out, with a warning.
    :raises OSError: the host could not be looked at.
    """
    ports = fc.read_ports(sysfs, volume.wwpns, strict=strict)
    meant = [path for hba in hbas for path in _paths(hba, volume.targets_by(hba.port_name), ports)]
    others = [
        path for hba in hbas for path in _paths(hba, volume.targets, ports) if path not in meant
    ]
    return Ways(tuple(hbas), tuple(meant), tuple(others))


def _paths(hba: Hba, targets: Iterable[FcTarget], ports: Iterable[RemotePort]) -> Iterator[FcPath]:
    mine = [port for port in ports if port.host == hba.host]
    for target in targets:
        for port in mine:
            if port.port_name == target.wwpn:
                yield FcPath(hba, port, target.lun)


def find_disk(sysfs: Tree, path: FcPath) -> Disk | None:
    """Return the disk at the end of a path, under whichever coding of the LUN the kernel has it."""
    for hctl in _addresses(path):
        disk = scsi.read_disk(sysfs, hctl)
        if disk is not None:
            return disk
    return None


def find_bare(sysfs: Tree, path: FcPath) -> Disk | None:
    """Return the device at the end of a path before (or without) a disk driver has taken it."""
    for hctl in _addresses(path):
        device = scsi.read_bare(sysfs, hctl)
        if device is not None:
            return device
    return None


def has_device(sysfs: Tree, path: FcPath) -> bool:
    """Tell whether there is any SCSI device at the end of a path."""
    return any(scsi.device_instance(sysfs, hctl) is not None for hctl in _addresses(path))


def _addresses(path: FcPath) -> Iterator[Hctl]:
    for number in scsi.lun_variants(path.lun):
        yield Hctl(path.port.host, path.port.channel, path.port.target, number)


def find_devices(sysfs: Tree, paths: Iterable[FcPath]) -> list[Disk]:
    """Return the disks at the end of paths, and devices that are no disks yet, each once."""
    found = (find_disk(sysfs, path) or find_bare(sysfs, path) for path in paths)
    return list(dict.fromkeys(device for device in found if device is not None))


def read_numbered(sysfs: Tree, volume: FcVolume) -> frozenset[tuple[Hctl, int]]:
    """Return all SCSI devices of this host, each with its instance, that have a number which the
    volume's LUN may have, behind whichever port.

    No port has to be readable for this. It is for telling later which devices were there before.

    :raises OSError: the host could not be looked at.
    """
    numbers = {lun for target in volume.targets for lun in scsi.lun_variants(target.lun)}
    found = set()
    for name in sysfs.names("bus/scsi/devices"):
        hctl = Hctl.parse(name)
        if hctl is not None and hctl.lun in numbers:
            instance = scsi.device_instance(sysfs, hctl)
            if instance is not None:
                found.add((hctl, instance))
    return frozenset(found)


# -- decide ----------------------------------------------------------------------------------
def wildcards(hbas: Iterable[Hba], volume: FcVolume) -> list[Scan]:
    """Return the scans for a volume none of whose target ports is known to any port of this host.

    They may bring in other volumes with the same number of LUN, so the caller can forbid them
    (bugs 1849504, 1828440); the first volume ever of an array may need them (bug 1774283).
    """
    if not volume.wildcard:
        return []
    scans = (
        Scan(hba.host, "-", "-", target.lun)
        for hba in hbas
        if hba.is_online and volume.is_meant_for(hba.port_name)
        for target in volume.targets_by(hba.port_name)
    )
    return list(dict.fromkeys(scans))


def plan_scans(ways: Ways, hbas: Iterable[Hba], volume: FcVolume) -> list[Scan]:
    """Return the scans that show all of a volume's disks: exactly its LUN behind each of its ports
    that is connected; by wildcard only where none of its ports is known."""
    if ways.meant:
        return list(dict.fromkeys(Scan.of(path) for path in ways.meant if path.is_connected))
    return wildcards(hbas, volume)
