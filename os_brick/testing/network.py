# SPDX-License-Identifier: Apache-2.0
"""The network between the host and the array: portals by address, and names."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from os_brick.testing import storage
from os_brick.testing.storage import IscsiTarget, Portal
from os_brick.testing.world import World


class FakeNetwork:
    """Stands in for :class:`os_brick.initiator.linux.network.SystemNetwork`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.portals: dict[tuple[str, int], Portal] = {}
        self.targets: list[IscsiTarget] = []
        #: Addresses by host name; a name that is not here has none.
        self.names: dict[str, list[str]] = {}
        #: What asking the name service raises; None: it answers.
        self.name_service_error: OSError | None = None
        #: Called with address and port each time the library asks whether a portal answers.
        self.when_asked: list[Callable[[str, int], object]] = []

    def portal(self, address: str, port: int) -> Portal:
        """Return the portal at an address; it is made if there is none."""
        return self.portals.setdefault((address, port), Portal(address, port, self._world))

    def find_portal(self, address: str, port: int) -> Portal | None:
        """Return the portal that an address or a host name leads to."""
        for one in self.names.get(address, [address]):
            if (one, port) in self.portals:
                return self.portals[one, port]
        return None

    def find_target(self, iqn: str, portal: Portal) -> tuple[IscsiTarget, int] | None:
        """Return the target with a name behind a portal, and the index of that path."""
        for target in self.targets:
            index = target.serves(iqn, portal)
            if index is not None:
                return target, index
        return None

    # -- the door: os_brick.initiator.linux.network.Network --------------------------------
    def answers(self, address: str, port: int, limit_s: float) -> bool:
        for listener in self.when_asked:
            listener(address, port)
        portal = self.find_portal(address, port)
        state = portal.state if portal is not None else storage.SILENT
        if state == storage.REFUSES:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        if state in (storage.SILENT, storage.DEAD):
            self._world.spend(limit_s)
            return False
        return True

    def addresses(self, name: str) -> list[str]:
        if self.name_service_error is not None:
            raise self.name_service_error
        return list(self.names.get(name, []))
