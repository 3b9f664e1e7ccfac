# SPDX-License-Identifier: Apache-2.0
"""The array's side: units, the LUNs under which targets show them, and the portals to the
targets."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from os_brick.initiator.linux.scsi import lun_for_addressing, same_lun
from os_brick.testing.world import World

GIB = 1024**3
V = TypeVar("V", bound="MappedUnit")
#: State of a portal; ``hangs`` answers TCP connections but no log-in.
UP, SILENT, REFUSES, HANGS, DEAD = "up", "silent", "refuses", "hangs", "dead"


@dataclass(frozen=True)
class LuksHeader:
    """A header of LUKS on a volume."""

    version: int
    passphrase: str
    uuid: str = "0" * 32
    #: cryptsetup takes it for none, though its magic is there.
    damaged: bool = False


@dataclass(eq=False)
class Unit:
    """A logical unit of the array: what a volume is, whatever LUN leads to it."""

    wwid: str
    serial: str
    size: int
    vendor: str = "LIO-ORG"
    model: str = "disk"
    device_type: int = 0
    read_only: bool = False
    #: All that ever reached the storage, in the order of its arrival.
    data: bytes = b""
    luks: LuksHeader | None = None
    #: What blkid finds on it: ``"ext4"``.
    signature: str = ""


@dataclass(eq=False)
class Portal:
    """One address of the array. Its faults hit every session through it."""

    address: str
    port: int
    world: World
    state: str = UP
    #: Virtual seconds that a log-in takes instead of the host's usual delay.
    login_s: float | None = None
    #: Seconds between a path's death and the kernel giving it up: the device is ``blocked``
    #: meanwhile.
    recovery_s: float = 0.0
    listeners: list[Callable[[Portal], None]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its name in connection properties: ``"10.0.0.1:3260"``, IPv6 in brackets."""
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )

    def silent(self) -> None:
        """Drop every packet from now on, as a firewall or a dead router does. Sessions notice
        nothing yet."""
        self._become(SILENT)

    def refuse(self) -> None:
        """Refuse new connections."""
        self._become(REFUSES)

    def hang(self) -> None:
        """Accept TCP connections but never answer a log-in."""
        self._become(HANGS)

    def kill(self, recovery_s: float = 0.0) -> None:
        """Lose the way to this portal: its sessions fail and their disks with them.

        :param recovery_s: the disks are ``blocked`` so long (their I/O hangs) before the kernel
            fails them.
        """
        self.recovery_s = recovery_s
        self._become(DEAD)

    def restore(self) -> None:
        """Let all be well again; failed sessions come back."""
        self._become(UP)

    def _become(self, state: str) -> None:
        with self.world.lock:
            self.state = state
            for listener in self.listeners:
                listener(self)
        self.world.notify()


@dataclass(eq=False)
class Chap:
    """What a target wants to hear at log-in."""

    username: str
    password: str


class LunTable(Generic[V]):
    """A target's view of the array: which unit each of its ports shows under which LUN.

    :param units: makes units.
    :param ports: number of its ports.
    """

    def __init__(self, world: World, units: Callable[..., Unit], ports: int) -> None:
        self._world = world
        self._units = units
        self._luns: list[dict[int, Unit]] = [{} for _ in range(ports)]

    def volume(
        self, unit: Unit, numbers: list[int], addressing: str | None, reported: str | None
    ) -> V:
        """Return a unit under LUNs of this target as a volume."""
        raise NotImplementedError

    def luns(self, index: int) -> dict[int, Unit]:
        """Return the units by kernel LUN number as one port shows them now."""
        return dict(self._luns[index])

    def unit(self, index: int, lun: int) -> Unit | None:
        """Return the unit at a LUN of one port, whatever addressing method its number has."""
        for number, unit in self._luns[index].items():
            if same_lun(number, lun):
                return unit
        return None

    def lun(
        self,
        number: int | Sequence[int],
        *,
        size: int = GIB,
        wwid: str | None = None,
        addressing: str | None = None,
        reported: str | None = None,
        mapped: bool = True,
        device_type: int = 0,
        **unit: Any,
    ) -> V:
        """Make a volume and map it.

        :param number: the LUN, or one for each port.
        :param wwid: its identity in udev's form; made up if None, none if empty.
        :param addressing: what the driver says in ``addressing_mode``.
        :param reported: how the array codes the number in truth, if not as the driver says.
        :param mapped: False leaves it out of the targets for :meth:`MappedUnit.map_after`.
        """
        numbers = list(number) if isinstance(number, Sequence) else [number] * len(self._luns)
        made = self._units(size=size, wwid=wwid, device_type=device_type, **unit)
        volume = self.volume(made, numbers, addressing, reported or addressing)
        if mapped:
            volume.map()
        return volume

    def show(self, luns: Sequence[int], unit: Unit | None) -> None:
        """Map a unit (or nothing) at a LUN of each port."""
        with self._world.lock:
            for shown, lun in zip(self._luns, luns, strict=True):
                if unit is None:
                    shown.pop(lun, None)
                else:
                    shown[lun] = unit
        self._world.notify()


class MappedUnit:
    """A unit under LUNs of a target."""

    def __init__(
        self,
        world: World,
        table: LunTable[Any],
        unit: Unit,
        numbers: list[int],
        addressing: str | None,
        reported: str | None,
    ) -> None:
        self.unit = unit
        self.numbers = numbers
        self._world = world
        self._table = table
        self._addressing = addressing
        self._kernel_luns = [lun_for_addressing(number, reported) for number in numbers]

    # -- what it is ------------------------------------------------------------------------
    @property
    def wwid(self) -> str:
        """Its identity in udev's form."""
        return self.unit.wwid

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.unit.size

    @property
    def data(self) -> bytes:
        """All that was ever written to it and reached the storage."""
        return self.unit.data

    # -- what the array does with it -------------------------------------------------------
    def map(self) -> None:
        """Show it under its LUN."""
        self._table.show(self._kernel_luns, self.unit)

    def map_after(self, seconds: float) -> None:
        """Show it under its LUN only in so many virtual seconds."""
        self.vanish()
        self._world.after(seconds, self.map)

    def vanish(self) -> None:
        """Take it out of the targets; the host is not told."""
        self._table.show(self._kernel_luns, None)

    def remap(self, other: MappedUnit | None = None, **unit: Any) -> Self:
        """Give its LUN to another volume (made here if None); the host is not told.

        :returns: the other volume under this LUN.
        """
        made = (
            other.unit
            if other is not None
            else self._table.lun(self.numbers, mapped=False, **unit).unit
        )
        volume: Self = self._table.volume(made, self.numbers, self._addressing, self._addressing)
        volume.map()
        return volume

    def grow(self, size: int) -> None:
        """Enlarge it to ``size`` bytes; the host is not told."""
        with self._world.lock:
            self.unit.size = size
        self._world.notify()


class IscsiTarget(LunTable["Volume"]):
    """A target, or several that show the same LUNs: one name on all portals, or one name a
    portal."""

    def __init__(
        self,
        world: World,
        units: Callable[..., Unit],
        portals: Sequence[Portal],
        iqns: Sequence[str],
        chap: Chap | None = None,
        discovery_chap: Chap | None = None,
    ) -> None:
        super().__init__(world, units, len(portals))
        self.portals = list(portals)
        self.iqns = list(iqns)
        self.chap = chap
        self.discovery_chap = discovery_chap

    @property
    def iqn(self) -> str:
        """Name of the target on its first portal."""
        return self.iqns[0]

    def serves(self, iqn: str, portal: Portal) -> int | None:
        """Return the index of the path with this name and portal; None if there is none."""
        for index, pair in enumerate(zip(self.iqns, self.portals, strict=True)):
            if pair == (iqn, portal):
                return index
        return None

    def volume(
        self, unit: Unit, numbers: list[int], addressing: str | None, reported: str | None
    ) -> Volume:
        return Volume(self._world, self, unit, numbers, addressing, reported)


class Volume(MappedUnit):
    """A unit under a LUN of an iSCSI target: what a service calls a volume."""

    def __init__(
        self,
        world: World,
        target: IscsiTarget,
        unit: Unit,
        numbers: list[int],
        addressing: str | None,
        reported: str | None,
    ) -> None:
        super().__init__(world, target, unit, numbers, addressing, reported)
        self.target = target

    @property
    def properties(self) -> dict[str, Any]:
        """Connection properties as a driver gives them: the plural keys too if there are several
        portals."""
        return self.connection(plural=len(self.numbers) > 1)

    def connection(
        self,
        *,
        plural: bool = True,
        luns: bool = True,
        text_lun: bool = False,
        suffix: str = "",
        spelling: Callable[[str], str] = str,
        **more: Any,
    ) -> dict[str, Any]:
        """Return connection properties in one of the many ways to say them.

        :param plural: with the lists of portals, names and (``luns``) LUNs.
        :param text_lun: LUNs as text, as after a trip through a database.
        :param suffix: appended to portals (``",1"``).
        :param spelling: rewrites portals (upper case, a host name).
        :param more: further keys.
        """

        def say(number: int) -> int | str:
            return str(number) if text_lun else number

        portals = [spelling(portal.text) + suffix for portal in self.target.portals]
        data: dict[str, Any] = {
            "target_discovered": False,
            "target_portal": portals[0],
            "target_iqn": self.target.iqn,
            "target_lun": say(self.numbers[0]),
            "volume_id": f"volume-{self.unit.serial}",
            "access_mode": "rw",
            "encrypted": False,
            "qos_specs": None,
        }
        if plural:
            data |= {"target_portals": portals, "target_iqns": list(self.target.iqns)}
            if luns:
                data["target_luns"] = [say(number) for number in self.numbers]
        if self._addressing is not None:
            data["addressing_mode"] = self._addressing
        for prefix, chap in (("", self.target.chap), ("discovery_", self.target.discovery_chap)):
            if chap is not None:
                data |= {
                    f"{prefix}auth_method": "CHAP",
                    f"{prefix}auth_username": chap.username,
                    f"{prefix}auth_password": chap.password,
                }
        return data | more


def parse_portal(text: str) -> tuple[str, int]:
    """Return address and port of ``"10.0.0.1:3260"``, ``"[2001:db8::1]:3260,1"``; the port defaults
    to 3260."""
    text = text.partition(",")[0]
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.lstrip(":")
    elif text.count(":") > 1:
        address, port = text, ""
    else:
        address, _, port = text.partition(":")
    try:
        address = str(ipaddress.ip_address(address))
    except ValueError:
        pass  # a host name
    return address, int(port or 3260)
