# SPDX-License-Identifier: Apache-2.0
"""What the contenders work on where the protocol is Fibre Channel."""

from __future__ import annotations

from typing import Any

from ..guest import daemons, data, fc, host_state, udev
from ..targets import tcm_fc
from .stage import SIZE, Stage, multipath_config


class FcStage(Stage):
    """LUNs of one array, each by so many ways as the case has paths; nobody else is attached.

    As fabrics are zoned, each HBA has one port of the array to itself.
    """

    def build(self) -> None:
        """Bring up the fabric and show the LUNs."""
        daemons.Multipathd().start(multipath_config(self._case))
        tcm_fc.up()
        ways = list(zip(tcm_fc.INITIATORS, tcm_fc.TARGETS, strict=True))[: self._case.portals]
        self._exported = [self._world.volume(SIZE) for _ in range(self._case.volumes)]
        self.volumes = []
        for lun, volume in enumerate(self._exported, start=1):
            # Nobody gets more paths than the others, whatever he scans.
            for initiator, target in ways:
                tcm_fc.map_volume(lun, volume, [target], [initiator])
            volume.write(0, data.pattern(volume.name, data.BLOCK))
            self.volumes.append((volume.name, _properties(lun, ways)))
        udev.settle()
        self._normal = host_state.look(ask_multipathd=False)


def _properties(lun: int, ways: list[tuple[tcm_fc.Port, tcm_fc.Port]]) -> dict[str, Any]:
    return fc.properties(
        lun,
        targets=[target for _, target in ways],
        initiator_target_map={
            initiator.wwpn.upper(): [target.wwpn.upper()] for initiator, target in ways
        },
    )
