# SPDX-License-Identifier: Apache-2.0
"""What a Fibre Channel scenario needs: volumes behind the fabric, and their properties.

Also attaching and detaching by the fewest steps that have the same effect, without the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..targets import lio, tcm_fc
from ..targets.tcm_fc import INITIATORS, TARGETS, Port
from . import by_hand, host_state, kernel
from .lab import MIB, Lab


def volume(
    lab: Lab,
    lun: int = 1,
    *,
    targets: Sequence[Port] = TARGETS,
    initiators: Sequence[Port] = INITIATORS,
    size: int = 64 * MIB,
) -> lio.Volume:
    """Make a volume and show it as a LUN; brings the fabric up if it is not."""
    tcm_fc.up()
    made = lab.volume(size)
    tcm_fc.map_volume(lun, made, targets, initiators)
    return made


def properties(
    lun: int = 1,
    *,
    targets: Sequence[Port] = TARGETS,
    initiators: Sequence[Port] = INITIATORS,
    **more: Any,
) -> dict[str, Any]:
    """Return connection properties as an array's driver gives them, names in upper case."""
    wwpns = [port.wwpn.upper() for port in targets]
    found: dict[str, Any] = {
        "target_discovered": True,
        "target_wwn": wwpns,
        "target_lun": lun,
        # The array's own ports are ports of this machine too: they are not to be used.
        "initiator_target_map": {port.wwpn.upper(): list(wwpns) for port in initiators},
        "volume_id": f"volume-{lun}",
        "access_mode": "rw",
        "encrypted": False,
        "qos_specs": None,
    }
    return found | more


def attach_by_hand(
    lun: int,
    wwid: str,
    targets: Sequence[Port] = TARGETS,
    initiators: Sequence[Port] = INITIATORS,
) -> by_hand.Attached:
    """Scan the LUN behind each target, wait for disks (and, with several, their map)."""
    for initiator in initiators:
        for target in targets:
            number = tcm_fc.target_number(initiator, target)
            kernel.write(f"/sys/class/scsi_host/{initiator.host}/scan", f"0 {number} {lun}")
    count = len(targets) * len(initiators)
    disks = kernel.wait_for(lambda: _all(count, host_state.disks(wwid)), "the disks")
    if count == 1:
        return by_hand.Attached(f"/dev/{disks[0]}", tuple(disks), "")
    dm = kernel.wait_for(lambda: host_state.map_of(wwid) or "", "the map")
    kernel.wait_for(lambda: len(host_state.paths_of(dm)) == count, "all paths in the map")
    kernel.run("multipath", "-C", dm)
    return by_hand.Attached(f"/dev/{dm}", tuple(disks), kernel.read(f"/sys/block/{dm}/dm/name"))


def detach_by_hand(attached: by_hand.Attached) -> None:
    """Flush, remove the map, delete the disks, wait until they are gone."""
    if attached.map_name:
        kernel.run("multipath", "-f", attached.map_name)
    else:
        kernel.run("blockdev", "--flushbufs", attached.path)
    for disk in attached.disks:
        kernel.write(f"/sys/block/{disk}/device/delete", "1")
    kernel.wait_for(lambda: not set(attached.disks) & set(host_state.disks()), "disks gone")


def _all(wanted: int, disks: list[str]) -> list[str]:
    return disks if len(disks) == wanted else []
