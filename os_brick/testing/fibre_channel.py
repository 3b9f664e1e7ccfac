# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel in the kernel: ports of the host, remote ports, and what becomes of them.

After the kernel's ``Documentation/scsi/scsi_fc_transport.rst`` and ``drivers/scsi/
scsi_transport_fc.c``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from os_brick.initiator.linux.scsi import lun_for_by_path
from os_brick.testing import block, storage
from os_brick.testing.fc_storage import TargetPort
from os_brick.testing.scsi import ScsiHost, ScsiLayer, ScsiTarget
from os_brick.testing.storage import Unit
from os_brick.testing.world import World

ONLINE, BLOCKED, LINKDOWN = "Online", "Blocked", "Linkdown"
#: Where a port of each kind lies in sysfs, and what its links by path begin with.
_PLACES = {
    "pci": ("devices/pci0000:00/0000:00:03.0/0000:05:00.{n}", "pci-0000:05:00.{n}-"),
    "fcoe": (
        "devices/pci0000:20/0000:20:03.0/0000:21:00.{n}/net/ens2f{n}/ctlr_{n}",
        "pci-0000:21:00.{n}-",
    ),
    "arm": (
        "devices/platform/80040000000.peu0-c0/pci0000:00/0000:00:00.0/0000:01:00.{n}",
        "platform-80040000000.peu0-c0-pci-0000:01:00.{n}-",
    ),
    "vio": ("devices/vio/3000000{n}", ""),
    "zfcp": ("devices/css0/0.0.000{n}/0.0.230{n}", "ccw-0.0.230{n}-"),
}


def _all_luns(port: RemotePort, lun: int) -> bool:
    return True


def _no_files(port: RemotePort, lun: int) -> dict[str, object]:
    return {}


@dataclass(eq=False)
class Hba:
    """A Fibre Channel port of the host."""

    kind: str
    wwpn: str
    wwnn: str
    host: ScsiHost
    link_prefix: str
    state: str = ONLINE
    #: Target ports that the fabric lets it see.
    zoned: list[TargetPort] = field(default_factory=list)
    ports: list[RemotePort] = field(default_factory=list)
    #: Which LUNs the driver lets in, and what it adds to a device: zfcp's own way.
    admits: Callable[[RemotePort, int], bool] = _all_luns
    files: Callable[[RemotePort, int], dict[str, object]] = _no_files
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def name(self) -> str:
        """Name of its SCSI host."""
        return f"host{self.host.number}"


@dataclass(eq=False)
class RemotePort:
    """A target port as one port of the host sees it; the transport below a SCSI target."""

    hba: Hba
    target_port: TargetPort
    number: int
    layer: FibreChannel
    state: str = ONLINE
    target: ScsiTarget | None = None

    @property
    def name(self) -> str:
        """Its name in sysfs."""
        return f"rport-{self.hba.host.number}:0-{self.number}"

    @property
    def sysfs(self) -> str:
        """Its sysfs directory."""
        return f"{self.hba.host.sysfs}/{self.name}"

    # -- os_brick.testing.scsi.Transport ---------------------------------------------------
    def unit(self, lun: int) -> Unit | None:
        array = self.target_port.array
        return array.unit(self.target_port.index, lun) if self.hba.admits(self, lun) else None

    def luns(self) -> dict[int, Unit]:
        found = self.target_port.array.luns(self.target_port.index)
        return {lun: unit for lun, unit in found.items() if self.hba.admits(self, lun)}

    def health(self) -> str:
        if self.state == BLOCKED:
            return block.HANGS
        if self.state != ONLINE:
            return block.FAILS
        return block.HANGS if self.target_port.state == storage.SILENT else block.ALIVE

    @property
    def target_name(self) -> str:
        return f"naa.{self.target_port.wwpn}"

    @property
    def port(self) -> int:
        return self.target_port.index + 1

    @property
    def keeps_scanner(self) -> bool:
        return self.state == ONLINE  # others are not scanned at all

    def device_files(self, lun: int) -> dict[str, object]:
        return self.hba.files(self, lun)

    def link_name(self, lun: int) -> str:
        number = lun_for_by_path(lun)
        return f"{self.hba.link_prefix}fc-0x{self.target_port.wwpn}-lun-{number}"

    def target_shown(self, shown: bool) -> None:
        self.layer.show_target(self, shown)


class FibreChannel:
    """All ports of the host and what they see."""

    def __init__(self, world: World, scsi: ScsiLayer) -> None:
        self._world = world
        self._scsi = scsi
        self.hbas: list[Hba] = []
        #: Whether the kernel scans a remote port by itself when that appears.
        self.scans = True

    # -- ports of the host -----------------------------------------------------------------
    def add_hba(self, kind: str = "pci", *, npiv: bool = False) -> Hba:
        """Put a card into the host (``pci``, ``fcoe``, ``arm``, ``vio``, ``zfcp``)."""
        sys, index = self._world.sys, len(self.hbas)
        place, prefix = (text.format(n=index) for text in _PLACES[kind])
        number = self._scsi.free_host_number()
        host = ScsiHost(number, f"{place}/host{number}")
        wwpn = f"100000109b{index:06x}"
        hba = Hba(kind, wwpn, f"2{wwpn[1:]}", host, prefix)
        directory = f"{host.sysfs}/fc_host/host{number}"
        sys.directory(
            directory,
            {
                "port_name": f"0x{hba.wwpn}",
                "node_name": f"0x{hba.wwnn}",
                "port_state": hba.state,
                "port_type": "NPIV VPORT" if npiv else "NPort (fabric via point-to-point)",
                "port_id": f"0x0101{index:02x}",
                "speed": "16 Gbit",
            },
        )
        sys.link(f"{directory}/device", host.sysfs)
        sys.link(f"class/fc_host/host{number}", directory)
        self._scsi.add_host(host, kind)
        self.hbas.append(hba)
        return hba

    def set_state(self, hba: Hba, state: str) -> None:
        """Pull its cable (``Linkdown``), or put it back (``Online``)."""
        with self._world.lock:
            hba.state = state
            self._world.sys.write(f"{hba.host.sysfs}/fc_host/{hba.name}/port_state", state)
            for port in list(hba.ports):
                self._follow(port.target_port, hba)
        self._world.notify()

    # -- the fabric ------------------------------------------------------------------------
    def zone(self, hba: Hba, port: TargetPort) -> None:
        """Let a port of the host see a target port, and the kernel know of it."""
        self.allow(hba, port)
        self.appear(hba, port)

    def allow(self, hba: Hba, port: TargetPort) -> None:
        """Let a port of the host see a target port, without the kernel having asked for it yet."""
        with self._world.lock:
            hba.zoned.append(port)
            port.listeners.append(lambda changed: self._follow(changed, hba))

    def appear(self, hba: Hba, port: TargetPort) -> RemotePort:
        """Have the kernel find a target port: a remote port, a SCSI target, its LUNs."""
        with self._world.lock:
            known = self.find(hba, port)
            if known is not None:
                return known
            made = RemotePort(hba, port, next(hba.numbers), self)
            made.target = ScsiTarget(hba.host.number, 0, made.number, made.sysfs, made)
            self._write_files(made)
            hba.ports.append(made)
            hba.host.targets.append(made.target)
            if self.scans:
                self._scsi.scan(made.target, None)
        self._world.notify()
        return made

    def find(self, hba: Hba, port: TargetPort) -> RemotePort | None:
        """Return the remote port that stands for a target port."""
        return next((one for one in hba.ports if one.target_port is port), None)

    def _write_files(self, port: RemotePort) -> None:
        directory = f"{port.sysfs}/fc_remote_ports/{port.name}"
        self._world.sys.directory(
            directory,
            {
                "port_name": f"0x{port.target_port.wwpn}",
                "node_name": f"0x{port.target_port.wwnn}",
                "port_id": f"0x0102{port.number:02x}",
                "port_state": port.state,
                "roles": "FCP Target",
                "scsi_target_id": port.number,
                "dev_loss_tmo": int(port.target_port.dev_loss_s),
                "fast_io_fail_tmo": int(port.target_port.fast_io_fail_s),
            },
        )
        self._world.sys.link(f"class/fc_remote_ports/{port.name}", directory)

    def show_target(self, port: RemotePort, shown: bool) -> None:
        """Have the transport's view of a target appear and disappear with its first device."""
        if port.target is None:
            return
        sys = self._world.sys
        name = f"target{port.target.host}:{port.target.channel}:{port.target.number}"
        directory = f"{port.target.sysfs}/fc_transport/{name}"
        if shown:
            sys.directory(
                directory,
                {
                    "port_name": f"0x{port.target_port.wwpn}",
                    "node_name": f"0x{port.target_port.wwnn}",
                    "port_id": f"0x0102{port.number:02x}",
                },
            )
            sys.link(f"class/fc_transport/{name}", directory)
        else:
            sys.remove(f"class/fc_transport/{name}")

    # -- life and death --------------------------------------------------------------------
    def _follow(self, target_port: TargetPort, hba: Hba) -> None:
        """Bring the view of a port in line with how it and the fabric are."""
        known = self.find(hba, target_port)
        reachable = hba.state == ONLINE and target_port.state != storage.DEAD
        if known is None:
            if reachable and target_port in hba.zoned:
                self.appear(hba, target_port)
        elif reachable:
            self._set_state(known, ONLINE)
            self._set_devices(known, ("blocked", "transport-offline"), "running")
        elif known.state == ONLINE:
            self._set_state(known, BLOCKED)
            self._set_devices(known, ("running",), "blocked")
            self._world.after(target_port.fast_io_fail_s, lambda: self._fail_io(known))
            self._world.after(target_port.dev_loss_s, lambda: self._forget(known))

    def _set_state(self, port: RemotePort, state: str) -> None:
        port.state = state
        self._world.sys.write(f"{port.sysfs}/fc_remote_ports/{port.name}/port_state", state)

    def _fail_io(self, port: RemotePort) -> None:
        if port.state == BLOCKED:
            self._set_devices(port, ("blocked",), "transport-offline")

    def _forget(self, port: RemotePort) -> None:
        """Remove a port that was lost for too long, and its devices; it comes back as another."""
        if port.state != BLOCKED or port.target is None:
            return
        port.state = "Not Present"
        for device in list(port.target.devices.values()):
            self._scsi.drop(device)
        port.hba.ports.remove(port)
        port.hba.host.targets.remove(port.target)
        self._world.sys.remove(f"class/fc_remote_ports/{port.name}")
        self._world.sys.remove(port.sysfs)
        self._world.notify()

    def _set_devices(self, port: RemotePort, old: tuple[str, ...], new: str) -> None:
        if port.target is not None:
            for device in list(port.target.devices.values()):
                if device.state in old:
                    self._scsi.set_state(device, new)
