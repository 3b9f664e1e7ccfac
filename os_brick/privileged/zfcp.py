# SPDX-License-Identifier: Apache-2.0
"""Changes of IBM Z's Fibre Channel driver that need root, each with checked arguments.

An adapter asks its fabric for ports, and a LUN is configured for a port, by writes to files of the
zfcp driver (kernel: ``drivers/s390/scsi/zfcp_sysfs.c``).
"""

from __future__ import annotations

import re

from os_brick import privileged
from os_brick.privileged import guarded

_ADAPTERS = "/sys/bus/ccw/drivers/zfcp"
_ADAPTER = re.compile(r"[0-9a-f]{1,2}\.[0-9a-f]\.[0-9a-f]{4}", re.ASCII)
_WWPN = re.compile(r"0x[0-9a-f]{16}", re.ASCII)
_LUN = re.compile(r"0x[0-9a-f]{16}", re.ASCII)
_VERB = re.compile(r"unit_add|unit_remove", re.ASCII)


@privileged.default.entrypoint
def rescan_ports(adapter: str, limit_s: float) -> None:
    """Have an adapter ask its fabric for ports.

    :param adapter: its bus address, ``"0.0.2300"``.
    :raises TimeoutError: when the kernel had not finished after ``limit_s`` seconds (it goes on).
    :raises OSError: what the kernel answered.
    """
    address = guarded.checked(_ADAPTER, adapter, "adapter")
    guarded.write_file(f"{_ADAPTERS}/{address}/port_rescan", "1", limit_s)


@privileged.default.entrypoint
def change_unit(adapter: str, wwpn: str, verb: str, lun: str, limit_s: float) -> None:
    """Configure a LUN of a port, or take it away again, and with it its disk.

    :param wwpn: the port's name, ``"0x500507630300c562"``.
    :param verb: ``"unit_add"`` or ``"unit_remove"``.
    :param lun: FCP LUN, ``"0x4010403200000000"``.
    :raises TimeoutError: when the kernel had not finished after ``limit_s`` seconds (it goes on).
    :raises OSError: what the kernel answered: EEXIST for a unit that is there already, EINVAL for
        one that is not.
    """
    parts = (
        guarded.checked(_ADAPTER, adapter, "adapter"),
        guarded.checked(_WWPN, wwpn, "port"),
        guarded.checked(_VERB, verb, "verb"),
    )
    unit = guarded.checked(_LUN, lun, "LUN")
    guarded.write_file("/".join((_ADAPTERS, *parts)), unit, limit_s)
