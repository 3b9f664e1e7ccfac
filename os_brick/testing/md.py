# SPDX-License-Identifier: Apache-2.0
"""md RAID 1: arrays over disks, and the ``mdadm`` command."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass, field

from os_brick.testing import block
from os_brick.testing.block import BlockDevice, Devices
from os_brick.testing.nvme_storage import NamespaceUnit, Superblock
from os_brick.testing.process import Answer, Process
from os_brick.testing.storage import Unit
from os_brick.testing.world import World

MAJOR = 9
#: Room that the superblock and its bitmap take at a member's begin.
OFFSET = 1024 * 1024


@dataclass(eq=False)
class Array(BlockDevice):
    """One running array."""

    uuid: str = ""
    label: str = ""
    members: list[BlockDevice] = field(default_factory=list)

    def carriers(self) -> list[BlockDevice]:
        return list(self.members)

    def storage(self) -> tuple[str, Unit | None]:
        ways = [member.storage() for member in self.members]
        alive = next((way for way in ways if way[0] == block.ALIVE), None)
        if alive is not None:
            return alive
        hangs = any(state == block.HANGS for state, _unit in ways)
        return (block.HANGS if hangs else block.FAILS), None


class Md:
    """All arrays."""

    def __init__(self, world: World, devices: Devices) -> None:
        self._world = world
        self._devices = devices
        self.arrays: list[Array] = []
        self._link_texts: dict[Array, str] = {}
        #: So many ends of arrays are followed by somebody who opens the node: the kernel makes an
        #: empty array of it.
        self.opened_late = 0
        #: So many ends of arrays are followed by udev that comes to an event of a member from
        #: before, and has mdadm add it to an array.
        self.added_late = 0

    def start(self, label: str, disks: list[BlockDevice], name: str | None = None) -> Array:
        """Have an array run on members, under a link of udev's.

        :param name: of the link, if not the label.
        """
        units = [unit_of(disk) for disk in disks]
        first = units[0].superblock
        if first is None:
            raise AssertionError("no superblock")
        number = next(
            n for n in itertools.count(127, -1) if self._devices.find(f"/dev/md{n}") is None
        )
        made = Array(
            f"md{number}",
            (MAJOR, number),
            f"devices/virtual/block/md{number}",
            min(unit.size for unit in units) - OFFSET,
            uuid=first.uuid,
            label=label,
        )
        self._devices.add(made, {"md/array_state": "clean", "md/raid_disks": len(first.state)})
        self.arrays.append(made)
        for disk in disks:
            self.add(made, disk)
        link = f"md/{name or label}"
        self._link_texts[made] = link
        self._world.after(self._world.delays.udev_s, lambda: self._show_link(made, link))
        return made

    def _show_link(self, array: Array, link: str) -> None:
        if not array.gone:
            self._world.run.write(f"udev/data/b{array.dev}", "")
            self._world.dev.link(link, array.name)

    def add(self, array: Array, disk: BlockDevice) -> None:
        """Have an array use a member; all of them know of it."""
        array.members.append(disk)
        self._devices.hold(array, disk)
        roles = {_superblock(unit_of(one)).role for one in array.members}
        places = len(_superblock(unit_of(array.members[0])).state)
        state = "".join("A" if place in roles else "." for place in range(places))
        events = 1 + max(_superblock(unit_of(one)).events for one in array.members)
        for one in array.members:
            known = _superblock(unit_of(one))
            known.state, known.events = state, events

    def fail(self, array: Array, disk: BlockDevice) -> bool:
        """Have an array go on without a member; False if it is the last one."""
        if disk not in array.members or len(array.members) == 1:
            return False
        array.members.remove(disk)
        self._devices.release(array, disk)
        there = [one for one in array.members if one.storage()[0] == block.ALIVE]
        roles = {_superblock(unit_of(one)).role for one in there}
        for one in there:
            known = _superblock(unit_of(one))
            places = range(len(known.state))
            known.state = "".join("A" if place in roles else "." for place in places)
            known.events += 1
        return True

    def stop(self, array: Array) -> bool:
        """Have an array end; False if it is in use."""
        if array.openers:
            return False
        members = list(array.members)
        for disk in members:
            array.members.remove(disk)
            self._devices.release(array, disk)
        self._devices.drop(array, "its array was stopped")
        self.arrays.remove(array)
        if array in self._link_texts:
            self._world.dev.remove(self._link_texts.pop(array))
        self._world.after(
            self._world.delays.udev_s, lambda: self._world.run.remove(f"udev/data/b{array.dev}")
        )
        if self.added_late:
            self.added_late -= 1
            self._world.run.write("udev/queue", "")
            self._world.after(0.001, lambda: self._add_late(array.label, members[0]))
        if self.opened_late:
            self.opened_late -= 1
            self._world.after(self._world.delays.udev_s / 2, lambda: self._make_empty(array))
        return True

    def use(self, array: Array) -> None:
        """Have somebody make a real array of an empty one."""
        self._world.sys.write(f"{array.sysfs}/md/array_state", "clean")

    def _add_late(self, label: str, disk: BlockDevice) -> None:
        self._world.run.remove("udev/queue")
        if disk.gone:
            return
        made = self.start(label, [disk])
        self._world.sys.write(f"{made.sysfs}/md/array_state", "inactive")

    def _make_empty(self, ended: Array) -> None:
        made = Array(ended.name, ended.number, ended.sysfs, 0)
        self._devices.add(made, {"md/array_state": "clear", "md/raid_disks": 0})
        self.arrays.append(made)
        entry = f"udev/data/b{made.dev}"
        self._world.after(self._world.delays.udev_s, lambda: self._world.run.write(entry, ""))


def unit_of(disk: BlockDevice) -> NamespaceUnit:
    """Return the namespace that a disk leads to."""
    unit = disk.storage()[1]
    if not isinstance(unit, NamespaceUnit):
        raise AssertionError(f"{disk.name} is no namespace that answers")
    return unit


def _superblock(unit: NamespaceUnit) -> Superblock:
    if unit.superblock is None:
        raise AssertionError("no superblock")
    return unit.superblock


class Mdadm:
    """The ``mdadm`` command."""

    def __init__(self, world: World, devices: Devices, md: Md) -> None:
        self._world = world
        self._devices = devices
        self._md = md

    def __call__(self, process: Process) -> Answer:
        words = list(process.words[1:])
        for verb, run in (
            ("--examine", self._examine),
            ("-C", self._create),
            ("--assemble", self._assemble),
            ("--stop", self._stop),
            ("--detail", self._detail),
            ("--grow", self._grow),
            ("--manage", self._manage),
            ("--remove", lambda words: Answer()),
        ):
            if verb in words:
                return run(words)
        raise AssertionError(f"mdadm: this fake does not know {' '.join(words)}")

    def _disks(self, words: list[str]) -> list[BlockDevice]:
        return [self._devices.get(word) for word in words if word.startswith("/dev/nvme")]

    def _array(self, words: list[str]) -> Array | None:
        path = next(word for word in words if word.startswith("/dev/md"))
        found = self._devices.find(path)
        return found if isinstance(found, Array) else None

    def _examine(self, words: list[str]) -> Answer:
        path = words[-1]
        found = unit_of(self._devices.get(path)).superblock
        if found is None:
            return Answer(1, err=f"mdadm: No md superblock detected on {path}.\n")
        return Answer(
            out=f"{path}:\n          Magic : a92b4efc\n        Version : 1.2\n"
            f"     Array UUID : {found.uuid}\n           Name : any:{found.name}\n"
            f"     Raid Level : raid1\n   Raid Devices : {len(found.state)}\n"
            f"         Events : {found.events}\n\n   Device Role : Active device {found.role}\n"
            f"   Array State : {found.state} ('A' == active, '.' == missing, 'R' == replacing)\n"
        )

    def _create(self, words: list[str]) -> Answer:
        disks = self._disks(words)
        name = words[words.index("-N") + 1]
        path = next(word for word in words if word.startswith("/dev/md"))
        made = str(uuid.uuid5(uuid.NAMESPACE_OID, name)).replace("-", ":")
        for role, disk in enumerate(disks):
            unit = unit_of(disk)
            unit.superblock = Superblock(made, name, role, 0, "A" * len(disks))
            unit.signature = "linux_raid_member"
        self._md.start(name, disks, path.removeprefix("/dev/md/"))
        return Answer(err=f"mdadm: array {path} started.\n")

    def _assemble(self, words: list[str]) -> Answer:
        disks = self._disks(words)
        path = next(word for word in words if word.startswith("/dev/md"))
        if any(disk.claimed for disk in disks):
            return Answer(1, err=f"mdadm: {disks[0].name} is busy - skipping\n")
        known = [_superblock(unit_of(disk)) for disk in disks]
        latest = max(one.events for one in known)
        fresh = [
            disk for disk, one in zip(disks, known, strict=True) if one.events == latest
        ]  # what is stale is kicked out
        self._md.start(known[0].name, fresh, path.removeprefix("/dev/md/"))
        return Answer(err=f"mdadm: {path} has been started with {len(fresh)} drives.\n")

    def _stop(self, words: list[str]) -> Answer:
        array = self._array(words)
        if array is None:
            return Answer(1, err=f"mdadm: error opening {words[-1]}: No such file or directory\n")
        if not self._md.stop(array):
            return Answer(
                1,
                err=f"mdadm: Cannot get exclusive access to {words[-1]}:Perhaps a running process, "
                "mounted filesystem or active volume group?\n",
            )
        return Answer(err=f"mdadm: stopped {words[-1]}\n")

    def _detail(self, words: list[str]) -> Answer:
        array = self._array(words)
        if array is None:
            return Answer(1, err=f"mdadm: cannot open {words[-1]}: No such file or directory\n")
        return Answer(out=f"{words[-1]}:\n           Version : 1.2\n")

    def _grow(self, words: list[str]) -> Answer:
        array = self._array(words)
        if array is None:
            return Answer(1, err=f"mdadm: error opening {words[-1]}: No such file or directory\n")
        sizes = [member.size for member in array.members]
        self._devices.resize(array, min(sizes) - OFFSET)
        return Answer(err=f"mdadm: component size of {words[-1]} has been set\n")

    def _manage(self, words: list[str]) -> Answer:
        array, disk = self._array(words), self._disks(words)[0]
        if array is None:
            return Answer(1, err="mdadm: error opening: No such file or directory\n")
        if "--fail" in words:
            if self._md.fail(array, disk):
                return Answer(err=f"mdadm: set /dev/{disk.name} faulty in /dev/{array.name}\n")
            busy = "Device or resource busy"
            return Answer(1, err=f"mdadm: set device faulty failed for /dev/{disk.name}:  {busy}\n")
        if "--re-add" in words and unit_of(disk).superblock is None:
            return Answer(1, err=f"mdadm: --re-add for /dev/{disk.name} to is not possible\n")
        if unit_of(disk).superblock is None:
            free = _superblock(unit_of(array.members[0])).state.index(".")
            unit_of(disk).superblock = Superblock(array.uuid, array.label, free, 0, "")
        unit_of(disk).data = unit_of(array.members[0]).data
        self._md.add(array, disk)
        return Answer()
