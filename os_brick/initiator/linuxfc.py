# SPDX-License-Identifier: Apache-2.0
"""The Fibre Channel helpers that connectors outside this library know.

Doors: what happens is in :mod:`os_brick.initiator.linux`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from os_brick.initiator import linuxscsi
from os_brick.initiator.linux import fc, fc_paths, fc_scan, scsi, zfcp
from os_brick.initiator.linux.fc import Hba
from os_brick.initiator.linux.fc_paths import Scan
from os_brick.initiator.linux.fc_volume import FcVolume
from os_brick.initiator.linux.sysfs import Tree
from os_brick.initiator.linux.zfcp import Unit

_SYSFS = "/sys"


class LinuxFibreChannel(linuxscsi.LinuxSCSI):
    """Fibre Channel ports of this host.

    What describes a port is a dictionary, see :meth:`get_fc_hbas_info`.
    """

    FC_HOST_SYSFS_PATH = f"{_SYSFS}/class/fc_host"
    HBA_ATTRIBUTES: ClassVar[list[str]] = ["port_name", "node_name", "port_state"]

    def has_fc_support(self) -> bool:
        """Tell whether the kernel has the Fibre Channel transport loaded."""
        return fc.has_support(self.host.sysfs)

    @classmethod
    def get_fc_hbas(cls) -> list[dict[str, str]]:
        """Return the ports of this machine with what sysfs says of each.

        :returns: dictionaries with ``ClassDevice`` (``"host6"``), ``ClassDevicepath``,
            ``port_name``, ``node_name`` (``"0x…"``) and ``port_state``. A port that cannot be read
            is left out, with a warning.
        """
        return [_described(hba) for hba in fc.read_hbas(Tree(_SYSFS), strict=False)]

    def _hbas(self) -> list[Hba]:
        return fc.read_hbas(self.host.sysfs, strict=False)

    def get_fc_hbas_info(self) -> list[dict[str, str]]:
        """Return this host's ports, whatever their state.

        :returns: dictionaries with ``port_name``, ``node_name`` (16 digits), ``host_device``
            (``"host6"``) and ``device_path`` (below ``/sys``).
        """
        return [_info(hba) for hba in self._hbas()]

    def get_fc_wwpns(self) -> list[str]:
        """Return the WWPNs of the connected ports."""
        return fc.names_of(self._hbas()).get("wwpns", [])

    def get_fc_wwnns(self) -> list[str]:
        """Return the WWNNs of the connected ports."""
        return fc.names_of(self._hbas()).get("wwnns", [])

    def rescan_hosts(self, hbas: Iterable[Mapping[str, Any]], connection_properties: Any) -> None:
        """Have the kernel look for a volume: exactly its LUN behind each of its connected ports.

        :param hbas: ports as :meth:`get_fc_hbas_info` describes them; no others are scanned.
        :param connection_properties: the volume's; or just a LUN, which is then looked for behind
            all ports, as callers of old want.
        :raises VolumePathsNotFound: the properties name no ports or no LUNs.
        """
        call = self._call("Scan of Fibre Channel hosts")
        wanted = {hba.get("host_device") for hba in hbas}
        found = [hba for hba in self._hbas() if hba.name in wanted]
        fc_scan.carry_out(self.host, call, self._scans(found, connection_properties))

    def _scans(self, hbas: list[Hba], given: Any) -> list[Scan]:
        if not isinstance(given, Mapping):
            lun = scsi.lun_number(given)
            return [Scan(hba.host, "-", "-", lun) for hba in hbas]
        volume = FcVolume.parse(given)
        ways = fc_paths.read_ways(self.host.sysfs, hbas, volume, strict=False)
        return fc_paths.plan_scans(ways, hbas, volume)


class LinuxFibreChannelS390X(LinuxFibreChannel):
    """Fibre Channel ports of a host on IBM Z."""

    def get_fc_hbas_info(self) -> list[dict[str, str]]:
        """Return this host's connected ports, as in :class:`LinuxFibreChannel`."""
        return [_info(hba) for hba in self._hbas() if hba.state == fc.ONLINE]

    def configure_scsi_device(self, device_number: str, target_wwn: str, lun: str) -> None:
        """Configure a LUN for a port; the port is looked for if it is not known.

        A failure is logged: where LUNs are found without it, the driver may refuse.

        :param device_number: bus address of the adapter, ``"0.0.2300"``.
        :param target_wwn: the port's WWPN, with or without ``0x``.
        :param lun: FCP LUN, ``"0x0001000000000000"``.
        """
        zfcp.configure(self.host, self._call("unit_add"), _unit(device_number, target_wwn, lun))

    def deconfigure_scsi_device(self, device_number: str, target_wwn: str, lun: str) -> None:
        """Take a LUN of a port away, and its disk; nothing is written out. A failure is logged."""
        zfcp.remove_unit(
            self.host, self._call("unit_remove"), _unit(device_number, target_wwn, lun)
        )


class LinuxFibreChannelPPC64(LinuxFibreChannel):
    """Fibre Channel ports of a host on POWER."""

    def rescan_hosts(self, hbas: Iterable[Mapping[str, Any]], target_lun: Any) -> None:
        """As :meth:`LinuxFibreChannel.rescan_hosts`.

        :param target_lun: the volume's properties; or just a LUN, which is looked for behind the
            ports that a dictionary names as ``target_wwn``; one without that key is passed over.
        """
        if isinstance(target_lun, Mapping):
            super().rescan_hosts(hbas, target_lun)
            return
        for hba in hbas:
            wwns = hba.get("target_wwn")
            if wwns:
                given = {"target_wwn": wwns, "target_lun": target_lun}
                super().rescan_hosts([hba], {**given, "enable_wildcard_scan": False})


def _described(hba: Hba) -> dict[str, str]:
    return {
        "ClassDevice": hba.name,
        "ClassDevicepath": hba.path,
        "port_name": f"0x{hba.port_name}",
        "node_name": f"0x{hba.node_name}",
        "port_state": hba.state,
    }


def _info(hba: Hba) -> dict[str, str]:
    return {
        "port_name": hba.port_name,
        "node_name": hba.node_name,
        "host_device": hba.name,
        "device_path": hba.path,
    }


def _unit(device_number: str, target_wwn: str, lun: str) -> Unit:
    return Unit(device_number, fc.parse_wwn(target_wwn) or target_wwn, lun)
