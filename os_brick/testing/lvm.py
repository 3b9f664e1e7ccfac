# SPDX-License-Identifier: Apache-2.0
"""LVM of a fake host: volume groups on disks of its own, volumes as device-mapper mappings.

Its programs are in :mod:`os_brick.testing.lvm_programs`.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field

from os_brick.testing import block
from os_brick.testing.block import BlockDevice, Devices
from os_brick.testing.device_mapper import DeviceMapper, Mapping
from os_brick.testing.storage import Unit
from os_brick.testing.world import World

MIB = 1 << 20
GIB = 1 << 30
EXTENT = 4 * MIB
_LOOP_MAJOR = 7


@dataclass(eq=False)
class LoopDisk(BlockDevice):
    """A disk of this host that no array is behind."""

    unit: Unit | None = None

    def storage(self) -> tuple[str, Unit | None]:
        return block.ALIVE, self.unit


@dataclass(eq=False)
class Disk:
    """A physical volume."""

    path: str
    size: int
    device: LoopDisk
    missing: bool = False
    #: Bytes that volumes take of it.
    used: int = 0


@dataclass(eq=False)
class Volume:
    """A logical volume.

    :ivar kind: ``-`` plain, ``o`` origin, ``s`` thick snapshot, ``t`` pool, ``V`` thin, ``m``
        mirror.
    """

    name: str
    size: int
    kind: str = "-"
    origin: str = ""
    pool: str = ""
    percent: str = ""
    made_at: int = 0
    mapping: Mapping | None = None
    #: The flag by which it is left out when its group is activated.
    skip: bool = False
    #: Words that made it.
    words: tuple[str, ...] = ()


@dataclass(eq=False)
class Group:
    """A volume group."""

    name: str
    uuid: str
    disks: list[Disk]
    volumes: dict[str, Volume] = field(default_factory=dict)
    #: Somebody's file system was where the next thick volume will be.
    old_signature: bool = False

    @property
    def size(self) -> int:
        """Bytes of all its disks."""
        return sum(disk.size for disk in self.disks)

    @property
    def free(self) -> int:
        """Bytes that no volume takes."""
        return self.size - sum(one.size for one in self.volumes.values() if one.kind != "V")


class Lvm:
    """All groups of the host, and disks for more."""

    def __init__(self, world: World, devices: Devices, mapper: DeviceMapper) -> None:
        self._world = world
        self._devices = devices
        self._mapper = mapper
        self._numbers = itertools.count()
        self.groups: list[Group] = []
        #: Version that the programs state.
        self.version = "2.03.16(2) (2022-05-18)"
        #: Whether its configuration allows mirrors whose log is mirrored.
        self.mirrored_logs = True
        #: Volumes whose mapping stays for so many virtual seconds after a deactivation.
        self.lingering: dict[str, float] = {}

    # -- what tests arrange -------------------------------------------------------------------
    def disk(self, size: int = 10 * GIB) -> str:
        """Put a disk into the host that is of no group; return its path."""
        number = next(self._numbers)
        name = f"loop{number}"
        device = LoopDisk(
            name,
            (_LOOP_MAJOR, number),
            f"devices/virtual/block/{name}",
            size,
            unit=Unit("", "", size, device_type=0),
        )
        with self._world.lock:
            self._devices.add(device, {})
        return f"/dev/{name}"

    def group(self, name: str = "vg", *sizes: int) -> Group:
        """Make a group of new disks with these sizes (one of 10 GiB)."""
        with self._world.lock:
            return self.make_group(name, [self.disk(size) for size in sizes or (10 * GIB,)])

    def volume(self, group: Group, name: str, size: int = GIB, **more: object) -> Volume:
        """Make a volume as it was long ago; see :class:`Volume` for what more can be said."""
        made = Volume(name, size, **more)  # type: ignore[arg-type]
        with self._world.lock:
            group.volumes[name] = made
        return made

    # -- what programs do ---------------------------------------------------------------------
    def make_group(self, name: str, paths: list[str]) -> Group:
        """Make a group of disks that are there."""
        disks = []
        for path in paths:
            device = self._devices.find(path)
            if not isinstance(device, LoopDisk):
                raise LookupError(path)
            disks.append(Disk(path, device.size // EXTENT * EXTENT, device))
        uuid = f"Rk{len(self.groups):04d}-aaaa-bbbb-cccc-dddd-eeee-ffffff"
        made = Group(name, uuid, disks)
        self.groups.append(made)
        return made

    def find_groups(self, name: str) -> list[Group]:
        """Return the groups of a name."""
        return [one for one in self.groups if one.name == name]

    def find(self, path: str) -> tuple[Group, Volume] | None:
        """Return the volume at ``group/name``."""
        group_name, _slash, name = path.removeprefix("/dev/").partition("/")
        for group in self.find_groups(group_name):
            if name in group.volumes:
                return group, group.volumes[name]
        return None

    def add(self, group: Group, volume: Volume) -> None:
        """Make a volume now, active."""
        volume.made_at = int(time.time())
        group.volumes[volume.name] = volume
        self.activate(group, volume)

    def activate(self, group: Group, volume: Volume) -> None:
        """Give a volume its mapping."""
        if volume.mapping is None or volume.mapping.gone:
            label = label_of(group.name, volume.name)
            uuid = f"LVM-{group.uuid.replace('-', '')}{volume.name}"
            volume.mapping = self._mapper.create(Mapping, label, uuid, [group.disks[0].device])
            self._devices.resize(volume.mapping, volume.size)

    def deactivate(self, volume: Volume) -> bool:
        """Take a volume's mapping away; False if it is in use."""
        mapping = volume.mapping
        if mapping is None or mapping.gone:
            return True
        if mapping.openers:
            return False
        delay = self.lingering.get(volume.name, 0.0)
        if delay:
            self._world.after(delay, lambda: self._mapper.remove(mapping))
        else:
            self._mapper.remove(mapping)
        volume.mapping = None
        return True

    def suspend(self, volume: Volume, suspended: bool = True) -> None:
        """Have I/O to an active volume wait, as LVM does while it changes it; or go on."""
        mapping = volume.mapping
        if mapping is not None:
            mapping.suspended = suspended
            self._world.sys.write(f"{mapping.sysfs}/dm/suspended", int(suspended))

    def snapshots_of(self, group: Group, volume: Volume) -> list[Volume]:
        """Return the thick snapshots of a volume."""
        return [
            one for one in group.volumes.values() if one.kind == "s" and one.origin == volume.name
        ]

    def resize(self, volume: Volume, size: int) -> None:
        """Give a volume another size."""
        volume.size = size
        if volume.mapping is not None:
            self._devices.resize(volume.mapping, size)

    def rename(self, group: Group, volume: Volume, name: str) -> None:
        """Give a volume another name; what is active stays so."""
        active = volume.mapping is not None
        self.deactivate(volume)
        del group.volumes[volume.name]
        volume.name = name
        group.volumes[name] = volume
        if active:
            self.activate(group, volume)


def label_of(group: str, volume: str) -> str:
    """Name of a volume's mapping."""
    return "-".join(part.replace("-", "--") for part in (group, volume))
