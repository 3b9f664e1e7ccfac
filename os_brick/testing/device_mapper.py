# SPDX-License-Identifier: Apache-2.0
"""Device-mapper: mappings of all kinds in sysfs, and the ``dmsetup`` command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from os_brick.testing import block
from os_brick.testing.block import BlockDevice, Devices
from os_brick.testing.process import Answer, Process
from os_brick.testing.storage import Unit
from os_brick.testing.world import World

DM_MAJOR = 253


@dataclass(eq=False)
class Mapping(BlockDevice):
    """A device-mapper device on one other: LVM, a crypt mapping."""

    dm_name: str = ""
    uuid: str = ""
    slaves: list[BlockDevice] = field(default_factory=list)
    #: Its table was replaced by one that fails all I/O.
    errors: bool = False
    #: To be removed with its last user.
    deferred: bool = False
    suspended: bool = False

    def carriers(self) -> list[BlockDevice]:
        alive = [one for one in self.slaves if one.storage()[0] == block.ALIVE]
        return alive or list(self.slaves)

    def storage(self) -> tuple[str, Unit | None]:
        if self.suspended:
            return block.HANGS, None
        if self.errors or not self.slaves:
            return block.FAILS, None
        return self.slaves[0].storage()


@dataclass(eq=False)
class MultipathMap(Mapping):
    """A map over the paths of one unit."""

    wwid: str = ""
    #: With no path left, I/O is held instead of failed.
    queueing: bool = False

    def storage(self) -> tuple[str, Unit | None]:
        if self.suspended:
            return block.HANGS, None
        if self.errors:
            return block.FAILS, None
        ways = [(block.FAILS, None) if path.gone else path.storage() for path in self.slaves]
        for way in ways:
            if way[0] == block.ALIVE:
                return way
        hangs = self.queueing or any(state == block.HANGS for state, _unit in ways)
        return (block.HANGS if hangs else block.FAILS), None

    @property
    def usable(self) -> bool:
        """Whether any of its paths answers."""
        return any(not path.gone and path.storage()[0] == block.ALIVE for path in self.slaves)


AnyMapping = TypeVar("AnyMapping", bound=Mapping)


class DeviceMapper:
    """All mappings."""

    def __init__(self, world: World, devices: Devices) -> None:
        self._world = world
        self._devices = devices
        self._mappings: dict[str, Mapping] = {}
        #: Called with "add", "change" or "remove" and the mapping, as the kernel's events are.
        self.listeners: list[Callable[[str, BlockDevice], None]] = []
        devices.when_idle.append(self._idle)

    def all(self) -> list[Mapping]:
        """Return all mappings."""
        return list(self._mappings.values())

    def find(self, name: str) -> Mapping | None:
        """Return the mapping with a name, or that a path or kernel name leads to."""
        if name in self._mappings:
            return self._mappings[name]
        device = self._devices.find(name if "/" in name else f"/dev/{name}")
        return device if isinstance(device, Mapping) else None

    def create(
        self,
        kind: type[AnyMapping],
        dm_name: str,
        uuid: str,
        slaves: list[BlockDevice],
        **more: object,
    ) -> AnyMapping:
        """Have a mapping appear on top of devices."""
        name = self._devices.free_name("dm-")
        mapping = kind(
            name,
            (DM_MAJOR, int(name[3:])),
            f"devices/virtual/block/{name}",
            slaves[0].size,
            dm_name=dm_name,
            uuid=uuid,
        )
        for key, value in more.items():
            setattr(mapping, key, value)
        self._mappings[dm_name] = mapping
        self._devices.add(mapping, {"dm/name": dm_name, "dm/uuid": uuid, "dm/suspended": 0})
        for slave in slaves:
            self.hold(mapping, slave)
        self._tell("add", mapping)
        return mapping

    def hold(self, mapping: Mapping, slave: BlockDevice) -> None:
        """Put a mapping on one more device."""
        mapping.slaves.append(slave)
        self._devices.hold(mapping, slave)

    def release(self, mapping: Mapping, slave: BlockDevice) -> None:
        """Take a mapping off one of its devices."""
        if slave in mapping.slaves:
            mapping.slaves.remove(slave)
        self._devices.release(mapping, slave)

    def remove(self, mapping: Mapping, why: str = "its mapping was removed") -> bool:
        """Have a mapping disappear; False if it is in use."""
        if mapping.openers:
            return False
        if mapping.gone:
            return True
        slaves = list(mapping.slaves)
        self._mappings.pop(mapping.dm_name, None)
        self._devices.drop(mapping, why)
        self._tell("remove", mapping)
        for slave in slaves:
            self.release(mapping, slave)
        return True

    def _idle(self, device: BlockDevice) -> None:
        if isinstance(device, Mapping) and device.deferred and not device.gone:
            self.remove(device)

    def _tell(self, what: str, mapping: Mapping) -> None:
        for listener in self.listeners:
            listener(what, mapping)


class Dmsetup:
    """The ``dmsetup`` command."""

    def __init__(self, world: World, mapper: DeviceMapper) -> None:
        self._world = world
        self._mapper = mapper

    def __call__(self, process: Process) -> Answer:
        words = list(process.words[1:])
        verbs = {
            "remove": self._remove,
            "info": self._info,
            "message": self._message,
            "suspend": self._suspend,
            "resume": self._suspend,
        }
        verb = next((word for word in words if word in verbs), None)
        if verb is None:
            raise AssertionError(f"dmsetup: this fake does not know {' '.join(words)}")
        words.remove(verb)
        return verbs[verb](process, words)

    def _missing(self) -> Answer:
        return Answer(1, out="Device does not exist.\n", err="Command failed.\n")

    def _remove(self, process: Process, words: list[str]) -> Answer:
        options = {word for word in words if word.startswith("-")}
        unknown = options - {"--force", "-f", "--deferred", "--retry", "--noudevsync"}
        if unknown:
            raise AssertionError(f"dmsetup remove: this fake does not know {unknown}")
        mapping = self._mapper.find(next(word for word in words if not word.startswith("-")))
        if mapping is None:
            return self._missing()
        if options & {"--force", "-f"}:
            mapping.errors = True
            self._world.notify()
        if self._mapper.remove(mapping):
            return Answer()
        if "--deferred" in options:
            mapping.deferred = True
            return Answer()
        return Answer(
            1,
            err=(
                f"device-mapper: remove ioctl on {mapping.dm_name}  failed: "
                "Device or resource busy\nCommand failed.\n"
            ),
        )

    def _info(self, process: Process, words: list[str]) -> Answer:
        fields, separator, names = ["name"], ":", []
        while words:
            word = words.pop(0)
            if word in ("-o", "--options"):
                fields = words.pop(0).split(",")
            elif word == "--separator":
                separator = words.pop(0)
            elif not word.startswith("-"):
                names.append(word)
        found = [self._mapper.find(name) for name in names] if names else list(self._mapper.all())
        if not found or None in found:
            return self._missing() if names else Answer(out="No devices found\n")
        rows = [
            separator.join(_field(mapping, one) for one in fields) for mapping in found if mapping
        ]
        return Answer(out="".join(f"{row}\n" for row in rows))

    def _message(self, process: Process, words: list[str]) -> Answer:
        mapping = self._mapper.find(words[0])
        if mapping is None:
            return self._missing()
        if not isinstance(mapping, MultipathMap) or words[2] not in (
            "fail_if_no_path",
            "queue_if_no_path",
        ):
            return Answer(1, err="device-mapper: message ioctl on failed: Invalid argument\n")
        mapping.queueing = words[2] == "queue_if_no_path"
        self._world.notify()
        return Answer()

    def _suspend(self, process: Process, words: list[str]) -> Answer:
        mapping = self._mapper.find(next(word for word in words if not word.startswith("-")))
        if mapping is None:
            return self._missing()
        mapping.suspended = "suspend" in process.words
        self._world.sys.write(f"{mapping.sysfs}/dm/suspended", int(mapping.suspended))
        self._world.notify()
        return Answer()


def _field(mapping: Mapping, field_name: str) -> str:
    values = {
        "name": mapping.dm_name,
        "uuid": mapping.uuid,
        "open": str(mapping.openers),
        "major": str(mapping.number[0]),
        "minor": str(mapping.number[1]),
        "blkdevname": mapping.name,
        "suspended": "Suspended" if mapping.suspended else "Active",
        "segments": "1",
        "events": "0",
    }
    if field_name not in values:
        raise AssertionError(f"dmsetup info: this fake does not know the field {field_name!r}")
    return values[field_name]
