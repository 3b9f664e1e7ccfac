# SPDX-License-Identifier: Apache-2.0
"""What there is on a host, in words: to compare before and after."""

from __future__ import annotations

import os
from collections.abc import Callable

from os_brick.testing.block import Devices
from os_brick.testing.device_mapper import DeviceMapper
from os_brick.testing.multipath import Multipathd
from os_brick.testing.open_iscsi import Database, Iscsid
from os_brick.testing.sessions import Sessions
from os_brick.testing.world import World
from os_brick.testing.zfcp import Zfcp


class Inventory:
    """Lists sessions, records, devices, maps, units, links and what the daemons remember."""

    def __init__(
        self,
        world: World,
        devices: Devices,
        mapper: DeviceMapper,
        sessions: Sessions,
        database: Database,
        iscsid: Iscsid,
        multipathd: Multipathd,
        zfcp: Zfcp,
    ) -> None:
        self._world = world
        self._devices = devices
        self._mapper = mapper
        self._sessions = sessions
        self._database = database
        self._iscsid = iscsid
        self._multipathd = multipathd
        self._zfcp = zfcp
        #: Called for further lines, one for each thing.
        self.more: list[Callable[[], list[str]]] = []

    def all(self) -> list[str]:
        """Return one line for each thing."""
        with self._world.lock:
            return [
                *(
                    f"session {one.sid} to {one.iqn} through {one.portal.text}"
                    for one in self._sessions.all()
                ),
                *(f"log-in under way to {one.node.place}" for one in self._iscsid.under_way),
                *(f"node record {one.place}" for one in self._database.nodes.values()),
                *(f"map {one.dm_name} ({one.name})" for one in self._mapper.all()),
                *(
                    f"device {self._describe(name)}"
                    for name in self._devices.names()
                    if name[:3] != "dm-"
                ),
                *self._zfcp.units(),
                *(f"path {one.name} in multipathd" for one in self._multipathd.paths),
                *(f"link {link}" for link in self._links()),
                *(line for more in self.more for line in more()),
            ]

    def _describe(self, name: str) -> str:
        hctl = os.path.basename(os.path.realpath(self._world.sys.path(f"block/{name}/device")))
        return f"{name} [{hctl}]"

    def _links(self) -> list[str]:
        found = []
        for folder, _directories, _files in os.walk(self._world.dev.root):
            for name in sorted(os.listdir(folder)):
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    where = "" if os.path.exists(path) else " (dangling)"
                    found.append(path.replace(self._world.dev.root, "/dev", 1) + where)
        return sorted(found)
