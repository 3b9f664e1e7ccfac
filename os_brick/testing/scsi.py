# SPDX-License-Identifier: Apache-2.0
"""The kernel's SCSI layer: hosts, devices and their disks in sysfs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from os_brick.initiator.linux.identity import normal_form
from os_brick.initiator.linux.scsi import Hctl
from os_brick.testing import block, pages
from os_brick.testing.block import BlockDevice, Devices
from os_brick.testing.storage import Unit
from os_brick.testing.world import World

#: What device types disks are made of; others get no block device.
_DISK_TYPES = (0x00, 0x07, 0x14)


class Transport(Protocol):
    """What leads from a SCSI host to a target: an iSCSI session, a Fibre Channel remote port."""

    def unit(self, lun: int) -> Unit | None:
        """Return the unit at a LUN now."""

    def luns(self) -> dict[int, Unit]:
        """Return all units by LUN, as REPORT LUNS does."""

    def health(self) -> str:
        """Tell how a command would end now: alive, fails or hangs."""

    @property
    def target_name(self) -> str:
        """Name of the target."""

    @property
    def port(self) -> int:
        """Relative number of the target's port."""

    @property
    def keeps_scanner(self) -> bool:
        """Whether a scan waits for a target that does not answer."""

    def device_files(self, lun: int) -> dict[str, object]:
        """Return further files in the directory of a device."""

    def link_name(self, lun: int) -> str:
        """Return the name of udev's link by path to a disk."""

    def target_shown(self, shown: bool) -> None:
        """Be told that the target's directory has appeared or disappeared."""


@dataclass(eq=False)
class ScsiTarget:
    """A target behind a SCSI host, and its devices by LUN."""

    host: int
    channel: int
    number: int
    #: sysfs directory in which its own appears with its first device.
    parent: str
    transport: Transport
    devices: dict[int, ScsiDevice] = field(default_factory=dict)

    @property
    def sysfs(self) -> str:
        """Its sysfs directory."""
        return f"{self.parent}/target{self.host}:{self.channel}:{self.number}"

    def matches(self, channel: str, number: str) -> bool:
        """Tell whether a scan is meant for it."""
        return channel in ("-", str(self.channel)) and number in ("-", str(self.number))


@dataclass(eq=False)
class ScsiHost:
    """A SCSI host and the targets behind it."""

    number: int
    sysfs: str
    targets: list[ScsiTarget] = field(default_factory=list)

    @property
    def devices(self) -> list[ScsiDevice]:
        """All its devices."""
        return [device for target in self.targets for device in target.devices.values()]


@dataclass(eq=False)
class ScsiDevice:
    """A device at one address, from its discovery to its removal."""

    hctl: Hctl
    target: ScsiTarget
    sysfs: str
    state: str = "running"
    disk: Disk | None = None
    going: bool = False
    gone: bool = False

    def health(self) -> str:
        """Tell how a command to it would end now."""
        if self.gone or self.state in ("offline", "transport-offline"):
            return block.FAILS
        return block.HANGS if self.state == "blocked" else self.target.transport.health()

    def unit(self) -> Unit | None:
        """Return the unit that it leads to now."""
        return self.target.transport.unit(self.hctl.lun)


@dataclass(eq=False)
class Disk(BlockDevice):
    """The block device of a SCSI device."""

    device: ScsiDevice | None = None
    #: Identity as udev knows it: that of the pages when the device came or was last scanned anew.
    wwid: str = ""

    def storage(self) -> tuple[str, Unit | None]:
        if self.device is None:
            return block.FAILS, None
        return self.device.health(), self.device.unit()


def _disk_number(name: str) -> tuple[int, int]:
    """Return the device number of a disk by its name (Linux' admin-guide/devices.txt)."""
    index = 0
    for letter in name.removeprefix("sd"):
        index = index * 26 + ord(letter) - ord("a") + 1
    major = 8 if index <= 16 else 64 + (index - 1) // 16
    return major, (index - 1) % 16 * 16


def _keeps_deleter(device: ScsiDevice) -> bool:
    return not device.gone and device.state == "running" and device.health() == block.HANGS


class ScsiLayer:
    """All SCSI hosts and devices."""

    def __init__(self, world: World, devices: Devices) -> None:
        self._world = world
        self._devices = devices
        self.hosts: dict[int, ScsiHost] = {}
        #: Called with "add", "change" or "remove" and the disk, as the kernel's events are.
        self.listeners: list[Callable[[str, BlockDevice], None]] = []

    # -- hosts -----------------------------------------------------------------------------
    def free_host_number(self) -> int:
        """Return the lowest free number, as the kernel hands them out."""
        number = 2
        while number in self.hosts:
            number += 1
        return number

    def add_host(self, host: ScsiHost, proc_name: str) -> None:
        """Have a host appear; its parent directory is there already."""
        sys = self._world.sys
        directory = f"{host.sysfs}/scsi_host/host{host.number}"
        sys.directory(
            directory, {"scan": "", "proc_name": proc_name, "state": "running", "host_busy": 0}
        )
        sys.link(f"{directory}/device", host.sysfs)
        self.hosts[host.number] = host
        sys.link(f"class/scsi_host/host{host.number}", directory)

    def drop_host(self, host: ScsiHost) -> None:
        """Have a host and all its devices disappear."""
        for device in host.devices:
            self.drop(device)
        self._world.sys.remove(f"class/scsi_host/host{host.number}")
        self.hosts.pop(host.number, None)

    # -- devices ---------------------------------------------------------------------------
    def scan(self, target: ScsiTarget, lun: int | None) -> None:
        """Look for one LUN (all if None); each unit there is that was not known becomes a
        device."""
        if target.transport.health() != block.ALIVE:
            return
        found = target.transport.luns() if lun is None else {}
        if lun is not None:
            unit = target.transport.unit(lun)
            found = {lun: unit} if unit is not None else {}
        for number, unit in found.items():
            if number not in target.devices:
                self._probe(target, number, unit)

    def _probe(self, target: ScsiTarget, lun: int, unit: Unit) -> None:
        sys = self._world.sys
        hctl = Hctl(target.host, target.channel, target.number, lun)
        device = ScsiDevice(hctl, target, f"{target.sysfs}/{hctl}")
        is_first = not target.devices
        target.devices[lun] = device
        files: dict[str, object] = {
            "type": unit.device_type,
            "vendor": f"{unit.vendor:<8}",
            "model": f"{unit.model:<16}",
            "rev": "4.0 ",
            "state": "running",
            "delete": "",
            "rescan": "",
            "queue_depth": 32,
            **self._identity_files(target, unit),
            **target.transport.device_files(lun),
        }
        sys.directory(device.sysfs, files)
        if is_first:
            target.transport.target_shown(True)
        sys.directory(f"{device.sysfs}/scsi_device/{hctl}", {})
        sys.link(f"{device.sysfs}/scsi_device/{hctl}/device", device.sysfs)
        sys.link(f"bus/scsi/devices/{hctl}", device.sysfs)
        sys.link(f"class/scsi_device/{hctl}", f"{device.sysfs}/scsi_device/{hctl}")
        self._world.notify()
        if unit.device_type in _DISK_TYPES:
            self._world.after(self._world.delays.disk_s, lambda: self._add_disk(device, unit))

    def _identity_files(self, target: ScsiTarget, unit: Unit) -> dict[str, object]:
        files: dict[str, object] = {"vpd_pg80": pages.page80(unit.serial)}
        if unit.wwid:
            files["vpd_pg83"] = self.page83(target, unit)
            files["wwid"] = pages.sysfs_wwid(unit.wwid)
        return files

    @staticmethod
    def page83(target: ScsiTarget, unit: Unit) -> bytes:
        """Return page 0x83 as this unit sends it through this target."""
        return pages.page83(
            unit.wwid,
            vendor=unit.vendor,
            serial=unit.serial,
            port=target.transport.port,
            target_name=target.transport.target_name,
        )

    def _add_disk(self, device: ScsiDevice, unit: Unit) -> None:
        if device.gone:
            return
        name = self._devices.free_name("sd")
        disk = Disk(
            name,
            _disk_number(name),
            f"{device.sysfs}/block/{name}",
            unit.size,
            device=device,
            wwid=normal_form(unit.wwid),
            read_only=unit.read_only,
        )
        device.disk = disk
        self._devices.add(disk, {"removable": 0})
        self._world.sys.link(f"{disk.sysfs}/device", device.sysfs)
        self._tell("add", disk)

    def rescan(self, device: ScsiDevice) -> None:
        """Read size and pages again."""
        unit = device.unit()
        if unit is None or device.health() != block.ALIVE:
            return
        for name, content in self._identity_files(device.target, unit).items():
            self._world.sys.write(f"{device.sysfs}/{name}", content)
        if device.disk is not None:
            device.disk.wwid = normal_form(unit.wwid)
            self._devices.resize(device.disk, unit.size)
            self._tell("change", device.disk)

    def set_state(self, device: ScsiDevice, state: str) -> None:
        """Set the device state, as the transport or a write to ``state`` does."""
        if not device.gone and device.state != state:
            device.state = state
            self._world.sys.write(f"{device.sysfs}/state", state)
            self._world.notify()

    def drop(self, device: ScsiDevice) -> None:
        """Have a device disappear."""
        if device.gone:
            return
        sys = self._world.sys
        device.gone = True
        if device.disk is not None:
            disk = device.disk
            self._devices.drop(disk, "its disk was deleted")
            self._tell("remove", disk)
        sys.remove(f"class/scsi_device/{device.hctl}")
        sys.remove(f"bus/scsi/devices/{device.hctl}")
        sys.remove(device.sysfs)
        target = device.target
        if target.devices.get(device.hctl.lun) is device:
            del target.devices[device.hctl.lun]
        if not target.devices:
            target.transport.target_shown(False)
            sys.remove(target.sysfs)  # the kernel drops a target with its last device
        self._world.notify()

    def _tell(self, what: str, disk: BlockDevice) -> None:
        for listener in self.listeners:
            listener(what, disk)

    # -- what root writes to sysfs ---------------------------------------------------------
    def find(self, hctl: Hctl) -> ScsiDevice | None:
        """Return the device at an address."""
        host = self.hosts.get(hctl.host)
        devices = host.devices if host is not None else []
        return next((device for device in devices if device.hctl == hctl), None)

    def write_scan(self, number_of_host: int, text: str, limit_s: float) -> None:
        """Do as a write to ``scan`` does: ``"0 0 1"``, ``-`` for any.

        :raises OSError: as the write would.
        """
        self._world.record("scan", f"host{number_of_host}", text)
        self.take_time("scan", self._world.delays.scan_s, limit_s)
        channel, number, lun = text.split()
        with self._world.lock:
            host = self.hosts.get(number_of_host)
            if host is None:
                raise FileNotFoundError(
                    errno.ENOENT, os.strerror(errno.ENOENT), f"host{number_of_host}/scan"
                )
            targets = [one for one in host.targets if one.matches(channel, number)]
        for target in targets:
            self._scan_one(target, None if lun == "-" else int(lun), limit_s)
        self._world.notify()

    def _scan_one(self, target: ScsiTarget, lun: int | None, limit_s: float) -> None:
        """Scan one target; one that does not answer may keep the scanner until it does or fails."""

        def answers() -> bool:
            return target.transport.health() != block.HANGS

        if target.transport.keeps_scanner and not self._world.wait_for(answers, limit_s):
            self._world.watch(lambda: answers() and self._scanned_late(target, lun))
            raise TimeoutError(errno.ETIMEDOUT, "scan goes on")
        with self._world.lock:
            self.scan(target, lun)

    def _scanned_late(self, target: ScsiTarget, lun: int | None) -> bool:
        self.scan(target, lun)
        return True

    def write_attribute(
        self, device: ScsiDevice, attribute: str, text: str, limit_s: float
    ) -> None:
        """Do as a write to ``delete``, ``rescan`` or ``state`` of a device does.

        :raises OSError: as the write would.
        """
        self._world.record(
            attribute, f"{device.disk.name if device.disk else '-'} [{device.hctl}]", text
        )
        {"delete": self._write_delete, "rescan": self._write_rescan, "state": self._write_state}[
            attribute
        ](device, text, limit_s)

    def _write_state(self, device: ScsiDevice, text: str, limit_s: float) -> None:
        self.take_time("state", 0, limit_s)
        with self._world.lock:
            self.set_state(device, text)

    def _write_rescan(self, device: ScsiDevice, text: str, limit_s: float) -> None:
        self.take_time("rescan", self._world.delays.scan_s, limit_s)
        with self._world.lock:
            self.rescan(device)
        self._world.notify()

    def _write_delete(self, device: ScsiDevice, text: str, limit_s: float) -> None:
        began = self._world.clock.now()
        with self._world.lock:
            if device.going or device.gone:
                return
            device.going = True
        # Its cache is synchronized first. A command that the target does not answer keeps the
        # deleter until the transport fails; a blocked device fails its commands at once.
        if not self._world.wait_for(lambda: not _keeps_deleter(device), limit_s):
            self._when_answering(device)
            raise TimeoutError(errno.ETIMEDOUT, f"delete of {device.hctl} goes on")
        left = limit_s - (self._world.clock.now() - began)
        took = self._world.faults.slow_writes.get("delete", self._world.delays.delete_s)
        if took > left:
            self._world.after(took, lambda: self._removed(device))
            self._world.spend(left)
            raise TimeoutError(errno.ETIMEDOUT, f"delete of {device.hctl} goes on")
        try:
            self.take_time("delete", self._world.delays.delete_s, left)
        except OSError:
            device.going = False
            raise
        self._removed(device)

    def _when_answering(self, device: ScsiDevice) -> None:
        """Finish a delete in the kernel that nobody waits for any more."""

        def look() -> None:
            if _keeps_deleter(device):
                self._world.after(1.0, look)
            else:
                self.drop(device)

        self._world.after(1.0, look)

    def _removed(self, device: ScsiDevice) -> None:
        self._world.after(self._world.delays.removal_s, lambda: self.drop(device))

    def take_time(self, kind: str, usual_s: float, limit_s: float) -> None:
        """Take the time of a write to sysfs, and fail as ordered."""
        took = self._world.faults.slow_writes.get(kind, usual_s)
        self._world.spend(min(took, limit_s))
        if took > limit_s:
            raise TimeoutError(errno.ETIMEDOUT, f"the kernel has not finished {kind}")
        error = self._world.faults.failing_writes.get(kind)
        if error:
            raise OSError(error, os.strerror(error), kind)
