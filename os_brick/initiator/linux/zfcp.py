# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel of IBM Z: the zfcp driver's adapters, ports and units.

Behind a zfcp adapter in NPIV mode, LUNs are found as everywhere if the driver's parameter
``allow_lun_scan`` is on. Else a LUN exists for the host only while it is configured as a *unit* of
its port. In sysfs an adapter is ``bus/ccw/drivers/zfcp/<0.0.2300>``, with a directory for each port
(``0x<WWPN>``) and in that one for each unit (``0x<FCP LUN>``). Sources: "Device Drivers, Features,
and Commands" of Linux on IBM Z, chapter on the SCSI-over-Fibre-Channel driver, and the kernel's
``drivers/s390/scsi/zfcp_sysfs.c``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oslo_concurrency import processutils
from oslo_log import log as logging

from os_brick import exception
from os_brick.initiator.linux import changes
from os_brick.initiator.linux.call import Call
from os_brick.initiator.linux.fc import Hba
from os_brick.initiator.linux.host import Host
from os_brick.initiator.linux.scsi import Disk
from os_brick.initiator.linux.sysfs import Tree

LOG = logging.getLogger(__name__)

_ADAPTERS = "bus/ccw/drivers/zfcp"
_BUS_ADDRESS = re.compile(r"[0-9a-f]{1,2}\.[0-9a-f]\.[0-9a-f]{4}")
_YES = ("Y", "1")


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """A LUN as it is configured for a port of a zfcp adapter.

    :ivar adapter: bus address, ``"0.0.2300"``.
    :ivar wwpn: the port's, 16 hexadecimal digits.
    :ivar lun: FCP LUN, ``"0x4010403200000000"``.
    """

    adapter: str
    wwpn: str
    lun: str

    def __str__(self) -> str:
        return f"zfcp unit {self.lun} of 0x{self.wwpn} on {self.adapter}"


# -- numbers ---------------------------------------------------------------------------------
def kernel_lun(lun: int) -> int:
    """Return the kernel's number of a LUN that a driver gives for IBM Z.

    Drivers count the two levels of a LUN in the order of its bytes: 0x40104032 is the FCP LUN
    0x4010403200000000. The kernel counts the first level lowest (``scsilun_to_int``).

    :raises InvalidParameterValue: it has more than two levels (bug 1488233).
    """
    if lun <= 0xFFFF:
        return lun
    if lun > 0xFFFFFFFF:
        raise exception.InvalidParameterValue(
            err=f"target_lun: expected a LUN of at most 32 bits on this platform, got {lun:#x}"
        )
    return (lun & 0xFFFF) << 16 | lun >> 16


def fcp_lun(number: int) -> str:
    """Return the kernel's number of a LUN as the 64 bits on the wire (``int_to_scsilun``)."""
    levels = (number >> shift & 0xFFFF for shift in (0, 16, 32, 48))
    return "0x" + "".join(f"{level:04x}" for level in levels)


# -- reading ---------------------------------------------------------------------------------
def adapter_of(hba: Hba) -> str | None:
    """Return the bus address of a zfcp adapter; None if the port is another driver's."""
    return hba.bus_address if _BUS_ADDRESS.fullmatch(hba.bus_address) else None


def knows_port(sysfs: Tree, adapter: str, wwpn: str) -> bool:
    """Tell whether an adapter has a port."""
    return sysfs.exists(_ADAPTERS, adapter, f"0x{wwpn}")


def is_configured(sysfs: Tree, unit: Unit) -> bool:
    """Tell whether a unit exists."""
    return sysfs.exists(_ADAPTERS, unit.adapter, f"0x{unit.wwpn}", unit.lun)


def finds_luns(sysfs: Tree, hba: Hba) -> bool:
    """Tell whether LUNs are found behind a port without units."""
    allowed = sysfs.text("module/zfcp/parameters/allow_lun_scan") in _YES
    return allowed and sysfs.text("class/fc_host", hba.name, "port_type").startswith("NPIV")


def finds_ports(sysfs: Tree) -> bool:
    """Tell whether the driver looks for ports in the fabric by itself."""
    return sysfs.text("module/zfcp/parameters/no_auto_port_rescan") not in _YES


def unit_of(sysfs: Tree, disk: Disk) -> Unit | None:
    """Return the unit by which a disk exists; None if it exists without."""
    device = ("bus/scsi/devices", str(disk.hctl))
    adapter = sysfs.text(*device, "hba_id")
    if not adapter:
        return None  # not zfcp's
    wwpn = sysfs.text(*device, "wwpn").removeprefix("0x")
    unit = Unit(adapter, wwpn, sysfs.text(*device, "fcp_lun"))
    return unit if unit.wwpn and unit.lun and is_configured(sysfs, unit) else None


# -- doing -----------------------------------------------------------------------------------
def configure(host: Host, call: Call, unit: Unit) -> bool | None:
    """Configure a unit, which shows its disk; its port is looked for if it is not known.

    :returns: False if the driver refused, which is only logged: where LUNs are found without units
        it may, and another service may have been faster. None if the driver has not come to an end
        with it, so that the unit may still come.
    """
    asked = False
    try:
        if not knows_port(host.sysfs, unit.adapter, unit.wwpn):
            host.changes.rescan_ports(call, unit.adapter)
        asked = True
        host.changes.configure_unit(call, unit.adapter, unit.wwpn, unit.lun)
    except changes.FAILURES as exc:
        LOG.warning("%s could not be added: %s", unit, exc)
        return None if asked and _goes_on(exc) else False
    return True


def _goes_on(failure: Exception) -> bool:
    """Tell whether what failed was only given up waiting for."""
    if isinstance(failure, processutils.ProcessExecutionError):
        return not isinstance(failure.exit_code, int)
    return isinstance(failure, TimeoutError)


def remove_unit(host: Host, call: Call, unit: Unit) -> bool:
    """Remove a unit, and its disk with it; tell whether the driver did so.

    A failure is only logged: the disk can be removed without its unit.
    """
    try:
        host.changes.remove_unit(call, unit.adapter, unit.wwpn, unit.lun)
    except changes.FAILURES as exc:
        LOG.warning("%s could not be removed: %s", unit, exc)
        return False
    return True
