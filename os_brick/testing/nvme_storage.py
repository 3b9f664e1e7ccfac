# SPDX-License-Identifier: Apache-2.0
"""The array's side of NVMe over Fabrics: subsystems, their ports and namespaces."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from os_brick.testing.storage import GIB, Portal, Unit
from os_brick.testing.world import World

OPTIMIZED, NON_OPTIMIZED, INACCESSIBLE = "optimized", "non-optimized", "inaccessible"


@dataclass(eq=False)
class NamespaceUnit(Unit):
    """A namespace: what a volume is, whatever number leads to it."""

    uuid: str = ""
    nguid: str = ""
    block_size: int = 512
    #: Formats that the namespace lists: bytes in a block; ``block_size`` is the one in use.
    formats: tuple[int, ...] = (512, 4096)
    #: What it carries of an md array.
    superblock: Superblock | None = None


@dataclass
class Superblock:
    """What a member of an md array knows of it."""

    uuid: str
    name: str
    role: int
    events: int
    #: Of each place: ``A`` active, ``.`` missing.
    state: str


@dataclass(eq=False)
class Subsystem:
    """A subsystem with its portals; every namespace shows on all of them unless ANA says no."""

    nqn: str
    portals: list[Portal]
    transport: str
    world: World
    make: Callable[..., NamespaceUnit]
    namespaces: dict[int, NamespaceUnit] = field(default_factory=dict)
    #: Whether hosts are told of changes (asynchronous events).
    sends_events: bool = True
    #: Whether it has lists of its namespaces' identifiers (NVMe 1.3 on).
    describes: bool = True
    #: ANA state by portal's index and namespace number; others are optimized. None: no ANA.
    ana: dict[tuple[int, int], str] | None = None
    #: Namespaces that a portal (by index) does not show.
    hidden: set[tuple[int, int]] = field(default_factory=set)
    #: Host NQNs that may connect; None for all.
    allowed_hosts: set[str] | None = None
    listeners: list[Callable[[Subsystem], None]] = field(default_factory=list)

    # -- what it shows ---------------------------------------------------------------------
    def shown(self, index: int) -> dict[int, NamespaceUnit]:
        """Return the namespaces by number as one portal shows them now."""
        return {
            nsid: unit for nsid, unit in self.namespaces.items() if (index, nsid) not in self.hidden
        }

    def ana_state(self, index: int, nsid: int) -> str:
        """Return the ANA state of a namespace on a portal; empty text without ANA."""
        return "" if self.ana is None else self.ana.get((index, nsid), OPTIMIZED)

    # -- what the array does ---------------------------------------------------------------
    def namespace(
        self,
        nsid: int | None = None,
        *,
        size: int = GIB,
        with_uuid: bool = True,
        with_nguid: bool = True,
        mapped: bool = True,
        **unit: Any,
    ) -> NvmeVolume:
        """Make a namespace and show it.

        :param with_uuid: whether it has a UUID; the kernel shows the NGUID as such if not.
        :param mapped: False leaves it out for :meth:`NvmeVolume.map_after`.
        """
        number = nsid or max(self.namespaces, default=0) + 1
        made = self.make(size=size, **unit)
        if with_uuid and not made.uuid:
            made.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"uuid {made.serial}"))
        if with_nguid and not made.nguid:
            made.nguid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"nguid {made.serial}"))
        volume = NvmeVolume(self, number, made)
        if mapped:
            volume.map()
        return volume

    def changed(self) -> None:
        """Tell the hosts, if it does so."""
        for listener in self.listeners:
            listener(self)
        self.world.notify()

    def set_ana(self, index: int, nsid: int, state: str) -> None:
        """Set an ANA state; hosts are told at once, as ANA demands."""
        with self.world.lock:
            self.ana = self.ana or {}
            self.ana[index, nsid] = state
            self.changed()


class NvmeVolume:
    """A namespace of a subsystem: what a service calls a volume."""

    def __init__(self, subsystem: Subsystem, nsid: int, unit: NamespaceUnit) -> None:
        self.subsystem = subsystem
        self.nsid = nsid
        self.unit = unit

    @property
    def data(self) -> bytes:
        """All that was ever written to it and reached the storage."""
        return self.unit.data

    # -- properties ------------------------------------------------------------------------
    @property
    def properties(self) -> dict[str, Any]:
        """Connection properties of the new format, by UUID (by NGUID if it has none)."""
        return self.connection("uuid" if self.unit.uuid else "nguid")

    def connection(self, *ids: str, transport: str | None = None, **more: Any) -> dict[str, Any]:
        """Return connection properties of the new format.

        :param ids: which identifiers they have: ``uuid``, ``nguid``, ``nsid``.
        :param more: further keys.
        """
        kind = transport or self.subsystem.transport
        data: dict[str, Any] = {
            "target_nqn": self.subsystem.nqn,
            "portals": [[one.address, one.port, kind] for one in self.subsystem.portals],
            "vol_uuid": self.unit.uuid if "uuid" in ids else None,
            "volume_id": f"volume-{self.unit.serial}",
            "access_mode": "rw",
            "encrypted": False,
            "qos_specs": None,
        }
        if "nguid" in ids:
            data["volume_nguid"] = self.unit.nguid
        if "nsid" in ids:
            data["ns_id"] = self.nsid
        return data | more

    def old_connection(self, *ids: str, **more: Any) -> dict[str, Any]:
        """Return connection properties of the old format."""
        portal = self.subsystem.portals[0]
        data: dict[str, Any] = {
            "nqn": self.subsystem.nqn,
            "target_portal": portal.address,
            "target_port": portal.port,
            "transport_type": self.subsystem.transport,
        }
        if "nguid" in ids:
            data["volume_nguid"] = self.unit.nguid
        if "nsid" in ids:
            data["ns_id"] = self.nsid
        return data | more

    # -- what the array does with it -------------------------------------------------------
    def _set(self, unit: NamespaceUnit | None) -> None:
        with self.subsystem.world.lock:
            if unit is None:
                self.subsystem.namespaces.pop(self.nsid, None)
            else:
                self.subsystem.namespaces[self.nsid] = unit
            self.subsystem.changed()

    def map(self) -> None:
        """Show it under its number."""
        self._set(self.unit)

    def map_after(self, seconds: float) -> None:
        """Show it under its number only in so many virtual seconds."""
        self._set(None)
        self.subsystem.world.after(seconds, self.map)

    def vanish(self) -> None:
        """Take it away."""
        self._set(None)

    def remap(self, **unit: Any) -> NvmeVolume:
        """Give its number to another volume, made here, and return that."""
        other = self.subsystem.namespace(self.nsid, mapped=False, **unit)
        other.map()
        return other

    def grow(self, size: int) -> None:
        """Enlarge it to ``size`` bytes."""
        with self.subsystem.world.lock:
            self.unit.size = size
            self.subsystem.changed()


def replicated(
    alias: str, legs: Sequence[NvmeVolume], count: int | None = None, **more: Any
) -> dict[str, Any]:
    """Return connection properties of a replicated volume.

    :param count: ``replica_count``; None leaves it out.
    """
    replicas = [
        {
            key: value
            for key, value in leg.properties.items()
            if key in ("target_nqn", "portals", "vol_uuid", "volume_nguid")
        }
        for leg in legs
    ]
    data = {
        "vol_uuid": "9a2d9b1f-5be6-4c5a-a1ea-b9d2e6fc0bd5",
        "alias": alias,
        "volume_replicas": replicas,
        "writable": True,
    }
    if count is not None:
        data["replica_count"] = count
    return data | more
