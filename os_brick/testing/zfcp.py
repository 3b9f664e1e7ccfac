# SPDX-License-Identifier: Apache-2.0
"""The zfcp driver of IBM Z: its adapters, ports and units in sysfs.

After the kernel's ``drivers/s390/scsi/zfcp_sysfs.c`` and ``zfcp_unit.c``, and "Device Drivers,
Features, and Commands" of Linux on IBM Z.
"""

from __future__ import annotations

import errno
import os

from os_brick.testing.fc_storage import TargetPort
from os_brick.testing.fibre_channel import FibreChannel, Hba, RemotePort
from os_brick.testing.scsi import ScsiLayer
from os_brick.testing.world import World

_ADAPTERS = "bus/ccw/drivers/zfcp"


def _kernel_lun(fcp_lun: str) -> int:
    """Return the kernel's number of a LUN on the wire (``scsilun_to_int``)."""
    levels = [int(fcp_lun[at : at + 4], 16) for at in range(2, 18, 4)]
    return sum(level << shift for level, shift in zip(levels, (0, 16, 32, 48), strict=True))


def _fcp_lun(number: int) -> str:
    return "0x" + "".join(f"{number >> shift & 0xFFFF:04x}" for shift in (0, 16, 32, 48))


class Zfcp:
    """All zfcp adapters of the host."""

    def __init__(self, world: World, fabric: FibreChannel, scsi: ScsiLayer) -> None:
        self._world = world
        self._fabric = fabric
        self._scsi = scsi
        self._units: set[tuple[Hba, str, str]] = set()
        self._npiv: set[Hba] = set()
        #: An errno by which ``unit_add`` is refused where LUNs are found without units.
        self.refuses_units = errno.EINVAL

    def add_adapter(
        self, *, npiv: bool = False, lun_scan: bool = True, port_scan: bool = True
    ) -> Hba:
        """Put an adapter into the host.

        :param npiv: it is a virtual one in NPIV mode; then with ``lun_scan`` LUNs are found without
            units.
        :param lun_scan: the driver's parameter ``allow_lun_scan``.
        :param port_scan: False sets the driver's parameter ``no_auto_port_rescan``.
        """
        sys = self._world.sys
        sys.write("module/zfcp/parameters/allow_lun_scan", "Y" if lun_scan else "N")
        sys.write("module/zfcp/parameters/no_auto_port_rescan", "N" if port_scan else "Y")
        hba = self._fabric.add_hba("zfcp", npiv=npiv)
        hba.admits, hba.files = self._admits, self._files
        if npiv and lun_scan:
            self._npiv.add(hba)
        device = self._directory(hba)
        for name in ("port_rescan", "port_remove"):
            sys.write(f"{device}/{name}", "")
        for name in ("failed", "in_recovery"):
            sys.write(f"{device}/{name}", 0)
        sys.link(f"{_ADAPTERS}/{self.address(hba)}", device)
        return hba

    @staticmethod
    def _directory(hba: Hba) -> str:
        return hba.host.sysfs.rpartition("/")[0]

    @classmethod
    def address(cls, hba: Hba) -> str:
        """Return the bus address of an adapter, ``"0.0.2300"``."""
        return cls._directory(hba).rpartition("/")[2]

    def zone(self, hba: Hba, port: TargetPort) -> None:
        """Let an adapter see a target port, and the driver know of it."""
        self._fabric.allow(hba, port)
        self._add_port(hba, port)

    def _add_port(self, hba: Hba, port: TargetPort) -> None:
        with self._world.lock:
            directory = f"{self._directory(hba)}/0x{port.wwpn}"
            if not self._world.sys.exists(directory):
                files: dict[str, object] = {"unit_add": "", "unit_remove": "", "failed": 0}
                self._world.sys.directory(directory, files)
            self._fabric.appear(hba, port)

    # -- what the driver lets in -----------------------------------------------------------
    def _admits(self, port: RemotePort, lun: int) -> bool:
        unit = (port.hba, port.target_port.wwpn, _fcp_lun(lun))
        return port.hba in self._npiv or unit in self._units

    def _files(self, port: RemotePort, lun: int) -> dict[str, object]:
        return {
            "hba_id": self.address(port.hba),
            "wwpn": f"0x{port.target_port.wwpn}",
            "fcp_lun": _fcp_lun(lun),
        }

    def units(self) -> list[str]:
        """Return what is configured, in words."""
        return sorted(
            f"zfcp unit {lun} of 0x{wwpn} on {self.address(hba)}" for hba, wwpn, lun in self._units
        )

    def configure(self, hba: Hba, port: TargetPort, lun: int) -> None:
        """Configure a unit as another program does."""
        with self._world.lock:
            self._add_unit(hba, f"0x{port.wwpn}", _fcp_lun(lun))
        self._world.notify()

    # -- what root writes to sysfs ---------------------------------------------------------
    def write(self, path: str, text: str, limit_s: float) -> None:
        """Do as a write to one of the driver's files does.

        :param path: below ``bus/ccw/drivers/zfcp``.
        :raises OSError: as the write would.
        """
        address, *rest = path.split("/")
        kind = rest[-1]
        self._world.record(kind, "/".join((address, *rest[:-1])), text)
        self._scsi.take_time(kind, self._world.delays.scan_s, limit_s)
        with self._world.lock:
            hba = next((one for one in self._fabric.hbas if self.address(one) == address), None)
            if hba is None or not self._world.sys.exists(f"{_ADAPTERS}/{path}"):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            if kind == "port_rescan":
                for port in hba.zoned:
                    self._add_port(hba, port)
            elif kind == "unit_add":
                self._add_unit(hba, rest[0], text)
            else:
                self._remove_unit(hba, rest[0], text)
        self._world.notify()

    def _add_unit(self, hba: Hba, port: str, lun: str) -> None:
        unit = (hba, port.removeprefix("0x"), lun)
        if hba in self._npiv and self.refuses_units:
            raise OSError(self.refuses_units, os.strerror(self.refuses_units), lun)
        if unit in self._units:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), lun)
        self._units.add(unit)
        self._world.sys.directory(f"{self._directory(hba)}/{port}/{lun}", {"failed": 0})
        remote = self._port(hba, unit[1])
        if remote is not None and remote.target is not None:
            self._scsi.scan(remote.target, _kernel_lun(lun))

    def _remove_unit(self, hba: Hba, port: str, lun: str) -> None:
        unit = (hba, port.removeprefix("0x"), lun)
        if unit not in self._units:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), lun)
        remote = self._port(hba, unit[1])
        devices = remote.target.devices if remote is not None and remote.target else {}
        device = devices.get(_kernel_lun(lun))
        if device is not None:
            self._scsi.drop(device)
        self._units.discard(unit)
        self._world.sys.remove(f"{self._directory(hba)}/{port}/{lun}")

    @staticmethod
    def _port(hba: Hba, wwpn: str) -> RemotePort | None:
        return next((one for one in hba.ports if one.target_port.wwpn == wwpn), None)
