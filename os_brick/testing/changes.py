# SPDX-License-Identifier: Apache-2.0
"""The privileged verbs of a fake host."""

from __future__ import annotations

import errno
import os

from os_brick.initiator.linux import identity
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.identity import Identity
from os_brick.initiator.linux.scsi import Disk
from os_brick.testing import block, pages
from os_brick.testing.block import Devices
from os_brick.testing.open_iscsi import Database
from os_brick.testing.programs import Coreutils, Programs
from os_brick.testing.scsi import ScsiDevice, ScsiLayer
from os_brick.testing.world import World
from os_brick.testing.zfcp import Zfcp

_WRITE_LIMIT_S = 120.0
_INQUIRY_LIMIT_S = 15.0
_START_LIMIT_S = 60.0
_DAEMON_LIMIT_S = 15.0


class FakeChanges:
    """Stands in for :class:`os_brick.initiator.linux.changes.PrivilegedChanges`."""

    def __init__(
        self,
        world: World,
        scsi: ScsiLayer,
        devices: Devices,
        database: Database,
        coreutils: Coreutils,
        zfcp: Zfcp,
        programs: Programs,
    ) -> None:
        self._world = world
        self._scsi = scsi
        self._devices = devices
        self._database = database
        self._coreutils = coreutils
        self._zfcp = zfcp
        self._programs = programs

    def ask_multipathd(self, call: Call, *words: str) -> str | None:
        what = f"ask multipathd: {' '.join(words)}"
        call.check(what)
        with call.step(what):
            answer = self._programs.ask(("multipathd", *words), call.within(_DAEMON_LIMIT_S))
            return answer.out or ("" if answer.code == 0 else "fail\n")

    def scan(self, call: Call, host: int, channel: str, target: str, lun: int) -> None:
        with call.step(f"scan host{host} {channel} {target} {lun}"):
            self._scsi.write_scan(host, f"{channel} {target} {lun}", call.within(_WRITE_LIMIT_S))

    def delete(self, call: Call, disk: Disk) -> None:
        self._write(call, disk, "delete", "1")

    def rescan(self, call: Call, disk: Disk) -> None:
        self._write(call, disk, "rescan", "1")

    def set_offline(self, call: Call, disk: Disk) -> None:
        self._write(call, disk, "state", "offline")

    def _write(self, call: Call, disk: Disk, attribute: str, text: str) -> None:
        with call.step(f"{attribute} {disk}") as step:
            device = self._find(disk)
            if device is None:
                step.outcome = "was gone"
            else:
                self._scsi.write_attribute(device, attribute, text, call.within(_WRITE_LIMIT_S))

    def _find(self, disk: Disk) -> ScsiDevice | None:
        """Return this very device, not a later one at its address."""
        with self._world.lock:
            device = self._scsi.find(disk.hctl)
            if (
                device is None
                or self._world.sysfs.instance("bus/scsi/devices", str(disk.hctl)) != disk.instance
            ):
                return None
            return device

    def inquire(self, call: Call, disk: Disk) -> Identity | None:
        with call.step(f"inquire {disk}") as step:
            device = self._find(disk)
            if device is None:
                raise OSError(errno.ENODEV, f"{disk} is another device now")
            self._world.record("inquire", str(disk))
            limit_s = call.within(_INQUIRY_LIMIT_S)
            if not self._world.wait_for(lambda: device.health() != block.HANGS, limit_s):
                raise TimeoutError(errno.ETIMEDOUT, f"INQUIRY of {disk.name}")
            with self._world.lock:
                unit = device.unit()
                if device.health() != block.ALIVE:
                    raise OSError(errno.EIO, f"{disk} does not answer (host status 1)")
                if unit is None:
                    step.outcome = "no such LUN"
                    return None
                if unit.wwid:
                    return identity.parse_page83(self._scsi.page83(device.target, unit))
                return identity.parse_serial(unit.vendor, unit.model, pages.page80(unit.serial))

    def read_block(self, call: Call, disk: Disk) -> None:
        with call.step(f"read {disk}"):
            device = self._find(disk)
            if device is None:
                raise OSError(errno.ENODEV, f"{disk} is another device now")
            self._world.record("read", str(disk))
            limit_s = call.within(_INQUIRY_LIMIT_S)
            if not self._world.wait_for(lambda: device.health() != block.HANGS, limit_s):
                raise TimeoutError(errno.ETIMEDOUT, f"read of {disk.name}")
            with self._world.lock:
                unit = device.unit()
                if device.health() != block.ALIVE or unit is None:
                    raise OSError(errno.EIO, os.strerror(errno.EIO), disk.path)

    def rescan_ports(self, call: Call, adapter: str) -> None:
        with call.step(f"port_rescan {adapter}"):
            self._zfcp.write(f"{adapter}/port_rescan", "1", call.within(_WRITE_LIMIT_S))

    def configure_unit(self, call: Call, adapter: str, wwpn: str, lun: str) -> None:
        with call.step(f"unit_add {adapter} 0x{wwpn} {lun}"):
            self._zfcp.write(f"{adapter}/0x{wwpn}/unit_add", lun, call.within(_WRITE_LIMIT_S))

    def remove_unit(self, call: Call, adapter: str, wwpn: str, lun: str) -> None:
        with call.step(f"unit_remove {adapter} 0x{wwpn} {lun}"):
            self._zfcp.write(f"{adapter}/0x{wwpn}/unit_remove", lun, call.within(_WRITE_LIMIT_S))

    def is_claimed(self, call: Call, name: str) -> bool:
        with self._world.lock:
            device = self._devices.find(f"/dev/{name}")
            return device is not None and device.claimed

    def store_ceph_conf(self, call: Call, name: str, text: str) -> str:
        self._world.record("store", name)
        self._world.run.write(f"os-brick/{name}", text.encode())
        return f"/run/os-brick/{name}"

    def delete_ceph_conf(self, call: Call, path: str) -> None:
        self._world.record("delete", path)
        self._world.run.remove(path.removeprefix("/run/"))

    def is_readable(self, call: Call, path: str) -> bool:
        with self._world.lock:
            device = self._devices.find(path)
        self._world.record("read", path)
        if device is None:
            return False
        limit_s = call.within(_INQUIRY_LIMIT_S)
        return self._world.wait_for(lambda: device.storage()[0] == block.ALIVE, limit_s)

    def open_count(self, call: Call, label: str) -> int | None:
        with self._world.lock:
            device = self._devices.find(f"/dev/mapper/{label}")
            return None if device is None else device.openers

    def holds_luks(self, call: Call, name: str, number: str, length: int) -> bool:
        with self._world.lock:
            device = self._devices.find(f"/dev/{name}")
        if device is None or device.dev != number:
            raise OSError(errno.ENODEV, f"/dev/{name} is another device now")
        self._world.record("read start", name)
        limit_s = call.within(_START_LIMIT_S)
        if not self._world.wait_for(lambda: device.storage()[0] != block.HANGS, limit_s):
            raise TimeoutError(errno.ETIMEDOUT, f"the read of {name}")
        with self._world.lock:
            state, unit = device.storage()
            if state != block.ALIVE or unit is None:
                raise OSError(errno.EIO, os.strerror(errno.EIO), f"/dev/{name}")
            return unit.luks is not None

    def node_settings(self, call: Call, iqn: str, address: str, port: int) -> dict[str, str] | None:
        with self._world.lock:
            if not self._database.readable:
                return None
            for node in self._database.match(iqn, (address, port)):
                wanted = ("node.startup", "node.session.scan")
                return {"record": "yes"} | {name: node.settings[name] for name in wanted}
            return {}

    def link(self, call: Call, target: str, link_name: str) -> None:
        self._fail_if_ordered("link", link_name)
        with self._world.lock:
            self._coreutils.link(target, link_name)

    def unlink(self, call: Call, *links: str) -> None:
        with self._world.lock:
            self._coreutils.unlink(*links)

    def _fail_if_ordered(self, kind: str, what: str) -> None:
        error = self._world.faults.failing_writes.get(kind)
        if error:
            raise OSError(error, os.strerror(error), what)
